"""The servers under test, real ones from the wheels, and what can befall them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row

from agentflow.errors import AgentFlowError
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import SOCKET_NAME, EmbeddedPostgres
from agentflow.runtime.embedded_server import EmbeddedServer
from agentflow.store.migrate import migrate

TEMPLATE = "chaos_template"
SLOW_US = 80_000  # before every flush of the log while the disk is slow (commit_delay's most is 100 ms)


class Dated(EmbeddedPostgres):
    """A PostgreSQL that can be asked when a row's transaction was committed, as the checker does."""

    settings = MappingProxyType({**EmbeddedPostgres.settings, "track_commit_timestamp": "on"})


class Servers:
    """One PostgreSQL and one nats-server, in a folder of their own."""

    def __init__(self, home: Path) -> None:
        passable(home)
        self.postgres = Dated(home)
        self.nats = EmbeddedNats(home)
        self._numbers = 0

    async def start(self) -> None:
        await asyncio.gather(self.postgres.start(), self.nats.start())
        async with self.admin() as conn:
            await conn.execute(f"create database {TEMPLATE}")
        await migrate(self.postgres.dsn(database=TEMPLATE))

    async def stop(self) -> None:
        await asyncio.gather(self.postgres.stop(), self.nats.stop(), return_exceptions=True)

    @property
    def socket(self) -> Path:
        """Where PostgreSQL listens."""
        return Path(str(psycopg.conninfo.conninfo_to_dict(self.postgres.dsn())["host"]), SOCKET_NAME)

    @property
    def nats_port(self) -> int:
        return int(urlsplit(self.nats.url).port or 0)

    @asynccontextmanager
    async def admin(self, database: str = "postgres") -> AsyncIterator[psycopg.AsyncConnection[Any]]:
        """The superuser, each statement by itself."""
        dsn = self.postgres.dsn(database=database)
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            yield conn

    async def rows(self, database: str, query: str, *params: Any) -> list[dict[str, Any]]:
        """Rows of a query, as the superuser sees them."""
        async with self.admin(database) as conn:
            cursor = conn.cursor(row_factory=dict_row)
            return await (await cursor.execute(query.encode(), params or None)).fetchall()

    async def fresh(self, template: str = TEMPLATE) -> str:
        """The name of a new, migrated, empty database; the bus is emptied, too."""
        self._numbers += 1
        name = f"chaos_{self._numbers}"
        async with self.admin() as conn:
            await conn.execute(f"create database {name} template {template}")
        import nats

        connection = await nats.connect(self.nats.url)
        jetstream = connection.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
        await connection.close()
        return name

    async def drop(self, name: str) -> None:
        async with self.admin() as conn:
            await conn.execute(f"drop database if exists {name} with (force)")

    # -- what can befall PostgreSQL --------------------------------------------------------------------

    async def stop_postgres_at_once(self, down_s: float) -> None:
        """An immediate stop: no checkpoint, every connection dropped; it recovers from its log when it starts."""
        await self._signal_postgres(signal.SIGQUIT)
        await asyncio.sleep(down_s)
        await _until_started(self.postgres)

    async def crash_a_backend(self, database: str) -> None:
        """kill -9 of one backend: the server ends all others and recovers."""
        rows = await self._backends(database, "xact_start is not null")
        if rows:
            os.kill(rows[0], signal.SIGKILL)

    async def terminate_backends(self, database: str, *, committing: bool) -> int:
        """End backends in the middle of a transaction, or (while the disk is slow, which is where they are then)
        during their commit; gives how many."""
        busy = "state = 'active' and backend_xid is not null" if committing else "xact_start is not null"
        pids = await self._backends(database, busy)
        async with self.admin() as conn:
            for pid in pids:
                await conn.execute("select pg_terminate_backend(%s)", (pid,))
        return len(pids)

    async def _backends(self, database: str, busy: str) -> list[int]:
        query = (
            f"select pid from pg_stat_activity where datname = %s and usename like 'agentflow_%%' and {busy}"
        )
        return [row["pid"] for row in await self.rows("postgres", query, database)]

    async def slow_disk(self, slow: bool) -> None:
        """Have every flush of the write-ahead log wait, inside PostgreSQL, before it is made."""
        async with self.admin() as conn:
            await conn.execute(f"alter system set commit_delay = {SLOW_US if slow else 0}")
            await conn.execute(f"alter system set commit_siblings = {0 if slow else 5}")
            await conn.execute("select pg_reload_conf()")

    async def _signal_postgres(self, sign: signal.Signals) -> None:
        pid = self.postgres.pid
        if pid is not None:
            os.kill(pid, sign)
        while self.postgres.alive:  # noqa: ASYNC110  another process's end
            await asyncio.sleep(0.01)

    # -- what can befall NATS --------------------------------------------------------------------------

    async def restart_nats(self, down_s: float) -> None:
        await self.nats.stop()
        await asyncio.sleep(down_s)
        await _until_started(self.nats)

    async def kill_nats(self, down_s: float) -> None:
        if (pid := self.nats.pid) is not None:
            os.kill(pid, signal.SIGKILL)
        while self.nats.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await asyncio.sleep(down_s)
        await _until_started(self.nats)

    async def truncate_nats(self, chance: random.Random) -> None:
        """kill -9, and the ends of some of its files are gone; where it can't start on those, all are."""
        if (pid := self.nats.pid) is not None:
            os.kill(pid, signal.SIGKILL)
        while self.nats.alive:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        files = sorted(path for path in self.nats.store.rglob("*") if path.is_file() and path.stat().st_size)
        for path in files:
            if chance.random() < 0.5:
                os.truncate(path, int(path.stat().st_size * chance.random()))
        try:
            await self.nats.start()
        except AgentFlowError:
            await self.wipe_nats()

    async def wipe_nats(self) -> None:
        """All streams and consumers are gone."""
        with contextlib.suppress(AgentFlowError):
            await self.nats.wipe_jetstream()
            return
        import shutil

        shutil.rmtree(self.nats.store, ignore_errors=True)
        await self.nats.start()

    async def pause_nats(self, seconds: float) -> None:
        """SIGSTOP: it takes connections and says nothing."""
        if (pid := self.nats.pid) is not None:
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(seconds)
            os.kill(pid, signal.SIGCONT)


def passable(folder: Path) -> None:
    """Make a folder that others (PostgreSQL's account, tools') may pass through."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)


async def _until_started(server: EmbeddedServer) -> None:
    """Start a server, again if need be: one that was killed may leave something in its successor's way."""
    for _ in range(10):
        with contextlib.suppress(AgentFlowError):
            await server.start()
            return
        await asyncio.sleep(0.5)
    await server.start()
