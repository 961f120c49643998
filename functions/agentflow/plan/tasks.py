"""Tasks, and the tools that are shipped with a workflow; the methods of ``Workflow`` make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict, get_args, get_origin

from agentflow.plan.expression import Exprs
from agentflow.plan.part import Part

TypeName = type[Any] | str
"""A type of Python (``str``, ``int``, ``float``, ``bool``, ``object``, ``list[str]``, ...) or of plans."""

AtLimit = Literal["reject", "wait", "ask"]
"""What becomes of a step that a limit of money does not admit."""

_TYPES = {
    str: "string",
    int: "int",
    float: "double",
    bool: "bool",
    object: "json",
    list: "list(json)",
    dict: "map(json)",
}


class Retry(TypedDict, total=False):
    """How often a task is tried, how long to wait between, and after which error codes."""

    max: int
    backoff: str
    factor: float
    max_backoff: str
    jitter: float
    only: Sequence[str]
    never: Sequence[str]


class Policy(TypedDict, total=False):
    """What tasks share."""

    description: str
    in_: Exprs
    out: Mapping[str, TypeName]
    retry: Retry
    timeout: str
    usd: float
    at_limit: AtLimit


class Task(Part):
    """A task by its name: in a tree a node, in a machine what a state runs."""

    def __init__(self, name: str, **keys: Any) -> None:
        super().__init__(**keys)
        self.name = name


def named(task: Task | str | None) -> str | None:
    """A task's name, given either way."""
    return task.name if isinstance(task, Task) else task


class Tool(Part):
    """A tool that is shipped with the workflow."""

    def __init__(self, name: str, **keys: Any) -> None:
        super().__init__(**keys)
        self.name = name


class Agent(Part):
    """A model, and the tools it may call."""

    def __init__(self, name: str, **keys: Any) -> None:
        super().__init__(**keys)
        self.name = name


def type_text(given: TypeName) -> str:
    """The plan's name of a type; TypeError for one that plans do not have."""
    if isinstance(given, str):
        return given
    if given is Any:
        return "json"
    if given in _TYPES:
        return _TYPES[given]
    kind, of = get_origin(given), get_args(given)
    if kind is list:
        return f"list({type_text(of[0])})"
    if kind is dict and of[0] is str:
        return f"map({type_text(of[1])})"
    raise TypeError(
        f"{given!r} is no type of plans: use str, int, float, bool, object, list[...] or dict[str, ...]"
    )


def types(table: Mapping[str, TypeName] | None) -> dict[str, str] | None:
    """A table of types as the document has it."""
    return None if table is None else {name: type_text(given) for name, given in table.items()}
