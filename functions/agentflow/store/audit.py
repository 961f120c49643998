"""Verifying a tenant's audit chain: that what is in the database is what was written there, all of it, in its order.

Reads as agentflow_engine, twenty entries per transaction, each of which sees one moment; runs go on meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import psycopg
from psycopg import errors as pg

from agentflow.core.canonical import digest as document_hash
from agentflow.errors import Rejected, RetryLater
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys
from agentflow.store.queries import load
from agentflow.store.run_rows import PLANNING
from agentflow.store.verdict import NamedRun, RunRow, Verdict

SQL = load("audit.sql")
AT_ONCE = 200  # runs whose rows are asked for together


class Head(NamedTuple):
    """How far a chain had come, as somebody has noted elsewhere."""

    number: int
    link: str


@dataclass(slots=True)
class Verification:
    """What was looked at, and what is wrong with it (nothing: ``findings`` is empty).

    ``uncovered``: runs older than the chain, which nothing is said about. ``pending``: notes that are not sealed yet.
    """

    tenant: UUID
    head: Head | None = None
    entries: int = 0
    runs: int = 0
    rows: int = 0
    uncovered: int = 0
    pending: int = 0
    findings: list[str] = field(default_factory=list)


async def tenants(admin_dsn: str) -> list[UUID]:
    """Every tenant there is."""
    async with _connected(admin_dsn) as conn:
        return [tenant for (tenant,) in await (await conn.execute(SQL["read_tenants"])).fetchall()]


async def verify(
    engine_dsn: str, keys: ChainKeys, tenant: UUID, *, known: Sequence[Head] = ()
) -> Verification:
    """Follow the tenant's chain from its beginning and every run it names. ``known``: heads noted elsewhere, which
    must be part of it.

    Raises ``RetryLater`` when the database is away, ``Rejected`` when it has an older schema.
    """
    async with _connected(engine_dsn) as conn:
        return await _Walk(conn, keys, tenant, known).walk()


class _Walk:
    """One walk along one tenant's chain."""

    def __init__(
        self, conn: psycopg.AsyncConnection[Any], keys: ChainKeys, tenant: UUID, known: Sequence[Head]
    ) -> None:
        self._conn = conn
        self._keys = keys
        self._tenant = tenant
        self._known = {head.number: head.link.lower() for head in known}
        self._done = Verification(tenant)
        self._chain: bytes | None = None
        self._number = 0  # of the entry that it has come to
        self._last_ms = 0
        # The entries that name runs which are not there, or have ended and whose end has not been met yet.
        self._missing: dict[UUID, int] = {}
        self._behind: dict[UUID, int] = {}
        self._workflows: dict[tuple[str, int], str] = {}
        self._corrections: dict[str, dict[str, Any]] = {}
        self._emptied: list[int] = []  # entries whose data is gone
        self._until = 0  # the keeper says that data of entries before this one may be gone

    async def walk(self) -> Verification:
        done = self._done
        more = True
        while more:
            async with self._moment():
                entries = await self._all("read_entries", self._tenant, self._number)
                if self._chain is None and not await self._begin(bool(entries)):
                    break
                more = bool(entries)
                runs: dict[UUID, NamedRun] = {}
                for entry in entries:
                    if not self._follow(entry, runs):
                        return done
                await self._look_at(runs)
                if not more:
                    await self._end()
        return done

    def _say(self, finding: str) -> None:
        self._done.findings.append(finding)

    async def _begin(self, any_entry: bool) -> bool:
        found = await self._all("read_head", self._tenant)
        if not found:
            if any_entry:
                self._say("audit_heads: the chain's head was deleted")
            for number in self._known:
                self._say(f"audit: entry {number} is known elsewhere, and there is no chain")
            await self._rest()
            return False
        head = bytes(found[0][1])
        if not self._keys.knows(head):
            self._say(f"audit_heads: {_unknown_key(head)}")
            return False
        self._chain = self._keys.begin(links.tenant_content(self._tenant), head[:4])
        return True

    def _follow(self, entry: tuple[Any, ...], runs: dict[UUID, NamedRun]) -> bool:
        """Follow one entry; False when there is no point in going on."""
        number, at_ms, kind, data, digest, link = entry
        assert self._chain is not None
        self._number += 1
        if number != self._number:
            self._say(f"audit: entry {self._number} is missing")
            return False
        self._chain = self._keys.follow(self._chain, number, links.sealed_content(at_ms, kind, bytes(digest)))
        if self._chain[links.SHOWN] != bytes(link):
            self._say(f"audit: entry {number} ({kind}) was changed, or one was put before it")
            return False
        if self._known.get(number, link.hex()) != bytes(link).hex():
            self._say(f"audit: entry {number} is another one than the one known elsewhere")
        self._done.entries += 1
        self._last_ms = at_ms
        if data is None:
            self._emptied.append(number)
            return True
        text = data.encode()
        if links.digest(text) != bytes(digest):
            self._say(f"audit: the data of entry {number} ({kind}) was changed")
            return True
        self._note(number, kind, orjson.loads(text), runs, at_ms)
        return True

    def _note(
        self, number: int, kind: str, data: dict[str, Any], runs: dict[UUID, NamedRun], at_ms: int
    ) -> None:
        if kind == "runs":
            for name, rev, link in data["runs"]:
                known = runs.get(UUID(name))
                points = known.points if known else {}
                if link is not None:
                    points[rev] = (link, at_ms)
                runs[UUID(name)] = NamedRun(number, points)
        elif kind == "runs.removed":
            for name in data["runs"]:
                self._missing.pop(UUID(name), None)
                self._behind.pop(UUID(name), None)
                runs.pop(UUID(name), None)
        elif kind == "audit.emptied":
            self._until = max(self._until, data["before"])
        elif kind == "workflows.insert":
            row = data["row"]
            self._workflows[row["name"], row["version"]] = row["hash"]
        elif kind == "corrections.insert":
            row = {name: value for name, value in data["row"].items() if name != "made_at"}
            self._corrections[row["key"]] = row
        elif kind == "workflows.delete":
            self._workflows.pop((data["row"]["name"], data["row"]["version"]), None)

    async def _look_at(self, named: dict[UUID, NamedRun]) -> None:
        """Runs, as the entries at hand name them."""
        ids = list(named)
        for start in range(0, len(ids), AT_ONCE):
            some = ids[start : start + AT_ONCE]
            rows = await self._all("read_runs", [self._tenant] * len(some), some)
            found = [RunRow(*row) for row in rows]
            for gone in set(some) - {row.id for row in found}:
                self._missing[gone] = named[gone].entry
            follow = [row for row in found if self._due(row, named[row.id])]
            verdicts = {row.id: Verdict(row, named[row.id], self._keys, self._tenant) for row in follow}
            await self._rows_of(follow, verdicts)
            for verdict in verdicts.values():
                self._done.findings += verdict.end()
                self._done.rows += verdict.rows
            self._done.runs += len(follow)

    def _due(self, row: RunRow, named: NamedRun) -> bool:
        """Whether a run is looked at here: one that has ended, where its end is named."""
        self._missing.pop(row.id, None)
        if row.chain is None:
            if named.points:
                self._say(f"run {row.id}: its chain was deleted")
            return False
        if row.terminal and row.rev not in named.points:
            self._behind[row.id] = named.entry
            return False
        self._behind.pop(row.id, None)
        return True

    async def _rows_of(self, runs: Iterable[RunRow], verdicts: dict[UUID, Verdict]) -> None:
        named = list(runs)
        if not named:
            return
        keys = {
            "tenants": [self._tenant] * len(named),
            "borns": [row.born for row in named],
            "runs": [row.id for row in named],
        }
        async with self._conn.cursor(name="rows") as cursor:
            cursor.itersize = 1_000
            await cursor.execute(SQL["read_rows"], keys)
            async for row in cursor:
                verdicts[row[0]].add(row[1:])

    async def _end(self) -> None:
        """The end of the chain, in the same moment in which it was reached."""
        assert self._chain is not None
        done = self._done
        found = await self._all("read_head", self._tenant)
        if not found or (found[0][0], bytes(found[0][1])) != (self._number, self._chain):
            last = f"its head is of entry {found[0][0]}" if found else "it has no head"
            self._say(f"audit: the chain ends with entry {self._number}; {last}")
        for number in self._known:
            if number > self._number:
                self._say(f"audit: entry {number} is known elsewhere; the chain ends with {self._number}")
        done.head = Head(self._number, self._chain[links.SHOWN].hex())
        await self._rest()

    async def _rest(self) -> None:
        """What is not sealed yet, and what no entry has explained."""
        runs: dict[UUID, NamedRun] = {}
        for kind, run, data in await self._all("read_notes", self._tenant):
            self._done.pending += 1
            if kind == "run":
                self._behind.pop(run, None)
            else:
                self._note(self._number + 1, kind, orjson.loads(data), runs, self._last_ms)
        for run, entry in self._missing.items():
            self._say(f"run {run}: entry {entry} names it, and it is not there")
        for run, entry in self._behind.items():
            self._say(f"run {run}: it is another one than the one that entry {entry} names last")
        for number in self._emptied:
            if number >= self._until:
                self._say(f"audit: the data of entry {number} was deleted")
        for name, version, said, document in await self._all("read_workflows", self._tenant):
            noted = self._workflows.pop((name, version), said)
            if noted != said or document_hash(orjson.loads(document)) != said:
                self._say(f"workflow {name}@{version}: it was changed")
        for name, version in self._workflows:
            self._say(f"workflow {name}@{version}: it was registered, and it is not there")
        for key, text in await self._all("read_corrections", self._tenant):
            row = orjson.loads(text)
            if self._corrections.pop(key, row) != row:
                self._say(f"correction {key}: it was changed")
        for key in self._corrections:
            self._say(f"correction {key}: it was made, and it is not there")
        chainless = await self._all("read_chainless", {"tenant": self._tenant})
        self._done.uncovered = len(chainless)
        for run, strange in chainless:
            if strange:
                self._say(f"run {run}: it has no chain, though others of its time do")

    @asynccontextmanager
    async def _moment(self) -> AsyncIterator[None]:
        async with self._conn.transaction():
            await self._conn.execute(SQL["name_tenant"], (self._tenant,))
            yield

    async def _all(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        params = values[0] if len(values) == 1 and isinstance(values[0], dict) else values
        return await (await self._conn.execute(SQL[statement], params)).fetchall()


def _unknown_key(chain: bytes) -> str:
    return f"the chain was begun with key {chain[:4].hex()}, which is not in AGENTFLOW_AUDIT_KEY"


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    try:
        async with await psycopg.AsyncConnection.connect(
            dsn, autocommit=True, application_name="agentflow-audit"
        ) as conn:
            await conn.execute(PLANNING)
            yield conn
    except (pg.UndefinedTable, pg.UndefinedColumn, pg.InvalidSchemaName) as fault:
        raise Rejected(
            "the database has an older schema", code="not_migrated", mend="agentflow migrate"
        ) from fault
    except (psycopg.OperationalError, psycopg.InterfaceError) as fault:
        raise RetryLater(f"PostgreSQL: {str(fault).strip() or type(fault).__name__}") from fault
