"""The nodes of a behaviour tree as compiled, and what a tick of one can come to."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.core.expr import Expr
from agentflow.core.plan import Task
from agentflow.core.types import JSON

RUNNING, SUCCESS, FAILURE, SKIPPED = 0, 1, 2, 3

REMEMBERED = {SUCCESS: "s", FAILURE: "f", SKIPPED: "k"}
"""How a node has ended, as the cursor has it."""

TIMED = frozenset({"delay", "timeout"})
"""Nodes that set a timer; their state is [its number, or 0, whether the child runs]."""

Sets = tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Conditions:
    """What any node may have: conditions that are looked at before it starts (``holds``: also while it runs, and it is
    halted when that is over), and variables that are set when it has ended."""

    fail_if: Expr | None = None
    success_if: Expr | None = None
    skip_if: Expr | None = None
    holds: Expr | None = None
    on_success: Sets = ()
    on_failure: Sets = ()
    on_halt: Sets = ()
    post: Sets = ()


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node. ``index`` is its place in document order, subtrees written out where they are used.

    ``keep``: under a reactive node, so what it finished is remembered. ``live``: it or a node in it looks at conditions
    again when variables have changed, so a review pass has to visit it. ``lasting``: it or a node in it remembers
    something after it has ended. ``first`` lists the children's indexes.
    ``undecided``: under a reactive node, and decided again after it has ended. ``delayed``: it or a node in it is a
    delay; under a reactive node it is remembered also that it was skipped (not in versions before 3).
    ``cases``: of a switch, in the order of the children; a child more is the default. ``wait_all``: a parallel that is
    over when all its children are. ``need`` 0 is all; ``lenient``: a skipped child counts as one that succeeded.
    ``own``: of a subtree, its variables and what they start with; ``given`` what they are given, ``share`` those that
    are the caller's by another name. A task's ``match`` and ``key`` are those of this place.
    """

    index: int
    kind: str
    path: str
    key: str
    keep: bool
    live: bool
    lasting: bool = False
    children: tuple[Node, ...] = ()
    first: tuple[int, ...] = ()
    reactive: bool = False
    memory: bool = False
    undecided: bool = False
    delayed: bool = False
    task: Task | None = None
    inputs: dict[str, Expr] = field(default_factory=dict)
    sets: Sets = ()
    condition: Expr | None = None
    fail_if: Expr | None = None
    skip_if: Expr | None = None
    ok_if: Expr | None = None
    over: Expr | None = None
    max: int = 0
    need: int = 0
    lenient: bool = True
    fail_at: int = 1
    concurrency: int = 0
    forced: int = SUCCESS
    conditions: Conditions | None = None
    for_ms: int = 0
    value: Expr | None = None
    cases: tuple[str, ...] = ()
    wait_all: bool = False
    then_skip: bool = True
    tree: str = ""
    own: tuple[tuple[str, JSON], ...] = ()
    given: Sets = ()
    share: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """The whole tree. ``nodes`` in document order; ``timed``: some of them set timers, ``catches``: some are tries,
    ``scoped``: some are subtrees. ``ir``: the version whose meaning it has (see ``meaning``). ``labels``: the first and
    the last node of what an author has given a name, wherever it is used."""

    root: Node
    nodes: tuple[Node, ...]
    timed: bool = False
    catches: bool = False
    scoped: bool = False
    ir: int = 1
    labels: dict[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
