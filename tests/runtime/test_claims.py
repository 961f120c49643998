"""Claims, against the database: one claimant, as long as the request is open, and what others find."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentflow.core.message import Message
from agentflow.store.admin import create_tenant
from agentflow.store.postgres import PostgresStore

RUN = UUID(int=7)


class Yard:
    """A tenant with one open request."""

    def __init__(self, store: PostgresStore, admin: str, tenant: UUID) -> None:
        self.store = store
        self.admin = admin
        self.twin = (tenant, RUN, "1.1", "run_tool")

    async def open(self) -> None:
        tenant, run, key, consumer = self.twin
        await self.store.restore(Message("tool.requested", tenant, run, key, {}), consumer, b'{"epoch": 3}')

    async def claim(self, claimant: UUID, *, epoch: int = 3, ms: int = 60_000) -> tuple[bool, bool] | None:
        found = await self.store.claim([(*self.twin, epoch, claimant, ms)])
        return next(((claimed.mine, claimed.alive) for claimed in found.values()), None)

    async def due_s(self) -> float:
        query = "select extract(epoch from due_at - clock_timestamp()) from agentflow.outbox"
        async with await psycopg.AsyncConnection.connect(self.admin) as conn:
            row: Any = await (await conn.execute(query)).fetchone()
        return float(row[0])


@pytest.fixture
async def yard(database: Any) -> AsyncIterator[Yard]:
    store = PostgresStore(database.dsn("agentflow_engine"))
    await store.open()
    yard = Yard(store, database.admin, await create_tenant(database.admin, "acme"))
    await yard.open()
    yield yard
    await store.close()


ONE, TWO = uuid4(), uuid4()


async def test_the_first_has_it_and_finds_it_his_when_he_asks_again(yard: Yard) -> None:
    assert await yard.claim(ONE) == (True, True)
    assert await yard.claim(ONE) == (True, True)  # its answer may have been lost
    assert await yard.claim(TWO) == (False, True)
    assert 55 < await yard.due_s() < 61  # and nobody is asked before it is over


async def test_of_many_at_once_one_has_it(yard: Yard) -> None:
    found = await asyncio.gather(*(yard.claim(uuid4()) for _ in range(12)))
    assert sorted(filter(None, found)) == [(False, True)] * 11 + [(True, True)]


async def test_a_claim_that_nobody_renews_is_over_and_never_anybody_elses(yard: Yard) -> None:
    assert await yard.claim(ONE, ms=100) == (True, True)
    await asyncio.sleep(0.15)
    assert await yard.claim(TWO) == (False, False)
    assert await yard.claim(TWO) == (False, False)
    tenant, run, key, _ = yard.twin
    await yard.store.postpone([(*yard.twin, 60_000)], [(tenant, run, key, TWO, 60_000)])
    assert await yard.claim(TWO) == (False, False)  # it is not TWO's to renew
    await yard.store.postpone([(*yard.twin, 60_000)], [(tenant, run, key, ONE, 60_000)])
    assert await yard.claim(TWO) == (False, True)


async def test_nobody_claims_what_is_not_asked_for_any_more_or_in_another_epoch(yard: Yard) -> None:
    assert await yard.claim(ONE, epoch=2) is None
    await yard.store.consume([yard.twin])
    assert await yard.claim(ONE) is None


async def test_a_request_that_was_parked_and_is_restored_is_still_claimed(yard: Yard) -> None:
    assert await yard.claim(ONE, ms=1) == (True, True)
    await yard.store.consume([yard.twin])
    await yard.open()
    assert await yard.claim(TWO) == (False, False)
