"""Every SQL statement of the rows, run as the superuser: what became of runs, and many more of them.

When the schema changes, this is the one file to look at.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg import sql
from psycopg.types.json import Json

from agentflow.wire.catalogue import CATALOGUE, make
from agentflow.wire.event import Event

# What belongs to one run, parents first. The outbox and the inbox are empty for a run that is at rest.
OF_A_RUN = ("runs", "steps", "history", "ledger", "timers", "subscriptions")
BIRTH = ("created_at", "born")  # of a run, in its own row and in those that belong to it
CLONES_AT_ONCE = 50_000


class Database:
    """One database of the house."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(
            self.dsn, autocommit=True, options="-c search_path=agentflow"
        )

    async def rows(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        async with await self.connect() as conn:
            return await (await conn.execute(query, params)).fetchall()

    async def value(self, query: str, *params: Any) -> Any:
        ((value,),) = await self.rows(query, *params)
        return value

    # -- before --------------------------------------------------------------------------------------

    async def register(self, tenant: UUID, name: str, digest: str, document: Mapping[str, Any]) -> None:
        """Put version 1 of a workflow into the registry, as the API does."""
        async with await self.connect() as conn:
            await conn.execute(
                "insert into workflows (tenant_id, name, version, hash, document) values (%s, %s, 1, %s, %s)",
                (tenant, name, digest, Json(document)),
            )

    async def open_account(self, tenant: UUID) -> None:
        """Give the tenant a budget: without one, nothing is charged."""
        async with await self.connect() as conn:
            await conn.execute(
                "insert into budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 1000000000000)",
                (tenant,),
            )

    async def wipe(self) -> None:
        """Forget all runs."""
        tables = sql.SQL(", ").join(map(sql.Identifier, (*OF_A_RUN, "outbox")))
        async with await self.connect() as conn:
            await conn.execute(sql.SQL("truncate {}").format(tables))

    async def clone(self, run: UUID, count: int) -> None:
        """Add ``count`` runs that are as ``run`` is, row for row, under ids of their own, each a millisecond older.

        Foreign keys are not checked again for each row: a copy refers to what its original refers to.
        """
        async with await self.connect() as conn:
            await conn.execute("set session_replication_role = replica")
            await conn.execute("create temp table clones (run_id uuid, age interval)")
            while count > 0:
                # Oldest first, as they would have come.
                first = max(1, count - CLONES_AT_ONCE + 1)
                await conn.execute("truncate clones")
                await conn.execute(
                    """insert into clones select gen_random_uuid(), n * interval '1 millisecond'
                       from generate_series(%s, %s, -1) n""",
                    (count, first),
                )
                for table in OF_A_RUN:
                    await self._copy(conn, table, run)
                count = first - 1

    async def _copy(self, conn: psycopg.AsyncConnection[Any], table: str, run: UUID) -> None:
        query = """select column_name from information_schema.columns
                   where table_schema = 'agentflow' and table_name = %s and column_name <> 'run_id'
                     and is_generated = 'NEVER'"""
        found = await (await conn.execute(query, (table,))).fetchall()
        columns = sql.SQL(", ").join(sql.Identifier(name) for (name,) in found)
        copies = sql.SQL(
            "insert into {table} (run_id, {columns}) select c.run_id, {theirs} "
            "from clones c cross join {table} t where t.run_id = %s"
        )
        theirs = sql.SQL(", ").join(
            sql.SQL("{} - c.age").format(sql.Identifier("t", name))
            if name in BIRTH
            else sql.Identifier("t", name)
            for (name,) in found
        )
        await conn.execute(copies.format(table=sql.Identifier(table), columns=columns, theirs=theirs), (run,))

    async def settle_down(self) -> None:
        """Have done what autovacuum and the disk would do sooner or later: it is not part of what is measured."""
        async with await self.connect() as conn:
            await conn.execute("vacuum analyze")
            await conn.execute("checkpoint")
        await asyncio.to_thread(os.sync)

    async def size_mb(self) -> int:
        return int(await self.value("select pg_database_size(current_database()) / 1048576"))

    # -- after ---------------------------------------------------------------------------------------

    async def totals(self) -> dict[str, int]:
        """What must be there afterwards: nothing lost, nothing twice, nothing open."""
        query = """
            select (select count(*) from runs where status = 'succeeded'),
                   (select count(*) from steps where status = 'succeeded'),
                   (select count(*) from ledger where entry = 'settle'),
                   (select count(*) from outbox where consumer <> 'facts')"""
        (found,) = await self.rows(query)
        return dict(zip(("runs", "steps", "settled", "open"), found, strict=True))

    async def status(self, run: UUID) -> str | None:
        found = await self.rows("select status from runs where run_id = %s", run)
        return found[0][0] if found else None

    async def errors(self) -> list[Any]:
        """Why runs have failed."""
        return [
            error for (error,) in await self.rows("select error from runs where status = 'failed' limit 3")
        ]

    async def results(self, run: UUID) -> int:
        """Steps of a run that have their one result."""
        query = "select count(distinct step) from steps where run_id = %s and status = 'succeeded'"
        return int(await self.value(query, run))

    async def succeeded(self, workflow: str) -> int:
        query = "select count(*) from runs where workflow = %s and status = 'succeeded'"
        return int(await self.value(query, workflow))

    async def last_end(self, workflow: str) -> float:
        """When the last run of a workflow ended: seconds since 1970, by the database's clock."""
        query = "select extract(epoch from max(finished_at))::float8 from runs where workflow = %s"
        return float(await self.value(query, workflow))

    async def took_ms(self, runs: Sequence[UUID]) -> list[float]:
        """From the acceptance of each run to its end."""
        query = """select extract(epoch from finished_at - created_at)::float8 * 1000 from runs
                   where run_id = any (%s) and status = 'succeeded'"""
        return [took for (took,) in await self.rows(query, list(runs))]

    async def step_ms(self, runs: Sequence[UUID]) -> list[float]:
        """Between one decision of a run and the next, in order: in a series, that is a step's whole time."""
        query = """
            select ms from (
              select run_id, seq, name,
                     extract(epoch from at - lag(at) over (partition by run_id order by seq))::float8 * 1000 as ms
              from history where run_id = any (%s)
            ) h where name = 'step.completed' order by run_id, seq"""
        return [ms for (ms,) in await self.rows(query, list(runs))]

    async def steps_of(self, run: UUID) -> int:
        return int(await self.value("select steps from runs where run_id = %s", run))

    async def waiting(self, run: UUID, consumer: str) -> Event:
        """The event of a run that waits for a function."""
        query = "select tenant_id, key, name, data, trace from outbox where run_id = %s and consumer = %s"
        ((tenant, key, name, data, trace),) = await self.rows(query, run, consumer)
        producer = CATALOGUE[name].producers[0]
        sent = {"source_function": producer, "time": datetime.now(UTC), "traceparent": trace}
        return make(name, run=run, key=key, tenant=tenant, data=data, **sent)

    # -- timers --------------------------------------------------------------------------------------

    async def pending_timers(self) -> int:
        return int(await self.value("select count(*) from timers"))

    async def due(self, workflow: str) -> dict[UUID, float]:
        """When the pending wait of each run of a workflow is due: seconds since 1970."""
        query = """select run_id, extract(epoch from fire_at)::float8 from timers join runs using (tenant_id, run_id)
                   where kind = 'wait' and workflow = %s"""
        return dict(await self.rows(query, workflow))

    async def make_due(self, workflow: str, after_s: float) -> None:
        """Have the pending waits of a workflow's runs all be due at the same instant."""
        async with await self.connect() as conn:
            await conn.execute(
                """with instant as materialized (select clock_timestamp() + %s * interval '1 second' as at)
                   update timers t set fire_at = instant.at from instant, runs r
                   where t.kind = 'wait' and r.tenant_id = t.tenant_id and r.run_id = t.run_id and r.workflow = %s""",
                (after_s, workflow),
            )

    async def woken(self, workflow: str) -> dict[UUID, float]:
        """When the wait of each run of a workflow was decided to be over: seconds since 1970."""
        query = """select run_id, extract(epoch from completed_at)::float8
                   from steps join runs using (tenant_id, run_id)
                   where kind = 'wait' and workflow = %s and steps.status = 'succeeded'"""
        return dict(await self.rows(query, workflow))

    # -- what the server did -------------------------------------------------------------------------

    async def transactions(self) -> int:
        """Transactions that have ended in this database. A session counts its own at its end, or 10 s late."""
        query = "select xact_commit + xact_rollback from pg_stat_database where datname = current_database()"
        return int(await self.value(query))

    async def log_statements(self) -> None:
        """Have the server log every statement of a function, the API or the relay from its next session on."""
        async with await self.connect() as conn:
            for role in ("agentflow_engine", "agentflow_api", "agentflow_relay"):
                await conn.execute(
                    sql.SQL("alter role {} set log_statement = 'all'").format(sql.Identifier(role))
                )

    async def writes(self) -> int:
        """Transactions that have written something, in this whole server, so far."""
        return int(await self.value("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint"))
