"""One real host per module, one API and two fresh tenants per test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio

from agentflow.config import Settings
from agentflow.control.app import create_app
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.store.admin import create_tenant, issue_key
from agentflow.store.control import ControlStore

from .world import PEPPER, KnownModels, Recorder, Tenant, World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a module share its host, so they share its event loop."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and pytest_asyncio.is_async_test(item):
            item.add_marker(pytest.mark.asyncio(loop_scope="module"), append=False)


@dataclass(frozen=True)
class Backend:
    """What the tests of a module share."""

    database: Any
    host: Host
    store: ControlStore


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend(
    module_database: Any, _nats_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Backend]:
    """A host with every function and the relay, and the API's store."""
    _nats_server.up()
    settings = Settings(home=tmp_path_factory.mktemp("home"), sandbox="process")
    dsn = module_database.dsn
    host = Host(
        settings,
        NAMES,
        engine_dsn=dsn("agentflow_engine"),
        relay_dsn=dsn("agentflow_relay"),
        nats_url=_nats_server.url,
    )
    store = ControlStore(dsn("agentflow_api"), connections=4)
    await host.start()
    await store.open()
    yield Backend(module_database, host, store)
    await store.close()
    await host.stop()
    bus = await nats.connect(_nats_server.url)
    for stream in await bus.jetstream().streams_info():
        await bus.jetstream().delete_stream(str(stream.config.name))
    await bus.close()


@asynccontextmanager
async def _tenant(database: Any, app: Any, name: str) -> AsyncIterator[Tenant]:
    tenant = await create_tenant(database.admin, name)
    key = str(await issue_key(database.admin, tenant, PEPPER))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as client:
        yield Tenant(tenant, key, client)


@pytest_asyncio.fixture(loop_scope="module")
async def world(backend: Backend) -> AsyncIterator[World]:
    """The API of this test, and tenants nobody else knows."""
    engine = Recorder(backend.host)
    app = create_app(engine, backend.store, Settings(key_pepper=PEPPER), KnownModels())
    async with _tenant(backend.database, app, "a") as a, _tenant(backend.database, app, "b") as b:
        yield World(backend.database, engine, backend.store, app, a, b)
