"""The gatekeeper: lets requests through that wait for a limit, fairly, and sends them.

It runs beside the relay. Of many, one leads: it holds a session's advisory lock, has an epoch of its own that every
admission is fenced by, and keeps in memory what is in use. What it knows it has from the outbox, so that a new leader
starts by counting; what changes it is told by hints, and while something waits it counts again every few seconds in
case a hint was lost. While nothing waits it costs nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
import psycopg
import structlog
from psycopg.types.json import set_json_loads

from agentflow.core.admission import READ_AHEAD, Admission, Gate, Waiting
from agentflow.core.bucket import Bucket
from agentflow.core.limits import Limit, Limits
from agentflow.runtime.batch import Leaving
from agentflow.runtime.relay import leaving
from agentflow.store.queries import load

log = structlog.get_logger(__name__)
SQL = load("gate.sql")
LOCK = 7_305_801_104_022_008  # any constant: one leader at a time per database
UNDER_WAY = 64  # messages for pure functions: with more, whoever comes new would wait for them
CALLS = 128  # and short calls
LOOK_S = 0.025  # how often to look how many there are, while runs wait for nothing else
KNOWN_S = 0.25  # how long what was seen then is worth something
TRICKLE = 1.0  # runs a second that are let in all the same: what is under way need not come to an end
CHUNK = 500
COUNT_S = 2.0  # how long a lost hint may go unnoticed while something waits
STOPPED_S = 6.0  # a leader that has not been seen at work for this long while something waits is deposed
FOLLOW_S = 1.0
IDLE_S = 30.0


class Deposed(Exception):
    """Somebody else leads: what is known here is worth nothing any more."""


class Gatekeeper:
    """Admits rows and gives them to ``send``. ``dsn`` logs in as agentflow_relay, not through a pooler: the lock is
    its session's."""

    def __init__(self, dsn: str, send: Callable[[Sequence[Leaving]], None]) -> None:
        self._dsn = dsn
        self._send = send
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._found: dict[Gate, int] = {}
        self._freed: list[tuple[UUID, str]] = []
        self._limits_changed = False
        self.epoch: int | None = None
        """The epoch it leads under; None while somebody else leads."""

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="gatekeeper")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    # -- hints: each may be lost -------------------------------------------------------------------------

    def written(self, gates: Iterable[tuple[UUID, str, int]]) -> None:
        """Rows have been written that wait before these gates (tenant, gate, their highest priority)."""
        for tenant, gate, priority in gates:
            self._found[tenant, gate] = max(priority, self._found.get((tenant, gate), 0))
        self._wake.set()

    def freed(self, keys: Iterable[tuple[UUID, str]]) -> None:
        """Rows (run, key) that were admitted are gone."""
        if self.epoch is not None:
            self._freed.extend(keys)
        self._wake.set()

    def limits_changed(self) -> None:
        self._limits_changed = True
        self._wake.set()

    # -- leading and following ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    set_json_loads(orjson.loads, conn)
                    # Plans must not depend on how empty the tables were.
                    await conn.execute("set enable_seqscan = off")
                    await self._follow(conn)
                    await self._lead(conn)
            except Deposed:
                log.warning("the gate has another keeper")
            except psycopg.Error as fault:
                log.warning("gatekeeper lost PostgreSQL", reason=str(fault).strip())
                await asyncio.sleep(0.5)
            finally:
                self.epoch = None

    async def _follow(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Return once the lock is ours."""
        loop = asyncio.get_running_loop()
        seen: datetime | None = None
        since = loop.time()
        while True:
            asked = loop.time()
            self._wake.clear()
            self._found.clear()
            ((mine, waiting, at),) = await _rows(conn, "try_lead", LOCK)
            if mine:
                return
            if not waiting or at != seen:
                seen, since = at, loop.time()
            elif loop.time() - since > STOPPED_S:
                ended = await _rows(conn, "depose", LOCK, LOCK, at)
                log.warning("the gate's keeper does nothing: deposed", sessions=len(ended))
                since = loop.time()
            if await self._woken(FOLLOW_S if waiting else IDLE_S):
                # The leader, if there is one, hears the hints as well.
                await asyncio.sleep(asked + FOLLOW_S - loop.time())

    async def _lead(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._freed.clear()
        ((epoch,),) = await _rows(conn, "begin_epoch")
        self.epoch = epoch
        loop = asyncio.get_running_loop()
        admission = Admission(await _limits(conn), loop.time())
        road = _Road(conn, loop.time())
        log.info("keeps the gate", epoch=epoch)
        seen_at = count_at = rested_at = loop.time()
        limits_at = count_at + IDLE_S
        while True:
            self._wake.clear()
            now = loop.time()
            if self._limits_changed or now >= limits_at:
                self._limits_changed = False
                admission.limits(await _limits(conn), now)
                limits_at = now + IDLE_S
            if now >= seen_at:
                if not await _rows(conn, "still_lead", epoch):
                    raise Deposed
                seen_at = now + COUNT_S
            if now >= count_at:
                await self._count(conn, admission)
                # However much there is to count, counting is not what the leader spends its time with.
                count_at, rested_at = now + IDLE_S, now + 50 * (loop.time() - now)
            await self._admit(conn, admission, epoch, road)
            until = count_at
            if admission.waiting:
                count_at = max(min(count_at, loop.time() + COUNT_S), rested_at)
                until = min(count_at, seen_at, admission.next_time() or count_at)
                if admission.short_of_room:
                    until = min(until, loop.time() + LOOK_S)
            await self._woken(until - loop.time())

    async def _woken(self, pause_s: float) -> bool:
        if pause_s <= 0:
            return self._wake.is_set()
        try:
            async with asyncio.timeout(pause_s):
                return await self._wake.wait()
        except TimeoutError:
            return False

    # -- a round -----------------------------------------------------------------------------------------

    async def _count(self, conn: psycopg.AsyncConnection[Any], admission: Admission) -> None:
        """Learn from the outbox what is in use and what waits."""
        rows = await _rows(conn, "in_use")
        # Hints that came while the rows were read are applied afterwards: by key, so twice does no harm.
        admission.counted((tenant, gate, run, key) for tenant, gate, run, key in rows)
        for tenant, gate, priority in await _rows(conn, "waiting_gates"):
            admission.found(tenant, gate, priority)

    async def _admit(
        self, conn: psycopg.AsyncConnection[Any], admission: Admission, epoch: int, road: _Road
    ) -> None:
        """Let through whatever may go now."""
        loop = asyncio.get_running_loop()
        if not road.known(loop.time()):
            admission.room = 0
        while True:
            self._hear(admission)
            now = loop.time()
            picked = admission.pick(now, CHUNK)
            if picked:
                await self._let_through(conn, admission, epoch, picked)
            elif gates := admission.unread():
                await _read(conn, admission, gates)
            elif not admission.short_of_room or not (room := await road.room(now)):
                return
            else:
                admission.room = room

    def _hear(self, admission: Admission) -> None:
        freed, self._freed = self._freed, []
        for run, key in freed:
            admission.freed(run, key)
        found, self._found = self._found, {}
        for (tenant, gate), priority in found.items():
            admission.found(tenant, gate, priority)

    async def _let_through(
        self, conn: psycopg.AsyncConnection[Any], admission: Admission, epoch: int, picked: list[Waiting]
    ) -> None:
        columns = [[row[place] for row in picked] for place in (0, 2, 3, 4)]
        rows = await _rows(conn, "admit", epoch, *columns)
        there = {(row[1], row[2]) for row in rows}
        for row in picked:
            if (row.run, row.key) not in there:
                admission.missed(row)
        if rows:
            self._send([leaving(row) for row in rows])
        elif not await _rows(conn, "still_lead", epoch):
            raise Deposed


class _Road:
    """How much is under way, as the outbox says: what was sent and has neither arrived nor been minded for long."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], now: float) -> None:
        self._conn = conn
        self._looked_at = 0.0
        self._trickle = Bucket(TRICKLE, 1, now, full=True)

    def known(self, now: float) -> bool:
        """Whether it was looked at lately."""
        return now - self._looked_at < KNOWN_S

    async def room(self, now: float) -> int:
        """How many runs may start."""
        if now - self._looked_at < LOOK_S:
            return 0
        self._looked_at = now
        ((messages, calls),) = await _rows(self._conn, "under_way", UNDER_WAY + CALLS)
        if calls < CALLS and messages < UNDER_WAY:
            return int(UNDER_WAY - messages)
        if self._trickle.wait(now):
            return 0
        self._trickle.take(now)
        return 1


async def _read(conn: psycopg.AsyncConnection[Any], admission: Admission, gates: list[Gate]) -> None:
    each = max(4, READ_AHEAD // len(gates))
    rows = await _rows(conn, "first_rows", [t for t, _ in gates], [g for _, g in gates], each)
    first: dict[Gate, list[Waiting]] = {gate: [] for gate in gates}
    for row in rows:
        first[row[0], row[1]].append(Waiting(*row))
    for (tenant, gate), found in first.items():
        admission.read(tenant, gate, found, more=len(found) == each)


async def _limits(conn: psycopg.AsyncConnection[Any]) -> Limits:
    rows = await _rows(conn, "read_limits")
    return Limits((tenant, scope, Limit(*limit)) for tenant, scope, *limit in rows)


async def _rows(conn: psycopg.AsyncConnection[Any], statement: str, *params: Any) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(SQL[statement], params, binary=True)
    return await cursor.fetchall() if cursor.description else []
