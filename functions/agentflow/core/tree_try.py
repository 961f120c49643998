"""Nodes with something of their own: try, whose catch runs whatever happens, and subtree, with its variables."""

from __future__ import annotations

from agentflow.core import catching
from agentflow.core.node import FAILURE, RUNNING, SKIPPED, SUCCESS, Node
from agentflow.core.tick import RECALL, Tick


def attempt(tick: Tick, node: Node, scope: str) -> int:
    """try: the children but the last in order; when one fails the last, the catch, and then the node has failed.

    The state is [the running child, whether one was not skipped], or [the catch, its number, why the body failed].
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held.__class__ is str:
        return RECALL[held]
    last = len(node.children) - 1
    if held is not None and held[0] == last:
        return _catch(tick, node, key, held[1], held[2])
    index, seen = held or (0, False)
    while index < last:
        status = tick.tick(node.children[index], scope)
        if status == RUNNING:
            tick.n[key] = [index, seen]
            return RUNNING
        if status == FAILURE:
            return _catch(tick, node, key, catching.begin(tick, node, scope, key), tick.why)
        seen = seen or status == SUCCESS
        index += 1
    return tick.remember(node, key, SUCCESS if seen else SKIPPED)


def _catch(tick: Tick, node: Node, key: str, number: str, why: str) -> int:
    status = catching.go_on(tick, number)
    if status == RUNNING:
        tick.n[key] = [len(node.children) - 1, number, why]
        return RUNNING
    catching.end(tick, number)
    tick.why = why
    return tick.remember(node, key, FAILURE)


def subtree(tick: Tick, node: Node, scope: str) -> int:
    """A tree with variables of its own, which are there from its start to its end; under a reactive node, which may
    look at it again, until that halts it. The state is [whether it runs, the number of its variables].
    """
    key = scope + node.key
    held = tick.n.get(key)
    if held is None:
        given = {name: tick.value(expr, scope, f"{node.path}.in.{name}") for name, expr in node.given}
        held = [True, tick.begin_instance(node, scope, given)]
        tick.n[key] = held
    status = tick.tick(node.children[0], key + "/")
    if status == RUNNING or (node.keep and (status != SKIPPED or node.delayed)):
        tick.n[key] = [status == RUNNING, held[1]]
    else:
        tick.n.pop(key)
        tick.instances.release(held[1])
    return status
