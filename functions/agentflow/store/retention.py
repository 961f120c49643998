"""The keeper's store: what is old is looked at by its keys and removed, a thousand rows per transaction at most.

Logs in as agentflow_keeper, which sees every tenant's keys and nobody's content.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import date, datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors as pg
from psycopg.rows import dict_row

from agentflow.core.retention import Ages
from agentflow.errors import Rejected, RetryLater
from agentflow.store.queries import load

SQL = load("retention.sql")
ROWS = 1_000
"""Most rows that one transaction removes."""
LOOK = 2_000
"""Most runs that one statement looks at."""
LEFT = ("steps", "history")
"""Where a removed run leaves rows."""
SYSTEM = UUID(int=0)
FIRST_RUN = ("-infinity", UUID(int=2**128 - 1))
FIRST_ENTRY = {"born": "-infinity", "run": UUID(int=0), "step": 0, "attempt": 0, "entry": ""}
# As the engine's: a plan that looks up by key is right for any table, one that scans is right for empty ones only. And
# made anew each time, for tables as large as they are and for the one week that is meant.
PLANNING = """
set timezone = 'UTC';
set lock_timeout = '500ms';
set statement_timeout = '60s';
set plan_cache_mode = force_custom_plan;
set enable_seqscan = off;
set enable_bitmapscan = off;
set enable_hashjoin = off;
set enable_mergejoin = off;
"""
BUSY = (pg.LockNotAvailable, pg.DeadlockDetected)

Row = dict[str, Any]
RunKey = tuple[datetime | str, UUID]


class OldRun(NamedTuple):
    """A run that may go, as it was looked at: ``rev`` says whether somebody has written to it since."""

    id: UUID
    created_at: datetime
    steps: int
    seq: int
    rev: int


class Week(NamedTuple):
    """A partition: one week of one table, its size in bytes and about how many rows it has."""

    table: str
    name: str
    since: datetime
    until: datetime
    bytes: int
    rows: int


class Locked(Exception):
    """Somebody was in the way for longer than we want to keep others waiting: try again later."""


class RetentionStore:
    """One connection of the keeper's. Open with ``keeping``; every method is one transaction."""

    def __init__(self, conn: psycopg.AsyncConnection[Row]) -> None:
        self._conn = conn

    async def lead(self) -> tuple[datetime, bool]:
        """The database's time, and whether this connection keeps house from here on: one at a time does."""
        row = await self._one("lead")
        return row["clock_timestamp"], bool(row["pg_try_advisory_lock"])

    async def provide(self, weeks: int) -> int:
        """See to it that there are partitions for this week and those to come; how many were made."""
        return int((await self._one("provide", weeks=weeks))["provide_partitions"])

    async def last_done(self, chore: str) -> tuple[datetime, str] | None:
        """When a chore was last done by anybody, and what was noted then."""
        rows = await self._all("last_done", tenant=SYSTEM, chore=chore)
        return (rows[0]["done_at"], rows[0]["detail"]) if rows else None

    async def mark_done(self, chore: str, detail: str = "") -> None:
        await self._run("mark_done", tenant=SYSTEM, chore=chore, detail=detail)

    async def tenants(self, default: Ages) -> dict[UUID, Ages]:
        """Every tenant, and how long its rows are kept."""
        return {row["tenant_id"]: default.with_own(row) for row in await self._all("tenants")}

    async def weeks(self) -> list[Week]:
        """Every partition but the default ones, oldest first."""
        return [Week(**row) for row in await self._all("partitions")]

    async def row_bytes(self, table: str) -> int:
        """About what a row of a table takes, with its indexes; 0 where nobody has counted yet."""
        row = await self._one("row_bytes", table=table)
        return int(row["bytes"]) if row["rows"] > 0 else 0

    async def drop(self, week: Week) -> None:
        """Drop a partition. ``Locked`` when it can't be had at once."""
        await self._run("drop_partition", name=week.name)

    # -- runs ------------------------------------------------------------------------------------------

    async def old_runs(
        self, tenant: UUID, before: datetime, after: RunKey
    ) -> tuple[list[OldRun], RunKey | None]:
        """Of the next runs after a place, oldest first, those that may go; and the place where to go on, if any."""
        rows = await self._all(
            "look_at_runs", tenant=tenant, before=before, at=after[0], run=after[1], limit=LOOK
        )
        due = [OldRun(r["run_id"], r["created_at"], r["steps"], r["seq"], r["rev"]) for r in rows if r["due"]]
        more = (rows[-1]["created_at"], rows[-1]["run_id"]) if len(rows) == LOOK else None
        return due, more

    async def remove_runs(self, tenant: UUID, before: datetime, runs: Sequence[OldRun]) -> set[UUID]:
        """Remove runs that nobody has written to since; their other rows are noted as left over."""
        named = {"runs": [run.id for run in runs], "revs": [run.rev for run in runs]}
        rows = await self._all("remove_runs", tenant=tenant, before=before, **named)
        return {row["run_id"] for row in rows}

    async def tenants_with_runs(self, since: datetime, until: datetime) -> list[UUID]:
        """Who has runs that were created in between."""
        rows = await self._all("tenants_with_runs", since=since, until=until)
        return [row["tenant_id"] for row in rows]

    async def next_leftover(self, tenant: UUID, born: datetime | str) -> tuple[UUID, datetime] | None:
        """The first run (tenant, creation time) at or after a place whose rows have still to go."""
        rows = await self._all("next_leftover", tenant=tenant, born=born)
        return (rows[0]["tenant_id"], rows[0]["born"]) if rows else None

    async def leftovers(self, tenant: UUID, since: datetime, until: datetime) -> list[tuple[datetime, UUID]]:
        """Runs of one week (creation time, id) whose rows have still to go: as many as fill a transaction."""
        key = {"tenant": tenant, "since": since, "until": until, "limit": ROWS // 3, "fill": ROWS}
        return [(row["born"], row["run_id"]) for row in await self._all("read_leftovers", **key)]

    async def empty(self, tenant: UUID, runs: Sequence[tuple[datetime, UUID]]) -> Counter[str]:
        """Delete what these runs have left in steps and history, at most a thousand rows of each; a run of which
        nothing is left is forgotten. How many rows of each table went. One transaction, one round trip."""
        gone: Counter[str] = Counter()
        deleted: list[tuple[str, psycopg.AsyncCursor[Row]]] = []
        try:
            async with self._conn.pipeline(), self._conn.transaction():
                for born, run in runs:
                    key = {"tenant": tenant, "born": born, "run": run, "limit": ROWS - 1}
                    deleted += [(t, await self._conn.execute(SQL[f"delete_{t}"], key)) for t in LEFT]
                    await self._conn.execute(SQL["forget_leftover"], key)
        except BUSY as fault:
            raise Locked(str(fault).strip()) from fault
        for table, cursor in deleted:
            gone[table] += cursor.rowcount
        return gone

    async def has_rows(self, tenant: UUID, since: datetime, until: datetime) -> bool:
        """Whether a tenant has anything in steps or history of a week."""
        return bool(await self._all("any_row", tenant=tenant, since=since, until=until))

    async def forget_week(self, tenant: UUID, since: datetime, until: datetime) -> int:
        """Forget up to a thousand runs whose week has no rows any more; how many."""
        return await self._run("forget_week", tenant=tenant, since=since, until=until, limit=ROWS)

    # -- ledger, inbox -----------------------------------------------------------------------------------

    async def tenants_in(self, week: Week) -> list[UUID]:
        """Who has rows in a week of the ledger or the inbox."""
        rows = await self._all(f"{week.table}_tenants", since=week.since, until=week.until)
        return [row["tenant_id"] for row in rows]

    async def has_late_entry(self, tenant: UUID, week: Week, before: datetime) -> bool:
        """Whether one of a tenant's entries of that week is to be kept all the same."""
        key = {"tenant": tenant, "since": week.since, "until": week.until, "before": before}
        return bool(await self._all("late_entry", **key))

    async def delete_entries(
        self, tenant: UUID, week: Week, before: datetime, after: Row
    ) -> tuple[int, Row | None]:
        """Look at the next thousand entries of a tenant's week and delete the old ones; how many, and the last."""
        rows = await self._all(
            "delete_entries",
            tenant=tenant,
            since=week.since,
            until=week.until,
            before=before,
            limit=ROWS,
            **after,
        )
        if not rows:
            return 0, None
        last = rows[0]
        return int(last.pop("rows")), last

    async def delete_inbox(self, tenant: UUID, week: Week) -> int:
        """Forget up to a thousand of a tenant's events of a week."""
        key = {"tenant": tenant, "since": week.since, "until": week.until, "limit": ROWS}
        return int((await self._one("delete_inbox", **key))["rows"])

    # -- audit -------------------------------------------------------------------------------------------

    async def empty_audit(self, tenant: UUID, before: datetime) -> int:
        """Drop the data of up to fifty of a tenant's entries of which no run is left; how many it were."""
        return int((await self._one("empty_audit", tenant=tenant, before=before, limit=50))["rows"])

    # -- parked, blobs -----------------------------------------------------------------------------------

    async def delete_parked(self, tenant: UUID, before: datetime) -> int:
        """Drop up to a thousand messages that were parked before then."""
        return int((await self._one("delete_parked", tenant=tenant, before=before, limit=ROWS))["rows"])

    async def unused_blobs(
        self, tenant: UUID, before: datetime, after: tuple[datetime | str, str]
    ) -> list[tuple[str, datetime]]:
        """Blobs (reference, last use) that no run and no workflow refers to and nobody has asked for since."""
        rows = await self._all(
            "unused_blobs", tenant=tenant, before=before, at=after[0], ref=after[1], limit=ROWS // 2
        )
        return [(row["ref"], row["used_at"]) for row in rows]

    async def delete_blobs(self, tenant: UUID, before: datetime, refs: Sequence[str]) -> int:
        """Delete those of these blobs that still are unused."""
        return await self._run("delete_blobs", tenant=tenant, before=before, refs=list(refs))

    # -- spend -------------------------------------------------------------------------------------------

    async def delete_spend(self, table: str, tenant: UUID, before: date) -> int:
        """Delete the first day of a tenant's sums (spend, run_spend) that is before then; how many rows."""
        return await self._run(f"delete_{table}", tenant=tenant, before=before)

    async def fold_spend(self, table: str, tenant: UUID, before: date) -> int:
        """Fold the shards of the first day of a tenant's sums before then that has several; how many rows went."""
        return int((await self._one(f"fold_{table}", tenant=tenant, before=before))["rows"])

    async def count_spend(self, table: str, tenant: UUID, before: date) -> int:
        """How many rows ``delete_spend`` would delete in the end."""
        return int((await self._one(f"count_{table}", tenant=tenant, before=before))["rows"])

    # -- dry runs ----------------------------------------------------------------------------------------

    async def count_entries(self, tenant: UUID, week: Week, before: datetime) -> int:
        """How many entries ``delete_entries`` would delete."""
        key = {"tenant": tenant, "since": week.since, "until": week.until, "before": before}
        return int((await self._one("count_entries", **key))["rows"])

    async def count_inbox(self, tenant: UUID, week: Week) -> int:
        """How many events ``delete_inbox`` would forget."""
        key = {"tenant": tenant, "since": week.since, "until": week.until}
        return int((await self._one("count_inbox", **key))["rows"])

    async def count_parked(self, tenant: UUID, before: datetime) -> int:
        """How many messages ``delete_parked`` would drop."""
        return int((await self._one("count_parked", tenant=tenant, before=before))["rows"])

    # -- statements --------------------------------------------------------------------------------------

    async def _run(self, statement: str, **values: Any) -> int:
        try:
            return (await self._conn.execute(SQL[statement], values)).rowcount
        except BUSY as fault:
            raise Locked(str(fault).strip()) from fault

    async def _all(self, statement: str, **values: Any) -> list[Row]:
        try:
            return await (await self._conn.execute(SQL[statement], values)).fetchall()
        except BUSY as fault:
            raise Locked(str(fault).strip()) from fault

    async def _one(self, statement: str, **values: Any) -> Row:
        (row,) = await self._all(statement, **values)
        return row


@asynccontextmanager
async def keeping(keeper_dsn: str) -> AsyncIterator[RetentionStore]:
    """A connection of the keeper's. ``RetryLater`` when the server is away or goes away."""
    try:
        async with await psycopg.AsyncConnection.connect(
            keeper_dsn, autocommit=True, row_factory=dict_row, application_name="agentflow-keeper"
        ) as conn:
            await conn.execute(PLANNING)
            yield RetentionStore(conn)
    except (pg.InvalidSchemaName, pg.UndefinedTable, pg.UndefinedFunction) as fault:
        raise Rejected(
            "the database has an older schema", code="not_migrated", mend="agentflow migrate"
        ) from fault
    except (psycopg.OperationalError, psycopg.InterfaceError) as fault:
        raise RetryLater(f"PostgreSQL: {str(fault).strip() or type(fault).__name__}") from fault
