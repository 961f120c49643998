"""Sums of what was spent on days that nobody keeps any more, and on days that are over: these need one row each."""

from __future__ import annotations

from datetime import date, timedelta
from uuid import UUID

from agentflow.core.retention import cutoff
from agentflow.runtime.sweep import Sweep

TABLES = ("spend", "run_spend")
OVER = timedelta(days=2)
"""A day that began so long ago is over wherever a tenant is: nobody adds to it any more."""


async def fold_spend(sweep: Sweep) -> None:
    """Fold what each connection has added up for itself into one row, day by day; reports read a sixteenth then."""
    before = (sweep.now - OVER).date()
    for tenant in sweep.tenants:
        for table in TABLES:
            rows = -1
            while rows:
                async with sweep.turn():
                    rows = await sweep.store.fold_spend(table, tenant, before)


async def remove_spend(sweep: Sweep) -> None:
    """Remove them day by day; a day counts as the tenant's own has it."""
    for tenant in sweep.tenants:
        before = cutoff(sweep.now, sweep.age(tenant).spend)
        if before is not None:
            for table in TABLES:
                await _remove(sweep, table, tenant, before.date())


async def _remove(sweep: Sweep, table: str, tenant: UUID, before: date) -> None:
    if sweep.dry:
        sweep.went(tenant, table, await sweep.store.count_spend(table, tenant, before))
        return
    rows = -1
    while rows:
        async with sweep.turn():
            rows = await sweep.store.delete_spend(table, tenant, before)
        sweep.went(tenant, table, rows)
