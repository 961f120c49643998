"""A state machine as compiled: states in document order, transitions with their entry sets worked out."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.core.expr import Expr
from agentflow.core.plan import Task

TASK_EVENTS = frozenset({"done", "failed", "timeout"})
"""Events that come from what a state does; no signal may have these names."""


@dataclass(frozen=True, slots=True, eq=False)
class Transition:
    """One transition. ``domain`` is the innermost state around both ends (it stays active); ``enter`` lists the
    states it enters, in document order: static as long as there is no history.
    """

    source: int
    event: str
    guard: Expr | None
    sets: tuple[tuple[str, Expr], ...]
    target: int
    domain: int
    enter: tuple[int, ...]
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One state; its ``index`` is its place in document order. ``chain`` is itself and the states around it,
    inner first, ending with the whole machine (0).
    """

    index: int
    name: str
    kind: str  # machine, compound, parallel, region, atomic, success, failure
    parent: int
    chain: tuple[int, ...]
    path: str
    task: Task | None = None
    inputs: dict[str, Expr] = field(default_factory=dict)
    visits: int = 0
    regions: tuple[int, ...] = ()
    on: dict[str, tuple[Transition, ...]] = field(default_factory=dict)
    eventless: tuple[Transition, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """All states in document order; index 0 is the machine itself, which holds the root transitions."""

    states: tuple[State, ...]
    by_name: dict[str, State]
    initial: tuple[int, ...]
    eventless: bool
