"""Which tasks of a plan may cost money, and how often each may start at most: once for each plan, not for each run."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from agentflow.core import worst
from agentflow.core.bound import Bound, number
from agentflow.core.money import tool_hold, tool_price
from agentflow.core.plan import Plan, Task
from agentflow.core.types import JSON, zero

MAX_PLANS = 500
MAX_WORK = 200_000
"""Nodes or states times tasks that may be looked at; a larger plan's tasks count as started once a run."""

Starts = Mapping[str, Bound]

_known: OrderedDict[tuple[str, frozenset[str]], Starts] = OrderedDict()


def is_costly(plan: Plan, task: Task, told: Iterable[str] = ()) -> bool:
    """Whether a start of a task of the document may be billed for. A model's is, whatever its price is just now; a
    tool's where the workflow says so, or its tenant was ``told``."""
    if task.kind == "tool":
        return task.use in told or tool_hold(tool_price(None, plan, task), task) > 0
    return task.kind in ("llm", "agent") or (task.kind == "workflow" and bool(task.price_cap_micro))


def starts(plan: Plan, told: Iterable[str] = ()) -> Starts:
    """By costly task how often one run starts it at most, retries aside. ``told``: tools that the tenant has a price of
    its own for."""
    key = (plan.hash, frozenset(told))
    found = _known.get(key)
    if found is None:
        names = [task.name for task in plan.tasks.values() if not task.part_of and is_costly(plan, task, told)]
        found = _known[key] = {name: _starts(plan, name, len(names)) for name in sorted(names)}
        if len(_known) > MAX_PLANS:
            _known.popitem(last=False)
    return found


def counted(plan: Plan, tasks: int) -> bool:
    """Whether the plan is small enough for the starts of its costly tasks (so many) to be counted."""
    size = len(plan.tree.nodes) if plan.tree else len(plan.machine.states) if plan.machine else 0
    return size * tasks <= MAX_WORK


def _starts(plan: Plan, name: str, tasks: int) -> Bound:
    if not counted(plan, tasks):
        return number(1)
    return worst.worst(plan, lambda task: int(task.name == name))


def first_values(plan: Plan, given: Mapping[str, JSON]) -> dict[str, JSON]:
    """What a run's inputs and variables are when it begins."""
    return {name: given.get(name, zero(type_)) for name, type_ in {**plan.input, **plan.vars}.items()}


def moving(plan: Plan, given: Mapping[str, JSON], told: Iterable[str] = ()) -> dict[str, int]:
    """Of ``starts`` those that depend on the inputs, for these."""
    values = None
    found = {}
    for name, bound in starts(plan, told).items():
        if not bound.fixed:
            values = values or first_values(plan, given)
            found[name] = bound.at(values)
    return found
