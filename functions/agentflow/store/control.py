"""The API's store: one tenant's rows, each call one short transaction under its row-level security."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from datetime import date, datetime
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg.errors import InsufficientPrivilege
from psycopg.rows import dict_row
from psycopg.types.json import set_json_loads
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from agentflow.core.budgets import Account
from agentflow.core.limits import Limit
from agentflow.errors import Conflict, RetryLater
from agentflow.store.pipeline import at_rest
from agentflow.store.queries import load
from agentflow.store.readiness import unready

SQL = load("control.sql")
SCAN = 5_000
"""Most runs one filtered page looks at."""
NO_RUN = UUID(int=0)
REMEMBERED_S = 1.0
MAX_REMEMBERED = 10_000
ACTOR: ContextVar[str] = ContextVar("actor", default="")
"""The id of the API key that the request at hand came with; what it changes is noted under this name."""

Row = dict[str, Any]
Connection = psycopg.AsyncConnection[Row]


@dataclass(frozen=True, slots=True)
class RunKey:
    """A place in the list of runs: the next page starts after it."""

    created_at: datetime
    run: UUID


class CostKey(NamedTuple):
    """A place in a report of costs: the period ('-infinity' where it is one), and what is added up there."""

    place: str
    workflow: str
    task: str
    agent: str
    provider: str
    name: str


class ControlStore:
    """Rows the API needs, by tenant. ``dsn`` logs in as agentflow_api. Open before use; close when done.

    Every method raises ``RetryLater`` when the database is away or has no connection to spare.
    """

    def __init__(self, dsn: str, *, connections: int = 10, patience_s: float = 5.0) -> None:
        self._dsn = dsn
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            dsn,
            min_size=1,
            max_size=connections,
            timeout=patience_s,
            open=False,
            configure=_configure,
            check=_check,
            kwargs={"row_factory": dict_row, "autocommit": True, "application_name": "agentflow-api"},
            name="control",
        )
        self._without_budgets: dict[UUID, float] = {}  # until when

    async def open(self) -> None:
        """Connect; ``RetryLater`` when the database does not answer in time. May be called again after that."""
        try:
            # The pool says of a connection that it cannot have only that it has none.
            await (await psycopg.AsyncConnection.connect(self._dsn)).close()
        except psycopg.Error as fault:
            raise unready(fault) from fault
        with _passing():
            await self._pool.open(wait=True)

    async def close(self) -> None:
        """Close every connection."""
        await self._pool.close()

    # -- who -------------------------------------------------------------------------------------------

    async def key_hash(self, tenant: UUID, key_id: str) -> bytes | None:
        """The stored hash of a live API key, None when there is none."""
        row = await self._one(tenant, "read_key", key_id=key_id)
        return bytes(row["hash"]) if row else None

    async def is_admin(self, tenant: UUID, key_id: str) -> bool:
        """Whether a live API key is an administrator's."""
        return await self._one(tenant, "read_admin", key_id=key_id) is not None

    # -- workflows -------------------------------------------------------------------------------------

    async def register(
        self, tenant: UUID, name: str, digest: str, document: Mapping[str, Any], trigger: str | None
    ) -> tuple[int, bool]:
        """Keep a document as the next version, or find the one that holds it: (version, whether it is new).

        ``trigger`` is the CloudEvent type that starts it; it always belongs to the newest version.
        """
        key = {"tenant": str(tenant), "name": name}
        async with self._transaction(tenant) as conn:
            await conn.execute(SQL["lock_workflow"], key)
            found = await (await conn.execute(SQL["find_version"], {"name": name, "hash": digest})).fetchone()
            if found:
                return int(found["version"]), False
            new = {
                "tenant": tenant,
                "name": name,
                "hash": digest,
                "document": orjson.dumps(document).decode(),
            }
            row = await (await conn.execute(SQL["insert_version"], new)).fetchone()
            assert row is not None
            version = int(row["version"])
            await conn.execute(SQL["clear_triggers"], key)
            if trigger is not None:
                line = {"tenant": tenant, "event_type": trigger, "name": name, "version": version}
                await conn.execute(SQL["insert_trigger"], line)
            return version, True

    async def newest_version(
        self, tenant: UUID, name: str, first: int | None = None, last: int | None = None
    ) -> int | None:
        """The newest version of a workflow, from and to some version where they are named; None when there is none."""
        row = await self._one(tenant, "newest_version", name=name, first=first, last=last)
        return row["version"] if row else None

    async def workflow(self, tenant: UUID, name: str, version: int | None) -> Row | None:
        """One version (None: the newest) with its document."""
        return await self._one(tenant, "read_workflow", name=name, version=version)

    async def workflows(self, tenant: UUID, after: str, limit: int) -> list[Row]:
        """The newest version of each workflow whose name comes after ``after``, by name."""
        return await self._all(tenant, "list_workflows", after=after, limit=limit)

    # -- files -----------------------------------------------------------------------------------------

    async def put_blobs(self, tenant: UUID, blobs: Mapping[str, bytes]) -> None:
        """Keep contents under their references; those that are there already stay."""
        if not blobs:
            return
        given = {"tenant": tenant, "refs": list(blobs), "contents": list(blobs.values())}
        async with self._transaction(tenant) as conn:
            await conn.execute(SQL["insert_blobs"], given)

    async def missing_blobs(self, tenant: UUID, refs: Sequence[str]) -> set[str]:
        """Of these references, those that stand for nothing of this tenant's."""
        if not refs:
            return set()
        rows = await self._all(tenant, "find_blobs", refs=list(refs))
        return set(refs) - {row["ref"] for row in rows}

    # -- runs ------------------------------------------------------------------------------------------

    async def run(self, tenant: UUID, run: UUID) -> Row | None:
        """A run with its input, output and error."""
        return await self._one(tenant, "read_run", run=run)

    async def run_status(self, tenant: UUID, run: UUID) -> Row | None:
        """A run's workflow, version, status and request hash."""
        return await self._one(tenant, "read_run_status", run=run)

    async def runs(
        self, tenant: UUID, *, after: RunKey | None, status: str | None, workflow: str | None, limit: int
    ) -> tuple[list[Row], RunKey | None]:
        """A page of runs, newest first, and where the next one starts (None: there is none).

        With a filter a page looks at 5,000 runs at most and may be short, even empty, though more follow.
        """
        filtered = status is not None or workflow is not None
        scan = SCAN if filtered else limit + 1
        rows = await self._all(
            tenant, "list_runs", at=after.created_at if after else None, run=after.run if after else NO_RUN,
            scan=scan, status=status, workflow=workflow, limit=limit,
        )  # fmt: skip
        hits = [row for row in rows if row["part"] == 1]
        edge = next((row for row in rows if row["part"] == 2), None)
        if edge is None:
            return hits, None
        if len(hits) == limit:
            last = hits[-1]
            more = last["run_id"] != edge["run_id"] or edge["scanned"] == scan
            return hits, RunKey(last["created_at"], last["run_id"]) if more else None
        return hits, RunKey(edge["created_at"], edge["run_id"]) if edge["scanned"] == scan else None

    async def steps(
        self, tenant: UUID, run: UUID, after: tuple[int, int], limit: int
    ) -> tuple[bool, list[Row]]:
        """Whether the run exists, and its attempts after (step, attempt), in that order, with those that it reuses."""
        key = {"run": run, "step": after[0], "attempt": after[1], "limit": limit}
        found, forked, steps = await self._read(
            tenant, ("read_run_status", {"run": run}), ("read_reused", {"run": run}), ("list_steps", key)
        )
        if forked:
            steps = await self._with_reused(tenant, key, steps, forked[0]["reused"], forked[0]["open"])
        return bool(found), steps

    async def _with_reused(
        self, tenant: UUID, key: Row, steps: list[Row], reused: list[tuple[str, int]], going: list[int]
    ) -> list[Row]:
        """A page of a fork's own attempts with those of the runs that it goes on from, the youngest first: none is
        looked through any further than the page goes already."""
        younger, limit = [key["run"]], key["limit"]
        for run, last in reused:
            end = min(last, steps[-1]["step"]) if len(steps) == limit else last
            more = {"from": UUID(run), "last": end, "younger": younger, "open": going}
            steps += await self._all(tenant, "list_reused", **key, **more)
            steps = sorted(steps, key=lambda row: (row["step"], row["attempt"]))[:limit]
            younger = [*younger, UUID(run)]
        return steps

    async def results(self, tenant: UUID, run: UUID, steps: Sequence[int]) -> list[Row]:
        """All attempts of some of a run's steps that have ended."""
        return await self._all(tenant, "list_results", run=run, steps=list(steps))

    async def reused(
        self, tenant: UUID, runs: Sequence[tuple[str, int]], open_: Sequence[int]
    ) -> dict[str, int]:
        """By task, how many steps of these runs (id, last step) a fork goes on with that has others ``open_``."""
        ids, lasts = [UUID(run) for run, _ in runs], [last for _, last in runs]
        rows = await self._all(tenant, "count_reused", runs=ids, lasts=lasts, open=list(open_))
        return {row["task"]: row["starts"] for row in rows}

    async def history(self, tenant: UUID, run: UUID, after: int, limit: int) -> tuple[Row | None, list[Row]]:
        """The run's status, and what it has decided upon after ``after``: a run seen as ended has all its lines."""
        # The run first: a line that is missed by the second query is younger than the run's status.
        line = {"run": run, "after": after, "limit": limit}
        found, lines = await self._read(tenant, ("read_run_status", {"run": run}), ("list_history", line))
        return (found[0] if found else None), lines

    async def human(
        self, tenant: UUID, *, run: UUID | None, step: int | None, after: tuple[UUID, int], limit: int
    ) -> list[Row]:
        """Steps that wait for a person after (run, step), in that order; of one run, or one step, where it is named."""
        return await self._all(
            tenant, "list_human", run=run, step=step, after_run=after[0], after_step=after[1], limit=limit
        )

    # -- parked ----------------------------------------------------------------------------------------

    async def parked(self, tenant: UUID, after: UUID, limit: int) -> list[Row]:
        """Messages that could not be handled, by id, without their payload."""
        return await self._all(tenant, "list_parked", after=after, limit=limit)

    @asynccontextmanager
    async def taking_parked(self, tenant: UUID, parked: UUID) -> AsyncIterator[Row | None]:
        """A parked message, gone when the block ends well and still there when it raises."""
        async with self._transaction(tenant) as conn:
            found = await conn.execute(SQL["take_parked"], {"parked": parked})
            yield await found.fetchone()

    # -- retention -------------------------------------------------------------------------------------

    async def retention(self, tenant: UUID) -> Row | None:
        """What is set for the tenant; None: nothing."""
        return await self._one(tenant, "read_retention")

    async def set_retention(self, tenant: UUID, ages: Mapping[str, str | None]) -> None:
        """Set what is kept for how long; ``Conflict`` where the operator has fixed it."""
        try:
            async with self._transaction(tenant) as conn:
                await conn.execute(SQL["write_retention"], {"tenant": tenant, **ages})
        except InsufficientPrivilege as fault:
            raise Conflict("the operator has fixed how long things are kept", code="fixed") from fault

    # -- prices ----------------------------------------------------------------------------------------

    async def prices(self, tenant: UUID) -> list[Row]:
        """What the tenant was told that models and tools cost, the newest of each (scope, version, card, set_at)."""
        return await self._all(tenant, "list_prices")

    async def price_versions(self, tenant: UUID, scope: str) -> list[Row]:
        """Everything it was told of one, the newest first."""
        return await self._all(tenant, "list_price_versions", scope=scope)

    # -- limits ----------------------------------------------------------------------------------------

    async def limits(self, tenant: UUID, after: str, limit: int) -> list[Row]:
        """What is set for the scopes after ``after``, by scope."""
        return await self._all(tenant, "list_limits", after=after, limit=limit)

    async def limit(self, tenant: UUID, scope: str) -> Row | None:
        """What is set for a scope."""
        return await self._one(tenant, "read_limit", scope=scope)

    async def set_limit(self, tenant: UUID, scope: str, limit: Limit) -> Row:
        """Set a scope's limit; the row as it is now."""
        values = {"tenant": tenant, "scope": scope, **asdict(limit)}
        return (await self._read(tenant, ("write_limit", values)))[0][0]

    async def remove_limit(self, tenant: UUID, scope: str) -> bool:
        """Whether there was one."""
        return await self._one(tenant, "delete_limit", scope=scope) is not None

    # -- costs -----------------------------------------------------------------------------------------

    async def today(self, tenant: UUID) -> date:
        """The day it is where the tenant is."""
        row = await self._one(tenant, "read_today")
        assert row is not None
        return row["today"]  # type: ignore[no-any-return]

    async def costs(
        self, tenant: UUID, by: str, period: str, since: date | None, until: date | None, workflow: str | None,
        after: CostKey | None, limit: int,
    ) -> list[Row]:  # fmt: skip
        """What was spent, the newest period first, after a place."""
        place = {f"after_{name}": "" for name in CostKey._fields[1:]}
        if after is not None:
            place = {f"after_{name}": value for name, value in after._asdict().items() if name != "place"}
        return await self._all(
            tenant, "list_costs", by=by, period=period, since=since, until=until, workflow=workflow, limit=limit,
            place=after.place if after else None, **place,
        )  # fmt: skip

    async def observed(self, tenant: UUID, workflow: str, version: int, days: int) -> list[Row]:
        """What ended runs of a workflow have come to, by version and task ('': the runs), in so many days."""
        return await self._all(tenant, "read_observed", workflow=workflow, version=version, days=days)

    # -- budgets ---------------------------------------------------------------------------------------

    async def budgets(self, tenant: UUID, after: tuple[str, str], limit: int) -> list[Row]:
        """Budgets after (scope, period), in that order."""
        return await self._all(tenant, "list_budgets", scope=after[0], period=after[1], limit=limit)

    async def accounts(self, tenant: UUID, scopes: Sequence[str]) -> list[Account]:
        """The accounts of some scopes. That a tenant has none at all is remembered for a second, but not said of a
        named budget: what is charged to one that was set just now must find it."""
        named = any(scope.startswith("budget:") for scope in scopes)
        if not named and self._without_budgets.get(tenant, 0.0) > monotonic():
            return []
        rows, any_row = await self._read(tenant, ("read_budgets", {"scopes": list(scopes)}), ("has_budgets", {}))
        if any_row:
            self._without_budgets.pop(tenant, None)
        else:
            if len(self._without_budgets) >= MAX_REMEMBERED:
                self._without_budgets.clear()
            self._without_budgets[tenant] = monotonic() + REMEMBERED_S
        return [Account(**row) for row in rows]

    # -- corrections -----------------------------------------------------------------------------------

    async def correction(self, tenant: UUID, key: str) -> Row | None:
        """The correction of that key."""
        return await self._one(tenant, "read_correction", key=key)

    async def corrections(self, tenant: UUID, after: tuple[datetime, str] | None, limit: int) -> list[Row]:
        """Corrections before (made at, key), the newest first."""
        at, key = after or (None, "")
        return await self._all(tenant, "list_corrections", at=at, key=key, limit=limit)

    async def step(self, tenant: UUID, run: UUID, step: int) -> Row | None:
        """The task, kind and model of a step that has ended, or was tried."""
        return await self._one(tenant, "read_step", run=run, step=step)

    async def spent(self, tenant: UUID, scope: str) -> int | None:
        """All that the reports know to be spent in a scope; None: nothing ever was."""
        row = await self._one(tenant, "read_spent", scope=scope)
        return row["spent"] if row else None

    # -- audit -----------------------------------------------------------------------------------------

    async def audit(self, tenant: UUID, after: int, limit: int) -> list[Row]:
        """Entries of the tenant's audit chain after a number, in order."""
        return await self._all(tenant, "list_audit", after=after, limit=limit)

    # -- transactions ----------------------------------------------------------------------------------

    @asynccontextmanager
    async def _transaction(self, tenant: UUID) -> AsyncIterator[Connection]:
        with _passing():
            async with self._pool.connection() as conn, conn.transaction():
                await conn.execute(SQL["name_tenant"], _named(tenant))
                yield conn

    async def _read(self, tenant: UUID, *queries: tuple[str, Row]) -> list[list[Row]]:
        # Begin, naming, queries and commit go out together: one round trip.
        with _passing():
            async with self._pool.connection() as conn, conn.pipeline():
                async with conn.transaction():
                    await conn.execute(SQL["name_tenant"], _named(tenant))
                    cursors = [await conn.execute(SQL[query], values) for query, values in queries]
                return [await cursor.fetchall() for cursor in cursors]

    async def _all(self, tenant: UUID, query: str, **values: Any) -> list[Row]:
        return (await self._read(tenant, (query, values)))[0]

    async def _one(self, tenant: UUID, query: str, **values: Any) -> Row | None:
        rows = await self._all(tenant, query, **values)
        return rows[0] if rows else None


def _named(tenant: UUID) -> dict[str, str]:
    return {"tenant": str(tenant), "actor": ACTOR.get()}


async def _check(conn: Connection) -> None:
    """Have the pool drop a connection that the server has closed meanwhile, instead of handing it out."""
    if not at_rest(conn.fileno()):
        await conn.close()
        raise psycopg.OperationalError("the server has closed the connection")


async def _configure(conn: Connection) -> None:
    set_json_loads(orjson.loads, conn)


@contextmanager
def _passing() -> Iterator[None]:
    """Turn a database that is away, slow or full into ``RetryLater``."""
    try:
        yield
    except (PoolTimeout, psycopg.OperationalError, psycopg.InterfaceError) as fault:
        raise RetryLater("the database is not available", code="database_unavailable") from fault
