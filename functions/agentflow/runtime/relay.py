"""The relay: fires timers and sends again what a crash or a wiped bus left behind.

It sleeps until the next timer or leftover is due and is woken when an earlier timer is set, so it costs nothing
while nothing is due. Any number of relays may run: each row is taken by one (``skip locked``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import psycopg
import structlog
from psycopg.types.json import set_json_loads

from agentflow.core.message import Message
from agentflow.observe import metrics
from agentflow.runtime.batch import Leaving
from agentflow.store.changes import dump
from agentflow.store.queries import load
from agentflow.store.readiness import unready

log = structlog.get_logger(__name__)
SQL = load("relay.sql")
SWEEP_S = 3.0  # how long something left behind may wait while the relay knows of work
IDLE_S = 30.0
CHUNK = 500
FOREVER = datetime.max.replace(tzinfo=UTC)


class Relay:
    """Moves due rows to ``send``, leftovers only while not ``congested``. ``dsn`` logs in as agentflow_relay."""

    def __init__(
        self,
        dsn: str,
        send: Callable[[Sequence[Leaving]], None],
        congested: Callable[[], bool] = lambda: False,
    ) -> None:
        self._dsn = dsn
        self._send = send
        self._congested = congested
        self._wake = asyncio.Event()
        self._resend_all = True
        self._until: datetime | None = None  # what was made later is not sent again at start
        self._busy_until = 0.0
        self._next_timer = float("inf")
        self._task: asyncio.Task[None] | None = None
        self.resent = 0

    async def open(self) -> None:
        """Connect. What is in the outbox now has been left behind by somebody; what comes later has not."""
        try:
            async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                row = await (await conn.execute("select clock_timestamp()")).fetchone()
        except psycopg.Error as fault:
            raise unready(fault) from fault
        assert row is not None
        self._until = row[0]

    def start(self) -> None:
        """Begin, once it is open."""
        self._task = asyncio.create_task(self._run(), name="relay")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def timer_set(self, after_ms: int) -> None:
        """A timer was set: wake in time for it."""
        due = asyncio.get_running_loop().time() + after_ms / 1000
        if due < self._next_timer:
            self._next_timer = due
            self._wake.set()

    def work_seen(self) -> None:
        """Requests are on their way: look soon whether one was left behind."""
        loop_time = asyncio.get_running_loop().time()
        if loop_time >= self._busy_until:
            self._wake.set()
        self._busy_until = loop_time + 3 * SWEEP_S

    def resend_all(self) -> None:
        """The bus has lost everything: send it all again, now."""
        self._resend_all = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    set_json_loads(orjson.loads, conn)
                    await conn.execute(
                        "set enable_seqscan = off"
                    )  # plans must not depend on how empty tables were
                    conn.add_notify_handler(lambda _: None)  # that something came is all it says
                    await conn.execute("listen agentflow_relay")
                    while True:
                        await self._once(conn)
                        await self._sleep(conn)
            except psycopg.Error as fault:
                log.warning("relay lost PostgreSQL", reason=str(fault).strip())
                await asyncio.sleep(0.5)

    async def _once(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._wake.clear()
        while await self._move(conn, "fire_timers", (CHUNK,)) == CHUNK:
            pass
        everything, self._resend_all = self._resend_all, False
        if everything:
            # All at once: rows sent now become due again later, and a second look would find them again.
            until, self._until = self._until, None
            count = await self._move(conn, "resend_all", (until or FOREVER,))
        else:
            # What waits in a long queue has not been left behind, and sending it again makes the queue longer.
            count = 0 if self._congested() else await self._move(conn, "resend", (CHUNK,))
            if count == CHUNK:
                self._wake.set()
        if count:
            self.resent += count
            metrics.resent(count)
            log.info("sent again", events=count, everything=everything)
        # A timer that is set while we ask may be missing from the answer: who says so is heard all the same.
        self._next_timer = float("inf")
        row = await (await conn.execute(SQL["next_timer"])).fetchone()
        if row is not None:
            now = asyncio.get_running_loop().time()
            self._next_timer = min(self._next_timer, now + row[0] / 1000)

    async def _move(self, conn: psycopg.AsyncConnection[Any], statement: str, params: tuple[Any, ...]) -> int:
        cursor = await conn.execute(SQL[statement], params)
        rows = await cursor.fetchall()
        if rows:
            self._send([leaving(row) for row in rows])
        return len(rows)

    async def _sleep(self, conn: psycopg.AsyncConnection[Any]) -> None:
        """Until something is due, or somebody says so: a host, or the database itself (where a budget has headroom
        again). What the database has sent is read with the next statement."""
        loop = asyncio.get_running_loop()
        now, door = loop.time(), conn.fileno()
        pause = SWEEP_S if now < self._busy_until else IDLE_S
        pause = min(pause, max(0.0, self._next_timer - now))
        loop.add_reader(door, self._wake.set)
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass
        finally:
            loop.remove_reader(door)


def leaving(row: Sequence[Any]) -> Leaving:
    """A row of the outbox (tenant, run, key, consumer, name, data, trace, tries) as the message it stands for."""
    tenant, run, key, consumer, name, data, trace, tries = row
    text = dump(data)
    assert text is not None
    return Leaving(consumer, Message(name, tenant, run, key, data, trace), text, tries)
