"""What the API takes and gives: one pydantic class per body, the source of its JSON Schemas.

Requests are strict, bounded and refuse what they do not know; answers are open, so that they may grow.
Money is integer micro-dollars (``_micro``); ``budget_usd`` is the one place where dollars come in.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

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
    priority: Annotated[
        int, Field(ge=LOWEST, le=HIGHEST, description="Among what its tenant has waiting; 9 goes first.")
    ] = DEFAULT


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


class PageQuery(Query):
    """A page of a list."""

    limit: Limit = 50
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


class RunSummary(Accepted):
    """A run, without what went in and came out."""

    steps: Annotated[int, Field(description="Steps started.")]
    tokens: Annotated[int, Field(description="Tokens used by model calls, in and out.")]
    limit_micro: Annotated[int, Field(description="Most it may spend, in micro-dollars.")]
    spent_micro: int
    held_micro: Annotated[int, Field(description="Reserved for calls that are being made.")]
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
    out: Annotated[dict[str, str] | None, Field(description="The answer's fields and their types; null: any object.")]
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


class AuditPage(Answer):
    """Entries of the audit chain, oldest first."""

    items: list[AuditEntry]
    next: Next


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
