"""Nodes that choose a way (if, while, switch), that run once, and that wait (delay, timeout)."""

from __future__ import annotations

from agentflow.core.node import FAILURE, RUNNING, SKIPPED, SUCCESS, Node
from agentflow.core.tick import RECALL, Tick
from agentflow.core.turn import reason

_ONCE = {SUCCESS: "S", FAILURE: "F"}
_BEFORE = {"S": SUCCESS, "F": FAILURE}


def branch(tick: Tick, node: Node, scope: str) -> int:
    """if: the first child decides between the second and the third (without one: failure), once each time it starts.

    The state is [the child that runs].
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    if held is None or not held[0]:
        return _take(tick, node, scope, tick.tick(node.children[0], scope), 0)
    status = _go(tick, node, scope, held[0])
    if status != RUNNING and node.undecided:
        tick.assigned = True  # the condition may have flipped while it was not asked
    return status


def loop(tick: Tick, node: Node, scope: str) -> int:
    """while: as if, but the first child is looked at again whenever variables change; the way that was taken before is
    halted when it says otherwise. Like BehaviorTree.CPP's WhileDoElse it does not run a child again that has ended,
    neither the way nor a task that is the condition.
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    taken = held[0] if held is not None else 0
    if taken and not tick.reviewing:
        status = _go(tick, node, scope, taken)
    else:
        status = _take(tick, node, scope, tick.tick(node.children[0], scope), taken)
    if status != RUNNING and not node.undecided:
        tick.halt(node.children[0], scope)
    return status


def switch(tick: Tick, node: Node, scope: str) -> int:
    """The child whose case the value is, or the default (without one: failure); another one when the value changes."""
    held = tick.n.get(scope + node.key)
    if held.__class__ is str:
        return RECALL[held]
    if held is not None and not tick.reviewing:
        return _go(tick, node, scope, held[0])
    assert node.value is not None
    value = tick.value(node.value, scope, node.path + ".value")
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else str(value)
    index = node.cases.index(text) if text in node.cases else len(node.cases)
    _leave(tick, node, scope, held[0] if held is not None else index, index)
    if index == len(node.children):
        tick.why = reason(node.path + ".value", f"no case is {text!r}, and there is no default")
    return _go(tick, node, scope, index)


def _take(tick: Tick, node: Node, scope: str, condition: int, taken: int) -> int:
    """The way that the condition says; ``taken`` is the one that runs, 0 for none."""
    index = {RUNNING: 0, SUCCESS: 1, FAILURE: 2, SKIPPED: 0}[condition]
    _leave(tick, node, scope, taken, index, 1)
    if index:
        return _go(tick, node, scope, index)
    if condition == SKIPPED:
        return tick.remember(node, scope + node.key, SKIPPED)
    tick.n[scope + node.key] = [0]
    return RUNNING


def _leave(tick: Tick, node: Node, scope: str, taken: int, index: int, first: int = 0) -> None:
    """The ways that are not taken are left: what runs there, and what is remembered there under a reactive node."""
    for other in range(first, len(node.children)):
        if other != index and (other == taken or node.undecided):
            tick.halt(node.children[other], scope)


def _go(tick: Tick, node: Node, scope: str, index: int) -> int:
    """The way's status, which is the node's. Under a reactive node its children remember how they have ended, so that
    the condition, or the value, is asked again."""
    key = scope + node.key
    status = tick.tick(node.children[index], scope) if index < len(node.children) else FAILURE
    if status == RUNNING:
        tick.n[key] = [index]
    elif node.undecided:
        tick.n.pop(key)
    else:
        tick.remember(node, key, status)
    return status


def once(tick: Tick, node: Node, scope: str) -> int:
    """The child, until it has ended once in this run; from then on skipped, or what it came to. That is kept, whatever
    is halted around it."""
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return SKIPPED if node.then_skip or held not in _BEFORE else _BEFORE[held]
    status = tick.tick(node.children[0], scope)
    if status in _ONCE:
        tick.n[key] = _ONCE[status]
    elif status == RUNNING:
        tick.n[key] = [0]
    else:
        tick.remember(node, key, status)
    return status


def delay(tick: Tick, node: Node, scope: str) -> int:
    """Some time, then the child."""
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    if held is None:
        tick.n[key] = [0, 0]
        tick.alarm(node, key)
        return RUNNING
    if not held[1] and not tick.rang(key, held):
        return RUNNING
    status = tick.tick(node.children[0], scope)
    if status != RUNNING:
        return tick.remember(node, key, status)
    tick.n[key] = [0, 1]
    return RUNNING


def timeout(tick: Tick, node: Node, scope: str) -> int:
    """The child, which is halted and has failed when it takes too long."""
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    if held is not None and tick.rang(key, held):
        tick.halt(node.children[0], scope)
        tick.why = reason(node.path, f"it took longer than {node.for_ms} ms")
        return tick.remember(node, key, FAILURE)
    status = tick.tick(node.children[0], scope)
    if status != RUNNING:
        if held is not None:
            tick.clear(key, held)
        return tick.remember(node, key, status)
    if held is None:
        tick.n[key] = [0, 1]
        tick.alarm(node, key)
    return RUNNING
