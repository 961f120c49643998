"""What the API takes and gives: one pydantic class per body, the source of its JSON Schemas.

Requests are strict, bounded and refuse what they do not know; answers are open, so that they may grow.
Money is integer micro-dollars (``_micro``); ``budget_usd`` is the one place where dollars come in.
"""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agentflow.core.fair import DEFAULT, HIGHEST, LOWEST
from agentflow.core.limits import MAX_COUNT, MAX_RATE, MAX_WEIGHT, MIN_RATE

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
AGE = r"^(forever|[1-9][0-9]{0,4}d)$"
REFERENCE = r"^[a-z][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8})?$"
MAX_PAGE = 100

Status = Literal["requested", "planned", "running", "paused", "succeeded", "failed", "cancelled"]
Json = dict[str, Any]
Limit = Annotated[int, Field(ge=1, le=MAX_PAGE, description="Most items of the page.")]
Cursor = Annotated[
    str | None,
    Field(max_length=300, description="`next` of the page before; leave it out for the first page."),
]
Next = Annotated[str | None, Field(description="Cursor of the next page; null when this is the last one.")]


class Request(BaseModel):
    """A body from outside."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Query(BaseModel):
    """Query parameters; texts become numbers where numbers are meant."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(BaseModel):
    """A body to outside."""

    model_config = ConfigDict(frozen=True)


# -- requests --------------------------------------------------------------------------------------------


class LimitRequest(Request):
    """How much of a scope may be in progress at once and start per second; null: no limit."""

    concurrency: Annotated[
        int | None, Field(ge=0, le=MAX_COUNT, description="Most at once; 0: nothing starts.")
    ] = None
    per_second: Annotated[
        float | None, Field(ge=MIN_RATE, le=MAX_RATE, description="Most that start, on average.")
    ] = None
    burst: Annotated[
        int | None,
        Field(
            ge=1, le=MAX_COUNT, description="Most that start at once after a pause; null: a second's worth."
        ),
    ] = None
    weight: Annotated[
        int, Field(ge=1, le=MAX_WEIGHT, description="A tenant's share beside others; the operator's to set.")
    ] = 1


class RunRequest(Request):
    """Start a run."""

    workflow: Annotated[
        str, Field(pattern=REFERENCE, description="`name` (newest version) or `name@version`.")
    ]
    input: Annotated[
        Json,
        Field(description="By the workflow's input types; a `file` is its content, or a `blob:` reference."),
    ] = {}
    budget_usd: Annotated[
        float | None,
        Field(
            ge=0.000001, le=1_000_000, description="Most the run may spend; the workflow's own limit stays."
        ),
    ] = None
    budget: Annotated[
        str | None,
        Field(pattern=NAME, description="The named budget that it is charged to, in place of the workflow's."),
    ] = None
    priority: Annotated[
        int, Field(ge=LOWEST, le=HIGHEST, description="Among what its tenant has waiting; 9 goes first.")
    ] = DEFAULT


class EstimateRequest(Request):
    """What the run would be asked for with; nothing is kept of it."""

    input: Annotated[Json, Field(description="As for a run.")] = {}
    version: Annotated[int | None, Field(ge=1, le=2**31 - 1, description="Of the workflow; null: the newest.")] = None
    budget_usd: Annotated[
        float | None, Field(ge=0.000001, le=1_000_000, description="As for a run.")
    ] = None
    budget: Annotated[str | None, Field(pattern=NAME, description="As for a run.")] = None


class PlanRequest(RunRequest):
    """Have a plan written for a goal, without running it."""

    goal: Annotated[
        str | None,
        Field(
            min_length=1, max_length=65_536,
            description="What is to be reached with the workflow's tasks, with {name} placeholders of its inputs; "
            "without it the workflow's own goal.",
        ),
    ] = None
    use: Annotated[str | None, Field(max_length=128, description="The model that writes the plan.")] = None
    kind: Literal["bt", "fsm", "any"] = "bt"
    tasks: Annotated[list[str] | None, Field(max_length=200, description="The tasks it may use.")] = None


class ForkRequest(Request):
    """Start a run from a point of another one."""

    at: Annotated[
        int, Field(ge=1, le=2**31 - 1, description="The step of that run just before which it begins.")
    ]
    set: Annotated[
        Json,
        Field(description="Inputs and variables, with the values they keep while it is decided what starts."),
    ] = {}
    budget_micro: Annotated[
        int | None,
        Field(ge=1, le=10**12, description="Most the new run may spend; the workflow's own limit stays."),
    ] = None


class CancelRequest(Request):
    """Stop a run."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)] = "cancelled by request"


class PauseRequest(Request):
    """Let a run start nothing more, or go on."""

    reason: Annotated[str, Field(min_length=1, max_length=1000)] = "by request"


class AnswerRequest(Request):
    """A person's answer to a step that asks."""

    result: Annotated[Json, Field(description="By the types of the task's `out`.")] = {}
    by: Annotated[
        str | None, Field(min_length=1, max_length=200, description="Who answers; without it the API key.")
    ] = None


class SignalRequest(Request):
    """Tell a run something."""

    data: Annotated[Any, Field(description="Any JSON value.")] = None


class RetentionRequest(Request):
    """How long to keep things: `90d`, `forever`, or null for what the installation says."""

    runs: Annotated[
        str | None, Field(pattern=AGE, description="Finished runs with their steps, from their end.")
    ] = None
    ledger: Annotated[
        str | None, Field(pattern=AGE, description="What was held and spent; never shorter than `runs`.")
    ] = None
    inbox: Annotated[
        str | None, Field(pattern=AGE, description="Ids of published events, each of which counts once.")
    ] = None
    parked: Annotated[
        str | None, Field(pattern=AGE, description="Parked messages; never shorter than `runs`.")
    ] = None
    spend: Annotated[
        str | None, Field(pattern=AGE, description="Sums of what was spent, by day; never shorter than `ledger`.")
    ] = None


class CorrectionRequest(Request):
    """Correct what was spent, of a run or in a scope."""

    amount_micro: Annotated[
        int,
        Field(ge=-(10**12), le=10**12, description="Micro-dollars that were spent besides; negative: given back."),
    ]
    reason: Annotated[str, Field(min_length=1, max_length=1000, pattern=r"\S", description="E.g. the invoice.")]
    run: Annotated[UUID | None, Field(strict=False, description="The run; without it the scope is corrected.")] = None
    step: Annotated[
        int | None, Field(ge=1, le=2**31 - 1, description="The run's step whose call it is about.")
    ] = None
    scope: Annotated[
        str,
        Field(
            pattern=r"^(tenant|(workflow|budget):[a-z][a-z0-9_-]{0,63})$",
            description="Without a run: `tenant`, `workflow:<name>` or `budget:<name>`; the tenant's accounts follow.",
        ),
    ] = "tenant"

    @model_validator(mode="after")
    def _consistent(self) -> CorrectionRequest:
        if not self.amount_micro:
            raise ValueError("amount_micro is 0: there is nothing to correct")
        if self.run is not None and self.scope != "tenant":
            raise ValueError("a run is charged to all its scopes: give `run` or `scope`")
        return self


class PageQuery(Query):
    """A page of a list."""

    limit: Limit = 50
    cursor: Cursor = None


class CostsQuery(Query):
    """What to add up, and over what time."""

    by: Annotated[
        Literal["tenant", "workflow", "agent", "model", "tool", "step", "budget"],
        Field(description="step: each task of each workflow; budget: what runs are charged to besides, by its name."),
    ] = "workflow"
    period: Annotated[
        Literal["day", "month", "total"] | None,
        Field(description="day (the last 31), month (the last 12) or total; with `from` or `to`: total."),
    ] = None
    since: Annotated[date | None, Field(alias="from", description="First day; days are the tenant's own.")] = None
    until: Annotated[date | None, Field(alias="to", description="The day after the last one.")] = None
    workflow: Annotated[str | None, Field(pattern=NAME, description="Only of this workflow.")] = None
    format: Annotated[
        Literal["json", "csv"] | None,
        Field(description="csv: columns as FOCUS names them, as with Accept: text/csv; Link has the next page."),
    ] = None
    limit: Annotated[int, Field(ge=1, le=1000, description="Most items of the page.")] = 100
    cursor: Cursor = None


class RunsQuery(PageQuery):
    """A page of runs; with a filter it may be short although more follow."""

    status: Annotated[Status | None, Field(description="Only runs in this status.")] = None
    workflow: Annotated[str | None, Field(pattern=NAME, description="Only runs of this workflow.")] = None


class HumanTasksQuery(PageQuery):
    """A page of what waits for people."""

    run: Annotated[UUID | None, Field(description="Only what this run asks.")] = None


class VersionQuery(Query):
    """Which version of a workflow."""

    version: Annotated[int | None, Field(ge=1, le=2**31 - 1, description="Without it: the newest.")] = None


class GraphQuery(Query):
    """What a picture is drawn as."""

    format: Annotated[Literal["svg", "mermaid"], Field(description="mermaid: as text, for Markdown.")] = "svg"


class WorkflowGraphQuery(GraphQuery, VersionQuery):
    """Which version of a workflow is drawn, and as what."""


class WaitQuery(Query):
    """How long to wait for the result."""

    wait: Annotated[
        str | None,
        Field(
            pattern=r"^[0-9]{1,6}(ms|s|m)$",
            description="Answer when the run has ended, at the latest after this long (60s at most): `30s`.",
        ),
    ] = None


class FollowQuery(Query):
    """How long to stay."""

    follow: Annotated[bool, Field(description="`false`: end with what there is now.")] = True


class NoQuery(Query):
    """No query parameters."""


# -- answers ---------------------------------------------------------------------------------------------


class Fault(Answer):
    """One fault of a request, or a warning about a document."""

    path: Annotated[str, Field(description="Where: `tasks.classify.use`, `input.order`, `[3].source`.")]
    message: str
    mend: Annotated[str, Field(description="What to do about it; may be empty.")]
    code: str


class Checked(Answer):
    """A valid document."""

    name: str
    kind: Literal["fsm", "bt", "goal"]
    hash: Annotated[
        str, Field(description="SHA-256 of the canonical document: the same content, the same hash.")
    ]
    warnings: Annotated[
        list[Fault], Field(description="What may not be meant so; nothing is refused for these.")
    ]


class Registered(Checked):
    """A version of a workflow."""

    version: int


class Workflow(Answer):
    """A workflow's version, without its document."""

    name: str
    version: int
    hash: str
    created_at: datetime


class WorkflowDocument(Workflow):
    """A workflow's version."""

    document: Json


class Workflows(Answer):
    """The newest version of each workflow, by name."""

    items: list[Workflow]
    next: Next


class Accepted(Answer):
    """A run that will be carried out: it is durable."""

    id: UUID
    workflow: str
    version: int | None
    status: Status


class AcceptedRun(Accepted):
    """A run that was asked for just now."""

    warnings: Annotated[list[Fault], Field(description="What was said against it, and did not keep it from starting.")]


class RunSummary(Accepted):
    """A run, without what went in and came out."""

    steps: Annotated[int, Field(description="Steps started.")]
    tokens: Annotated[int, Field(description="Tokens used by model calls, in and out.")]
    limit_micro: Annotated[int, Field(description="Most it may spend, in micro-dollars.")]
    spent_micro: int
    held_micro: Annotated[int, Field(description="Reserved for calls that are being made.")]
    # Recordings of before there were named budgets have none.
    budget: Annotated[str | None, Field(description="The named budget that it is charged to.")] = None
    created_at: datetime
    updated_at: datetime
    finished_at: datetime | None


class ForkedFrom(Answer):
    """The run and the step before which another one began."""

    run: UUID
    at: int


class Run(RunSummary):
    """A run. `error` has `code`, `message` and the `path` of the fault in the plan or the input."""

    input: Json | None
    output: Json | None
    error: Json | None
    parent: Annotated[Json | None, Field(description="The `run` and `step` that wait for this run.")] = None
    forked_from: Annotated[ForkedFrom | None, Field(description="Where it began, if not at the begin.")] = None


class Runs(Answer):
    """Runs, newest first."""

    items: list[RunSummary]
    next: Next


class Step(Answer):
    """One attempt of one step."""

    step: int
    attempt: int
    task: str
    kind: str
    status: Literal["requested", "succeeded", "failed", "halted"]
    input: Any
    output: Any
    error: Json | None
    usage: Json | None
    held_micro: int
    cost_micro: int
    requested_at: datetime
    completed_at: datetime | None
    child: Annotated[UUID | None, Field(description="The run that a workflow task has started.")] = None
    reused: Annotated[
        UUID | None, Field(description="The run that has made it, where a fork goes on with its result at no cost.")
    ] = None


class Steps(Answer):
    """The run's attempts, in order of step and attempt."""

    items: list[Step]
    next: Next


class HumanTask(Answer):
    """A step that waits for a person."""

    run: UUID
    step: int
    workflow: str
    version: int
    task: str
    use: Annotated[str, Field(description="Who or what it is for, as the workflow names it.")]
    input: Json | None
    out: Annotated[
        dict[str, str] | None,
        Field(
            description="The answer's fields and their types; null: any object. Where `use` is `budget`, `approve` says"
            " whether the step may be paid for; `usd`, by how much the run's limit is raised at least, may be left out."
        ),
    ]
    asked_at: datetime
    due_at: Annotated[datetime | None, Field(description="When it is too late.")]


class HumanTasks(Answer):
    """What waits for people, by run and step."""

    items: list[HumanTask]
    next: Next


class Line(Answer):
    """A line of a run's history: what was decided upon."""

    seq: int
    name: str
    at: datetime
    data: Json
    hash: Annotated[str, Field(description="What the decision came to, hexadecimal; replaying it gives the same.")]


class Lines(Answer):
    """The run's history, in order."""

    items: list[Line]
    next: Next


class Noted(Answer):
    """A request about a run that will be carried out."""

    id: Annotated[UUID, Field(description="The run.")]


class AcceptedEvent(Answer):
    """An event that is durable; the same source and id count once."""

    source: str
    id: str


class AcceptedEvents(Answer):
    """The events, in the order they came."""

    accepted: list[AcceptedEvent]


class Parked(Answer):
    """A message that could not be handled."""

    id: UUID
    consumer: Annotated[str, Field(description="The function that could not handle it.")]
    subject: str
    reason: str
    tries: int
    size: Annotated[int, Field(description="Bytes of its payload.")]
    parked_at: datetime


class ParkedPage(Answer):
    """Parked messages, by id."""

    items: list[Parked]
    next: Next


class Retried(Answer):
    """A parked message that is on its way again."""

    id: UUID


class Retention(Answer):
    """How long things are kept; null: as the installation says."""

    runs: str | None
    ledger: str | None
    inbox: str | None
    parked: str | None
    spend: str | None
    fixed: Annotated[bool, Field(description="Set by the operator, and not to be changed here.")]


class ScopeLimit(Answer):
    """What is set for a scope."""

    scope: str
    concurrency: int | None
    per_second: float | None
    burst: int | None
    weight: int
    updated_at: datetime


class Limits(Answer):
    """Limits, by scope."""

    items: list[ScopeLimit]
    next: Next


class PriceShown(Answer):
    """What a model or a tool costs."""

    scope: Annotated[str, Field(description="`model:<alias>`, `model:<name of a model>` or `tool:<name>`.")]
    provider: str | None
    model: str | None
    price: Annotated[
        Json | None,
        Field(
            description="Micro-dollars: `input_micro_per_mtok` and the like per million tokens, `micro_per_call`,"
            " `micro_per_million_seconds`; `tiers` by the length of the input. null: it is not known."
        ),
    ]
    price_version: Annotated[
        str | None,
        Field(description="Which price that is: `tenant 3`, `settings`, `genai-prices 0.2.3 @2026-11-01`."),
    ]
    set_at: Annotated[datetime | None, Field(description="When this tenant was told it; null: it is everybody's.")]
    unknown: Annotated[str | None, Field(description="Why there is no price, and how to mend that.")]


class Prices(Answer):
    """Prices, by scope."""

    items: list[PriceShown]
    next: Next


class ToldPrice(Answer):
    """A price that this tenant was told; null: that it was taken back."""

    version: int
    card: Json | None
    set_at: datetime


class PriceHistory(PriceShown):
    """What a model or a tool costs, and what this tenant was told of it, the newest first."""

    versions: list[ToldPrice]


class Range(Answer):
    """From the least to the most; null: nothing but the run's limit bounds it."""

    least: Annotated[int, Field(description="Of a run that succeeds.")]
    expected: int
    most: int | None


class TaskEstimate(Answer):
    """What one task may come to in a run."""

    task: str
    kind: str
    use: str
    starts: Annotated[Range, Field(description="How often it is started, retries aside.")]
    cost_micro: Range
    input_tokens: Range
    output_tokens: Range
    observed: Annotated[bool, Field(description="What is expected follows from runs that have ended.")]


class Estimate(Answer):
    """What a run may cost before it starts, in micro-dollars, and how many tokens it may take."""

    workflow: str
    version: int
    cost_micro: Range
    input_tokens: Range
    output_tokens: Range
    plan_most_micro: Annotated[int | None, Field(description="What the plan may come to by itself; null: no bound.")]
    limit_micro: Annotated[int, Field(description="What the run may spend.")]
    bounded_by: Annotated[str, Field(description="`plan`, `limits.usd` or `budget_usd`: what the most follows from.")]
    tenant_remaining_micro: Annotated[
        int | None, Field(description="The least that is left in the accounts it is charged to; null: no limit.")
    ]
    runs_observed: Annotated[int, Field(description="Runs of the last 90 days that what is expected follows from.")]
    version_observed: Annotated[int | None, Field(description="Whose runs these were; null: of several versions.")]
    note: Annotated[str, Field(description="Whether it is a guess.")]
    on_top: Annotated[
        str, Field(description="What may come on top of the most, within `limit_micro`: calls lost in crashes.")
    ]
    tasks: list[TaskEstimate]
    unbounded: Annotated[list[Fault], Field(description="What nothing but the run's limit bounds, with the mend.")]


class Estimated(Answer):
    """Of runs of which it was said beforehand what they would cost: what that was, and what they came to."""

    runs: int
    expected_micro: int
    cost_micro: int
    ratio: Annotated[float | None, Field(description="What they came to, in parts of what was expected.")]


class Cost(Answer):
    """What was spent in a period on one thing. Money in micro-dollars, tokens as they were billed."""

    starts_at: Annotated[datetime, Field(description="A day or month begins at midnight where the tenant is.")]
    ends_at: datetime
    starts_on: Annotated[date, Field(description="The first day, as `from` takes it: days are the tenant's own.")]
    ends_on: Annotated[date, Field(description="The day after the last one, as `to` takes it.")]
    tenant: UUID
    workflow: str | None
    task: Annotated[str | None, Field(description="By step: the task whose steps these were; empty: not known.")]
    agent: str | None
    provider: str | None
    model: str | None
    tool: str | None
    budget: str | None
    cost_micro: Annotated[int, Field(description="Corrections included.")]
    corrected_micro: Annotated[int, Field(description="Of it what administrators have corrected, up or down.")]
    children_micro: Annotated[int, Field(description="What runs that these have started cost, counted as their own.")]
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: Annotated[int, Field(description="Of the input.")]
    cache_write_tokens: Annotated[int, Field(description="Of the input.")]
    reasoning_tokens: Annotated[int, Field(description="Of the output.")]
    seconds: Annotated[float, Field(description="That the calls took together.")]
    prices: Annotated[list[str], Field(description="Versions of the price lists that counted.")]
    runs: Annotated[int | None, Field(description="By tenant or workflow: runs that have ended, forks left out.")]
    runs_succeeded: int | None
    run_mean_micro: Annotated[
        int | None,
        Field(
            description="What a run cost at the mean: by workflow with those it has started; by tenant what was spent,"
            " for each run that has ended, as they are among its runs."
        ),
    ]
    estimated: Estimated | None


class Costs(Answer):
    """What was spent, the newest period first."""

    items: list[Cost]
    next: Next


class AuditEntry(Answer):
    """One entry of the audit chain."""

    n: Annotated[int, Field(description="Its number, without gaps from 1.")]
    at: Annotated[datetime, Field(description="When it was sealed.")]
    kind: Annotated[str, Field(description="`runs`, `limits.insert`, `api_keys.update` …")]
    data: Annotated[
        dict[str, Any],
        Field(description="What happened, and who did it; of runs that began or ended only how many."),
    ]
    link: Annotated[str, Field(description="What the chain comes to with this entry, hexadecimal.")]


class Budget(Answer):
    """A limit of what is spent in a scope and period, and how much of it is left."""

    scope: Annotated[str, Field(description="`tenant`, `workflow:<name>` or `budget:<name>`.")]
    period: Literal["day", "month", "total"]
    limit_micro: Annotated[int | None, Field(description="In micro-dollars; null: there is none, only an account.")]
    soft_micro: Annotated[int | None, Field(description="`budget.warning` is told once so much is spent.")]
    spent_micro: Annotated[int, Field(description="In the period at hand.")]
    held_micro: Annotated[int, Field(description="Reserved for calls that are being made.")]
    remaining_micro: Annotated[int | None, Field(description="What may still be reserved; null: as much as one likes.")]
    frozen: Annotated[bool, Field(description="A provider has billed more than was held: nothing more is admitted.")]
    resets_at: Annotated[datetime | None, Field(description="When the period ends; null: never.")]


class Budgets(Answer):
    """Budgets, by scope and period."""

    items: list[Budget]
    next: Next


class Correction(Answer):
    """What an administrator has corrected about what was spent."""

    key: Annotated[str, Field(description="The Idempotency-Key that it counts once for.")]
    scope: Annotated[str, Field(description="`run`, `tenant`, `workflow:<name>` or `budget:<name>`.")]
    run: UUID | None
    step: int | None
    amount_micro: int
    reason: str
    by: Annotated[str, Field(description="The API key.")]
    made_at: datetime


class Corrections(Answer):
    """Corrections, the newest first."""

    items: list[Correction]
    next: Next


class AuditPage(Answer):
    """Entries of the audit chain, oldest first."""

    items: list[AuditEntry]
    next: Next


class AccountShort(Answer):
    """An account that has not enough left."""

    scope: Annotated[str, Field(description="`run`, `tenant`, `workflow:<name>` or `budget:<name>`.")]
    period: Literal["day", "month", "total"]
    limit_micro: int
    spent_micro: Annotated[int, Field(description="In the period at hand.")]
    held_micro: Annotated[int, Field(description="Reserved for calls that are being made.")]
    remaining_micro: int
    resets_at: Annotated[datetime | None, Field(description="When the period ends; null: never.")]
    needed_micro: Annotated[int | None, Field(description="What would have to be left.")] = None


class Dearest(Answer):
    """What a run may cost at most."""

    most_micro: Annotated[int | None, Field(description="By its plan; null: that has no bound.")]


class ProblemDocument(Answer):
    """Why a request was not carried out (RFC 9457)."""

    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="Stable, for machines.")]
    mend: str
    instance: str
    trace_id: str
    errors: Annotated[
        list[Fault], Field(description="Every fault found; empty when the request as such is at fault.")
    ]
    budget: Annotated[AccountShort | None, Field(description="With 402: the account that is in the way.")] = None
    estimate: Annotated[
        Dearest | None, Field(description="With `estimate_exceeds_budget`: what was asked for may cost so much.")
    ] = None
