"""Old runs: archived, removed, and what is left of them deleted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from uuid import UUID

from agentflow.core.retention import released, waits_for_week, week_of
from agentflow.runtime.sweep import Sweep
from agentflow.store.retention import FIRST_RUN, Locked, OldRun, RunKey

CHUNK_RUNS, CHUNK_ROWS = 400, 20_000
"""What is archived as one object and removed in one transaction (a run is two rows there, its steps go later)."""
PAST = timedelta(days=1)
"""A week is over a day after its end: clocks and long transactions may be late."""


async def remove_runs(sweep: Sweep) -> None:
    """Remove what is old of every tenant, by turns. From then on these runs are gone for everybody."""
    places: dict[UUID, RunKey] = {tenant: FIRST_RUN for tenant in sweep.tenants if sweep.runs_before(tenant)}
    while places:
        for tenant, place in list(places.items()):
            before = sweep.runs_before(tenant)
            assert before is not None
            async with sweep.turn():
                old, more = await sweep.store.old_runs(tenant, before, place)
            for chunk in chunks(old):
                async with sweep.turn():
                    await _remove(sweep, tenant, before, chunk)
            if more is None:
                del places[tenant]
            else:
                places[tenant] = more


async def _remove(sweep: Sweep, tenant: UUID, before: datetime, runs: Sequence[OldRun]) -> None:
    went = runs
    if not sweep.dry:
        if sweep.archiver is not None:
            keys = [(run.created_at, run.id) for run in runs]
            manifest = await sweep.archiver.keep(tenant, week_of(runs[0].created_at), keys)
            sweep.report.archived_bytes += manifest.bytes
        try:
            gone = await sweep.store.remove_runs(tenant, before, runs)
        except Locked:
            gone = set()
        went = [run for run in runs if run.id in gone]
        sweep.report.complete &= len(went) == len(runs)
    steps, lines = sum(run.steps for run in went), sum(run.seq for run in went)
    sweep.removed_runs(tenant, len(went), steps, lines)


async def empty_audit(sweep: Sweep) -> None:
    """Forget what the audit chain names of runs that are all gone; the chain itself stays."""
    for tenant in sweep.tenants:
        before = sweep.runs_before(tenant)
        while before is not None:
            async with sweep.turn():
                if not await sweep.store.empty_audit(tenant, before):
                    break


def chunks(runs: Sequence[OldRun]) -> Iterator[list[OldRun]]:
    """Runs in pieces of one week each that are not too large. The same runs give the same pieces."""
    piece: list[OldRun] = []
    rows = 0
    for run in runs:
        own = run.steps + run.seq
        same_week = not piece or week_of(run.created_at) == week_of(piece[0].created_at)
        if piece and (not same_week or len(piece) == CHUNK_RUNS or rows + own > CHUNK_ROWS):
            yield piece
            piece, rows = [], 0
        piece.append(run)
        rows += own
    if piece:
        yield piece


async def empty_leftovers(sweep: Sweep) -> None:
    """Delete what is left of removed runs key by key, but for weeks that will soon be dropped as a whole."""
    place: tuple[UUID, datetime | str] = (UUID(int=0), "-infinity")
    while (found := await sweep.store.next_leftover(*place)) is not None:
        tenant, born = found
        since, until = week_of(born)
        if not await _waits(sweep, since, until):
            await _empty(sweep, tenant, (since, until))
        place = (tenant, until)


async def _waits(sweep: Sweep, since: datetime, until: datetime) -> bool:
    if not any(week.since == since and week.table in ("steps", "history") for week in sweep.weeks):
        return False  # dropped already, or it never had partitions of its own
    holders = await sweep.tenants_with_runs(since, until)
    if not holders and until + PAST <= sweep.now:
        return True  # it was in use just now
    release = released(until + PAST, [sweep.age(tenant).runs for tenant in holders])
    return waits_for_week(sweep.now, release, sweep.patience)


async def _empty(sweep: Sweep, tenant: UUID, week: tuple[datetime, datetime]) -> None:
    if not await sweep.store.has_rows(tenant, *week):  # it was dropped
        forgotten = 1
        while forgotten:
            async with sweep.turn():
                forgotten = await sweep.store.forget_week(tenant, *week)
        return
    while runs := await sweep.store.leftovers(tenant, *week):
        async with sweep.turn():
            gone = await sweep.store.empty(tenant, runs)
        for table, rows in gone.items():
            sweep.deleted(table, rows)
