"""The engine's store: load what a batch concerns, write what was decided.

Two ways, the same guarantee. ``commit`` writes in one round trip on the strength of what this process wrote last:
every run's row names the ``rev`` it was decided upon, and if anybody was faster nothing of the batch is written.
``transaction`` locks the runs first, in the order of their ids, and is for whatever came from elsewhere.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import chain
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg import errors as pg

from agentflow.core.budgets import Account, Headroom, headroom
from agentflow.core.limits import Limit
from agentflow.core.message import Message
from agentflow.core.run import Run, unpack_state
from agentflow.errors import RetryLater
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys
from agentflow.store.changes import Changes, Twin, dump
from agentflow.store.pipeline import Pipeline, Pool
from agentflow.store.queries import load
from agentflow.store.readiness import Applied, check_migrations, unready, without_schema
from agentflow.store.statements import Call, statements

SQL = statements(load("queries.sql"))
SYSTEM = UUID(int=0)  # the operator's own tenant
# Runs are locked before anything else of theirs, budgets after that. Requests are written before steps are closed and
# twins deleted: what a batch opens and halts finds its input there, and leaves nothing behind.
ORDER = (
    "leave_inbox",
    "insert_outbox",
    "insert_gated",
    "insert_steps",
    "delete_outbox",
    "release_claims",  # after the twin: whoever claims holds the twin's row
    "insert_history",
    "insert_ledger",
    "insert_corrections",
    "correct_ledger",
    "set_timers",
    "wait_for_budget",
    "subscribe",
    "unsubscribe",
    "end_subscriptions",
    "insert_blobs",
    "insert_workflows",
    "keep_templates",
)
# Whoever frees a budget moves the timers of those that wait for it: nobody who waits for a budget's row has locked one.
AFTER_MONEY = ("clear_timers", "end_timers", "look_again")
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
BEGIN: Call = (b"begin", b"begin", [])
COMMIT: Call = (b"commit", b"commit", [])
ROLLBACK: Call = (b"rollback", b"rollback", [])


class Raced(Exception):
    """Another transaction was first (to write a run, to spend a budget's last cent): load and decide again."""


@dataclass(slots=True)
class Loaded:
    """What a batch is decided upon: the database's clock, the locked runs and the tenants' headroom."""

    now_ms: int
    runs: dict[UUID, Run]
    headroom: dict[UUID, Headroom] = field(default_factory=dict)


ClaimRow = tuple[UUID, UUID, str, str, int, UUID, int]  # twin, epoch, claimant, milliseconds


class Claimed(NamedTuple):
    """Whose claim on a call is in force: this ``claimant``'s (``mine``), or that of one who still works on it
    (``alive``); neither: of one who has not been heard of in time."""

    mine: bool
    alive: bool


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

    __slots__ = ("_pipeline", "_tenants")

    def __init__(self, pipeline: Pipeline, tenants: Sequence[UUID]) -> None:
        self._pipeline = pipeline
        self._tenants = sorted(tenants)

    async def load(self, keys: Iterable[tuple[UUID, UUID]] = (), *, firmly: bool = False) -> Loaded:
        """Lock and read the runs (tenant, run) that exist, in one round trip; ``firmly``: lock the accounts, too."""
        ordered = sorted(keys, key=lambda key: key[1])
        locks = SQL["lock_runs"].calls(ordered)
        # All at once: they are locked in one order.
        read = SQL["hold_budgets" if firmly else "read_budgets"]
        budgets = [read.together([(tenant,) for tenant in self._tenants])]
        _, clock, *found = await self._pipeline.run([BEGIN, _name(self._tenants), *locks, *budgets])
        rows = self._pipeline.rows
        runs = {row[1]: _run(row) for result in found[: len(locks)] for row in rows(result)}
        accounts: dict[UUID, list[Account]] = {}
        for result in found[len(locks) :]:
            for tenant, *account in rows(result):
                accounts.setdefault(tenant, []).append(Account(*account))
        return Loaded(rows(clock)[0][1], runs, {tenant: headroom(its) for tenant, its in accounts.items()})

    async def save(self, changes: Changes) -> None:
        """Write everything and commit, in one round trip. Raises ``Raced`` when the batch must be decided again."""
        try:
            await self._pipeline.run(chain(writes(changes), [COMMIT]))
        except psycopg.Error as fault:
            raise _race(fault) or fault from None

    async def enter_inbox(self, rows: Sequence[tuple[UUID, str, str]]) -> set[tuple[UUID, str, str]]:
        """Of (tenant, consumer, event id): those that had not been handled yet, now marked so."""
        ordered = sorted(rows)
        enter = SQL["enter_inbox"].calls(ordered)
        results = await self._pipeline.run([*SQL["lock_inbox"].calls(ordered), *enter])
        entered = [row for result in results[-len(enter) :] for row in self._pipeline.rows(result)]
        return {(tenant, consumer, event) for tenant, consumer, event in entered}

    async def workflow(
        self, tenant: UUID, name: str, version: int | None
    ) -> tuple[int, Mapping[str, Any]] | None:
        """A workflow's version and document; the newest where no version is named."""
        rows = await self.read("read_workflow", (tenant, name, version, version))
        return (rows[0][0], rows[0][1]) if rows else None

    async def newest(self, tenant: UUID, name: str, versions: Sequence[int | None] = (None, None)) -> int | None:
        """The newest version of a workflow, from and to some version where they are named."""
        rows = await self.read("newest_version", (tenant, name, *versions))
        return rows[0][0] if rows else None

    async def triggers(self, tenant: UUID, event_type: str) -> list[tuple[Any, ...]]:
        """Workflows (name, version) that an event of this type starts."""
        return await self.read("read_triggers", (tenant, event_type))

    async def template(self, tenant: UUID, key: str) -> str | None:
        """The workflow that has reached a goal before."""
        rows = await self.read("read_template", (tenant, key))
        return rows[0][0] if rows else None

    async def subscribers(self, tenant: UUID, event_type: str) -> list[tuple[Any, ...]]:
        """Steps (run, step) that wait for an event of this type."""
        return await self.read("read_subscribers", (tenant, event_type))

    async def step_inputs(
        self, keys: Sequence[tuple[UUID, int, UUID, int, int]]
    ) -> dict[tuple[UUID, int], Mapping[str, Any]]:
        """Inputs by (run, step) of the closed attempts (tenant, born, run, step, attempt)."""
        return {(run, step): given for run, step, given in await self.rows("read_step_inputs", keys)}

    async def rows(self, name: str, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """What a set-wise statement returns for rows."""
        results = await self._pipeline.run(SQL[name].calls(rows))
        return [row for result in results for row in self._pipeline.rows(result)]

    async def read(self, name: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        """What a statement with plain parameters returns."""
        (result,) = await self._pipeline.run([SQL[name].call(params)])
        return self._pipeline.rows(result)

    async def end(self, last: Call) -> None:
        await self._pipeline.run([last])


class PostgresStore:
    """Connections of role agentflow_engine. Open late, close once; survives restarts of the server.

    ``keys`` fold what is written into chains; only who writes no runs needs none.
    """

    def __init__(self, dsn: str, keys: ChainKeys | None = None, *, connections: int = 4) -> None:
        self.keys = keys
        self._pool = Pool(dsn, size=connections, settings=PLANNING)
        self._clock_ahead_ms = 0.0  # the database's clock less ours, when it was last heard

    async def open(self) -> None:
        """Connect. ``RetryLater`` when the server can't be reached, or its schema is not this program's yet."""
        try:
            async with self._pool.pipeline() as pipeline:
                (found,) = await pipeline.run([SQL["applied_migrations"].call(())])
                check_migrations(Applied(*row) for row in pipeline.rows(found))
        except psycopg.Error as fault:
            raise (without_schema(fault) or unready(fault)) from fault
        async with self.transaction([SYSTEM]) as tx:
            self.heard(await tx.load())

    async def close(self) -> None:
        await self._pool.close()

    def now_ms(self) -> int:
        """The database's clock as last heard, gone on since. For durations; timers are set by the database."""
        return int(monotonic() * 1000 + self._clock_ahead_ms)

    def heard(self, loaded: Loaded) -> Loaded:
        """Take note of the database's clock."""
        self._clock_ahead_ms = loaded.now_ms - monotonic() * 1000
        return loaded

    async def commit(self, tenants: Iterable[UUID], changes: Changes) -> None:
        """Write and commit in one round trip what was decided on runs as this process knows them.

        Raises ``Raced`` when a run is not as it was, or a tenant's budget refuses: nothing is written then.
        ``RetryLater`` when the server can't be reached, or the outcome is unknown: the next try will tell.
        """
        try:
            async with self._pool.pipeline() as pipeline:
                await pipeline.run(chain([_name(sorted(tenants))], writes(changes)))
        except psycopg.Error as fault:
            if (raced := _race(fault)) is not None:
                raise raced from None
            _raise(fault)

    @asynccontextmanager
    async def transaction(self, tenants: Sequence[UUID]) -> AsyncIterator[Transaction]:
        """A transaction that names ``tenants`` and begins with ``load``; rolled back unless ``save`` committed.
        ``RetryLater`` when the server can't be reached."""
        try:
            async with self._pool.pipeline() as pipeline:
                tx = Transaction(pipeline, tenants)
                try:
                    yield tx
                except BaseException:
                    if pipeline.in_transaction:
                        await tx.end(ROLLBACK)
                    raise
                if pipeline.in_transaction:
                    await tx.end(COMMIT)
        except PASSING as fault:
            _raise(fault)

    async def read_workflow(self, tenant: UUID, name: str, version: int) -> Mapping[str, Any] | None:
        """The document of a workflow's version."""
        async with self.transaction([tenant]) as tx:
            await tx.load()
            found = await tx.workflow(tenant, name, version)
        return found[1] if found else None

    async def read_blob(self, tenant: UUID, ref: str) -> bytes | None:
        """Content by claim-check reference."""
        async with self.transaction([tenant]) as tx:
            await tx.load()
            rows = await tx.read("read_blob", (tenant, ref))
        return bytes(rows[0][0]) if rows else None

    async def limits(self, tenants: Sequence[UUID]) -> list[tuple[UUID, str, Limit]]:
        """All limits (tenant, scope, limit) of these tenants."""
        async with self.transaction(tenants) as tx:
            await tx.load()
            rows = await tx.rows("read_limits", [(tenant,) for tenant in tenants])
        return [(tenant, scope, Limit(*limit)) for tenant, scope, *limit in rows]

    async def prices(self, tenants: Sequence[UUID]) -> list[tuple[UUID, str, int, Any]]:
        """What these tenants were told that things cost: (tenant, scope, version, card)."""
        async with self.transaction(tenants) as tx:
            await tx.load()
            rows = await tx.rows("read_prices", [(tenant,) for tenant in tenants])
        return [(tenant, scope, version, card) for tenant, scope, version, card in rows]

    async def has_twin(self, twin: Twin) -> bool:
        """Whether a request is still open."""
        async with self.transaction([twin[0]]) as tx:
            await tx.load()
            return bool(await tx.read("has_twin", twin))

    async def restore(self, message: Message, consumer: str, data: bytes) -> None:
        """Give a message its twin back."""
        changes = Changes()
        changes.request(message, consumer, data, 3_000)
        await self.commit([message.tenant], changes)

    async def consume(self, twins: Sequence[Twin]) -> None:
        """Drop twins whose messages have arrived."""
        changes = Changes()
        for twin in twins:
            changes.consume(twin)
        await self.commit({twin[0] for twin in twins}, changes)

    async def postpone(
        self, calls: Sequence[tuple[UUID, UUID, str, str, int]], claims: Sequence[tuple[Any, ...]] = ()
    ) -> None:
        """Requests (twin, milliseconds) that are being worked on: the relay leaves them alone until then. ``claims``
        (tenant, run, key, claimant, milliseconds) hold so much longer."""
        async with self.transaction(list({call[0] for call in calls})) as tx:
            await tx.load()
            await tx.rows("postpone", sorted(calls))
            if claims:
                await tx.rows("renew_claims", sorted(claims))

    async def claim(self, calls: Sequence[ClaimRow]) -> dict[tuple[UUID, str], Claimed]:
        """Claim calls (twin, epoch, claimant, milliseconds) before they are made; by (run, key), those that somebody
        still asks for."""
        rows = sorted(calls)
        tenants = sorted({row[0] for row in rows})
        try:
            async with self._pool.pipeline() as pipeline:
                results = await pipeline.run([_name(tenants), *SQL["claim"].calls(rows)])
                found = [row for result in results[1:] for row in pipeline.rows(result)]
        except psycopg.Error as fault:
            _raise(fault)
        return {(run, key): Claimed(mine, alive) for run, key, mine, alive in found}

    async def park(self, parcel: Parcel) -> None:
        """Keep a message that can't be handled, with its reason, and drop its twin. A tenant that does not exist
        can keep nothing: the operator's own (nil) tenant keeps it."""
        tenant = parcel.tenant
        async with self.transaction(sorted({tenant, SYSTEM})) as tx:
            await tx.load()
            if not await tx.read("is_tenant", (tenant,)):
                tenant = SYSTEM
            where = (tenant, parcel.id, parcel.consumer, parcel.subject)
            why = (parcel.reason[:2000].replace("\0", ""), dump(dict(parcel.headers)))
            await tx.read("park", (*where, *why, parcel.payload, parcel.tries))
            if parcel.twin is not None:
                await tx.rows("delete_outbox", [parcel.twin])


def writes(changes: Changes) -> Iterator[Call]:
    """The statements that write a batch, each made when it is asked for: PostgreSQL begins with the first."""
    if changes.runs:
        changes.fold()
        chains = changes.chains
        runs = sorted(changes.runs.values(), key=lambda run: run.id.int)
        made = changes.new_runs
        if new := [_new_columns(run, chains.get(run.id)) for run in runs if run.id in made]:
            yield from SQL["insert_runs"].calls(new)
        if old := [_columns(run, chains.get(run.id)) for run in runs if run.id not in made]:
            yield from SQL["update_runs"].calls(old)
        notes = [_note(run, chains.get(run.id)) for run in runs if run.id in made or run.terminal]
        if notes:
            yield from SQL["note_runs"].calls(notes)
    for name in ORDER:
        if rows := changes.rows(name):
            yield from SQL[name].calls(rows)
    if changes.budgets:
        yield SQL["charge_budgets"].together([(*key, *account) for key, account in sorted(changes.budgets.items())])
    for name, sums in (("add_spend", changes.spend), ("add_run_spend", changes.run_spend)):
        if sums:
            yield from SQL[name].calls([(*key, *values) for key, values in sorted(sums.items())])
    for name in AFTER_MONEY:
        if rows := changes.rows(name):
            yield from SQL[name].calls(rows)


def _name(tenants: Sequence[UUID]) -> Call:
    named = "{" + ",".join(map(str, tenants)) + "}"
    return SQL["name_tenants"].call((named,))


def _race(fault: psycopg.Error) -> Raced | None:
    """``Raced`` where an error says that somebody was faster; see queries.sql for what divides by zero."""
    if isinstance(fault, pg.DivisionByZero):
        return Raced()
    name = fault.diag.constraint_name
    if isinstance(fault, pg.CheckViolation) and name == "never_over":
        return Raced()
    if isinstance(fault, pg.UniqueViolation) and name in ("runs_pkey", "corrections_pkey"):
        return Raced()
    return None


def _raise(fault: psycopg.Error) -> None:
    if isinstance(fault, PASSING):
        reason = " ".join(str(fault).split()) or type(fault).__name__
        raise RetryLater(f"PostgreSQL: {reason}", after=0.2) from fault
    raise fault


def _run(row: Sequence[Any]) -> Run:
    tenant, run_id, workflow, version, status, seq, epoch, steps, tokens, limit, spent, held = row[:12]
    frozen, budget, state, request_hash, trace, created_ms, rev, chain = row[12:]
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
        budget=budget,
        request_hash=request_hash,
        trace=trace,
        created_ms=created_ms,
        rev=rev,
        chain=chain,
        **unpack_state(state or {}, steps),
    )


def _columns(run: Run, chain: bytes | None) -> tuple[Any, ...]:
    return (
        run.tenant,
        run.id,
        run.rev + 1,
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
        run.budget,
        dump(run.state_json()),
        dump(run.output),
        dump(run.error),
        run.terminal,
        chain,
    )


def _new_columns(run: Run, chain: bytes | None) -> tuple[Any, ...]:
    return (
        *_columns(run, chain),
        run.workflow,
        dump(run.input),
        run.request_hash,
        run.trace,
        run.created_ms,
    )


def _note(run: Run, chain: bytes | None) -> tuple[Any, ...]:
    return (run.tenant, run.id, run.rev + 1, chain and chain[links.SHOWN])
