"""One tick of a behaviour tree: its nodes as compiled, and the working state that their behaviours share.

The cursor: ``n`` what running nodes (and remembered ones) need to know, ``run`` the node of each running step,
``items`` the lists that maps run over, ``why`` the last failure; in a tree with timers ``timers``, the node of each,
and ``timer``, the last number given. Keys are node numbers in document order;
inside a map they carry the item: ``5.2/6`` is node 6 for item 2 of map 5. ``6!`` says that a node with conditions runs
or, under a reactive one, has ended.
Only active items have entries, and those
may be 10,000: ``n`` and ``run`` are persistent maps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from immutables import Map

from agentflow.core.expr import Expr
from agentflow.core.moves import Advance, PlanEvent
from agentflow.core.plan import Task
from agentflow.core.turn import Ends, Turn, reason
from agentflow.core.types import JSON

RUNNING, SUCCESS, FAILURE, SKIPPED = 0, 1, 2, 3
MAX_TICKS = 20_000

TIMED = frozenset({"delay", "timeout"})
"""Nodes that set a timer; their state is [its number, or 0, whether the child runs]."""

REMEMBERED = {SUCCESS: "s", FAILURE: "f"}
RECALL = {"s": SUCCESS, "f": FAILURE}
DONE = "d"  # a node with conditions has ended, and what follows from that is done
_NO_LOCALS: dict[str, JSON] = {}


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
    """One node. ``index`` is its place in document order.

    ``keep``: under a reactive node, so what it finished is remembered. ``live``: it or a node in it looks at conditions
    again when variables have changed, so a review pass has to visit it. ``first`` lists the children's indexes.
    ``cases``: of a switch, in the order of the children; a child more is the default. ``wait_all``: a parallel that is
    over when all its children are.
    """

    index: int
    kind: str
    path: str
    key: str
    keep: bool
    live: bool
    children: tuple[Node, ...] = ()
    first: tuple[int, ...] = ()
    reactive: bool = False
    task: Task | None = None
    inputs: dict[str, Expr] = field(default_factory=dict)
    sets: tuple[tuple[str, Expr], ...] = ()
    condition: Expr | None = None
    fail_if: Expr | None = None
    skip_if: Expr | None = None
    ok_if: Expr | None = None
    over: Expr | None = None
    max: int = 0
    need: int = 0  # 0: all
    fail_at: int = 1
    concurrency: int = 0
    forced: int = SUCCESS
    conditions: Conditions | None = None
    for_ms: int = 0
    value: Expr | None = None
    cases: tuple[str, ...] = ()
    wait_all: bool = False
    then_skip: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """The whole tree. ``nodes`` in document order; ``timed``: some of them set timers; ``labels``: the first and the
    last node of what an author has given a name."""

    root: Node
    nodes: tuple[Node, ...]
    timed: bool = False
    labels: dict[str, tuple[int, int]] = field(default_factory=dict)


class Entries:
    """A table of the cursor while one tick works on it: as it was, and over that what has ``changed`` (None: gone).

    A value is shared with earlier states and replaced, never changed.
    """

    __slots__ = ("_was", "changed")

    def __init__(self, was: Mapping[str, Any]) -> None:
        self._was: Map[str, Any] = Map(was)  # the very same where it is one already
        self.changed: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.changed[key] if key in self.changed else self._was.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        self.changed[key] = value

    def pop(self, key: str) -> Any:
        """The entry, which goes; None where there is none."""
        held = self.get(key)
        if held is not None:
            self.changed[key] = None
        return held

    def names(self) -> list[str]:
        """All of them, in no order: work that grows with the table."""
        return [key for key in {**self._was, **self.changed} if self.get(key) is not None]

    def close(self) -> Map[str, Any]:
        """The table's next version."""
        after = self._was.mutate()
        for key, value in self.changed.items():
            if value is not None:
                after[key] = value
            else:
                after.pop(key, None)
        return after.finish()


class Tick:
    """The working copy of one advance: ``n`` and the other tables are this tick's own."""

    __slots__ = (
        "_items",
        "behaviour",
        "event",
        "hit",
        "items",
        "locals",
        "moved",
        "n",
        "reviewing",
        "running",
        "ticks",
        "timer",
        "timers",
        "trail",
        "tree",
        "turn",
        "why",
    )

    def __init__(
        self, turn: Turn, tree: Tree, cursor: dict[str, Any], behaviour: dict[str, Behaviour]
    ) -> None:
        self.turn = turn
        self.tree = tree
        self.behaviour = behaviour
        self.n = Entries(cursor["n"])
        self.running = Entries(cursor["run"])
        self.timers = Entries(cursor.get("timers", {}))
        self.timer: int = cursor.get("timer", 0)
        self.items: dict[str, list[JSON]] = cursor["items"]
        self._items = self.items
        self.why: str = cursor.get("why", "")
        self.locals: dict[str, dict[str, JSON]] = {"": _NO_LOCALS}
        self.reviewing = False
        self.moved = False
        self.ticks = 0
        self.hit = ""
        self.event: PlanEvent | None = None
        self.trail: dict[str, tuple[int, int]] = {}

    def deliver(self, key: str, event: PlanEvent) -> None:
        """Note where ``event`` goes: ``trail`` says, scope by scope, which node holds the leaf, and which item."""
        self.hit = key
        self.event = event
        scope = ""
        *maps, leaf = key.split("/")
        for part in maps:
            index, _, item = part.partition(".")
            self.trail[scope] = (int(index), int(item))
            scope += part + "/"
        self.trail[scope] = (int(leaf), -1)

    def run(self) -> Advance:
        """Tick to quiescence and say what follows."""
        turn = self.turn
        root = self.tree.root
        try:
            status = self.tick(root, "")
            if root.live and turn.assigned:
                self.reviewing = True
                while status == RUNNING:
                    self.moved = False
                    status = self.tick(root, "")
                    if not self.moved:
                        break
            if status == FAILURE:
                raise Ends(False, self.why)
            if status != RUNNING:
                raise Ends(True)
        except Ends as ends:
            return turn.end([int(step) for step in self.running.names()], ends)
        for key, step in turn.numbered().items():
            self.n[key] = step
            self.running[str(step)] = key
        last, alarms = self.timer, turn.timed(self.timer)
        for key, timer in alarms.items():
            self.n[key] = [timer, *self.n.get(key)[1:]]
            self.timers[str(timer)] = key
        cursor: dict[str, Any] = {"n": self.n.close(), "run": self.running.close(), "items": self.items}
        if self.why:
            cursor["why"] = self.why
        moved: dict[str, Any] = {"n": self.n.changed, "run": self.running.changed, "why": self.why}
        if self.items is not self._items:
            moved["items"] = self.items
        if self.tree.timed:
            cursor |= {"timers": self.timers.close(), "timer": last + len(alarms)}
            moved |= {"timers": self.timers.changed, "timer": last + len(alarms)}
        return turn.close(cursor, moved, last)

    def tick(self, node: Node, scope: str) -> int:
        """The node's status now."""
        self.ticks += 1
        if self.ticks > MAX_TICKS:
            self.turn.fault(node.path, f"more than {MAX_TICKS:,} nodes ticked without a task in between")
        if node.conditions is not None:
            return self._conditional(node, node.conditions, scope)
        return self.behaviour[node.kind](self, node, scope)

    def _conditional(self, node: Node, conditions: Conditions, scope: str) -> int:
        """BehaviorTree.CPP's pre- and post-conditions, in its order."""
        mark = f"{scope}{node.key}!"
        held = self.n.get(mark)
        runs = held is True
        status = self._before(node, conditions, scope, runs=runs)
        if status == RUNNING:
            status = self.behaviour[node.kind](self, node, scope)
        elif runs:
            self.halt(node, scope)
        if status == RUNNING:
            if not runs:
                self.n[mark] = True
            return RUNNING
        if held == DONE:
            return status  # looked at again, and nothing has happened since
        self.n.pop(mark)
        if node.keep:
            self.n[mark] = DONE
        if status != SKIPPED:
            name = "on_success" if status == SUCCESS else "on_failure"
            for sets, said in ((getattr(conditions, name), name), (conditions.post, "post")):
                if sets:
                    self.turn.assign(sets, self.local(scope), node.path, said)
        return status

    def _before(self, node: Node, conditions: Conditions, scope: str, *, runs: bool) -> int:
        """What the conditions decide; RUNNING when the node is to be ticked."""
        if not runs:
            for expr, name, status in (
                (conditions.fail_if, "fail_if", FAILURE),
                (conditions.success_if, "success_if", SUCCESS),
                (conditions.skip_if, "skip_if", SKIPPED),
            ):
                if expr is not None and self.turn.value(expr, self.local(scope), f"{node.path}.{name}"):
                    if status == FAILURE:
                        self.why = reason(f"{node.path}.{name}", f"`{expr.source}` holds")
                    return status
        holds = conditions.holds
        # The pass that delivers an event lets it arrive; the review after it looks.
        if holds is None or (runs and not self.reviewing):
            return RUNNING
        return RUNNING if self.turn.value(holds, self.local(scope), node.path + ".while") else SKIPPED

    def local(self, scope: str) -> dict[str, JSON]:
        """``item`` in this scope: the innermost map's."""
        local = self.locals.get(scope)
        if local is None:
            around, _, last = scope[:-1].rpartition("/")
            index, _, item = last.partition(".")
            key = f"{around}/{index}" if around else index
            local = self.locals[scope] = {"item": self.items[key][int(item)]}
        return local

    def begin_items(self, key: str, items: list[JSON]) -> None:
        """The list that the map ``key`` runs over from now on."""
        self.items = {**self.items, key: items}
        self.locals = {"": _NO_LOCALS}

    def remember(self, node: Node, key: str, status: int) -> int:
        """The node has finished: its entry goes, or says how it ended where that is kept."""
        self.n.pop(key)
        if node.keep and status in REMEMBERED:
            self.n[key] = REMEMBERED[status]
        return status

    # ------------------------------------------------------------------------------------------------- halts

    def halt(self, node: Node, scope: str) -> None:
        """Stop what runs below ``node`` and forget what is remembered there."""
        key = scope + node.key
        held = self.n.pop(key)
        if node.conditions is not None and self.n.pop(key + "!") is True:
            self._halted(key + "!")
        if node.kind in TIMED and held.__class__ is list:
            self.clear(key, held)
        if node.kind == "once" and held.__class__ is str:
            self.n[key] = held  # that it has run is not forgotten
        elif node.kind == "task":
            if held.__class__ is int:
                self._halt_step(key, held)
        elif node.kind == "map":
            if held.__class__ is list:
                self.end_items(key)
        elif held.__class__ is not str and (
            held is not None or node.keep or node.kind in ("invert", "force")
        ):
            for child in node.children:
                self.halt(child, scope)

    def end_items(self, key: str) -> None:
        """The map ``key`` is over: what still runs for its items is halted."""
        prefix = key + "."
        for inner in [k for k in self.n.names() if k.startswith(prefix)]:
            held = self.n.pop(inner)
            if held is True:
                self._halted(inner)
            if held.__class__ is int:
                self._halt_step(inner, held)
            elif held.__class__ is list and self.tree.timed and self._node(inner).kind in TIMED:
                self.clear(inner, held)
        self.items = {k: v for k, v in self.items.items() if k != key and not k.startswith(prefix)}

    def _halted(self, mark: str) -> None:
        node = self._node(mark)
        if node.conditions is not None and node.conditions.on_halt:
            local = self.local(mark[: mark.rfind("/") + 1])
            self.turn.assign(node.conditions.on_halt, local, node.path, "on_halt")

    def _node(self, key: str) -> Node:
        return self.tree.nodes[int(key.rpartition("/")[2].rstrip("!"))]

    def alarm(self, node: Node, key: str) -> None:
        """Set the node's timer; its number is given when the tick is over."""
        self.turn.alarms[key] = node.for_ms
        self.moved = True

    def clear(self, key: str, held: list[int]) -> None:
        """Nobody waits for the node's timer any more."""
        if self.turn.alarms.pop(key, None) is None and held[0]:
            self.turn.cleared.append(held[0])
            self.timers.pop(str(held[0]))

    def rang(self, key: str, held: list[int]) -> bool:
        """Whether the event says that the node's time is over; said once."""
        if key != self.hit:
            return False
        self.hit = ""
        self.moved = True
        self.timers.pop(str(held[0]))
        return True

    def _halt_step(self, key: str, step: int) -> None:
        self.moved = True
        if step:
            self.running.pop(str(step))
            self.turn.halts.append(step)
        else:  # started in this very tick: it never was
            del self.turn.starts[key]


Behaviour = Callable[[Tick, Node, str], int]
