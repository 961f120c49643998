"""The behaviour tree: BehaviorTree.CPP v4's semantics, made event-driven.

A run does not tick at a rate: every event ticks the tree to quiescence. The first pass delivers the event to
its leaf, going down only the branch that holds it; when variables changed and a reactive node is in the tree,
review passes follow, which check the guards again until nothing moves. What a reactive node's branch has
finished is remembered: a task that is done is not started again unless a guard on the way to it flipped.

The nodes' behaviour is in ``tree_leaves``, ``tree_series``, ``tree_ways``, ``tree_wide`` and ``tree_try``; ``tick`` is
what they share, ``strands`` the course of a tick.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from agentflow.core import strands, tree_leaves, tree_series, tree_try, tree_ways, tree_wide
from agentflow.core.moves import Advance, Elapsed, PlanEvent, PlanState, Signal
from agentflow.core.node import FAILURE, SUCCESS, Node, Tree
from agentflow.core.plan import Plan, Task
from agentflow.core.tick import Behaviour, Tick
from agentflow.core.turn import FREE, Ends, Turn
from agentflow.core.types import JSON, Mismatch

__all__ = ["FAILURE", "SUCCESS", "Node", "Tree", "advance", "begin", "where"]

BEHAVIOUR: dict[str, Behaviour] = {
    "task": tree_leaves.task,
    "check": tree_leaves.check,
    "succeed": tree_leaves.succeed,
    "fail": tree_leaves.fail,
    "sequence": tree_series.sequence,
    "fallback": tree_series.fallback,
    "retry": tree_series.retry,
    "repeat": tree_series.repeat,
    "keep": tree_series.keep,
    "invert": tree_series.invert,
    "force": tree_series.force,
    "if": tree_ways.branch,
    "while": tree_ways.loop,
    "switch": tree_ways.switch,
    "once": tree_ways.once,
    "delay": tree_ways.delay,
    "timeout": tree_ways.timeout,
    "parallel": tree_wide.parallel,
    "map": tree_wide.spread,
    "try": tree_try.attempt,
    "subtree": tree_try.subtree,
}


def begin(
    plan: Plan, tree: Tree, variables: dict[str, JSON], fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Tick a fresh tree."""
    turn = Turn(plan, variables, 0, fixed)
    return strands.run(Tick(turn, tree, {"n": {}, "run": {}, "items": {}}, BEHAVIOUR))


def advance(
    plan: Plan, tree: Tree, state: PlanState, event: PlanEvent, fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Tick for ``event``. Signals are not for trees, but for ``cancel``, where a try is under way."""
    tick = _tick(plan, tree, state, fixed)
    if isinstance(event, Signal):
        moved = strands.cancel(tick, _reason(event)) if event.name == "cancel" and tree.catches else None
        return moved or Advance(state, ())
    if isinstance(event, Elapsed):
        key = state.cursor.get("timers", {}).get(str(event.timer))
    else:
        key = state.cursor["run"].get(str(event.step))  # type: ignore[union-attr]
    if key is None:
        return Advance(state, ())
    tick.deliver(key, event)
    return strands.run(tick)


def where(
    plan: Plan, tree: Tree, state: PlanState, step: int, result: dict[str, JSON] | None = None
) -> tuple[str, Task, dict[str, JSON]] | None:
    """The node that runs a step, its task as it is there and what its expressions see besides the run's variables, or
    in a subtree in place of them; None when no node does. ``result``: what they see when that has been kept there.
    """
    key = state.cursor.get("run", {}).get(str(step))
    if key is None:
        return None
    around, slash, index = key.rpartition("/")
    scope, node = around + slash, tree.nodes[int(index)]
    tick = _tick(plan, tree, state)
    names = tick.names(scope)
    if node.task is None:
        return None
    if names is None or result is None:
        return index, node.task, {**(names or {}), **tick.local(scope)}
    with suppress(Ends, Mismatch):  # then nothing was kept
        tick.assign(node.sets, scope, node.path, bound=node.task.bind(result))
    return index, node.task, {**names, **tick.local(scope)}


def _tick(plan: Plan, tree: Tree, state: PlanState, fixed: Mapping[str, JSON] = FREE) -> Tick:
    return Tick(Turn(plan, state.vars, state.steps, fixed), tree, state.cursor, BEHAVIOUR)


def _reason(signal: Signal) -> str:
    text = signal.data.get("reason") if isinstance(signal.data, dict) else None
    return text if isinstance(text, str) else ""
