"""A pipeline: prepared statements sent to PostgreSQL together, their answers taken together.

This is libpq's pipeline mode through psycopg's own binding of it. Statements between two syncs are one
transaction (unless they say ``begin``), so a batch's writes cost one round trip, commit included. Going below
psycopg's cursors saves about 40 microseconds a statement, which is what a step's latency is made of.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import orjson
import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.types.json import set_json_loads

from agentflow.store.statements import Call

ANSWER_S = 30.0  # a server that says nothing for so long is taken for lost
_OK = (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK)


def at_rest(descriptor: int) -> bool:
    """Whether a connection that nobody uses has nothing to say. One whose server has restarted has: it is closed."""
    asked = select.poll()
    asked.register(descriptor, select.POLLIN)
    return not asked.poll(0)


class Pipeline:
    """One connection. Use it from one task at a time; a failed exchange other than an SQL error closes it."""

    def __init__(self, conn: psycopg.AsyncConnection[Any]) -> None:
        self._conn = conn
        self._pg = conn.pgconn
        self._prepared: set[bytes] = set()
        self._transformer = Transformer(conn)
        self._ready: asyncio.Future[None] | None = None
        self._pg.enter_pipeline_mode()

    @property
    def usable(self) -> bool:
        return self._pg.status == pq.ConnStatus.OK

    @property
    def descriptor(self) -> int:
        return self._pg.socket

    @property
    def in_transaction(self) -> bool:
        return self.usable and self._pg.transaction_status != pq.TransactionStatus.IDLE

    async def run(self, calls: Iterable[Call]) -> list[pq.abc.PGresult]:
        """Execute statements in order, each sent as soon as it is made.

        All or none, where they are a transaction of their own. Raises psycopg's error for the first statement that
        failed; the results are in the order of the calls.
        """
        pg = self._pg
        # For each result to come: the name of the statement that is prepared, None where it is a call's.
        expected: list[bytes | None] = []
        try:
            for name, text, params in calls:
                if name not in self._prepared:
                    pg.send_prepare(name, text)
                    self._prepared.add(name)
                    expected.append(name)
                pg.send_query_prepared(name, params, [1] * len(params), 1)
                expected.append(None)
                pg.flush()  # PostgreSQL is at work on this one while the next is made
            pg.pipeline_sync()
            results = await self._answers()
        except BaseException:
            self.close()  # nobody knows what is still under way
            raise
        failed = None
        for result, name_prepared in zip(results, expected, strict=True):
            if result.status in _OK:
                continue
            failed = failed or result
            if name_prepared is not None:
                self._prepared.discard(name_prepared)
        if failed is not None:
            raise error_from_result(failed)
        return [result for result, prepared in zip(results, expected, strict=True) if prepared is None]

    def rows(self, result: pq.abc.PGresult) -> list[tuple[Any, ...]]:
        """The rows of a result, as Python values."""
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)

    def close(self) -> None:
        self._pg.finish()

    async def _answers(self) -> list[pq.abc.PGresult]:
        """Send what is queued and read until the sync is answered."""
        pg, loop, descriptor = self._pg, asyncio.get_running_loop(), self._pg.socket
        results: list[pq.abc.PGresult] = []
        silent = psycopg.OperationalError("PostgreSQL does not answer")
        deadline = loop.call_later(ANSWER_S, self._wake, silent)
        loop.add_reader(descriptor, self._wake)
        try:
            while pg.flush():
                # The socket is full: what the server says meanwhile is read, or both would wait for ever.
                loop.add_writer(descriptor, self._wake)
                try:
                    await self._woken(loop)
                finally:
                    loop.remove_writer(descriptor)
                pg.consume_input()
            while True:
                while not pg.is_busy():
                    result = pg.get_result()
                    if result is None:
                        continue
                    if result.status == pq.ExecStatus.PIPELINE_SYNC:
                        return results
                    results.append(result)
                await self._woken(loop)
                pg.consume_input()
        finally:
            deadline.cancel()
            loop.remove_reader(descriptor)

    async def _woken(self, loop: asyncio.AbstractEventLoop) -> None:
        self._ready = loop.create_future()
        try:
            await self._ready
        finally:
            self._ready = None

    def _wake(self, fault: Exception | None = None) -> None:
        if self._ready is not None and not self._ready.done():
            if fault is None:
                self._ready.set_result(None)
            else:
                self._ready.set_exception(fault)


class Pool:
    """At most ``size`` pipelines to one database, made when needed, dropped when broken."""

    def __init__(self, dsn: str, *, size: int, settings: Sequence[str] = ()) -> None:
        self._dsn = dsn
        self._settings = settings
        self._idle: deque[Pipeline] = deque()
        self._free = asyncio.Semaphore(size)
        self._closed = False

    @asynccontextmanager
    async def pipeline(self) -> AsyncIterator[Pipeline]:
        """Borrow a pipeline; it comes back with no transaction open."""
        async with self._free:
            if self._idle and not at_rest(self._idle[-1].descriptor):
                self._drop_idle()
            taken = self._idle.pop() if self._idle else await self._connect()
            try:
                yield taken
            finally:
                if taken.usable and not self._closed:
                    self._idle.append(taken)
                else:
                    taken.close()
                    self._drop_idle()  # what broke one has most likely broken all

    async def close(self) -> None:
        self._closed = True
        self._drop_idle()

    def _drop_idle(self) -> None:
        while self._idle:
            self._idle.pop().close()

    async def _connect(self) -> Pipeline:
        conn = await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        set_json_loads(orjson.loads, conn)
        for setting in self._settings:
            await conn.execute(f"set {setting}".encode())
        return Pipeline(conn)
