"""What each AgentFlow event says: one frozen pydantic class per event type.

Every class names all that this version writes, and is bounded; readers let through what a later version has added
(``catalogue.parse``). Numbers, booleans and strings are strict (``"5"`` is not 5); UUIDs are read from their text.
Money is integer micro-dollars (``_micro``), durations are integer milliseconds (``_ms``). ``Any`` stands for a JSON
value whose depth and characters the codec has checked.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

Uuid = Annotated[UUID, Field(strict=False)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
TaskName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,129}$")]  # a part of an agent has two names in its own
ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Label = Annotated[str, Field(min_length=1, max_length=200)]
Code = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(max_length=10_000)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Ordinal = Annotated[int, Field(ge=1, le=2**31 - 1)]
Micro = Annotated[int, Field(ge=0, le=2**63 - 1)]
Millis = Annotated[int, Field(ge=0, le=2**53)]
Object = dict[str, Any]
Period = Literal["day", "month", "total"]


class Payload(BaseModel):
    """The data of one AgentFlow event."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, defer_build=True)


class ModelRef(Payload):
    """A model as its provider names it."""

    provider: Label
    model: Label


class PriceTier(Payload):
    """What tokens cost in calls whose input is longer than ``above`` tokens."""

    above: Count
    input: Micro
    output: Micro
    cache_read: Micro | None = None
    cache_write: Micro | None = None


class PricedModel(ModelRef):
    """A model with the prices pinned for one run, in micro-dollars per million tokens; per call and per million seconds
    where those cost something."""

    input_micro_per_mtok: Micro
    output_micro_per_mtok: Micro
    price_version: Label
    cache_read_micro_per_mtok: Micro | None = None
    cache_write_micro_per_mtok: Micro | None = None
    micro_per_call: Micro | None = None
    micro_per_million_seconds: Micro | None = None
    tiers: Annotated[list[PriceTier], Field(max_length=16)] | None = None
    bytes_per_100_tokens: Count | None = None


class PricedTool(Payload):
    """A tool with the price that its tenant was told."""

    micro_per_call: Micro
    micro_per_million_seconds: Micro
    price_version: Label


class ToolCall(Payload):
    """A call of a tool, as a model has made it."""

    id: Label
    name: ToolName
    arguments: Object


class Message(Payload):
    """One chat message. The assistant's may call tools; a tool's is the result of the ``call`` of that id."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: Annotated[list[ToolCall], Field(min_length=1, max_length=100)] | None = None
    call: Label | None = None


class OfferedTool(Payload):
    """A tool that a model may call: what it does, and the JSON Schema of what it takes."""

    name: ToolName
    description: Text
    parameters: Object


class StepError(Payload):
    """Why an attempt failed, and whether another may succeed."""

    code: Code
    message: Text
    retryable: bool
    retry_after_ms: Millis | None = None


class RunError(Payload):
    """Why a run failed; ``path`` addresses the plan or the input, empty when the fault lies elsewhere."""

    code: Code
    message: Text
    path: Annotated[str, Field(max_length=1_000)] = ""


class ChildError(Payload):
    """Why a run that another one waits for has not succeeded."""

    code: Code
    message: Text


class Usage(Payload):
    """What an attempt consumed: tokens as the provider counts them, and calls made. Tokens read from a cache and
    written to it are part of the input, those of reasoning part of the output. ``fault``: why that cannot be right."""

    input_tokens: Count = 0
    output_tokens: Count = 0
    cached_tokens: Count = 0
    calls: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    fault: Annotated[str, Field(min_length=1, max_length=500)] | None = None


class ParentStep(Payload):
    """The attempt of another run's step that waits for a run; ``depth`` is how many runs are around it."""

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    epoch: Count
    depth: Ordinal


class RunRequested(Payload):
    """Start a run of a workflow; without ``version`` the newest one, or the newest of ``versions`` (from, to).
    ``budget``: the named budget that it is charged to, or what an event says in its place. ``only_plan``: of a goal,
    end once there is a plan.
    ``expected_micro``: what it is expected to cost."""

    run: Uuid
    workflow: Name
    version: Ordinal | None = None
    versions: Annotated[list[Ordinal | None], Field(min_length=2, max_length=2)] | None = None
    input: Object
    budget_micro: Micro | None = None
    budget: Annotated[str, Field(max_length=100)] | None = None
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    parent: ParentStep | None = None
    only_plan: bool = False
    expected_micro: Micro | None = None


class RunPlanned(Payload):
    """The run was admitted: plan, models and prices are pinned, and its first steps may start. ``goal``: of a plan that
    is to be written, what is known of it."""

    run: Uuid
    workflow: Name
    version: Ordinal
    plan_hash: Hash
    input: Object
    models: dict[Name, PricedModel]
    tools: dict[Label, PricedTool] = Field(default_factory=dict)
    limit_micro: Micro | None = None
    goal: Object = Field(default_factory=dict)


class LlmRequested(Payload):
    """Call a model once for one attempt of a step. ``alias``: which one it is, where it is not the task's own."""

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    epoch: Count
    task: TaskName
    model: ModelRef
    messages: Annotated[list[Message], Field(min_length=1, max_length=2_000)]
    input: Object = Field(default_factory=dict)
    max_output_tokens: Ordinal
    output_schema: Object | None = None
    tools: Annotated[list[OfferedTool], Field(max_length=200)] = []
    alias: Label | None = None
    timeout_ms: Millis
    hold_micro: Micro


class ToolRequested(Payload):
    """Call a tool once for one attempt of a step; ``key`` is the idempotency key of its effect, the same for all
    attempts. ``once``: the call is claimed before it is made, and never repeated blindly."""

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    epoch: Count
    task: TaskName
    tool: Label
    workflow: Name
    version: Ordinal
    input: Object
    timeout_ms: Millis
    hold_micro: Micro
    key: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    once: bool = False


class StepCompleted(Payload):
    """An attempt ended: with an output or with an error, and with what it used and cost."""

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"status": {"const": "succeeded"}}},
            "then": {
                "properties": {"output": {"type": "object"}, "error": {"type": "null"}},
                "required": ["output"],
            },
            "else": {
                "properties": {"error": {"type": "object"}, "output": {"type": "null"}},
                "required": ["error"],
            },
        }
    )

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    epoch: Count
    task: TaskName
    status: Literal["succeeded", "failed"]
    output: Object | None = None
    error: StepError | None = None
    usage: Usage
    cost_micro: Micro
    duration_ms: Millis
    late: bool = False
    alias: Label | None = None

    @model_validator(mode="after")
    def _one_outcome(self) -> Self:
        if (self.status == "succeeded") != (self.output is not None and self.error is None):
            raise ValueError("a succeeded step has an output and no error")
        if (self.status == "failed") != (self.error is not None and self.output is None):
            raise ValueError("a failed step has an error and no output")
        return self


class TimerFired(Payload):
    """A timer of the run is due; of kind ``period`` an account's, and of no run."""

    run: Uuid
    timer: Label
    kind: Literal["retry", "timeout", "wait", "wall", "hold", "after", "budget", "period"]
    step: Ordinal | None = None
    attempt: Ordinal | None = None


class CancelRequested(Payload):
    """Stop a run; ``by_parent``: it may not have been recorded yet."""

    run: Uuid
    reason: Text
    by_parent: bool = False


class PauseRequested(CancelRequested):
    """Let a run start nothing more until it is resumed. ``at_ms`` is when that was asked for: what was asked for later
    counts, in whatever order it comes."""

    at_ms: Annotated[int, Field(ge=0)] = 0


class ResumeRequested(PauseRequested):
    """Let a paused run go on."""


class StepAnswered(Payload):
    """A person has answered a step that asked; ``by`` says who, as far as it is known."""

    run: Uuid
    step: Ordinal
    output: Object
    by: Label


class ChildEnded(Payload):
    """A run that a step of this one waits for has ended. ``cost_micro`` is all that it may have spent."""

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    epoch: Count
    child: Uuid
    status: Literal["succeeded", "failed"]
    output: Object | None = None
    error: ChildError | None = None
    cost_micro: Micro
    duration_ms: Millis


class SignalReceived(Payload):
    """A signal for a run, or, with ``step``, the answer one waiting step asked for."""

    run: Uuid
    name: Label
    data: Any = None
    step: Ordinal | None = None


class EventReceived(Payload):
    """A CloudEvent from outside, in structured JSON form, for triggers and waiting event tasks."""

    event: Object


class RunCompleted(Payload):
    """The run succeeded with this output."""

    run: Uuid
    workflow: Name
    version: Ordinal
    output: Object
    steps: Count
    spent_micro: Micro
    duration_ms: Millis


class RunFailed(Payload):
    """The run failed for this reason."""

    run: Uuid
    workflow: Name
    version: Ordinal | None = None
    error: RunError
    steps: Count
    spent_micro: Micro
    duration_ms: Millis


class RunCancelled(Payload):
    """The run was stopped on request."""

    run: Uuid
    workflow: Name
    version: Ordinal | None = None
    reason: Text
    steps: Count
    spent_micro: Micro
    duration_ms: Millis


class RunPaused(Payload):
    """The run starts nothing more until it is resumed."""

    run: Uuid
    workflow: Name
    version: Ordinal
    reason: Text


class RunResumed(RunPaused):
    """The run goes on."""


class HumanRequested(Payload):
    """A step waits for a person: what ``use`` stands for is shown ``input`` and asked for an answer."""

    run: Uuid
    workflow: Name
    version: Ordinal
    step: Ordinal
    task: Name
    use: Name
    input: Object
    timeout_ms: Millis | None = None


class BudgetExhausted(Payload):
    """A step was denied, or has to wait, because the scope's limit cannot cover what it may cost. ``resets_at``: when
    its period ends."""

    run: Uuid
    step: Ordinal
    scope: Label
    limit_micro: Micro
    spent_micro: Micro
    held_micro: Micro
    needed_micro: Micro
    period: Period = "total"
    remaining_micro: Micro = 0
    resets_at: Label | None = None


class BudgetViolation(Payload):
    """A call was billed more than was held for it, or what was told of its usage cannot be right. It is never taken for
    less than was held; ``frozen``: the run and its accounts admit nothing more."""

    run: Uuid
    step: Ordinal
    attempt: Ordinal
    task: TaskName
    reason: Text
    held_micro: Micro
    billed_micro: Micro
    frozen: bool


class BudgetState(Payload):
    """A budget: what is spent, held and left of a scope's limit (null: it has none) in its period."""

    scope: Label
    period: Period
    limit_micro: Micro | None = None
    soft_micro: Micro | None = None
    spent_micro: Micro
    held_micro: Micro
    remaining_micro: Micro | None = None
    resets_at: Label | None = None


class BudgetWarning(BudgetState):
    """So much of a budget is spent as its soft limit says: told once in a period."""


class BudgetRestored(BudgetState):
    """There is headroom again for what a budget has refused."""
