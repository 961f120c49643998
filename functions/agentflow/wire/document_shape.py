"""The shape of a plan/v1 document: the pydantic models that schemas/plan.schema.json is generated from.

They describe the canonical form. Short forms are written out before (``core.canonical``); the JSON Schema lists
them too, because people write them. What the words mean is checked by ``core.compile``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from agentflow.core.draft import milliseconds, size

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
EVENT_NAME = r"^([a-z][a-z0-9_-]{0,63}|\*)$"
FIELD = r"^[a-z][a-z0-9_]{0,63}$"
DATA_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,63}$"
PLACE = r"^[a-z][a-z0-9_-]{0,63}(\.[a-z][a-z0-9_-]{0,63})?$"
TOOL = r"^[a-z][a-z0-9_-]{0,63}(\.[a-z][a-z0-9_-]{0,63}){0,3}$"
DURATION = r"^[0-9]{1,9}(ms|s|m|h|d)$"
SIZE = r"^[0-9]{1,9}(B|KiB|MiB|GiB)$"
WORKFLOW = r"^[a-z][a-z0-9_-]{0,63}(@[1-9][0-9]{0,8}(-([1-9][0-9]{0,8})?)?)?$"
EVENT_TYPE = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}$"

YEAR_MS = 366 * 86_400_000


def _duration(text: str) -> str:
    if milliseconds(text) > YEAR_MS:
        raise ValueError("is longer than 366 days")
    return text


def _positive(text: str) -> str:
    if milliseconds(text) == 0:
        raise ValueError("must not be zero")
    return _duration(text)


def _memory(text: str) -> str:
    if not 16 << 20 <= size(text) <= 64 << 30:
        raise ValueError("must be from 16MiB to 64GiB")
    return text


def _output(text: str) -> str:
    if not 1 <= size(text) <= 16 << 20:
        raise ValueError("must be from 1B to 16MiB")
    return text


Name = Annotated[str, StringConstraints(pattern=NAME)]
_NAME_SCHEMA = {"type": "string", "pattern": NAME}
_NAMES_SCHEMA = {"anyOf": [_NAME_SCHEMA, {"type": "array", "items": _NAME_SCHEMA, "minItems": 1, "maxItems": 100}]}
Names = Annotated[
    list[Name],
    Field(min_length=1, max_length=100),
    BeforeValidator(lambda value: [value] if isinstance(value, str) else value),
    WithJsonSchema(_NAMES_SCHEMA),
]
FieldName = Annotated[str, StringConstraints(pattern=FIELD)]
DataName = Annotated[str, StringConstraints(pattern=DATA_NAME)]
EventName = Annotated[str, StringConstraints(pattern=EVENT_NAME)]
Place = Annotated[str, StringConstraints(pattern=PLACE)]
ToolName = Annotated[str, StringConstraints(pattern=TOOL)]
WorkflowRange = Annotated[str, StringConstraints(pattern=WORKFLOW)]
EventType = Annotated[str, StringConstraints(pattern=EVENT_TYPE)]
CEL_SCHEMA = {"type": ["string", "number", "boolean"], "maxLength": 1_000, "description": "a CEL expression"}
Cel = Annotated[str, StringConstraints(min_length=1, max_length=1_000), WithJsonSchema(CEL_SCHEMA)]
_VALUE_SCHEMA = {**CEL_SCHEMA, "type": ["string", "number", "boolean", "null"]}
Value = Annotated[str, StringConstraints(min_length=1, max_length=1_000), WithJsonSchema(_VALUE_SCHEMA)]
TypeText = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Duration = Annotated[str, StringConstraints(pattern=DURATION), AfterValidator(_duration)]
Timeout = Annotated[str, StringConstraints(pattern=DURATION), AfterValidator(_positive)]
Memory = Annotated[str, StringConstraints(pattern=SIZE), AfterValidator(_memory)]
OutputSize = Annotated[str, StringConstraints(pattern=SIZE), AfterValidator(_output)]
Case = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Usd = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(max_length=65_536)]
AtLimit = Literal["reject", "wait", "ask"]
Description = Annotated[str, StringConstraints(max_length=4_000)]
Types = Annotated[dict[FieldName, TypeText], Field(max_length=200)]
Exprs = Annotated[dict[FieldName, Value], Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=10_000)]
ErrorCode = Annotated[str, StringConstraints(pattern=FIELD)]
Codes = Annotated[list[ErrorCode], Field(min_length=1, max_length=50)]
Threshold = Annotated[int, Field(ge=-500, le=500)]


class Shape(BaseModel):
    """What all parts share: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Limits(Shape):
    """What one run may use at most."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(description="steps started")
    usd: Usd | None = Field(None, description="US dollars; needed when a task costs money")
    wall: Timeout | None = Field(None, description="time from begin to end; 24h when not given")
    preflight: Literal["refuse", "warn"] | None = Field(
        None, description="whether a run is started that may cost more than it, or its tenant, may spend"
    )
    budget: Name | None = Field(None, description="the named budget that it is charged to, too")
    at_limit: AtLimit | None = Field(
        None, description="of tasks that do not say: reject (it fails), wait (for headroom) or ask (a person)"
    )


class Trigger(Shape):
    """The CloudEvent that starts a run."""

    type: EventType
    if_: Cel | None = Field(None, alias="if", description="CEL over event.type/source/id/subject/data")
    input: Exprs | None = None
    budget: Cel | None = Field(None, description="CEL: the named budget that the run is charged to")


class Tool(Shape):
    """A tool shipped with the workflow: Python code that defines run(**input) -> dict."""

    description: Description | None = Field(None, description="what it does; a model that may call it is told")
    kind: Literal["python"]
    in_: Types | None = Field(None, alias="in", description="what it takes: name and type; a model needs to know")
    code: Annotated[str, StringConstraints(min_length=1, max_length=200_000)] | None = None
    file: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="a file beside the document, in place of code; the CLI puts its content in"
    )
    timeout: Timeout | None = None
    memory: Memory | None = None
    cpu: Annotated[float, Field(gt=0, le=64)] | None = None
    output: OutputSize | None = None
    usd: Usd | None = Field(None, description="price of one call")
    effects: Literal["none", "idempotent", "once"] | None = Field(
        None,
        description="what a call changes outside: none; idempotent: the same key twice changes it once; once: a call "
        "is never repeated blindly. Without it calls may be repeated, and nothing is said of undoing them",
    )
    usd_per_second: Usd | None = Field(None, description="what each second of a call costs besides")


class Agent(Shape):
    """A model that works in turns: it calls tools until it has an answer."""

    description: Description | None = None
    model: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="a model alias")
    system: Text | None = Field(None, description="what it is told first; {name} placeholders are the task's `in`")
    tools: Annotated[list[ToolName], Field(max_length=100)] | None = Field(
        None, description="keys of tools, or built-ins such as std.calc: all that it may call"
    )
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(None, description="of one turn; 1024")


class Retry(Shape):
    """How often a task is tried, and how long to wait between: ``backoff`` at first, ``factor`` times as long each
    time, at most ``max_backoff``, and up to ``jitter`` longer, as a part of that."""

    max: Annotated[int, Field(ge=1, le=100)]
    backoff: Duration | None = None
    factor: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] | None = None
    max_backoff: Timeout | None = None
    jitter: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None = None
    only: Codes | None = Field(None, description="error codes that are tried again; without it those that may pass")
    never: Codes | None = Field(None, description="error codes that are not tried again")


class TaskShape(Shape):
    """What all tasks share."""

    description: Description | None = None
    in_: Exprs | None = Field(None, alias="in", description="the task's input: CEL by name")
    out: Types | None = Field(None, description="the typed fields of the result")
    retry: Retry | None = None
    timeout: Timeout | None = None
    usd: Usd | None = Field(None, description="the most that one call may cost")
    at_limit: AtLimit | None = Field(
        None, description="what becomes of a step that a limit of money does not admit; as limits say"
    )


class LlmTask(TaskShape):
    """A model answers a prompt: with text, or with an object of the shape ``out``."""

    kind: Literal["llm"]
    use: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="a model alias")
    prompt: Annotated[Text, StringConstraints(min_length=1)] = Field(
        description="text with {name} placeholders"
    )
    system: Text | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    min_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        None, description="what max_tokens may be lowered to before a limit; half of it"
    )
    cheaper: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        None, description="a model alias: asked where the own model does not fit"
    )


class ToolTask(TaskShape):
    """A tool is called."""

    kind: Literal["tool"]
    use: ToolName = Field(description="a key of tools, or a built-in such as std.echo")
    key: Cel | None = Field(
        None, description="idempotency key of the call, as text; without it one of the run and the step"
    )
    undo: Name | None = Field(
        None, description="the task that undoes this one; its `in` may read `result`; none: it stays as it is"
    )


class WaitTask(Shape):
    """Time passes: some time, or until a point in time."""

    description: Description | None = None
    kind: Literal["wait"]
    for_: Duration | None = Field(None, alias="for")
    until: Cel | None = Field(None, description="CEL: the time as text, as in 2026-12-24T18:00:00Z")


class EventTask(Shape):
    """A CloudEvent is awaited; its data is result.data."""

    description: Description | None = None
    kind: Literal["event"]
    use: EventType = Field(description="the CloudEvent's type")
    match: Cel | None = Field(None, description="CEL over event and vars: is it the one?")
    in_: Exprs | None = Field(None, alias="in")
    out: Types | None = Field(None, description="the typed fields of its data, as result.NAME")
    timeout: Timeout | None = None


class HumanTask(Shape):
    """A person answers, with what ``out`` declares."""

    description: Description | None = None
    kind: Literal["human"]
    use: Name = Field(description="who or what it is for: a form, a role, a queue")
    in_: Exprs | None = Field(None, alias="in", description="what the person is shown: CEL by name")
    out: Types | None = Field(None, description="the typed fields of the answer")
    timeout: Timeout | None = None
    undo: Name | None = Field(None, description="the task that undoes this one; none: it stays")


class WorkflowTask(TaskShape):
    """Another workflow runs, and is cancelled with this run. Its output is the result; ``usd`` is its budget."""

    kind: Literal["workflow"]
    use: WorkflowRange = Field(description="a workflow: name, name@3 (that version), name@3- or name@3-5 (the newest)")
    undo: Name | None = Field(None, description="the task that undoes this one; none: it stays")


class CompensateTask(Shape):
    """What has been done in the scope, and can be undone, is undone: the last first."""

    description: Description | None = None
    kind: Literal["compensate"]
    scope: Name | None = Field(None, description="the workflow's name: all of it; or a state, or the label of a node")


class AgentTask(TaskShape):
    """An agent works in turns, with its tools, until it answers: with text, or with an object of the shape ``out``.
    ``timeout`` and ``retry`` are those of one turn and one call, ``usd`` is for all of them."""

    kind: Literal["agent"]
    use: Name = Field(description="a key of agents")
    prompt: Annotated[Text, StringConstraints(min_length=1)] | None = Field(
        None, description="text with {name} placeholders; without it the input is given as JSON"
    )
    turns: Annotated[int, Field(ge=1, le=100)] | None = Field(None, description="most turns of the model; 8")
    cheaper: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = Field(
        None, description="a model alias: asked for a turn where the agent's own model does not fit"
    )
    undo: Name | None = Field(None, description="the task that undoes this one; none: it stays")


Task = Annotated[
    LlmTask | ToolTask | WaitTask | EventTask | HumanTask | WorkflowTask | CompensateTask | AgentTask,
    Field(discriminator="kind"),
]


class RaisedEvent(Shape):
    """An event that is raised under a condition, or carries data; not where something that is set has no value."""

    event: Name
    if_: Cel | None = Field(None, alias="if", description="over the values from before the assignments beside it")
    data: Value | Annotated[dict[DataName, Value], Field(max_length=100)] | None = Field(
        None, description="what `event.data` is: expressions by name, or one for all of it"
    )


def _raised(value: Any) -> Any:
    return {"event": value} if isinstance(value, str) else value


_RAISED_SCHEMA = {"anyOf": [{"type": "string", "pattern": NAME}, RaisedEvent.model_json_schema()]}
_ALL_RAISED_SCHEMA = {
    "anyOf": [*_RAISED_SCHEMA["anyOf"], {"type": "array", "items": _RAISED_SCHEMA, "minItems": 1, "maxItems": 50}]
}
Raised = Annotated[
    list[Annotated[RaisedEvent, BeforeValidator(_raised)]],
    Field(min_length=1, max_length=50),
    WithJsonSchema(_ALL_RAISED_SCHEMA),
]


class Action(Shape):
    """What is done when a state is entered or left."""

    set: Exprs | None = None
    raise_: Raised | None = Field(None, alias="raise", description="events for the machine itself")


class Transition(Shape):
    """A way from one state to another. Without ``event`` and ``after`` it is taken as soon as ``if`` holds; without
    ``to`` no state is left or entered."""

    event: EventName | None = Field(
        None, description="done, failed, timeout, error, the name of a signal or raised event; *: any of the last two"
    )
    after: Timeout | None = Field(None, description="how long after the state was entered, in place of event")
    if_: Cel | None = Field(None, alias="if")
    set: Exprs | None = None
    raise_: Raised | None = Field(None, alias="raise", description="events for the machine itself")
    to: Names | None = Field(None, description="where it leads; several states are in different regions")
    internal: bool | None = Field(None, description="from a compound state into itself, without leaving it")


class State(Shape):
    """A state: it runs a task, holds other states, or is final."""

    description: Description | None = None
    in_: Place | None = Field(None, alias="in", description="the state around it, or parent.region")
    run: Name | None = Field(None, description="the task that runs while the state is active")
    initial: Names | None = Field(None, description="the inner state that is entered at first; or several, in regions")
    regions: Annotated[list[Name], Field(min_length=2, max_length=100)] | None = None
    visits: Count | None = Field(None, description="how often it may be entered")
    final: Literal["success", "failure"] | None = None
    reason: Cel | None = Field(None, description="of a final failure state: why, as CEL text")
    history: Literal["shallow", "deep"] | None = Field(
        None, description="stands for the states that were active when the state around it was left last"
    )
    to: Names | None = Field(None, description="of a history state: what is entered when there is no history yet")
    entry: Action | None = Field(
        None, description="what is done when the state is entered; of a history state: when there is no history yet"
    )
    exit: Action | None = Field(None, description="what is done when the state is left")
    transitions: Annotated[list[Transition], Field(max_length=100)] | None = None


class Approval(Shape):
    """A person looks at a plan before it runs."""

    by: Name = Field(description="who or what it is for: a form, a role, a queue")
    timeout: Timeout | None = None


class Goal(Shape):
    """A model writes the plan."""

    goal: Annotated[Text, StringConstraints(min_length=1)] = Field(
        description="what is to be reached, with {name} placeholders of inputs"
    )
    by: Literal["llm"]
    use: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="a model alias")
    kind: Literal["bt", "fsm", "any"] = Field(description="what it may write")
    tasks: Annotated[list[Name], Field(min_length=1, max_length=200)] | None = Field(
        None, description="the tasks it may use; all when not given"
    )
    usd: Usd | None = Field(None, description="what of limits.usd is for writing the plan")
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    timeout: Timeout | None = None
    approve: Approval | None = None
    fallback: WorkflowRange | None = Field(None, description="the workflow that runs when there is no plan")
    class_: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, alias="class", description="goals of one class share their plans; the goal itself when not given"
    )
    cache: bool | None = Field(None, description="false: a new plan for each run")


class NodeShape(Shape):
    """What all nodes share. Conditions are looked at before a node starts, ``while`` also as long as it runs."""

    description: Description | None = None
    label: Name | None = Field(None, description="a name for the node and what is in it, a scope of compensate tasks")
    fail_if: Cel | None = Field(None, description="failure, without starting")
    success_if: Cel | None = Field(None, description="success, without starting")
    skip_if: Cel | None = Field(None, description="skipped, without starting")
    while_: Cel | None = Field(None, alias="while", description="skipped, or halted, when it does not hold")
    on_success: Exprs | None = Field(None, description="variables set when it succeeds")
    on_failure: Exprs | None = Field(None, description="variables set when it fails")
    on_halt: Exprs | None = Field(None, description="variables set when it is halted")
    post: Exprs | None = Field(None, description="variables set when it succeeds or fails")


class TaskNode(NodeShape):
    """Runs a task: success when it ends well and ``ok_if`` holds."""

    type: Literal["task"]
    task: Name
    set: Exprs | None = None
    ok_if: Cel | None = None


class CheckNode(NodeShape):
    """Success when the expression holds."""

    type: Literal["check"]
    if_: Cel = Field(alias="if")


class ConstantNode(NodeShape):
    """Always the same."""

    type: Literal["succeed", "fail"]


class SeriesNode(NodeShape):
    """sequence: all in order until one fails; fallback: until one succeeds. reactive: guards are checked again.
    memory: a sequence goes on with the child that failed, or ran when it was halted."""

    type: Literal["sequence", "fallback"]
    children: Children
    reactive: bool | None = None
    memory: bool | None = None


class ParallelNode(NodeShape):
    """All at once: success when ``need`` (all) succeed, failure when ``fail_at`` (1) fail. Negative ones count from
    all: -1 is all, -2 all but one. With ``wait: all`` every child ends before it does."""

    type: Literal["parallel"]
    children: Children
    need: Threshold | None = None
    fail_at: Threshold | None = None
    wait: Literal["all"] | None = None


class MapNode(NodeShape):
    """The child once for each item of a list, bound as ``item``."""

    type: Literal["map"]
    over: Cel
    max: Count
    concurrency: Count | None = None
    fail_at: Count | None = None
    child: Node


class LoopNode(NodeShape):
    """retry: again while it fails; repeat: again while it succeeds; ``max`` times in all. keep: as repeat, but when it
    has succeeded so often that is a failure."""

    type: Literal["retry", "repeat", "keep"]
    max: Count
    child: Node


class InvertNode(NodeShape):
    """Success for failure and failure for success."""

    type: Literal["invert"]
    child: Node


class ForceNode(NodeShape):
    """Success (or failure) whatever the child says."""

    type: Literal["force"]
    as_: Literal["success", "failure"] | None = Field(None, alias="as")
    child: Node


class WayNode(NodeShape):
    """if: the first child decides between the second and the third. while: it is asked again when variables change."""

    type: Literal["if", "while"]
    children: Annotated[list[Node], Field(min_length=2, max_length=3)]


class SwitchNode(NodeShape):
    """The child whose case the value is; another one when the value changes."""

    type: Literal["switch"]
    value: Cel
    cases: Annotated[dict[Case, Node], Field(min_length=1, max_length=500)]
    default: Node | None = None


class OnceNode(NodeShape):
    """The child once in a run; after that it is skipped, or what it came to."""

    type: Literal["once"]
    then: Literal["skip", "same"] | None = None
    child: Node


class TimerNode(NodeShape):
    """delay: the child after some time. timeout: failure when the child takes longer."""

    type: Literal["delay", "timeout"]
    for_: Timeout = Field(alias="for")
    child: Node


class TryNode(NodeShape):
    """The children but the last in order; when one fails, or it is halted, the last: the catch. Then it has failed."""

    type: Literal["try"]
    children: Annotated[list[Node], Field(min_length=2, max_length=500)]


class SubtreeNode(NodeShape):
    """One of the document's trees, with variables of its own."""

    type: Literal["subtree"]
    tree: Name
    in_: Exprs | None = Field(None, alias="in", description="what its variables start with, evaluated outside")
    share: Annotated[dict[FieldName, FieldName], Field(max_length=200)] | None = Field(
        None, description="variables of it that are variables outside, by the name they have there"
    )


Node = Annotated[
    TaskNode
    | CheckNode
    | ConstantNode
    | SeriesNode
    | ParallelNode
    | MapNode
    | LoopNode
    | InvertNode
    | ForceNode
    | WayNode
    | SwitchNode
    | OnceNode
    | TimerNode
    | TryNode
    | SubtreeNode,
    Field(discriminator="type"),
]
Children = Annotated[list[Node], Field(min_length=1, max_length=500)]


class Subtree(Shape):
    """A tree that nodes of type subtree use."""

    description: Description | None = None
    vars: Types | None = Field(None, description="its own variables: name and type")
    root: Node


class Document(Shape):
    """A workflow: ``agentflow: plan/v1``."""

    agentflow: Literal["plan/v1"]
    ir: Literal[2, 3] | None = Field(
        None, description="not to be written: for which version it was accepted, where its meaning depends on that"
    )
    kind: Literal["fsm", "bt", "goal"] = Field(
        description="a state machine, a behaviour tree, or a goal that a model plans for"
    )
    name: Name
    description: Description | None = None
    limits: Limits
    input: Types | None = Field(None, description="required inputs: name and type")
    vars: Types | None = Field(None, description="working variables: name and type")
    output: Exprs | None = Field(None, description="the run's result; all vars when not given")
    events: Annotated[dict[Name, Types], Field(max_length=200)] | None = Field(
        None, description="what signals carry in `event.data`: names and types by the signal's name"
    )
    trigger: Trigger | None = None
    tools: Annotated[dict[Name, Tool], Field(max_length=100)] | None = None
    agents: Annotated[dict[Name, Agent], Field(max_length=100)] | None = None
    tasks: Annotated[dict[Name, Task], Field(max_length=500)]
    initial: Names | None = None
    states: Annotated[dict[Name, State], Field(min_length=1, max_length=1_000)] | None = None
    transitions: Annotated[list[Transition], Field(max_length=100)] | None = Field(
        None, description="transitions that any state may take, with the lowest priority"
    )
    root: Node | None = None
    plan: Goal | None = None
    trees: Annotated[dict[Name, Subtree], Field(max_length=100)] | None = Field(
        None, description="trees that nodes of type subtree use"
    )
