"""The behaviour tree: BehaviorTree.CPP v4's semantics, made event-driven.

A run does not tick at a rate: every event ticks the tree to quiescence. The first pass delivers the event to
its leaf, going down only the branch that holds it; when variables changed and a reactive node is in the tree,
review passes follow, which check the guards again until nothing moves. What a reactive node's branch has
finished is remembered: a task that is done is not started again unless a guard on the way to it flipped.

The nodes' behaviour is in ``tree_leaves``, ``tree_series``, ``tree_ways`` and ``tree_wide``; ``tick`` is what they
share.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.core import tree_leaves, tree_series, tree_ways, tree_wide
from agentflow.core.moves import Advance, Elapsed, PlanEvent, PlanState, Signal
from agentflow.core.plan import Plan, Task
from agentflow.core.tick import FAILURE, SUCCESS, Behaviour, Node, Tick, Tree
from agentflow.core.turn import FREE, Turn
from agentflow.core.types import JSON

__all__ = ["FAILURE", "SUCCESS", "Node", "Tree", "advance", "begin"]

BEHAVIOUR: dict[str, Behaviour] = {
    "task": tree_leaves.task,
    "check": tree_leaves.check,
    "succeed": tree_leaves.succeed,
    "fail": tree_leaves.fail,
    "sequence": tree_series.sequence,
    "fallback": tree_series.fallback,
    "retry": tree_series.retry,
    "repeat": tree_series.repeat,
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
}


def begin(
    plan: Plan, tree: Tree, variables: dict[str, JSON], fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Tick a fresh tree."""
    cursor: dict[str, JSON] = {"n": {}, "run": {}, "items": {}, "timers": {}}
    return Tick(Turn(plan, variables, 0, fixed), tree, cursor, BEHAVIOUR).run()


def advance(
    plan: Plan, tree: Tree, state: PlanState, event: PlanEvent, fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Tick for ``event``; signals are not for trees."""
    if isinstance(event, Signal):
        return Advance(state, ())
    if isinstance(event, Elapsed):
        key = state.cursor.get("timers", {}).get(str(event.timer))
    else:
        key = state.cursor["run"].get(str(event.step))  # type: ignore[union-attr]
    if key is None:
        return Advance(state, ())
    tick = Tick(Turn(plan, state.vars, state.steps, fixed), tree, state.cursor, BEHAVIOUR)
    tick.deliver(key, event)
    return tick.run()


def where(plan: Plan, tree: Tree, state: PlanState, step: int) -> tuple[str, Task, dict[str, JSON]] | None:
    """The node that runs a step, its task and what its expressions see; None when no node does."""
    key = state.cursor.get("run", {}).get(str(step))
    if key is None:
        return None
    scope, _, index = key.rpartition("/")
    tick = Tick(Turn(plan, state.vars, state.steps), tree, state.cursor, BEHAVIOUR)
    task = tree.nodes[int(index)].task
    return None if task is None else (index, task, tick.local(scope and scope + "/"))
