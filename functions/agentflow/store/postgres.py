"""The engine's store: load what a batch concerns, save what was decided, one transaction, two round trips."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import psycopg
from psycopg import errors as pg
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool

from agentflow.core.decision import Headroom
from agentflow.core.message import Message
from agentflow.core.run import Run, unpack_state
from agentflow.errors import RetryLater
from agentflow.store.arrays import column_types, columns, register
from agentflow.store.changes import Changes, Twin, dump
from agentflow.store.queries import load

SQL = load("queries.sql")
TYPES = {name: column_types(statement) for name, statement in SQL.items()}
SYSTEM = UUID(int=0)  # the operator's own tenant
# Statements in the order that keeps every foreign key satisfied and every lock after the runs' locks.
ORDER = (
    "leave_inbox",
    "insert_steps",
    "close_steps",
    "insert_history",
    "insert_ledger",
    "set_timers",
    "clear_timers",
    "end_timers",
    "subscribe",
    "unsubscribe",
    "end_subscriptions",
    "insert_blobs",
    "delete_outbox",
    "insert_outbox",
)
# Every statement looks rows up by key, a batch of them at a time. Its plan is made once per connection, and must not
# depend on how empty the tables were then: a plan that scans is right for ten rows and ruinous for a million.
PLANNING = (
    "plan_cache_mode = force_generic_plan",
    "enable_seqscan = off",
    "enable_hashjoin = off",
    "enable_mergejoin = off",
    "enable_bitmapscan = off",
)
PASSING = (pg.DeadlockDetected, pg.SerializationFailure, psycopg.OperationalError, psycopg.InterfaceError)


class Raced(Exception):
    """Another transaction was first (a run with the same id, a budget's last cent): load and decide again."""


@dataclass(slots=True)
class Loaded:
    """What a batch is decided upon: the database's clock, the locked runs and the tenants' headroom."""

    now_ms: int
    runs: dict[UUID, Run]
    headroom: dict[UUID, Headroom] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message to be parked: where it came from, why it could not be handled, and all it takes to try again."""

    tenant: UUID
    id: UUID
    consumer: str
    subject: str
    reason: str
    headers: Mapping[str, str]
    payload: bytes
    tries: int
    twin: Twin | None = None


class Transaction:
    """One transaction of the engine over the tenants it names. Use through ``PostgresStore.transaction``."""

    __slots__ = ("_conn", "_tenants")

    def __init__(self, conn: psycopg.AsyncConnection[Any], tenants: Sequence[UUID]) -> None:
        self._conn = conn
        self._tenants = sorted(tenants)

    async def load(self, keys: Iterable[tuple[UUID, UUID]]) -> Loaded:
        """Lock and read the runs (tenant, run) that exist, in one round trip."""
        ordered = sorted(keys, key=lambda key: key[1])
        named = "{" + ",".join(map(str, self._tenants)) + "}"
        async with self._conn.pipeline():
            clock = await self._query("name_tenants", (named,))
            locked = await self._rows("lock_runs", ordered)
            budgets = await self._rows("read_budgets", [(tenant,) for tenant in self._tenants])
            row = await clock.fetchone()
            runs = {found[1]: _run(found) for found in await locked.fetchall()}
            headroom = {found[0]: Headroom(*found[1:]) for found in await budgets.fetchall()}
        assert row is not None
        return Loaded(row[1], runs, headroom)

    async def save(self, changes: Changes) -> None:
        """Write everything and commit, in one round trip. Raises ``Raced`` when the batch must be decided again."""
        new = [run for key, run in changes.runs.items() if key in changes.new_runs]
        old = [run for key, run in changes.runs.items() if key not in changes.new_runs]
        inserted = None
        try:
            async with self._conn.pipeline():
                if new:
                    rows = [(*_columns(run), dump(run.input), run.request_hash, run.trace) for run in new]
                    inserted = await self._rows("insert_runs", rows)
                if old:
                    await self._rows("update_runs", [_columns(run) for run in old])
                for statement in ORDER:
                    if collected := changes.tables.get(statement):
                        await self._rows(statement, collected)
                if changes.budgets:
                    charges = [(tenant, *account) for tenant, account in sorted(changes.budgets.items())]
                    await self._rows("charge_budgets", charges)
                if new:
                    await self._conn.execute(
                        b"select 1"
                    )  # the counts below are known before the commit is sent
                else:
                    await self._conn.commit()
            if inserted is not None:
                if inserted.rowcount != len(new):
                    raise Raced
                await self._conn.commit()
        except pg.CheckViolation as over:
            if over.diag.constraint_name == "never_over":
                raise Raced from over
            raise

    async def enter_inbox(self, rows: Sequence[tuple[UUID, str, str]]) -> set[tuple[UUID, str, str]]:
        """Of (tenant, consumer, event id): those that had not been handled yet, now marked so."""
        found = await self._rows("enter_inbox", sorted(rows))
        return set(await found.fetchall())

    async def workflow(
        self, tenant: UUID, name: str, version: int | None
    ) -> tuple[int, Mapping[str, Any]] | None:
        """A workflow's version and document; the newest where no version is named."""
        found = await self._query("read_workflow", (tenant, name, version, version))
        row: tuple[int, Mapping[str, Any]] | None = await found.fetchone()
        return row

    async def triggers(self, tenant: UUID, event_type: str) -> list[tuple[str, int]]:
        """Workflows (name, version) that an event of this type starts."""
        return await (await self._query("read_triggers", (tenant, event_type))).fetchall()

    async def subscribers(self, tenant: UUID, event_type: str) -> list[tuple[UUID, int]]:
        """Steps (run, step) that wait for an event of this type."""
        return await (await self._query("read_subscribers", (tenant, event_type))).fetchall()

    async def step_inputs(
        self, keys: Sequence[tuple[UUID, UUID, int, int]]
    ) -> dict[tuple[UUID, int], Mapping[str, Any]]:
        """Inputs by (run, step) of the attempts (tenant, run, step, attempt)."""
        rows = await (await self._rows("read_step_inputs", keys)).fetchall()
        return {(run, step): given for run, step, given in rows}

    async def _rows(self, name: str, rows: Sequence[Sequence[Any]]) -> psycopg.AsyncCursor[Any]:
        """A set-wise statement over rows."""
        types = TYPES[name]
        return await self._query(name, columns(types, rows) if rows else [kind(()) for kind in types])

    async def _query(self, name: str, params: Sequence[Any]) -> psycopg.AsyncCursor[Any]:
        cursor = self._conn.cursor(binary=True)
        return await cursor.execute(SQL[name], params, prepare=True)


class PostgresStore:
    """Connections of role agentflow_engine. Open late, close once; survives restarts of the server."""

    def __init__(self, dsn: str, *, connections: int = 4) -> None:
        self._pool = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=connections,
            open=False,
            configure=_configure,
            name="engine",
            reconnect_timeout=0,
            num_workers=1,
        )

    async def open(self) -> None:
        """Connect. ``RetryLater`` when the server can't be reached."""
        await self._pool.open()
        async with self.transaction([SYSTEM]) as tx:
            await tx.load([])

    async def close(self) -> None:
        await self._pool.close()

    @asynccontextmanager
    async def transaction(self, tenants: Sequence[UUID]) -> AsyncIterator[Transaction]:
        """A transaction that names ``tenants``; rolled back unless ``save`` committed. ``RetryLater`` when the
        server can't be reached."""
        try:
            async with self._pool.connection(timeout=5) as conn:
                yield Transaction(conn, tenants)
        except PASSING as fault:
            raise RetryLater(
                f"PostgreSQL: {str(fault).strip() or type(fault).__name__}", after=0.2
            ) from fault

    async def read_workflow(self, tenant: UUID, name: str, version: int) -> Mapping[str, Any] | None:
        """The document of a workflow's version."""
        async with self.transaction([tenant]) as tx:
            await tx.load([])
            found = await tx.workflow(tenant, name, version)
        return found[1] if found else None

    async def read_blob(self, tenant: UUID, ref: str) -> bytes | None:
        """Content by claim-check reference."""
        async with self.transaction([tenant]) as tx:
            await tx.load([])
            row = await (await tx._query("read_blob", (tenant, ref))).fetchone()
        return bytes(row[0]) if row else None

    async def has_twin(self, twin: Twin) -> bool:
        """Whether a request is still open."""
        async with self.transaction([twin[0]]) as tx:
            await tx.load([])
            return await (await tx._query("has_twin", twin)).fetchone() is not None

    async def restore(self, message: Message, consumer: str, data: str) -> None:
        """Give a message its twin back."""
        changes = Changes()
        changes.request(message, consumer, data, 3_000)
        async with self.transaction([message.tenant]) as tx:
            await tx.load([])
            await tx.save(changes)

    async def postpone(self, calls: Sequence[tuple[UUID, UUID, str, str, int]]) -> None:
        """Requests (twin, milliseconds) that are being worked on: the relay leaves them alone until then."""
        async with self.transaction(list({call[0] for call in calls})) as tx:
            await tx.load([])
            await tx._rows("postpone", sorted(calls))

    async def park(self, parcel: Parcel) -> None:
        """Keep a message that can't be handled, with its reason, and drop its twin. A tenant that does not exist
        can keep nothing: the operator's own (nil) tenant keeps it."""
        tenant = parcel.tenant
        async with self.transaction([tenant, SYSTEM]) as tx:
            await tx.load([])
            if await (await tx._query("is_tenant", (tenant,))).fetchone() is None:
                tenant = SYSTEM
            row = (
                tenant,
                parcel.id,
                parcel.consumer,
                parcel.subject,
                parcel.reason[:2000],
                dump(dict(parcel.headers)),
            )
            await tx._query("park", (*row, parcel.payload, parcel.tries))
            if parcel.twin is not None:
                await tx._rows("delete_outbox", [parcel.twin])

    async def execute(self, tenant: UUID, statement: str, params: Sequence[Any]) -> None:
        """One named statement in a transaction of its own."""
        async with self.transaction([tenant]) as tx:
            await tx.load([])
            await tx._query(statement, params)


async def _configure(conn: psycopg.AsyncConnection[Any]) -> None:
    set_json_loads(orjson.loads, conn)
    register(conn.adapters)
    conn.prepare_threshold = 0
    for setting in PLANNING:
        await conn.execute(f"set {setting}".encode())
    await conn.commit()


def _run(row: Sequence[Any]) -> Run:
    tenant, run_id, workflow, version, status, seq, epoch, steps, tokens, limit, spent, held, frozen = row[
        :13
    ]
    state, request_hash, trace, created_ms = row[13:]
    return Run(
        tenant=tenant,
        id=run_id,
        workflow=workflow,
        version=version,
        status=status,
        seq=seq,
        epoch=epoch,
        tokens=tokens,
        limit_micro=limit,
        spent_micro=spent,
        held_micro=held,
        frozen=frozen,
        request_hash=request_hash,
        trace=trace,
        created_ms=created_ms,
        **unpack_state(state or {}, steps),
    )


def _columns(run: Run) -> tuple[Any, ...]:
    return (
        run.tenant,
        run.id,
        run.workflow,
        run.version,
        run.status,
        run.seq,
        run.epoch,
        run.steps,
        run.tokens,
        run.limit_micro,
        run.spent_micro,
        run.held_micro,
        run.frozen,
        dump(run.state_json()),
        dump(run.output),
        dump(run.error),
        run.terminal,
    )
