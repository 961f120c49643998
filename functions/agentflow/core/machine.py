"""A state machine as compiled: states in document order, transitions with their entry sets worked out."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.core.expr import Expr
from agentflow.core.plan import Task
from agentflow.core.types import Type

TASK_EVENTS = frozenset({"done", "failed", "timeout"})
"""Events that come from what a state does."""

OWN_EVENTS = TASK_EVENTS | {"error"}
"""No signal and no raised event may have these names."""

ANY = "*"
"""In place of an event: any signal or raised event."""

NOWHERE = -1


@dataclass(frozen=True, slots=True, eq=False)
class Raise:
    """An event that the machine gives itself. ``bound``: it is part of its block, raised where ``guard`` holds and all
    that the block sets has a value; one that is only named is raised in any case. ``data`` is what it carries, by
    name, the one expression for all of it under ''; guard and data see the values from before the block.
    """

    event: str
    bound: bool = False
    guard: Expr | None = None
    data: dict[str, Expr] = field(default_factory=dict)
    path: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Action:
    """What is done on the way: variables are set all at once, then events are raised."""

    sets: tuple[tuple[str, Expr], ...]
    raises: tuple[Raise, ...]
    path: str


@dataclass(frozen=True, slots=True, eq=False)
class Transition:
    """One transition. ``domain`` is the innermost state around its source and its targets (it stays active), or NOWHERE
    when there is no target: nothing is left or entered then. ``enter`` lists the states it enters, in document order.
    Where that depends on history states (``memories``) it is worked out anew each time; ``enter`` is then what is
    entered the first time, ``may_enter`` all that may be.
    """

    source: int
    event: str
    guard: Expr | None
    action: Action | None
    targets: tuple[int, ...]
    domain: int
    enter: tuple[int, ...]
    path: str
    after_ms: int = 0
    may_enter: tuple[int, ...] = ()
    memories: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """One state; its ``index`` is its place in document order. ``chain`` is itself and the states around it,
    inner first, ending with the whole machine (0). ``first`` are the states inside that are entered by default, for a
    history state those in its place the first time, when ``entry`` is done, too; ``memories`` are the history states
    directly inside.

    ``on`` has its transitions by event, those for any event among them; ``any`` those for events that no transition
    names; ``timed`` those that are due some time after it was entered. ``listens``: a signal may move it.
    """

    index: int
    name: str
    kind: str  # machine, compound, parallel, region, atomic, history, success, failure
    parent: int
    chain: tuple[int, ...]
    path: str
    task: Task | None = None
    inputs: dict[str, Expr] = field(default_factory=dict)
    visits: int = 0
    regions: tuple[int, ...] = ()
    first: tuple[int, ...] = ()
    deep: bool = False
    memories: tuple[int, ...] = ()
    reason: Expr | None = None  # of a final state that is a failure
    entry: Action | None = None
    exit: Action | None = None
    on: dict[str, tuple[Transition, ...]] = field(default_factory=dict)
    any: tuple[Transition, ...] = ()
    eventless: tuple[Transition, ...] = ()
    timed: tuple[Transition, ...] = ()
    listens: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Machine:
    """All states in document order; index 0 is the machine itself, which holds the root transitions. ``first`` are the
    states that the document begins with, ``initial`` all that are entered then.

    ``timed``, ``remembers``: there are such transitions and history states; ``exits``: leaving a state may mean more
    than halting its task; ``mends``: some transition takes ``error``. ``events``: what signals carry, where
    that is declared.
    """

    states: tuple[State, ...]
    by_name: dict[str, State]
    first: tuple[int, ...]
    initial: tuple[int, ...]
    eventless: bool
    timed: bool
    remembers: bool
    exits: bool
    mends: bool
    events: dict[str, dict[str, Type]] = field(default_factory=dict)
