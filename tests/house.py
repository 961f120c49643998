"""A whole house per test: a fresh database, a real bus, and all functions in this process."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import orjson
import psycopg
import pytest
from psycopg.rows import dict_row

from agentflow.bus.jetstream import JetStream
from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.errors import RetryLater
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.store.admin import create_tenant, issue_key
from agentflow.store.changes import dump
from agentflow.store.replay import Replay
from agentflow.wire.document import compile_document

ALL = tuple(NAMES)


@dataclass(slots=True)
class House:
    """Hosts over one database and one bus, with what tests ask of them."""

    settings: Settings
    database: Any
    nats: Any
    tenant: UUID

    @asynccontextmanager
    async def host(
        self, names: tuple[str, ...] = ALL, *, relay: bool = True, **changes: Any
    ) -> AsyncIterator[Host]:
        """A running host that carries ``names``."""
        host = Host(
            replace(self.settings, **changes),
            names,
            engine_dsn=self.database.dsn("agentflow_engine"),
            relay_dsn=self.database.dsn("agentflow_relay") if relay else None,
            api_dsn=self.database.dsn("agentflow_api") if "api" in names else None,
            nats_url=self.nats.url,
        )
        await host.start()
        try:
            yield host
        finally:
            await host.stop()

    async def register(self, document: dict[str, Any], *, version: int = 1) -> None:
        """Put a workflow into the registry."""
        plan = compile_document(document)
        from psycopg.types.json import Json

        async with await psycopg.AsyncConnection.connect(self.database.admin) as conn:
            await conn.execute(
                "insert into agentflow.workflows (tenant_id, name, version, hash, document) values (%s,%s,%s,%s,%s)",
                (self.tenant, plan.name, version, plan.hash, Json(plan.document)),
            )
            if plan.trigger is not None:
                await conn.execute(
                    "insert into agentflow.triggers values (%s, %s, %s, %s)",
                    (self.tenant, plan.trigger.type, plan.name, version),
                )

    async def submit(
        self, host: Host, workflow: str, given: dict[str, Any] | None = None, **data: Any
    ) -> UUID:
        """Request a run; durable when this returns."""
        run = data.pop("run", None) or uuid4()
        body = {
            "run": str(run),
            "workflow": workflow,
            "version": None,
            "input": given or {},
            "budget_micro": None,
        }
        await host.submit(Message("run.requested", self.tenant, run, "requested", body | data))
        return run

    async def rows(self, query: str, *params: Any) -> list[dict[str, Any]]:
        """Rows as the superuser sees them; ``from runs`` finds agentflow's tables."""
        async with await psycopg.AsyncConnection.connect(self.database.admin, row_factory=dict_row) as conn:
            await conn.execute("set search_path = agentflow")
            return await (await conn.execute(query, params)).fetchall()

    async def run(self, run: UUID) -> dict[str, Any]:
        (row,) = await self.rows("select * from runs where run_id = %s", run)
        return row

    async def ended(self, run: UUID, *, within_s: float = 60) -> dict[str, Any]:
        """The run's row once it is over."""
        return await eventually(lambda: self._terminal(run), within_s=within_s)

    async def settled(self, run: UUID, *, within_s: float = 60) -> dict[str, Any]:
        """The run's row once it is over and nothing is held for it: functions apart may settle after its end."""
        over = "select * from runs where run_id = %s and finished_at is not null and held_micro = 0"
        (row,) = await eventually(lambda: self.rows(over, run), within_s=within_s)
        return dict(row)

    async def _terminal(self, run: UUID) -> dict[str, Any] | None:
        rows = await self.rows("select * from runs where run_id = %s and finished_at is not null", run)
        return rows[0] if rows else None


async def bus_of(url: str, *, within_s: float, **options: Any) -> JetStream:
    """Our bus, once the servers have found each other."""

    async def made() -> JetStream | None:
        bus = JetStream(url, **options)
        try:
            await bus.open()
        except RetryLater:
            await bus.close()
            return None
        return bus

    bus = await eventually(made, within_s=within_s)
    assert isinstance(bus, JetStream)
    return bus


async def eventually(look: Callable[[], Any], *, within_s: float = 60) -> Any:
    """The first true value that ``look`` gives, or promises; fails the test when none comes in time."""
    loop = asyncio.get_running_loop()
    until = loop.time() + within_s
    while not (found := await _given(look())):
        assert loop.time() < until, f"nothing after {within_s} s; last seen: {found!r}"
        await asyncio.sleep(0.02)
    return found


async def _given(found: Any) -> Any:
    return await found if inspect.isawaitable(found) else found


@asynccontextmanager
async def door(house: House, host: Host) -> AsyncIterator[httpx.AsyncClient]:
    """The API of a host."""
    key = str(await issue_key(house.database.admin, house.tenant, house.settings.key_pepper))
    headers = {"authorization": f"Bearer {key}"}
    transport = httpx.ASGITransport(host.api(), raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", headers=headers, timeout=60
    ) as api:
        yield api


async def all_decided_again(house: House) -> None:
    """Every planned run's history, decided again, comes to the same."""
    for run in await house.rows("select * from runs where version is not null"):
        known = "select document from workflows where name = %s and version = %s"
        (workflow,) = await house.rows(known, run["workflow"], run["version"])
        attempts = await house.rows("select * from steps where run_id = %s", run["run_id"])
        by_number = {(row["step"], row["attempt"]): row for row in attempts}
        replay = Replay(compile_document(workflow["document"]), run["input"], by_number)
        lines = await house.rows("select * from history where run_id = %s order by seq", run["run_id"])
        assert replay.run(lines) is None, replay.found
        assert (replay.status, replay.output) == (run["status"], run["output"])
        agents = replay.state.agents if replay.state else None
        assert orjson.loads(dump(agents) or b"null") == run["state"].get("agents")


@pytest.fixture
async def house(database: Any, nats: Any, tmp_path: Path) -> House:
    """One tenant, nothing running yet."""
    tenant = await create_tenant(database.admin, "acme")
    settings = replace(Settings(), home=tmp_path, sandbox="process", script_dir=tmp_path)
    return House(settings, database, nats, tenant)
