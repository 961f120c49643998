"""Nodes that run one child at a time: sequence and fallback (reactive or with memory), and the decorators."""

from __future__ import annotations

from agentflow.core.node import FAILURE, RUNNING, SKIPPED, SUCCESS, Node
from agentflow.core.tick import RECALL, Tick
from agentflow.core.turn import reason


def sequence(tick: Tick, node: Node, scope: str) -> int:
    """All children, until one fails."""
    return _remembering(tick, node, scope) if node.memory else _series(tick, node, scope, SUCCESS, FAILURE)


def fallback(tick: Tick, node: Node, scope: str) -> int:
    """The children, until one succeeds."""
    return _series(tick, node, scope, FAILURE, SUCCESS)


def _series(tick: Tick, node: Node, scope: str, on: int, stop: int) -> int:
    """Children in order while they return ``on``; ``stop`` ends it; skipped ones are passed over, and when all
    are, so is the node.

    The state is [the running child, whether one was not skipped]. Without an entry the node starts, or is
    reviewed after it finished; a reactive node is reviewed from its first child.
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held is None or (tick.reviewing and node.reactive):
        index, seen = 0, False
    else:
        index, seen = held
    children = node.children
    count = len(children)
    status = on
    while index < count:
        status = tick.tick(children[index], scope)
        if status in (RUNNING, stop):
            break
        if status == on:
            seen = True
        index += 1
    # A guard that flipped ends what is to its right: what runs there, and what was remembered there.
    if (held is None and node.keep) or (held is not None and held[0] > index):
        for child in children[index + 1 :]:
            tick.halt(child, scope)
    if status == RUNNING:
        tick.n[key] = [index, seen]
        return RUNNING
    if held is not None:
        tick.n.pop(key)
    if node.reactive and not node.keep:
        for child in children[: index + 1]:
            tick.halt(child, scope)
    if index < count:
        return stop
    return on if seen else SKIPPED


def _remembering(tick: Tick, node: Node, scope: str) -> int:
    """A sequence with memory: the child that failed, or ran when it was halted, is where it goes on (``6m``)."""
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    begin = tick.n.get(key + "m") or 0
    index, seen = held or (begin, begin > 0)
    while index < len(node.children):
        status = tick.tick(node.children[index], scope)
        if status == RUNNING:
            tick.n[key] = [index, seen]
            return RUNNING
        if status == FAILURE:
            tick.n[key + "m"] = index or None
            return tick.remember(node, key, FAILURE)
        seen = seen or status == SUCCESS
        index += 1
    tick.n.pop(key + "m")
    return tick.remember(node, key, SUCCESS if seen else SKIPPED)


def retry(tick: Tick, node: Node, scope: str) -> int:
    """The child again while it fails, ``max`` times in all."""
    return _again(tick, node, scope, FAILURE)


def repeat(tick: Tick, node: Node, scope: str) -> int:
    """The child again while it succeeds, ``max`` times in all."""
    return _again(tick, node, scope, SUCCESS)


def _again(tick: Tick, node: Node, scope: str, on: int) -> int:
    """The state is the number of times the child has returned ``on``."""
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    times = held[0] if held is not None else 0
    while True:
        status = tick.tick(node.children[0], scope)
        if status == RUNNING:
            tick.n[key] = [times]
            return RUNNING
        times += 1
        if status != on or times >= node.max:
            return tick.remember(node, key, status)


def keep(tick: Tick, node: Node, scope: str) -> int:
    """The child again as long as it succeeds, ``max`` times at most; it ends as a failure (or skipped)."""
    status = _again(tick, node, scope, SUCCESS)
    if status != SUCCESS:
        return status
    tick.why = reason(node.path + ".max", f"it has succeeded {node.max} times, and no more are allowed")
    key = scope + node.key
    return tick.remember(node, key, FAILURE)


def invert(tick: Tick, node: Node, scope: str) -> int:
    """Success for failure and failure for success."""
    status = tick.tick(node.children[0], scope)
    if status == SUCCESS:
        tick.why = reason(node.path, "what it inverts succeeded")
        return FAILURE
    return SUCCESS if status == FAILURE else status


def force(tick: Tick, node: Node, scope: str) -> int:
    """Success (or failure) whatever the child returns; skipped stays skipped."""
    status = tick.tick(node.children[0], scope)
    if status == SUCCESS and node.forced == FAILURE:
        tick.why = reason(node.path, "forced to fail")
    return status if status in (RUNNING, SKIPPED) else node.forced
