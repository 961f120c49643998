"""The API served in process, and two tenants to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx
import pytest

from agentflow.config import Settings
from agentflow.control.app import create_app
from agentflow.store.admin import create_tenant, issue_key
from agentflow.store.control import ControlStore

from .world import PEPPER, KnownModels, LocalEngine, Tenant, World


@asynccontextmanager
async def _tenant(database: Any, app: Any, name: str) -> AsyncIterator[Tenant]:
    tenant = await create_tenant(database.admin, name)
    key = str(await issue_key(database.admin, tenant, PEPPER))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as http:
        yield Tenant(tenant, key, http)


@pytest.fixture
async def world(module_database: Any) -> AsyncIterator[World]:
    """Everything fresh but the database, which the tests of a module share: each has tenants of its own."""
    store = ControlStore(module_database.dsn("agentflow_api"), connections=4)
    await store.open()
    async with LocalEngine(module_database.dsn("agentflow_engine")) as engine:
        app = create_app(engine, store, Settings(key_pepper=PEPPER), KnownModels())
        async with (
            _tenant(module_database, app, f"a-{uuid4().hex[:6]}") as a,
            _tenant(module_database, app, f"b-{uuid4().hex[:6]}") as b,
        ):
            yield World(module_database, engine, store, app, a, b)
    await store.close()
