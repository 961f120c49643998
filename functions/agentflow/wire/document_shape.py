"""The shape of a plan/v1 document: the pydantic models that schemas/plan.schema.json is generated from.

They describe the canonical form. Short forms are written out before (``core.canonical``); the JSON Schema lists
them too, because people write them. What the words mean is checked by ``core.compile``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, WithJsonSchema

from agentflow.core.draft import milliseconds, size

NAME = r"^[a-z][a-z0-9_-]{0,63}$"
EVENT_NAME = r"^([a-z][a-z0-9_-]{0,63}|\*)$"
FIELD = r"^[a-z][a-z0-9_]{0,63}$"
PLACE = r"^[a-z][a-z0-9_-]{0,63}(\.[a-z][a-z0-9_-]{0,63})?$"
TOOL = r"^[a-z][a-z0-9_-]{0,63}(\.[a-z][a-z0-9_-]{0,63}){0,3}$"
DURATION = r"^[0-9]{1,9}(ms|s|m|h|d)$"
SIZE = r"^[0-9]{1,9}(B|KiB|MiB|GiB)$"
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
FieldName = Annotated[str, StringConstraints(pattern=FIELD)]
EventName = Annotated[str, StringConstraints(pattern=EVENT_NAME)]
Place = Annotated[str, StringConstraints(pattern=PLACE)]
ToolName = Annotated[str, StringConstraints(pattern=TOOL)]
EventType = Annotated[str, StringConstraints(pattern=EVENT_TYPE)]
_CEL_SCHEMA = {"type": ["string", "number", "boolean"], "maxLength": 1_000, "description": "a CEL expression"}
Cel = Annotated[str, StringConstraints(min_length=1, max_length=1_000), WithJsonSchema(_CEL_SCHEMA)]
TypeText = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Duration = Annotated[str, StringConstraints(pattern=DURATION), AfterValidator(_duration)]
Timeout = Annotated[str, StringConstraints(pattern=DURATION), AfterValidator(_positive)]
Memory = Annotated[str, StringConstraints(pattern=SIZE), AfterValidator(_memory)]
OutputSize = Annotated[str, StringConstraints(pattern=SIZE), AfterValidator(_output)]
Case = Annotated[str, StringConstraints(min_length=1, max_length=64)]
Usd = Annotated[float, Field(ge=0, le=1_000_000, allow_inf_nan=False)]
Text = Annotated[str, StringConstraints(max_length=65_536)]
Description = Annotated[str, StringConstraints(max_length=4_000)]
Types = Annotated[dict[FieldName, TypeText], Field(max_length=200)]
Exprs = Annotated[dict[FieldName, Cel], Field(max_length=200)]
Count = Annotated[int, Field(ge=1, le=10_000)]
Threshold = Annotated[int, Field(ge=-500, le=500)]


class Shape(BaseModel):
    """What all parts share: no unknown keys, no silent conversion."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Limits(Shape):
    """What one run may use at most."""

    steps: Annotated[int, Field(ge=1, le=100_000)] = Field(description="steps started")
    usd: Usd | None = Field(None, description="US dollars; needed when a task costs money")
    wall: Timeout | None = Field(None, description="time from begin to end; 24h when not given")


class Trigger(Shape):
    """The CloudEvent that starts a run."""

    type: EventType
    if_: Cel | None = Field(None, alias="if", description="CEL over event.type/source/id/subject/data")
    input: Exprs | None = None


class Tool(Shape):
    """A tool shipped with the workflow: Python code that defines run(**input) -> dict."""

    description: Description | None = None
    kind: Literal["python"]
    code: Annotated[str, StringConstraints(min_length=1, max_length=200_000)] | None = None
    file: Annotated[str, StringConstraints(min_length=1, max_length=500)] | None = Field(
        None, description="a file beside the document, in place of code; the CLI puts its content in"
    )
    timeout: Timeout | None = None
    memory: Memory | None = None
    cpu: Annotated[float, Field(gt=0, le=64)] | None = None
    output: OutputSize | None = None
    usd: Usd | None = Field(None, description="price of one call")


class Retry(Shape):
    """How often a task is tried, and how long to wait at first (doubled each time, at most 5m)."""

    max: Annotated[int, Field(ge=1, le=100)]
    backoff: Duration | None = None


class TaskShape(Shape):
    """What all tasks share."""

    description: Description | None = None
    in_: Exprs | None = Field(None, alias="in", description="the task's input: CEL by name")
    out: Types | None = Field(None, description="the typed fields of the result")
    retry: Retry | None = None
    timeout: Timeout | None = None
    usd: Usd | None = Field(None, description="the most that one call may cost")


class LlmTask(TaskShape):
    """A model answers a prompt: with text, or with an object of the shape ``out``."""

    kind: Literal["llm"]
    use: Annotated[str, StringConstraints(min_length=1, max_length=128)] = Field(description="a model alias")
    prompt: Annotated[Text, StringConstraints(min_length=1)] = Field(
        description="text with {name} placeholders"
    )
    system: Text | None = None
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class ToolTask(TaskShape):
    """A tool is called."""

    kind: Literal["tool"]
    use: ToolName = Field(description="a key of tools, or a built-in such as std.echo")
    key: Cel | None = Field(None, description="idempotency key of the call")
    undo: Name | None = None


class WaitTask(Shape):
    """Time passes."""

    description: Description | None = None
    kind: Literal["wait"]
    for_: Duration = Field(alias="for")


class EventTask(Shape):
    """A CloudEvent is awaited; its data is result.data."""

    description: Description | None = None
    kind: Literal["event"]
    use: EventType = Field(description="the CloudEvent's type")
    match: Cel | None = Field(None, description="CEL over event and vars: is it the one?")
    in_: Exprs | None = Field(None, alias="in")
    timeout: Timeout | None = None


class LaterTask(TaskShape):
    """A kind of task that this version names but does not run."""

    model_config = ConfigDict(extra="allow")
    kind: Literal["agent", "human", "workflow", "compensate"]


Task = Annotated[LlmTask | ToolTask | WaitTask | EventTask | LaterTask, Field(discriminator="kind")]


Raised = Annotated[list[Name], Field(min_length=1, max_length=20)]


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
    to: Name | None = None
    internal: bool | None = Field(None, description="from a compound state into itself, without leaving it")


class State(Shape):
    """A state: it runs a task, holds other states, or is final."""

    description: Description | None = None
    in_: Place | None = Field(None, alias="in", description="the state around it, or parent.region")
    run: Name | None = Field(None, description="the task that runs while the state is active")
    initial: Name | None = Field(None, description="the first inner state")
    regions: Annotated[list[Name], Field(min_length=2, max_length=100)] | None = None
    visits: Count | None = Field(None, description="how often it may be entered")
    final: Literal["success", "failure"] | None = None
    history: Literal["shallow", "deep"] | None = Field(
        None, description="stands for the states that were active when the state around it was left last"
    )
    to: Name | None = Field(None, description="of a history state: what is entered when there is no history yet")
    entry: Action | None = Field(None, description="what is done when the state is entered")
    exit: Action | None = Field(None, description="what is done when the state is left")
    transitions: Annotated[list[Transition], Field(max_length=100)] | None = None


class NodeShape(Shape):
    """What all nodes share. Conditions are looked at before a node starts, ``while`` also as long as it runs."""

    description: Description | None = None
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
    """sequence: all in order until one fails; fallback: until one succeeds. reactive: guards are checked again."""

    type: Literal["sequence", "fallback"]
    children: Children
    reactive: bool | None = None


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
    """retry: again while it fails; repeat: again while it succeeds; ``max`` times in all."""

    type: Literal["retry", "repeat"]
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


class LaterNode(NodeShape):
    """A type of node that this version names but does not run."""

    model_config = ConfigDict(extra="allow")
    type: Literal["try", "subtree"]
    children: Children | None = None
    child: Node | None = None


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
    | LaterNode,
    Field(discriminator="type"),
]
Children = Annotated[list[Node], Field(min_length=1, max_length=500)]


class Document(Shape):
    """A workflow: ``agentflow: plan/v1``."""

    agentflow: Literal["plan/v1"]
    kind: Literal["fsm", "bt"] = Field(description="a state machine or a behaviour tree")
    name: Name
    description: Description | None = None
    limits: Limits
    input: Types | None = Field(None, description="required inputs: name and type")
    vars: Types | None = Field(None, description="working variables: name and type")
    output: Exprs | None = Field(None, description="the run's result; all vars when not given")
    trigger: Trigger | None = None
    tools: Annotated[dict[Name, Tool], Field(max_length=100)] | None = None
    tasks: Annotated[dict[Name, Task], Field(max_length=500)]
    initial: Name | None = None
    states: Annotated[dict[Name, State], Field(min_length=1, max_length=1_000)] | None = None
    transitions: Annotated[list[Transition], Field(max_length=100)] | None = Field(
        None, description="transitions that any state may take, with the lowest priority"
    )
    root: Node | None = None
