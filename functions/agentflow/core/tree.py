"""The behaviour tree: BehaviorTree.CPP v4's semantics, made event-driven.

A run does not tick at a rate: every event ticks the tree to quiescence. The first pass delivers the event to its
leaf, going down only the branch that holds it; when variables changed and a reactive node is in the tree, review
passes follow, which check the guards again until nothing moves. What a reactive node's branch has finished is
remembered: a task that is done is not started again unless a guard on the way to it flipped in between.

The cursor: ``n`` what running nodes (and remembered ones) need to know, ``run`` the node of each running step,
``items`` the lists that maps run over, ``why`` the last failure. Keys are node numbers in document order; inside a
map they carry the item: ``5.2/6`` is node 6 for item 2 of map 5. Only active items have entries.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentflow.core.cel import Expr
from agentflow.core.moves import Advance, Completed, Failed, PlanEvent, PlanState, Signal, TimedOut
from agentflow.core.plan import Plan, Task
from agentflow.core.turn import Ends, Turn, reason
from agentflow.core.types import JSON, Mismatch

RUNNING, SUCCESS, FAILURE, SKIPPED = 0, 1, 2, 3
MAX_TICKS = 20_000
_NO_LOCALS: dict[str, JSON] = {}
_REMEMBERED = {SUCCESS: "s", FAILURE: "f"}
_RECALL = {"s": SUCCESS, "f": FAILURE}


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One node. ``index`` is its place in document order and ``last`` that of its last descendant.

    ``keep``: under a reactive node, so what it finished is remembered; ``live``: holds a reactive node, so a
    review pass has to visit it. ``first`` lists the children's indexes.
    """

    index: int
    last: int
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
    forced: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """The whole tree. ``nodes`` in document order."""

    root: Node
    nodes: tuple[Node, ...]


def begin(plan: Plan, tree: Tree, variables: dict[str, JSON]) -> Advance:
    """Tick a fresh tree."""
    return _Tick(Turn(plan, variables, 0), tree, {"n": {}, "run": {}, "items": {}}).close()


def advance(plan: Plan, tree: Tree, state: PlanState, event: PlanEvent) -> Advance:
    """Tick for ``event``; signals are not for trees."""
    if isinstance(event, Signal):
        return Advance(state, ())
    key = state.cursor["run"].get(str(event.step))  # type: ignore[union-attr]
    if key is None:
        return Advance(state, ())
    tick = _Tick(Turn(plan, state.vars, state.steps), tree, state.cursor)
    tick.deliver(key, event)
    return tick.close()


class _Tick:
    """The working copy of one advance."""

    __slots__ = (
        "event",
        "hit",
        "items",
        "locals",
        "moved",
        "n",
        "reviewing",
        "run",
        "ticks",
        "trail",
        "tree",
        "turn",
        "why",
    )

    def __init__(self, turn: Turn, tree: Tree, cursor: dict[str, Any]) -> None:
        self.turn = turn
        self.tree = tree
        self.n: dict[str, Any] = dict(cursor["n"])
        self.run: dict[str, str] = dict(cursor["run"])
        self.items: dict[str, list[JSON]] = cursor["items"]
        self.why: str = cursor.get("why", "")
        self.locals: dict[str, dict[str, JSON]] = {"": _NO_LOCALS}
        self.reviewing = False
        self.moved = False
        self.ticks = 0
        self.hit = ""
        self.event: PlanEvent | None = None
        self.trail: dict[str, tuple[int, int]] = {}

    def deliver(self, key: str, event: PlanEvent) -> None:
        """Note where ``event`` goes: ``trail`` says, for each scope, which node holds the leaf (and which item)."""
        self.hit = key
        self.event = event
        scope = ""
        *maps, leaf = key.split("/")
        for part in maps:
            index, _, item = part.partition(".")
            self.trail[scope] = (int(index), int(item))
            scope += part + "/"
        self.trail[scope] = (int(leaf), -1)

    def close(self) -> Advance:
        """Tick to quiescence and say what follows."""
        turn = self.turn
        try:
            status = self.tick(self.tree.root, "")
            if self.tree.root.live and turn.changed:
                self.reviewing = True
                while status == RUNNING:
                    self.moved = False
                    status = self.tick(self.tree.root, "")
                    if not self.moved:
                        break
            if status != RUNNING:
                raise Ends(
                    status != FAILURE, "" if status != FAILURE else self.why or "root: the tree failed"
                )
        except Ends as ends:
            return turn.end([int(step) for step in self.run], ends)
        run = self.run
        for key, step in turn.numbered().items():
            self.n[key] = step
            run[str(step)] = key
        cursor: dict[str, JSON] = {"n": self.n, "run": run, "items": self.items}
        if self.why:
            cursor["why"] = self.why
        return turn.close(cursor)

    def tick(self, node: Node, scope: str) -> int:
        self.ticks += 1
        if self.ticks > MAX_TICKS:
            self.turn.fault(node.path, f"more than {MAX_TICKS:,} nodes ticked without a task in between")
        return _TICK[node.kind](self, node, scope)

    # ------------------------------------------------------------------------------------------------ leaves

    def _task(self, node: Node, scope: str) -> int:
        key = scope + node.key
        held = self.n.get(key)
        if held.__class__ is int:
            return self._end(node, scope, key) if key == self.hit else RUNNING
        status = self._guards(node, scope)
        if status != RUNNING:
            if held is not None:
                del self.n[key]
            return status
        if held is not None:
            return _RECALL[held]
        assert node.task is not None
        self.turn.start(key, node.task, node.inputs, self._local(scope))
        self.n[key] = 0
        self.moved = True
        return RUNNING

    def _guards(self, node: Node, scope: str) -> int:
        """What the preconditions decide; RUNNING when the task is to run."""
        guard = node.fail_if
        if guard is not None and self.turn.value(guard, self._local(scope), node.path + ".fail_if"):
            self.why = reason(node.path + ".fail_if", f"`{guard.source}` holds")
            return FAILURE
        guard = node.skip_if
        if guard is not None and self.turn.value(guard, self._local(scope), node.path + ".skip_if"):
            return SKIPPED
        return RUNNING

    def _end(self, node: Node, scope: str, key: str) -> int:
        """The event reaches its leaf: the task has ended."""
        event, task = self.event, node.task
        assert task is not None
        self.hit = ""
        self.moved = True
        status = FAILURE
        if isinstance(event, Completed):
            del self.run[str(event.step)]
            try:
                local = {**self._local(scope), **task.bind(event.result)}
            except Mismatch as fault:
                self.why = reason(
                    node.path, f"task {task.name!r} failed: bad_result: result{fault.where} {fault.message}"
                )
            else:
                status = self._judge(node, local)
        elif isinstance(event, TimedOut):
            del self.run[str(event.step)]
            self.why = reason(node.path, f"task {task.name!r} failed: timeout: nothing came in time")
        else:
            assert isinstance(event, Failed)
            del self.run[str(event.step)]
            self.why = reason(node.path, f"task {task.name!r} failed: {event.code}: {event.message}")
        if node.keep:
            self.n[key] = _REMEMBERED[status]
        else:
            del self.n[key]
        return status

    def _judge(self, node: Node, local: dict[str, JSON]) -> int:
        """A result: assigned in any case, and a success unless ``ok_if`` says otherwise (both see the same values)."""
        ok_if = node.ok_if
        ok = ok_if is None or self.turn.value(ok_if, local, node.path + ".ok_if")
        if node.sets:
            self.turn.assign(node.sets, local, node.path)
        if ok:
            return SUCCESS
        assert ok_if is not None
        self.why = reason(node.path + ".ok_if", f"`{ok_if.source}` does not hold")
        return FAILURE

    def _check(self, node: Node, scope: str) -> int:
        condition = node.condition
        assert condition is not None
        if self.turn.value(condition, self._local(scope), node.path + ".if"):
            return SUCCESS
        self.why = reason(node.path + ".if", f"`{condition.source}` does not hold")
        return FAILURE

    def _succeed(self, node: Node, scope: str) -> int:
        return SUCCESS

    def _fail(self, node: Node, scope: str) -> int:
        cause = self.why.rpartition(", after ")[2]
        self.why = reason(node.path, f"the plan says fail, after {cause}" if cause else "the plan says fail")
        return FAILURE

    # --------------------------------------------------------------------------------- sequence and fallback

    def _sequence(self, node: Node, scope: str) -> int:
        return self._series(node, scope, SUCCESS, FAILURE)

    def _fallback(self, node: Node, scope: str) -> int:
        return self._series(node, scope, FAILURE, SUCCESS)

    def _series(self, node: Node, scope: str, on: int, stop: int) -> int:
        """Children in order while they return ``on``; ``stop`` ends it. All skipped is skipped.

        The state is [the running child, whether one was not skipped]. Without an entry the node starts, or is
        reviewed after it finished; a reactive node is reviewed from its first child.
        """
        key = scope + node.key
        held = self.n.get(key)
        if held is None or (self.reviewing and node.reactive):
            index, seen = 0, False
        else:
            index, seen = held
        children = node.children
        count = len(children)
        status = on
        while index < count:
            status = self.tick(children[index], scope)
            if status == RUNNING or status == stop:
                break
            if status == on:
                seen = True
            index += 1
        if (held is None and node.keep) or (held is not None and held[0] > index):
            for child in children[index + 1 :]:
                self._halt(child, scope)
        if status == RUNNING:
            self.n[key] = [index, seen]
            return RUNNING
        if held is not None:
            del self.n[key]
        if node.reactive and not node.keep:
            for child in children[: index + 1]:
                self._halt(child, scope)
        return stop if index < count else on if seen else SKIPPED

    # ------------------------------------------------------------------------------------ parallel and map

    def _parallel(self, node: Node, scope: str) -> int:
        """All children at once. The state is [succeeded, failed, skipped, the ordinals that run]."""
        key = scope + node.key
        held = self.n.get(key)
        if held.__class__ is str:
            return _RECALL[held]
        children = node.children
        if held is None:
            ok = failed = skipped = 0
            todo: Any = range(len(children))
            going: list[int] = []
        else:
            ok, failed, skipped, going = held
            if not self.reviewing:
                todo = (bisect_right(node.first, self.trail[scope][0]) - 1,)
            elif node.live:
                todo = [i for i in going if children[i].live]
            else:
                return RUNNING
            going = list(going)
        result = RUNNING
        for ordinal in todo:
            status = self.tick(children[ordinal], scope)
            if status == RUNNING:
                if held is None:
                    going.append(ordinal)
                continue
            if held is not None:
                going.remove(ordinal)
            if status == SUCCESS:
                ok += 1
            elif status == FAILURE:
                failed += 1
            else:
                skipped += 1
            result = _verdict(node, ok, failed, skipped)
            if result != RUNNING:
                break
        if result == RUNNING:
            self.n[key] = [ok, failed, skipped, going]
            return RUNNING
        for ordinal in going:
            self._halt(children[ordinal], scope)
        return self._remember(node, key, result)

    def _map(self, node: Node, scope: str) -> int:
        """The child once per item, ``concurrency`` at a time. The state is counters: [the next item, running,
        succeeded, failed, skipped], so its size and the work per event do not grow with the list.
        """
        key = scope + node.key
        held = self.n.get(key)
        if held.__class__ is str:
            return _RECALL[held]
        child = node.children[0]
        if held is None:
            items = self._spread(node, scope, key)
            at = going = ok = failed = skipped = 0
            todo: Any = ()
        else:
            items = self.items[key]
            at, going, ok, failed, skipped = held
            if not self.reviewing:
                todo = (self.trail[scope][1],)
            elif node.live:
                todo = self._active_items(key)
            else:
                return RUNNING
        count = len(items)
        todo = iter(todo)
        while failed < node.fail_at:
            item = next(todo, -1)
            if item < 0:
                if at == count or going >= node.concurrency:
                    break
                item, at = at, at + 1
                going += 1
            status = self.tick(child, f"{key}.{item}/")
            if status != RUNNING:
                going -= 1
                ok += status == SUCCESS
                failed += status == FAILURE
                skipped += status == SKIPPED
        if failed >= node.fail_at:
            self._halt_items(key)
            result = FAILURE
        elif at == count and not going:
            result = SKIPPED if skipped and skipped == count else SUCCESS
        else:
            self.n[key] = [at, going, ok, failed, skipped]
            return RUNNING
        self.items = {k: v for k, v in self.items.items() if k != key}
        return self._remember(node, key, result)

    def _spread(self, node: Node, scope: str, key: str) -> list[JSON]:
        """The items, fixed for as long as the map runs."""
        assert node.over is not None
        items = self.turn.value(node.over, self._local(scope), node.path + ".over")
        if len(items) > node.max:
            self.turn.fault(
                node.path + ".max",
                f"`{node.over.source}` has {len(items)} items, at most {node.max} are allowed",
            )
        self.items = {**self.items, key: items}
        self.locals = {"": _NO_LOCALS}
        return items  # type: ignore[no-any-return]

    def _active_items(self, key: str) -> list[int]:
        start = len(key) + 1
        return sorted({int(k[start:].partition("/")[0]) for k in self.n if k.startswith(key + ".")})

    # ------------------------------------------------------------------------------------------ decorators

    def _retry(self, node: Node, scope: str) -> int:
        return self._again(node, scope, FAILURE)

    def _repeat(self, node: Node, scope: str) -> int:
        return self._again(node, scope, SUCCESS)

    def _again(self, node: Node, scope: str, on: int) -> int:
        """The child again while it returns ``on``, at most ``max`` times. The state is the number of times."""
        key = scope + node.key
        held = self.n.get(key)
        if held.__class__ is str:
            return _RECALL[held]
        times = held[0] if held is not None else 0
        while True:
            status = self.tick(node.children[0], scope)
            if status == RUNNING:
                self.n[key] = [times]
                return RUNNING
            times += 1
            if status != on or times >= node.max:
                return self._remember(node, key, status)

    def _invert(self, node: Node, scope: str) -> int:
        status = self.tick(node.children[0], scope)
        if status == SUCCESS:
            self.why = reason(node.path, "what it inverts succeeded")
            return FAILURE
        return SUCCESS if status == FAILURE else status

    def _force(self, node: Node, scope: str) -> int:
        status = self.tick(node.children[0], scope)
        if status == SUCCESS and node.forced == FAILURE:
            self.why = reason(node.path, "forced to fail")
        return node.forced if status in _REMEMBERED else status

    # ------------------------------------------------------------------------------------------------- state

    def _remember(self, node: Node, key: str, status: int) -> int:
        self.n.pop(key, None)
        if node.keep and status in _REMEMBERED:
            self.n[key] = _REMEMBERED[status]
        return status

    def _halt(self, node: Node, scope: str) -> None:
        """Stop what runs below ``node`` and forget what is remembered there."""
        key = scope + node.key
        held = self.n.pop(key, None)
        if node.kind == "task":
            if held.__class__ is int:
                self._halt_step(key, held)
        elif node.kind == "map":
            if held.__class__ is list:
                self._halt_items(key)
                self.items = {k: v for k, v in self.items.items() if k != key}
        elif held.__class__ is not str and (
            held is not None or node.keep or node.kind in ("invert", "force")
        ):
            for child in node.children:
                self._halt(child, scope)

    def _halt_items(self, key: str) -> None:
        prefix = key + "."
        for inner in [k for k in self.n if k.startswith(prefix)]:
            held = self.n.pop(inner)
            if held.__class__ is int:
                self._halt_step(inner, held)
        if any(k.startswith(prefix) for k in self.items):
            self.items = {k: v for k, v in self.items.items() if not k.startswith(prefix)}

    def _halt_step(self, key: str, step: int) -> None:
        self.moved = True
        if step:
            del self.run[str(step)]
            self.turn.halts.append(step)
        else:  # started in this very turn: it never was
            del self.turn.starts[key]

    def _local(self, scope: str) -> dict[str, JSON]:
        """``item`` in this scope; the innermost map's."""
        local = self.locals.get(scope)
        if local is None:
            around, _, last = scope[:-1].rpartition("/")
            index, _, item = last.partition(".")
            key = f"{around}/{index}" if around else index
            local = self.locals[scope] = {"item": self.items[key][int(item)]}
        return local


def _verdict(node: Node, ok: int, failed: int, skipped: int) -> int:
    """What a parallel's counters decide. ``need`` 0 is all, and skipped children then count as done."""
    count = len(node.children)
    if skipped == count:
        return SKIPPED
    if ok + skipped >= count if not node.need else ok >= node.need:
        return SUCCESS
    if failed >= node.fail_at or count - failed < (node.need or count):
        return FAILURE
    return RUNNING if ok + failed + skipped < count else FAILURE


_TICK: dict[str, Callable[[_Tick, Node, str], int]] = {
    "task": _Tick._task,
    "check": _Tick._check,
    "succeed": _Tick._succeed,
    "fail": _Tick._fail,
    "sequence": _Tick._sequence,
    "fallback": _Tick._fallback,
    "parallel": _Tick._parallel,
    "map": _Tick._map,
    "retry": _Tick._retry,
    "repeat": _Tick._repeat,
    "invert": _Tick._invert,
    "force": _Tick._force,
}
