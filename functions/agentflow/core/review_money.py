"""What is to become of steps that do not fit: can what they wait for ever come?"""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core.money import tool_hold, tool_price
from agentflow.core.plan import Plan, Task
from agentflow.errors import Problem

PAID = ("llm", "agent", "tool", "workflow")


def at_limit(plan: Plan) -> Iterator[Problem]:
    """What can be said against how a plan goes about its limits of money."""
    limit = plan.limits.micro
    own = [task for task in plan.tasks.values() if task.kind in PAID and not task.part_of]
    for task in own:
        path = f"tasks.{task.name}"
        way = task.at_limit or plan.limits.at_limit
        if way == "wait" and _least(plan, task) > limit:
            message = f"waits for {_least(plan, task)} micro-dollars, which never come: a run has {limit} (limits.usd)"
            yield Problem(f"{path}.usd", message, "raise limits.usd, or reject it", "at_limit")
        if task.cheaper and task.cheaper == (task.agent.model if task.agent else task.use):
            yield _warn(f"{path}.cheaper", "is the model that does not fit", "name a cheaper one, or none")
        if task.at_limit in ("wait", "ask") and limit == 0:
            yield _warn(f"{path}.at_limit", "nothing here costs money", "remove it, or set limits.usd")
    if plan.limits.at_limit != "reject" and limit == 0:
        yield _warn("limits.at_limit", "nothing here costs money", "remove it, or set limits.usd")


def _least(plan: Plan, task: Task) -> int:
    """What one call of a task holds at least, as far as the plan alone says it."""
    if task.kind == "tool":
        return tool_hold(tool_price(None, plan, task), task)
    return task.price_cap_micro or 0 if task.kind == "workflow" else 0


def _warn(path: str, message: str, mend: str) -> Problem:
    return Problem(path, message, mend, "at_limit", "warning")
