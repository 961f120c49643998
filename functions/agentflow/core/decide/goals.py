"""What a run leaves behind that has a plan written: the plan as a workflow, and that it has reached the goal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.decision import PlanFrozen, Row, TemplateKept
from agentflow.core.goal import CHILD_NAME
from agentflow.core.plan import Plan, Task


def written(plan: Plan, task: Task, given: Mapping[str, Any], result: Mapping[str, Any]) -> tuple[Row, ...]:
    """The rows that follow from a step which the planner has carried out itself."""
    if task.kind == "judge" and result["fits"]:
        return (PlanFrozen(result["workflow"], result["document"]),)
    if task.kind == "keep" and plan.planning is not None and plan.planning.cache:
        return (TemplateKept(plan.planning.key, given[CHILD_NAME]),)
    return ()
