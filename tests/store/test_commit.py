"""One round trip, all or nothing: a run is written upon the rev it was decided upon, or the batch is not written."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentflow.core.decision import LedgerEntry
from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.store.changes import Changes
from agentflow.store.postgres import PostgresStore, Raced

TENANT = uuid4()


@pytest.fixture
async def store(database: Any) -> Any:
    async with await psycopg.AsyncConnection.connect(database.admin) as conn:
        await conn.execute("insert into agentflow.tenants (tenant_id, name) values (%s, 'a')", (TENANT,))
        await conn.execute(
            "insert into agentflow.budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 100)",
            (TENANT,),
        )
    store = PostgresStore(database.dsn("agentflow_engine"))
    await store.open()
    yield store
    await store.close()


def changes(*runs: Run, new: bool = False) -> Changes:
    made = Changes()
    for run in runs:
        made.run(run, new=new)
    # A row beside the runs: it must come and go with them.
    message = Message("run.planned", TENANT, runs[0].id, f"k{uuid4()}", {})
    made.request(message, "dispatch", b"{}", 60_000)
    return made


def a_run(number: int) -> Run:
    return Run(TENANT, UUID(int=number), "w", None, input={}, created_ms=1_700_000_000_000)


async def written(database: Any) -> tuple[list[Any], int]:
    async with await psycopg.AsyncConnection.connect(database.admin) as conn:
        runs = await (await conn.execute("select run_id, rev, seq from agentflow.runs order by 1")).fetchall()
        outbox = await (await conn.execute("select count(*) from agentflow.outbox")).fetchone()
    assert outbox is not None
    return runs, outbox[0]


@pytest.mark.parametrize("count", [1, 2, 5], ids=["one", "few", "many"])
async def test_who_writes_upon_an_old_rev_writes_nothing(
    store: PostgresStore, database: Any, count: int
) -> None:
    runs = [a_run(number) for number in range(count)]
    await store.commit([TENANT], changes(*runs, new=True))
    known = [run.but(rev=1) for run in runs]
    await store.commit([TENANT], changes(*(run.but(seq=1) for run in known)))
    before = await written(database)
    assert before == ([(run.id, 2, 1) for run in runs], 2)
    # All but one are as they were read.
    stale = [run.but(rev=2, seq=2) for run in runs[1:]] + [known[0].but(seq=2)]
    with pytest.raises(Raced):
        await store.commit([TENANT], changes(*stale))
    assert await written(database) == before
    await store.commit([TENANT], changes(*(run.but(rev=2, seq=2) for run in runs)))
    assert (await written(database))[0] == [(run.id, 3, 2) for run in runs]


async def test_a_run_that_is_gone_is_a_race_too(store: PostgresStore, database: Any) -> None:
    with pytest.raises(Raced):
        await store.commit([TENANT], changes(a_run(1)))
    assert await written(database) == ([], 0)


async def test_a_run_that_is_there_is_not_new(store: PostgresStore, database: Any) -> None:
    await store.commit([TENANT], changes(a_run(1), new=True))
    with pytest.raises(Raced):
        await store.commit([TENANT], changes(a_run(1), a_run(2), new=True))
    assert await written(database) == ([(UUID(int=1), 1, 0)], 1)


async def test_a_budget_refuses_what_was_decided_without_looking(store: PostgresStore, database: Any) -> None:
    run = a_run(1)
    await store.commit([TENANT], changes(run, new=True))
    run = run.but(rev=1)

    def holding(amount: int) -> Changes:
        made = changes(run)
        made.row(run, LedgerEntry(1, 1, "hold", amount, amount, "p"))
        return made

    with pytest.raises(Raced):
        await store.commit([TENANT], holding(101))
    async with await psycopg.AsyncConnection.connect(database.admin) as conn:
        await conn.execute("update agentflow.budgets set frozen = true")
    with pytest.raises(Raced):  # a frozen account takes no holds, whatever its limit
        await store.commit([TENANT], holding(1))
    assert await written(database) == ([(run.id, 1, 0)], 1)
    async with await psycopg.AsyncConnection.connect(database.admin) as conn:
        await conn.execute("update agentflow.budgets set frozen = false")
    await store.commit([TENANT], holding(100))
    assert (await written(database))[0] == [(run.id, 2, 0)]
