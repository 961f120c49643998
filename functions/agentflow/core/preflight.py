"""Whether a run is started, for all doors: not where nothing is left of what its calls would cost, and not where it may
cost more than there is and its workflow says `preflight: refuse`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from agentflow.core.budgets import Account
from agentflow.core.costly import starts
from agentflow.core.estimate import NOTHING_DONE, Tariff, at_most
from agentflow.core.money import tool_hold
from agentflow.core.plan import TURN, Plan, Task, part_name
from agentflow.core.price import is_free
from agentflow.core.types import JSON

REFUSE, WARN = "refuse", "warn"
REJECT = "reject"
WORKFLOW = "workflow:"
CODE = "estimate_exceeds_budget"


class Worst(NamedTuple):
    """What a run may cost at most by its plan (None: it has no bound, and ``why``), and what would mend that."""

    micro: int | None
    why: str = ""
    mend: str = ""

    def exceeds(self, there_is: int) -> bool:
        return self.micro is None or self.micro > there_is

    def said(self, there_is: int, whose: str) -> str:
        """The refusal, with both numbers."""
        if self.micro is None:
            return f"what the run may cost has no bound, and {whose} has {there_is} micro-dollars left: {self.why}"
        return f"the run may cost up to {self.micro} micro-dollars, but {whose} has {there_is} left"

    def mending(self, raise_what: str) -> str:
        return self.mend if self.micro is None else f"{raise_what}, lower max_tokens or retries, or bound loops closer"


def exhausted(plan: Plan, tariff: Tariff, accounts: Iterable[Account]) -> Account | None:
    """The account that has nothing left for any call of the run that costs money. None where there is none, and where a
    task waits for headroom or asks a person, as a run that it starts may do for itself."""
    empty = next((account for account in accounts if not account.admits(1)), None)
    if empty is None:
        return None
    costly = [task for name in starts(plan, tariff.tools) if _costs(plan, task := plan.tasks[name], tariff)]
    rejects = all(_rejects(plan, task, empty) for task in costly)
    return empty if costly and rejects else None


def _rejects(plan: Plan, task: Task, empty: Account) -> bool:
    """Whether a start of the task is refused where an account is empty. What is held for a run that it starts counts
    for this workflow's account alone; the others are charged with that run's own calls."""
    charged = task.kind != "workflow" or empty.scope.startswith(WORKFLOW)
    return charged and (task.at_limit or plan.limits.at_limit) == REJECT


def _costs(plan: Plan, task: Task, tariff: Tariff) -> bool:
    """Whether a start of the task holds something at these prices."""
    if task.kind == "tool":
        return tool_hold(tariff.tool(plan, task), task) > 0
    if task.kind == "workflow":
        return True  # its usd is held, whatever prices are
    asking = plan.tasks[part_name(task.name, TURN)] if task.agent is not None else task
    return not any(is_free(tariff.models[alias]) for alias in asking.aliases)


def worst_case(
    plan: Plan, tariff: Tariff, given: Mapping[str, JSON], done: Mapping[str, int] = NOTHING_DONE
) -> Worst | None:
    """The worst case of a run with these inputs; None where nobody asks for it, or nothing costs anything. ``done``: by
    task how many starts another run has paid for."""
    if not plan.limits.preflight or not starts(plan, tariff.tools):
        return None
    micro, free = at_most(plan, tariff, given, done)
    if micro is not None:
        return Worst(micro)
    return Worst(None, f"{free[0].path}: {free[0].message}", free[0].mend)
