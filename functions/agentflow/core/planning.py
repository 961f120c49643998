"""The steps of a plan that is being written which need nobody outside: they are done in the turn that starts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.explore import Reducer
from agentflow.core.judging import judge
from agentflow.core.moves import Advance, Completed, Ended, PlanEvent, PlanState, Start, both
from agentflow.core.plan import Plan


def advance(plan: Plan, planner: Reducer, whole: Reducer, state: PlanState | None, event: PlanEvent) -> Advance:
    """Move a run on whose plan is to be written: what the planner does, and what is done at once. ``whole`` moves any
    run on, whatever its plan: what is written is tried with it."""
    moved = planner(plan, state, event)
    waiting = [command for command in moved.commands if isinstance(command, Start)]
    while waiting:
        start = waiting.pop(0)
        answer = _AT_ONCE.get(plan.tasks[start.task].kind)
        if answer is None:
            continue
        result = answer(plan, start.input, whole)
        then = planner(plan, moved.state, Completed(start.step, result))
        waiting += [command for command in then.commands if isinstance(command, Start)]
        moved = both(moved, Ended(start.step, result), then)
    return moved


def _judge(plan: Plan, given: Mapping[str, Any], whole: Reducer) -> dict[str, Any]:
    assert plan.planning is not None
    return judge(plan.planning, given["draft"], whole)


def _keep(plan: Plan, given: Mapping[str, Any], whole: Reducer) -> dict[str, Any]:
    return {}


_AT_ONCE = {"judge": _judge, "keep": _keep}
