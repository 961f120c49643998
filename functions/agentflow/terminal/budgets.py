"""Commands about budgets: what is left of them, setting them, and a tenant's time zone."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.administration import admin_dsn, tenant_named
from agentflow.terminal.amounts import micro
from agentflow.terminal.client import all_pages, api

TITLES = ("scope", "period", "limit", "soft", "spent", "held", "remaining", "resets at", "")
LISTED = "list what there is with: agentflow budgets"


async def show_budgets(settings: Settings, scope: str, *, as_json: bool) -> None:
    """List budgets, or those of one scope; ``Rejected`` where that has none."""
    from agentflow.core.budgets import checked_scope

    async with api(settings) as client:
        scope = checked_scope(scope) if scope else ""
        items = [item for item in await all_pages(client, "/v1/budgets") if scope in ("", item["scope"])]
    if scope and not items:
        raise Rejected(f"{scope} has no budget", code="not_found", path="scope", mend=LISTED)
    if as_json:
        output.print_json(items)
    else:
        output.print_table(TITLES, [_cells(item) for item in items], "there are no budgets")


async def run_set_budget(
    settings: Settings,
    database: str,
    tenant: str,
    scope: str,
    period: str,
    usd: float | None,
    soft: float | None,
    *,
    thaw: bool,
    as_json: bool,
) -> None:
    """Set what a scope may spend in a period, and say what is left of it."""
    from agentflow.store.budgets import set_budget

    limit_micro, soft_micro = micro(usd), micro(soft, "--soft")
    async with admin_dsn(settings, database) as dsn:
        row = await set_budget(
            dsn, tenant_named(tenant), scope, period, limit_micro=limit_micro, soft_micro=soft_micro, thaw=thaw
        )
    if as_json:
        resets_at = row["resets_at"]
        output.print_json({**row, "resets_at": resets_at.isoformat() if resets_at else None})
        return
    limit, taken = row["limit_micro"], row["spent_micro"] + row["held_micro"]
    per = "in total" if period == "total" else f"per {period}"
    said = f"{scope}: {dollars(limit)} {per}" if limit is not None else f"{scope}: counted {per}, without a limit"
    if limit is not None and taken > limit:
        said += f"; {dollars(taken)} are spent or held already: nothing more is admitted until it is less"
    print(said)


async def run_remove_budget(
    settings: Settings, database: str, tenant: str, scope: str, period: str, *, as_json: bool
) -> None:
    """Limit a scope no longer."""
    from agentflow.store.budgets import remove_budget

    async with admin_dsn(settings, database) as dsn:
        if not await remove_budget(dsn, tenant_named(tenant), scope, period):
            raise Rejected(f"{scope} has no budget per {period}", code="not_found", path="scope", mend=LISTED)
    if as_json:
        output.print_json({"scope": scope, "period": period, "removed": True})
    else:
        print(f"{scope} has no budget per {period} any more")


async def run_set_zone(settings: Settings, database: str, tenant: str, zone: str, *, as_json: bool) -> None:
    """Set a tenant's time zone."""
    from agentflow.store.budgets import set_zone

    async with admin_dsn(settings, database) as dsn:
        await set_zone(dsn, tenant_named(tenant), zone)
    if as_json:
        output.print_json({"tenant": str(tenant_named(tenant)), "zone": zone})
    else:
        print(f"days and months are those of {zone}")


def dollars(amount: int | None) -> str:
    """Micro-dollars as people read them."""
    if amount is None:
        return ""
    text = f"{amount / 1_000_000:,.6f}".rstrip("0")
    whole, _, rest = text.partition(".")
    return f"${whole}.{rest:0<2}"


def _cells(item: dict[str, Any]) -> list[str]:
    names = ("limit_micro", "soft_micro", "spent_micro", "held_micro", "remaining_micro")
    amounts = [dollars(item[name]) for name in names]
    frozen = "frozen" if item["frozen"] else ""
    return [item["scope"], item["period"], *amounts, output.utc(item["resets_at"]), frozen]
