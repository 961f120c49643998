"""The command line against a real host behind a real HTTP server, as the only thing in its environment."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio
import structlog

from agentflow import cli
from agentflow.config import Settings
from agentflow.observe import logs
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.runtime.serve import http_server
from agentflow.store.admin import create_tenant, issue_key

ROOT = Path(__file__).parents[2]
HELLO = ROOT / "local" / "workflows" / "hello.yaml"
PEPPER = "a pepper for tests"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module share its host, so they share its event loop."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@dataclass(frozen=True)
class Served:
    """The API's address, and the databases behind it."""

    url: str
    database: Any


@dataclass(frozen=True)
class Ended:
    """What a command left: exit code, stdout and stderr."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Awaitable[Ended]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(
    module_database: Any, _nats_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A host with everything, the scripted model and the process sandbox."""
    _nats_server.up()
    logs.configure("error", io.StringIO())  # stdout is the command's
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), sandbox="process", key_pepper=PEPPER, script_dir=HELLO.parent
    )
    dsn = module_database.dsn
    host = Host(
        settings, NAMES, engine_dsn=dsn("agentflow_engine"), relay_dsn=dsn("agentflow_relay"),
        api_dsn=dsn("agentflow_api"), nats_url=_nats_server.url,
    )  # fmt: skip
    await host.start()
    async with http_server(host.http(), "127.0.0.1", 0) as port:
        yield Served(f"http://127.0.0.1:{port}", module_database)
    await host.stop()
    structlog.reset_defaults()
    bus = await nats.connect(_nats_server.url)
    for stream in await bus.jetstream().streams_info():
        await bus.jetstream().delete_stream(str(stream.config.name))
    await bus.close()


@pytest_asyncio.fixture(loop_scope="module")
async def key(served: Served) -> str:
    """The key of a tenant nobody else knows."""
    tenant = await create_tenant(served.database.admin, "somebody")
    return str(await issue_key(served.database.admin, tenant, PEPPER))


@pytest_asyncio.fixture(loop_scope="module")
async def client(served: Served, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """The same tenant's own client, to look from beside."""
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=served.url, headers=headers) as own:
        yield own


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An environment without any setting of whoever runs the tests."""
    for name in [name for name in os.environ if name.startswith("AGENTFLOW_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AGENTFLOW_HOME", str(tmp_path / "home"))
    return monkeypatch


@pytest.fixture
def agentflow(served: Served, key: str, environment: pytest.MonkeyPatch) -> Command:
    """Run ``agentflow`` with these arguments as the tenant of ``key``."""
    environment.setenv("AGENTFLOW_API_URL", served.url)
    environment.setenv("AGENTFLOW_API_KEY", key)
    return run


async def run(*arguments: str) -> Ended:
    """One command, in a thread of its own so that the host goes on."""
    return await asyncio.to_thread(_run, arguments)


def _run(arguments: tuple[str, ...]) -> Ended:
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["agentflow", *arguments]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    return Ended(code, out.getvalue(), err.getvalue())
