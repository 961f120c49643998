"""The embedded stack: real PostgreSQL, real nats-server and every function in one process, or in several.

For development, tests and small installations. The data stays in ``settings.home``: start again and whatever
was running goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO
from uuid import UUID

import structlog

from agentflow.config import Settings
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.runtime.processes import check, free_port, replicas
from agentflow.store.admin import create_tenant, is_live, issue_key
from agentflow.store.migrate import migrate

log = structlog.get_logger(__name__)
LOCAL_TENANT = UUID("10ca1000-0000-4000-8000-000000000001")
KEY_FILE = "api_key"


@dataclass(frozen=True, slots=True)
class Backends:
    """The databases and the bus a host needs."""

    postgres: EmbeddedPostgres
    nats: EmbeddedNats

    @property
    def url(self) -> str:
        """The database's URL without a user, as settings have it."""
        return self.postgres.dsn("").replace("//@", "//", 1)

    @property
    def admin_dsn(self) -> str:
        return self.postgres.dsn()

    @property
    def engine_dsn(self) -> str:
        return self.postgres.dsn("agentflow_engine")

    @property
    def api_dsn(self) -> str:
        return self.postgres.dsn("agentflow_api")

    @property
    def relay_dsn(self) -> str:
        return self.postgres.dsn("agentflow_relay")

    @property
    def keeper_dsn(self) -> str:
        return self.postgres.dsn("agentflow_keeper")


@asynccontextmanager
async def backends(settings: Settings) -> AsyncIterator[Backends]:
    """PostgreSQL (migrated) and nats-server out of ``settings.home``, stopped on the way out."""
    postgres, nats = EmbeddedPostgres(settings.home), EmbeddedNats(settings.home)
    async with contextlib.AsyncExitStack() as stack:
        # Each is stopped whatever becomes of the other.
        stack.push_async_callback(nats.stop)
        stack.push_async_callback(postgres.stop)
        for outcome in await asyncio.gather(postgres.start(), nats.start(), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
        running = Backends(postgres, nats)
        await migrate(running.admin_dsn)
        yield running


async def local_key(settings: Settings, running: Backends) -> str:
    """The API key of the local tenant, made at the first start and kept in the home folder."""
    return await first_key(running.admin_dsn, settings.home / KEY_FILE, settings.key_pepper)


async def first_key(admin_dsn: str, path: Path, pepper: str) -> str:
    """The API key in a file, if it still is one; else a new one of the local tenant, kept there."""
    kept = _read(path)
    if kept and await is_live(admin_dsn, kept):
        return kept
    await create_tenant(admin_dsn, "local", tenant=LOCAL_TENANT)
    key = str(await issue_key(admin_dsn, LOCAL_TENANT, pepper, label="local", admin=True))
    _write(path, key + "\n")
    return key


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _write(path: Path, text: str) -> None:
    """Into a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text)


@asynccontextmanager
async def embedded(
    settings: Settings, *, output: IO[str] | None = None
) -> AsyncIterator[tuple[Host, str, str]]:
    """The whole system; gives the host, the API's address and the local API key.

    What further processes write goes to ``output``.
    """
    from agentflow.runtime.serve import http_server

    check(settings.processes)
    shared = settings.processes > 1
    async with backends(settings) as running:
        key = await local_key(settings, running)
        host = Host(
            settings,
            NAMES,
            engine_dsn=running.engine_dsn,
            relay_dsn=running.relay_dsn,
            keeper_dsn=running.keeper_dsn,
            api_dsn=running.api_dsn,
            nats_url=running.nats.url,
        )
        try:
            await host.start()
            address = settings.http_host
            port = free_port(address, settings.http_port) if shared else settings.http_port
            async with (
                http_server(host.http(), address, port, shared=shared) as port,
                replicas(
                    settings.processes - 1,
                    database_url=running.url,
                    nats_url=running.nats.url,
                    port=port,
                    output=output,
                ),
            ):
                yield host, f"http://{address}:{port}", key
        finally:
            await host.stop()


async def dev(
    settings: Settings,
    *,
    then: Callable[[str, str], Awaitable[int]] | None = None,
    stay: bool = True,
    output: IO[str] | None = None,
) -> int:
    """Run the embedded stack: ``then(api_url, api_key)`` once it is up, and on until a signal if ``stay``.

    Returns what ``then`` returned, or 0. What further processes write goes to ``output``.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(sign, stop.set)
    async with embedded(settings, output=output) as (_, url, key):
        code = 0
        if then is not None:
            work = asyncio.ensure_future(then(url, key))
            stopped = asyncio.ensure_future(stop.wait())
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
                return 130
            stopped.cancel()
            code = work.result()
        if stay and code == 0:
            await stop.wait()
        return code
