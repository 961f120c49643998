"""Databases with a past: runs of long ago, put there by SQL as the engine leaves them; and sweeps over them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

from agentflow.archive import open_archive
from agentflow.core.retention import Ages
from agentflow.runtime.archiving import Archiver
from agentflow.runtime.pruning import prune
from agentflow.runtime.sweep import Report, Sweep
from agentflow.store.retention import keeping
from agentflow.store.run_rows import reading

NOW = datetime.now(UTC)
DAY = timedelta(days=1)

RUNS = """
insert into agentflow.runs (tenant_id, run_id, workflow, status, seq, steps, input, created_at, finished_at,
                            limit_micro, held_micro)
select %(tenant)s, r, 'w', case when %(ended)s::timestamptz is null then 'running' else 'succeeded' end, %(steps)s,
       %(steps)s, %(input)s::json, date_trunc('milliseconds', %(born)s::timestamptz), %(ended)s, 1000, %(held)s
from unnest(%(runs)s::uuid[]) r
"""
ROWS = """
insert into agentflow.steps (tenant_id, born, run_id, step, attempt, epoch, task, kind, status, requested_at, output)
select tenant_id, created_at, run_id, n, 1, 0, 't', 'tool', 'succeeded', created_at, '{"text": "done"}'
from agentflow.runs, generate_series(1, %(steps)s) n where run_id = any (%(runs)s);
insert into agentflow.history (tenant_id, born, run_id, seq, name, data, hash, at)
select tenant_id, created_at, run_id, n, 'step.completed', '{"step": 1}', 'h', created_at
from agentflow.runs, generate_series(1, %(steps)s) n where run_id = any (%(runs)s);
insert into agentflow.ledger (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, at)
select tenant_id, created_at, run_id, 1, 1, 'settle', 5, 0, 'p', created_at
from agentflow.runs where run_id = any (%(runs)s);
"""


class Past:
    """A database in which things can be put as if they had happened long ago. Times are in days before today."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.conn = psycopg.connect(database.admin, autocommit=True)

    def provide(self, days_ago: float) -> None:
        """See to it that there are partitions for that day's week."""
        at = NOW - days_ago * DAY
        self.one("select agentflow.provide_partitions(%s, %s)", at, at + timedelta(seconds=1))

    def close(self) -> None:
        self.conn.close()

    def tenant(self, **ages: str) -> UUID:
        """A tenant, and what it has set: ``runs="30d"``."""
        tenant = uuid4()
        self.conn.execute("insert into agentflow.tenants values (%s, 'somebody')", (tenant,))
        if ages:
            values = (tenant, *(ages.get(kind) for kind in ("runs", "ledger", "inbox", "parked", "spend")))
            columns = "(tenant_id, runs, ledger, inbox, parked, spend)"
            self.conn.execute(f"insert into agentflow.retention {columns} values (%s, %s, %s, %s, %s, %s)", values)
        return tenant

    def runs(
        self,
        tenant: UUID,
        days_ago: float,
        count: int = 1,
        *,
        steps: int = 2,
        ended: bool = True,
        held: int = 0,
        took: timedelta = timedelta(minutes=1),
        given: str = "{}",
    ) -> list[UUID]:
        """Runs that began so many days ago, each with steps, history and one entry in the ledger."""
        self.provide(days_ago)
        born = NOW - days_ago * DAY
        made = [uuid4() for _ in range(count)]
        values = {
            "tenant": tenant, "runs": made, "steps": steps, "input": given, "born": born,
            "ended": born + took if ended else None, "held": held,
        }  # fmt: skip
        self.conn.execute(RUNS, values)
        for statement in ROWS.split(";\n")[:-1]:
            self.conn.execute(statement, values)
        return made

    def one(self, query: str, *params: Any) -> Any:
        """The first column of the first row."""
        row = self.conn.execute(query, params).fetchone()
        assert row is not None
        return row[0]

    def column(self, query: str, *params: Any) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.conn.execute(query, params).fetchall()]

    def rows_of(self, run: UUID) -> dict[str, int]:
        """How many rows a run has in each table."""
        return {
            table: self.one(f"select count(*) from agentflow.{table} where run_id = %s", run)
            for table in ("runs", "steps", "history", "ledger")
        }

    def partitions(self, table: str) -> list[str]:
        """The names of a table's partitions, the default one left out."""
        return self.column(
            "select relname from pg_class where relispartition and relkind = 'r' and relname like %s order by 1",
            f"{table}\\_2%",
        )


def week(days_ago: float) -> str:
    """The name of the week so many days ago."""
    year, number, _ = (NOW - days_ago * DAY).isocalendar()
    return f"{year}w{number:02}"


@pytest.fixture
def past(database: Any) -> Iterator[Past]:
    """A database of this test's own."""
    made = Past(database)
    yield made
    made.close()


@asynccontextmanager
async def sweeping(past: Past, ages: Ages, archive: str = "", **changes: Any) -> Any:
    dsn = past.database.dsn
    async with keeping(dsn("agentflow_keeper")) as store, reading(dsn("agentflow_engine")) as rows:
        now, leads = await store.lead()
        assert leads
        place = open_archive(archive)
        archiver = Archiver(rows, place) if place is not None else None
        deadline = asyncio.get_running_loop().time() + 60
        yield Sweep(store, rows, archiver, ages, now, **{"deadline": deadline, "rest": 0.0, **changes})


async def swept(past: Past, ages: Ages | None = None, archive: str = "", **changes: Any) -> Report:
    async with sweeping(past, ages or Ages(), archive, **changes) as at_hand:
        return await prune(at_hand)
