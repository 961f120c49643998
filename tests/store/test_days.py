"""Days: what is charged to one day's account is in that day's sums, whoever charges, whenever its midnight comes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg

from agentflow.core.decision import LedgerEntry, Spent
from agentflow.core.run import Run
from agentflow.store.admin import create_tenant
from agentflow.store.budgets import set_budget
from agentflow.store.changes import Changes
from agentflow.store.postgres import PostgresStore

WRITERS, AHEAD_S, AFTER_S = 3, 1.2, 0.8


def zone_of_midnight(at: datetime) -> str:
    """A zone whose next midnight is then; PostgreSQL takes offsets to the second, west of Greenwich as positive."""
    ahead = timedelta(days=1) - timedelta(hours=at.hour, minutes=at.minute, seconds=at.second)
    east = ahead if ahead <= timedelta(hours=12) else ahead - timedelta(days=1)
    sign, seconds = ("-", int(east.total_seconds())) if east >= timedelta(0) else ("+", int(-east.total_seconds()))
    return f"<test>{sign}{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


async def test_at_midnight_an_account_and_the_sums_begin_the_same_day(database: Any) -> None:
    tenant = await create_tenant(database.admin, "acme")
    midnight = (datetime.now(UTC) + timedelta(seconds=AHEAD_S)).replace(microsecond=0) + timedelta(seconds=1)
    async with await psycopg.AsyncConnection.connect(database.admin, autocommit=True) as conn:
        await conn.execute("update agentflow.tenants set zone = %s", (zone_of_midnight(midnight),))
        for period in ("day", "total"):
            await set_budget(database.admin, tenant, "tenant", period, limit_micro=None)
        (row,) = await (await conn.execute("select ends_at from agentflow.budgets where period = 'day'")).fetchall()
        assert row[0] == midnight
        until = asyncio.get_running_loop().time() + (midnight - datetime.now(UTC)).total_seconds() + AFTER_S
        settlings = (settling(database, tenant, until) for _ in range(WRITERS))
        counts, _ = await asyncio.gather(asyncio.gather(*settlings), waited_for(conn, midnight))
        found = await conn.execute("select day, sum(cost_micro)::int from agentflow.spend group by 1 order by 1")
        (first, before), (second, after) = await found.fetchall()
        accounts = dict(await (await conn.execute("select period, spent_micro from agentflow.budgets")).fetchall())
    assert second - first == timedelta(days=1)
    assert min(before, after) > WRITERS, "somebody has settled on both days"
    assert accounts == {"day": after, "total": before + after}
    assert sum(counts) == before + after


async def waited_for(conn: psycopg.AsyncConnection[Any], midnight: datetime) -> None:
    """Have whoever settles just before midnight wait for the account until just after."""
    await asyncio.sleep((midnight - datetime.now(UTC)).total_seconds() - 0.2)
    async with conn.transaction():
        await conn.execute("select 1 from agentflow.budgets for update")
        await asyncio.sleep((midnight - datetime.now(UTC)).total_seconds() + 0.2)


async def settling(database: Any, tenant: Any, until: float) -> int:
    """Settle a micro-dollar at a time, as a host does, until then; how many."""
    store = PostgresStore(database.dsn("agentflow_engine"), connections=1)
    await store.open()
    run, done = Run(tenant, uuid4(), "w", None, input={}, created_ms=1, limit_micro=10**9), 0
    made = Changes()
    made.run(run, new=True)
    await store.commit([tenant], made)
    while asyncio.get_running_loop().time() < until:
        done += 1
        run = run.but(rev=run.rev + 1, seq=run.seq + 1)
        made = Changes()
        made.run(run, new=False)
        made.row(run, LedgerEntry(done, 1, "settle", 1, 0, "p"))
        made.row(run, Spent("t", "", "tool", "", "x", "p", (0,) * 5, 0, 1, 0))
        await store.commit([tenant], made)
    await store.close()
    return done


# At midnight in Santiago, Cairo and Beirut, in the middle of the night elsewhere; half an hour on Lord Howe.
ZONES = (
    "Europe/Berlin", "America/Santiago", "Africa/Cairo", "Asia/Beirut", "Australia/Lord_Howe", "America/Havana", "UTC",
)  # fmt: skip
DAYS = """
select count(*), count(distinct (timezone(z, at))::date)
from unnest(%s::text[]) z
cross join generate_series(timestamptz '2026-01-01', timestamptz '2027-01-01', interval '37 minutes') at
cross join lateral (select agentflow.period_end('day', z, at) as ends) e
where not (
  ends > at
  and timezone(z, ends - interval '1 microsecond')::date = timezone(z, at)::date
  and timezone(z, ends)::date = timezone(z, at)::date + 1
)"""

LENGTHS = """
select extract(epoch from agentflow.period_end('day', %(zone)s, at)
                          - timezone(%(zone)s, date_trunc('day', timezone(%(zone)s, at)))) / 3600
from generate_series(timestamptz '2026-01-01 12:00Z', timestamptz '2026-12-31 12:00Z', interval '1 day') at"""


def test_an_account_ends_where_the_day_of_the_sums_does_in_every_zone(database: Any) -> None:
    with psycopg.connect(database.admin) as conn:
        assert conn.execute(DAYS, (list(ZONES),)).fetchone() == (0, 0)
        for zone, hours in (("Africa/Cairo", 23), ("America/Santiago", 25), ("Europe/Berlin", 23)):
            found = {float(row[0]) for row in conn.execute(LENGTHS, {"zone": zone}).fetchall()}
            assert hours in found, (zone, found)
