"""Budgets, set by an administrator: with the DSN that migrations are run with, as no role that serves requests may."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agentflow.core.budgets import MAX_MICRO, checked_period, checked_scope
from agentflow.errors import Rejected
from agentflow.store.admin import administering, unknown_tenant
from agentflow.store.queries import load

SQL = load("budgets.sql")


async def set_budget(
    admin_dsn: str,
    tenant: UUID,
    scope: str,
    period: str,
    *,
    limit_micro: int | None,
    soft_micro: int | None = None,
    thaw: bool = False,
) -> dict[str, Any]:
    """Set a scope's limits for a period, as a whole, and return the row as it is now; ``thaw`` lifts a freeze.

    A limit below what is spent and held admits nothing more until enough is settled or the period ends; what is held
    by then goes on. A new account begins with what is held in its scope, and with what its period has spent there, as
    far back as sums are kept (``agentflow retention``).
    """
    checked_scope(scope)
    checked_period(period)
    for name, value in (("limit", limit_micro), ("soft", soft_micro)):
        if value is not None and not 0 <= value <= MAX_MICRO:
            mend = f"give from 0 to {MAX_MICRO} micro-dollars"
            raise Rejected("is not an amount", code="bad_amount", path=name, mend=mend)
    if limit_micro is not None and soft_micro is not None and soft_micro > limit_micro:
        mend = "make it at most the limit"
        raise Rejected("is more than the limit: nobody would be warned", code="bad_amount", path="soft", mend=mend)
    key = {"tenant": tenant, "scope": scope, "period": period}
    values = {**key, "limit": limit_micro, "soft": soft_micro, "thaw": thaw}
    async with administering(admin_dsn) as conn:
        done = await conn.execute(SQL["change_budget"], values)
        if not done.rowcount:
            # Whoever charges a budget locks the table until it is committed: from here on nobody does, and what is held
            # is known.
            await conn.execute(SQL["lock_budgets"])
            made = await conn.execute(SQL["make_budget"], values)
            if not made.rowcount:
                raise unknown_tenant(tenant)
        found = await conn.execute(SQL["read_budget"], key)
        names = [column.name for column in found.description or ()]
        row = await found.fetchone()
        assert row is not None
        return dict(zip(names, row, strict=True))


async def remove_budget(admin_dsn: str, tenant: UUID, scope: str, period: str) -> bool:
    """Limit a scope no longer in a period; whether it was. What waited for it tries again."""
    checked_scope(scope)
    checked_period(period)
    async with administering(admin_dsn) as conn:
        done = await conn.execute(SQL["remove_budget"], {"tenant": tenant, "scope": scope, "period": period})
        return done.rowcount == 1


async def set_zone(admin_dsn: str, tenant: UUID, zone: str) -> None:
    """The zone whose days and months a tenant's periods are. The periods at hand end with those of the new zone."""
    async with administering(admin_dsn) as conn:
        known = await conn.execute(SQL["find_zone"], {"zone": zone})
        if await known.fetchone() is None:
            mend = "use a name such as Europe/Berlin"
            raise Rejected(f"{zone[:100]!r} is not a time zone", code="bad_zone", path="zone", mend=mend)
        done = await conn.execute(SQL["set_zone"], {"tenant": tenant, "zone": zone})
        if done.rowcount != 1:
            raise unknown_tenant(tenant)
