"""Weeks that are over: dropped when nobody keeps anything of them any more.

Of a week that somebody keeps, others' rows are deleted by key; in steps and history that is what leftovers are for.
"""

from __future__ import annotations

import asyncio
import random
from uuid import UUID

import structlog

from agentflow.core.retention import cutoff, released, waits_for_week
from agentflow.observe import retention as metrics
from agentflow.runtime.old_runs import PAST
from agentflow.runtime.sweep import Sweep
from agentflow.store.retention import FIRST_ENTRY, Locked, Row, Week

log = structlog.get_logger(__name__)
TRIES = 20


async def drop_run_weeks(sweep: Sweep) -> None:
    """Drop weeks of steps and history in which no run was born that is still there."""
    for week in list(sweep.weeks):
        if week.table not in ("steps", "history") or week.until + PAST > sweep.now:
            continue
        if not await sweep.tenants_with_runs(week.since, week.until):
            await _drop(sweep, week)


async def end_weeks(sweep: Sweep) -> None:
    """Drop weeks of the ledger and the inbox that nobody keeps, and empty those that somebody keeps."""
    for week in list(sweep.weeks):
        if week.table in ("ledger", "inbox") and week.until + PAST <= sweep.now:
            await _end(sweep, week)


async def _end(sweep: Sweep, week: Week) -> None:
    ages = [sweep.age(tenant) for tenant in sweep.ages] or [sweep.default]
    if not any(_over(sweep, week, _days(week, age)) for age in ages):
        return  # nobody's time is over: there is nothing to look at
    holders = await sweep.store.tenants_in(week)
    over = [tenant for tenant in holders if _over(sweep, week, _days(week, sweep.age(tenant)))]
    if len(over) == len(holders) and not await _late(sweep, week, over):
        await _drop(sweep, week)
        return
    release = released(week.until + PAST, [_days(week, sweep.age(tenant)) for tenant in holders])
    if waits_for_week(sweep.now, release, sweep.patience):
        return
    for tenant in over:
        if sweep.only in (None, tenant):
            await (_empty_ledger if week.table == "ledger" else _empty_inbox)(sweep, week, tenant)


def _days(week: Week, age: object) -> int | None:
    days: int | None = getattr(age, week.table)
    return days


def _over(sweep: Sweep, week: Week, days: int | None) -> bool:
    release = released(week.until, [days])
    return release is not None and release <= sweep.now


async def _late(sweep: Sweep, week: Week, tenants: list[UUID]) -> bool:
    """Whether the ledger's week has an entry that is younger than the week, or of a run that is still there."""
    if week.table != "ledger":
        return False
    for tenant in tenants:
        before = cutoff(sweep.now, sweep.age(tenant).ledger)
        if before is not None and await sweep.store.has_late_entry(tenant, week, before):
            return True
    return False


async def _drop(sweep: Sweep, week: Week) -> None:
    """Drop a partition. Everybody waits for us while we wait for them: so we wait for moments only, but often."""
    if not sweep.dry:
        for _ in range(TRIES):
            try:
                async with sweep.turn():
                    await sweep.store.drop(week)
                break
            except Locked:
                await asyncio.sleep(random.uniform(0.05, 0.5))
        else:
            log.warning("a partition is in use, and will be dropped later", partition=week.name)
            sweep.report.complete = False
            return
        log.info("partition dropped", partition=week.name, bytes=week.bytes)
        metrics.removed(week.table, week.rows)
        metrics.freed(week.bytes)
        sweep.weeks.remove(week)
    sweep.report.dropped.append(week)


async def _empty_inbox(sweep: Sweep, week: Week, tenant: UUID) -> None:
    if sweep.dry:
        sweep.went(tenant, "inbox", await sweep.store.count_inbox(tenant, week))
        return
    rows = -1
    while rows:
        async with sweep.turn():
            rows = await sweep.store.delete_inbox(tenant, week)
        sweep.went(tenant, "inbox", rows)


async def _empty_ledger(sweep: Sweep, week: Week, tenant: UUID) -> None:
    before = cutoff(sweep.now, sweep.age(tenant).ledger)
    place: Row | None = dict(FIRST_ENTRY)
    assert before is not None
    while place is not None:
        async with sweep.turn():
            if sweep.dry:
                rows, place = await sweep.store.count_entries(tenant, week, before), None
            else:
                rows, place = await sweep.store.delete_entries(tenant, week, before, place)
        sweep.went(tenant, "ledger", rows)
