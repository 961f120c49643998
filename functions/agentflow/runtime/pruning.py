"""One sweep: archive and remove what has been kept long enough. Automatic and by hand alike.

    runs           archived if asked for, then removed; their rows in steps and history are noted as left over
    weeks          of steps and history in which no run is left: dropped
    audit          entries that only name runs that are gone lose their data
    leftovers      key by key, where their week stays for others
    ledger, inbox  weeks that nobody keeps any more: dropped; of weeks that somebody keeps, others' rows key by key
    parked, blobs  key by key
    spend          day by day; days that are over are folded

Each step leaves a state from which the next sweep goes on, whatever ends this one: its time, a fault, a crash.
"""

from __future__ import annotations

import random

from agentflow.runtime.old_blobs import remove_blobs, remove_parked
from agentflow.runtime.old_days import fold_spend, remove_spend
from agentflow.runtime.old_runs import empty_audit, empty_leftovers, remove_runs
from agentflow.runtime.old_weeks import drop_run_weeks, end_weeks
from agentflow.runtime.sweep import OutOfTime, Report, Sweep

MEASURED = ("runs", "parked", "blobs", "spend", "run_spend")


async def prune(sweep: Sweep) -> Report:
    """Do it all; the report says what went, or would go in a dry run, and whether anything is left to do.

    Raises ``RetryLater`` when PostgreSQL or the archive is away; what went until then is gone for good.
    """
    everybody = list((await sweep.store.tenants(sweep.default)).items())
    random.shuffle(everybody)  # when time is short, nobody is always last
    sweep.ages = dict(everybody)
    sweep.weeks = await sweep.store.weeks()
    sweep.row_bytes = {table: await sweep.store.row_bytes(table) for table in MEASURED}
    sweep.row_bytes |= {table: _mean(sweep, table) for table in ("steps", "history", "ledger", "inbox")}
    try:
        await remove_runs(sweep)
        await drop_run_weeks(sweep)
        if not sweep.dry:
            await empty_audit(sweep)
        if sweep.report.complete and not sweep.dry:
            await empty_leftovers(sweep)
        await end_weeks(sweep)
        await remove_parked(sweep)
        await remove_blobs(sweep)
        await remove_spend(sweep)
        if not sweep.dry:
            await fold_spend(sweep)
    except OutOfTime:
        sweep.report.complete = False
    return sweep.report


def _mean(sweep: Sweep, table: str) -> int:
    counted = [week for week in sweep.weeks if week.table == table and week.rows]
    return sum(week.bytes for week in counted) // max(sum(week.rows for week in counted), 1)
