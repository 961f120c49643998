"""Nodes that run many children at once: parallel, and map over a list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from agentflow.core.halting import end_items
from agentflow.core.node import FAILURE, RUNNING, SKIPPED, SUCCESS, Node
from agentflow.core.tick import RECALL, Tick
from agentflow.core.turn import reason
from agentflow.core.types import JSON


def parallel(tick: Tick, node: Node, scope: str) -> int:
    """All children at once, until enough have succeeded or failed.

    The state is [succeeded, failed, skipped, the ordinals that run]. An event visits only the child it is for.
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    children = node.children
    todo: Iterable[int]
    if held is None:
        ok = failed = skipped = 0
        todo = range(len(children))
        going: list[int] = []
    else:
        ok, failed, skipped, going = held
        if not tick.reviewing:
            todo = (bisect_right(node.first, tick.trail[scope][0]) - 1,)
        elif node.live:
            todo = [ordinal for ordinal in going if children[ordinal].live]
        else:
            return RUNNING
        going = list(going)
    result = RUNNING
    for ordinal in todo:
        status = tick.tick(children[ordinal], scope)
        if status == RUNNING:
            if held is None:
                going.append(ordinal)
            continue
        if held is not None:
            going.remove(ordinal)
        ok += status == SUCCESS
        failed += status == FAILURE
        skipped += status == SKIPPED
        result = verdict(node, ok, failed, skipped)
        if result != RUNNING:
            break
    if result == RUNNING:
        tick.n[key] = [ok, failed, skipped, going]
        return RUNNING
    for ordinal in going:
        tick.halt(children[ordinal], scope)
    if result == FAILURE and not failed:
        tick.why = reason(node.path, f"{ok} succeeded and {skipped} were skipped, but {node.need} are needed")
    return tick.remember(node, key, result)


def verdict(node: Node, ok: int, failed: int, skipped: int) -> int:
    """What a parallel's counters decide."""
    count = len(node.children)
    need = node.need or count
    if skipped == count:
        return SKIPPED
    if node.wait_all:
        if ok + failed + skipped < count:
            return RUNNING
        return FAILURE if failed >= node.fail_at else SUCCESS
    if (ok + skipped if node.lenient else ok) >= need:
        return SUCCESS
    if failed >= node.fail_at or count - failed < need:
        return FAILURE
    # Nobody is left to decide it: too few have succeeded.
    return RUNNING if ok + failed + skipped < count else FAILURE


def spread(tick: Tick, node: Node, scope: str) -> int:
    """The child once per item, ``concurrency`` at a time, until ``fail_at`` have failed or all are through.

    The state is counters: [the next item, running, succeeded, failed, skipped]; neither its size nor the work
    per event grows with the list.
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    todo: Iterable[int] = ()
    if held is None:
        items = _items(tick, node, scope, key)
        at = going = ok = failed = skipped = 0
    else:
        items = tick.items.get(key)
        at, going, ok, failed, skipped = held
        if not tick.reviewing:
            todo = (tick.trail[scope][1],)
        elif node.live:
            todo = _active(tick, key)
        else:
            return RUNNING
    count = len(items)
    due = iter(todo)
    child = node.children[0]
    while failed < node.fail_at:
        item = next(due, -1)
        if item < 0:
            if at == count or going >= node.concurrency:
                break
            item, at = at, at + 1
            going += 1
        status = tick.tick(child, f"{key}.{item}/")
        if status != RUNNING:
            tick.forget(child, f"{key}.{item}/")
            going -= 1
            ok += status == SUCCESS
            failed += status == FAILURE
            skipped += status == SKIPPED
    if failed < node.fail_at and (going or at < count):
        tick.n[key] = [at, going, ok, failed, skipped]
        return RUNNING
    end_items(tick, node, key, at if going else 0)
    if failed >= node.fail_at:
        return tick.remember(node, key, FAILURE)
    return tick.remember(node, key, SKIPPED if skipped and skipped == count else SUCCESS)


def _items(tick: Tick, node: Node, scope: str, key: str) -> list[JSON]:
    """The items, fixed for as long as the map runs."""
    assert node.over is not None
    items: list[JSON] = tick.value(node.over, scope, node.path + ".over")
    if len(items) > node.max:
        message = f"`{node.over.source}` has {len(items)} items, at most {node.max} are allowed"
        tick.turn.fault(node.path + ".max", message)
    tick.begin_items(key, items)
    return items


def _active(tick: Tick, key: str) -> list[int]:
    start = len(key) + 1
    return sorted({int(k[start:].partition("/")[0]) for k in tick.n.names() if k.startswith(key + ".")})
