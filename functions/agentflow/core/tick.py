"""One tick of a behaviour tree: its nodes as compiled, and the working state that their behaviours share.

The cursor: ``n`` what running nodes (and remembered ones) need to know, ``run`` the node of each running step,
``items`` the lists that maps run over, ``why`` the last failure. Keys are node numbers in document order;
inside a map they carry the item: ``5.2/6`` is node 6 for item 2 of map 5. Only active items have entries, and those
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
from agentflow.core.turn import Ends, Turn
from agentflow.core.types import JSON

RUNNING, SUCCESS, FAILURE, SKIPPED = 0, 1, 2, 3
MAX_TICKS = 20_000

REMEMBERED = {SUCCESS: "s", FAILURE: "f"}
RECALL = {"s": SUCCESS, "f": FAILURE}
_NO_LOCALS: dict[str, JSON] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node. ``index`` is its place in document order.

    ``keep``: under a reactive node, so what it finished is remembered. ``live``: holds a reactive node, so a
    review pass has to visit it. ``first`` lists the children's indexes.
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


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """The whole tree. ``nodes`` in document order."""

    root: Node
    nodes: tuple[Node, ...]


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
        cursor: dict[str, JSON] = {"n": self.n.close(), "run": self.running.close(), "items": self.items}
        if self.why:
            cursor["why"] = self.why
        moved = {"n": self.n.changed, "run": self.running.changed, "why": self.why}
        if self.items is not self._items:
            moved["items"] = self.items
        return turn.close(cursor, moved)

    def tick(self, node: Node, scope: str) -> int:
        """The node's status now."""
        self.ticks += 1
        if self.ticks > MAX_TICKS:
            self.turn.fault(node.path, f"more than {MAX_TICKS:,} nodes ticked without a task in between")
        return self.behaviour[node.kind](self, node, scope)

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
        if node.kind == "task":
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
            if held.__class__ is int:
                self._halt_step(inner, held)
        self.items = {k: v for k, v in self.items.items() if k != key and not k.startswith(prefix)}

    def _halt_step(self, key: str, step: int) -> None:
        self.moved = True
        if step:
            self.running.pop(str(step))
            self.turn.halts.append(step)
        else:  # started in this very tick: it never was
            del self.turn.starts[key]


Behaviour = Callable[[Tick, Node, str], int]
