"""Whole runs, row by row, for the archive; and what messages on the road still refer to.

Reads as agentflow_engine behind its walls, one tenant at a time, in a transaction that sees one moment and writes
nothing.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg

from agentflow.errors import RetryLater
from agentflow.store.queries import load

SQL = load("run_rows.sql")
TABLES = ("runs", "steps", "history", "ledger")
AT_ONCE = 500  # rows that are in memory
PLANNING = """
set timezone = 'UTC';
set default_transaction_isolation = 'repeatable read';
set default_transaction_read_only = on;
set plan_cache_mode = force_custom_plan;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
"""


class RunRows:
    """One connection, one tenant per transaction. Open with ``reading``."""

    def __init__(self, conn: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._conn = conn

    async def of(
        self, tenant: UUID, week: tuple[datetime, datetime], runs: Sequence[tuple[datetime, UUID]]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """(table, row as JSON) of runs (creation time, id) of one week: by table, then by run, then by key.

        The same runs give the same lines, as long as nobody writes to them.
        """
        runs = sorted(runs)
        key = {
            "tenants": [tenant] * len(runs), "since": week[0], "until": week[1],
            "borns": [born for born, _ in runs], "runs": [run for _, run in runs],
        }  # fmt: skip
        async with self._one_moment(tenant):
            for table in TABLES:
                async with self._conn.cursor(name=table) as cursor:
                    cursor.itersize = AT_ONCE
                    await cursor.execute(SQL[table], key)
                    async for (line,) in cursor:
                        yield table, line.encode()

    async def refs(self, tenant: UUID, runs: Sequence[UUID]) -> list[str]:
        """The blobs these runs refer to."""
        return await self._column(tenant, "refs", tenants=[tenant] * len(runs), runs=list(runs))

    async def blob(self, tenant: UUID, ref: str) -> bytes | None:
        """A blob's content."""
        found = await self._column(tenant, "blob", ref=ref)
        return bytes(found[0]) if found else None

    async def refs_on_the_road(self, tenant: UUID, inline: int) -> set[str]:
        """Blobs that a message still needs: data of more than ``inline`` bytes travels as one."""
        return set(await self._column(tenant, "refs_on_the_road", inline=inline))

    async def _column(self, tenant: UUID, statement: str, **values: Any) -> list[Any]:
        async with self._one_moment(tenant):
            rows = await (await self._conn.execute(SQL[statement], {"tenant": tenant, **values})).fetchall()
            return [value for (value,) in rows]

    @asynccontextmanager
    async def _one_moment(self, tenant: UUID) -> AsyncIterator[None]:
        async with self._conn.transaction():
            await self._conn.execute(SQL["name_tenant"], {"tenant": tenant})
            yield


@asynccontextmanager
async def reading(engine_dsn: str) -> AsyncIterator[RunRows]:
    """A connection for reading whole runs. ``RetryLater`` when the server is away or goes away."""
    try:
        async with await psycopg.AsyncConnection.connect(
            engine_dsn, autocommit=True, application_name="agentflow-archive"
        ) as conn:
            await conn.execute(PLANNING)
            yield RunRows(conn)
    except (psycopg.OperationalError, psycopg.InterfaceError) as fault:
        raise RetryLater(f"PostgreSQL: {str(fault).strip() or type(fault).__name__}") from fault
