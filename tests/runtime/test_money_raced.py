"""Many steps, several processes, one budget: exactly what fits is admitted, and never more, not for a moment."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import psycopg
from house import House, eventually
from test_money_killed import FarSide, host

from agentflow.store.budgets import set_budget

RUNS, ADMITTED, PRICE, PROCESSES = 1_000, 100, 500, 3
ONE = {
    "agentflow": "plan/v1", "kind": "bt", "name": "one", "limits": {"steps": 2, "usd": 0.01, "budget": "team"},
    "tasks": {"ready": {"kind": "wait", "for": "3s"}, "pay": {"kind": "tool", "use": "std.echo", "usd": PRICE / 1e6}},
    "root": {"sequence": ["ready", "pay"]},  # all are planned before anything is spent, and pay at the same time
}  # fmt: skip
SAMPLE = """
select bool_and(spent_micro + held_micro <= limit_micro) as within,
       bool_and(spent_micro >= 0 and held_micro >= 0) as above,
       max(spent_micro + held_micro) as most
from agentflow.budgets"""


async def test_what_fits_is_admitted_and_no_more(house: House) -> None:
    await house.register(ONE)
    limits = {("tenant", "total"): ADMITTED, ("workflow:one", "day"): 3 * ADMITTED}
    limits["budget:team", "month"] = 2 * ADMITTED
    for (scope, period), count in limits.items():
        await set_budget(house.database.admin, house.tenant, scope, period, limit_micro=count * PRICE)
    before = await deadlocks(house)
    samples: list[Any] = []
    async with AsyncExitStack() as stack:
        for _ in range(PROCESSES):
            await stack.enter_async_context(host(house, FarSide(), "never", 0))
        sampling = asyncio.create_task(sampled(house, samples))
        async with house.host(("api",), relay=False) as door:
            runs = asyncio.gather(*(house.submit(door, "one", version=1) for _ in range(RUNS)))
            await runs
        await eventually(lambda: all_over(house), within_s=120)
        sampling.cancel()
    assert len(samples) > 20
    assert all(within and above for within, above, _ in samples)
    assert max(most for _, _, most in samples) == ADMITTED * PRICE
    ended = await house.rows("select status, count(*)::int as n from runs group by 1 order by 1")
    assert ended == [{"status": "failed", "n": RUNS - ADMITTED}, {"status": "succeeded", "n": ADMITTED}]
    accounts = await house.rows("select distinct spent_micro, held_micro from budgets")
    assert accounts == [{"spent_micro": ADMITTED * PRICE, "held_micro": 0}]
    (ledger,) = await house.rows("select sum(amount_micro)::int as n from ledger where entry = 'settle'")
    assert ledger["n"] == ADMITTED * PRICE
    assert await deadlocks(house) == before


async def sampled(house: House, samples: list[Any]) -> None:
    """Look at the accounts as often as one can."""
    async with await psycopg.AsyncConnection.connect(house.database.admin, autocommit=True) as conn:
        while True:
            samples.append(await (await conn.execute(SAMPLE)).fetchone())
            await asyncio.sleep(0.005)


async def all_over(house: House) -> bool:
    (row,) = await house.rows("select count(*)::int as n from runs where finished_at is not null")
    return row["n"] == RUNS


async def deadlocks(house: House) -> int:
    (row,) = await house.rows("select deadlocks from pg_stat_database where datname = current_database()")
    return int(row["deadlocks"])
