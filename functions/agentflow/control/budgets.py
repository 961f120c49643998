"""Handlers: a tenant's budgets; and the accounts that a run which is asked for would be charged to."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read_query
from agentflow.control.call import Call, page
from agentflow.core.budgets import TENANT, Account
from agentflow.core.plan import Plan
from agentflow.errors import Exhausted, Rejected


async def list_budgets(call: Call) -> Response:
    """By scope and period: `tenant`, `workflow:<name>` or `budget:<name>`, per day, month or in total."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, _place) if query.cursor else ("", "")
    rows = await call.services.store.budgets(call.tenant, after, query.limit + 1)
    items = [_with_remaining(row) for row in rows[: query.limit]]
    last = cursors.encode(items[-1]["scope"], items[-1]["period"]) if len(rows) > len(items) else None
    return page(shapes.Budgets, items, last)


async def charged(call: Call, plan: Plan, budget: str | None = None) -> list[Account]:
    """The accounts that a run of this workflow would be charged to."""
    named = budget or plan.limits.budget
    scopes = [TENANT, f"workflow:{plan.name}", *([f"budget:{named}"] if named else [])]
    return await call.services.store.accounts(call.tenant, scopes)


async def named(call: Call, plan: Plan, budget: str | None) -> list[Account]:
    """The accounts that a run of this workflow is charged to; ``Rejected`` where there is no budget of that name."""
    if not plan.limits.micro and budget is None:
        return []  # nothing of it costs money
    accounts = await charged(call, plan, budget)
    if budget is not None and all(account.scope != f"budget:{budget}" for account in accounts):
        raise unknown_budget(budget, "budget")
    return accounts


def unknown_budget(name: str, path: str) -> Rejected:
    """There is no named budget that ``path`` of a request names."""
    mend = "list them with GET /v1/budgets, or have an administrator set it"
    return Rejected(f"there is no budget {name!r}", code="unknown_budget", path=path, mend=mend)


def exhausted(account: Account, *, needed_micro: int | None = None, said: str = "") -> Exhausted:
    """The refusal for want of headroom in an account."""
    mend = "have an administrator look at it" if account.frozen else "wait for its next period, or have it raised"
    told = account.told() | ({} if needed_micro is None else {"needed_micro": needed_micro})
    return Exhausted(f"{said}{account.said()}", told, mend=mend)


def _with_remaining(row: dict[str, Any]) -> dict[str, Any]:
    known = ("scope", "period", "limit_micro", "spent_micro", "held_micro", "frozen")
    return {**row, "remaining_micro": Account(*(row[name] for name in known)).left_micro}


def _place(scope: str, period: str) -> tuple[str, str]:
    return str(scope), str(period)
