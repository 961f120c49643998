"""The pipeline: one round trip, all or nothing, usable after an error and gone after a broken connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg import errors as pg

from agentflow.store.pipeline import Pool
from agentflow.store.statements import statements

SQL = statements(
    {
        "add": b"insert into numbers (n) select c.n from unnest(%b::int[]) as c (n)",
        "all": b"select n from numbers order by n",
        "divide": b"select 1 / %b::int",
        "long": b"select repeat('x', %b::int)",
        "echo": b"select c.t from unnest(%b::text[]) as c (t)",
    }
)


@pytest.fixture
async def pool(database: Any) -> AsyncIterator[Pool]:
    with psycopg.connect(database.admin, autocommit=True) as conn:
        conn.execute("create table numbers (n int primary key)")
    pool = Pool(database.admin, size=2)
    yield pool
    await pool.close()


async def numbers(pool: Pool) -> list[int]:
    async with pool.pipeline() as pipeline:
        (result,) = await pipeline.run([SQL["all"].call(())])
        return [n for (n,) in pipeline.rows(result)]


async def test_what_is_sent_together_is_one_transaction(pool: Pool) -> None:
    async with pool.pipeline() as pipeline:
        await pipeline.run([*SQL["add"].calls([(1,)]), *SQL["add"].calls([(2,), (3,), (4,)])])
        with pytest.raises(pg.DivisionByZero):
            await pipeline.run(
                [*SQL["add"].calls([(5,)]), SQL["divide"].call((0,)), *SQL["add"].calls([(6,)])]
            )
        assert not pipeline.in_transaction
        # What was not prepared because of the error is prepared when it is needed.
        await pipeline.run([SQL["long"].call((1,)), *SQL["add"].calls([(7,)])])
    assert await numbers(pool) == [1, 2, 3, 4, 7]


async def test_more_than_a_socket_takes_goes_both_ways_at_once(pool: Pool) -> None:
    text = "x" * 400_000
    async with pool.pipeline() as pipeline:
        results = await pipeline.run([SQL["echo"].call((text,)) for _ in range(40)])
        assert [pipeline.rows(result) for result in results] == [[(text,)]] * 40


def end_all(database: Any) -> None:
    """As a server that is restarted does; returns when all are gone."""
    with psycopg.connect(database.admin, autocommit=True) as conn:
        conn.execute(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()"
        )


async def test_a_connection_that_was_closed_meanwhile_is_not_handed_out(pool: Pool, database: Any) -> None:
    async with pool.pipeline(), pool.pipeline() as pipeline:
        await pipeline.run(SQL["add"].calls([(1,)]))
    end_all(database)
    assert await numbers(pool) == [1]


async def test_a_connection_that_breaks_in_use_is_replaced(pool: Pool, database: Any) -> None:
    async with pool.pipeline() as pipeline:
        await asyncio.to_thread(end_all, database)
        with pytest.raises(psycopg.OperationalError):
            await pipeline.run(SQL["add"].calls([(1,)]))
    assert await numbers(pool) == []


async def test_a_call_that_is_given_up_closes_its_connection(pool: Pool) -> None:
    """Nobody knows what is still under way on it."""
    slow = statements({"slow": b"select pg_sleep(10)"})["slow"]
    async with pool.pipeline() as pipeline:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pipeline.run([slow.call(())])
        assert not pipeline.usable
    assert await numbers(pool) == []
