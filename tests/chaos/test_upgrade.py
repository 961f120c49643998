"""An upgrade and the way back, under load: the former version's functions and ours, side by side on one database and
one JetStream, with nothing lost and nothing doubled. infra/knative/README.md says the same order."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from uuid import uuid4

import pytest

from agentflow.store.admin import create_tenant
from agentflow.store.api_keys import mint, parse
from chaos.books import Round
from chaos.checker import check, check_ended
from chaos.checks_money import check_sums
from chaos.client import PATIENCE_S, Tenant
from chaos.farside import FarSide
from chaos.fleet import OURS, Fleet
from chaos.listener import Listener
from chaos.load import Load
from chaos.sampler import Sampler
from chaos.servers import Servers, passable
from chaos.stage import PEPPER, POOR_MICRO
from chaos.statements import Statements
from chaos.versions import agentflow, former

WAVE = 4  # runs a second
FORM = {
    "effects": ("serve", "invoke_llm", "run_tool"),
    "engine": ("serve", "plan", "dispatch", "account_cost", "--relay"),
    "api": ("serve", "api"),
}
"""A version's workers. Whatever one has for another goes over the bus."""
ORDER = (("effects",), ("engine",), ("api",))
"""Who is asked comes before who asks, and goes back after it."""


@dataclass
class World:
    """A system of the former version with a load on it."""

    servers: Servers
    database: str
    code: Path
    fleet: Fleet
    load: Load
    tenants: list[Tenant]
    far: FarSide
    listener: Listener
    sampler: Sampler

    async def roll_out(self, version: str, names: tuple[str, ...], code: Path = OURS) -> None:
        """Start workers of a version, and wait until they are ready."""
        for name in names:
            await self.fleet.add(f"{version}-{name}", FORM[name], code)
        await self.fleet.ready()
        self.load.client.urls = [worker.url for worker in self.fleet.carrying() if worker.has_api]

    async def take_away(self, version: str, names: tuple[str, ...]) -> None:
        """End them, as a rollout does: no more requests first, then SIGTERM."""
        leaving = [self.fleet.workers[f"{version}-{name}"] for name in names]
        self.load.client.urls = [w.url for w in self.fleet.carrying() if w.has_api and w not in leaving]
        await self.fleet.retire(*(worker.name for worker in leaving))

    async def at_work(self, names: tuple[str, ...], *versions: str) -> None:
        """Until these workers of these versions, side by side, have committed from now on."""
        since = time.monotonic()
        workers = [self.fleet.workers[f"{version}-{name}"] for version in versions for name in names]
        while idle := [worker.name for worker in workers if not any(at > since for at in worker.commits())]:
            assert time.monotonic() - since < PATIENCE_S, idle
            await self.sampler.next()

    async def drive(self, over: asyncio.Event) -> None:
        """Submit a wave of runs every second until it is over, and see all through to their ends."""
        waves = []
        while not over.is_set():
            first = len(waves) * WAVE
            waves.append(asyncio.create_task(self.load.run(WAVE, in_flight=WAVE, over_s=1.0, first=first)))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(over.wait(), 1.0)
        await asyncio.gather(*waves)


@asynccontextmanager
async def world(tmp_path: Path) -> AsyncIterator[World]:
    code = former(tmp_path)
    servers = Servers(tmp_path / "servers")
    folder = tmp_path / "w"  # sockets are in it, and their paths may not be long
    passable(tmp_path)
    passable(folder)
    async with AsyncExitStack() as stack:
        await servers.start()
        stack.push_async_callback(servers.stop)
        database = await servers.fresh("template0")
        dsn = servers.postgres.dsn(database=database)
        done = await asyncio.to_thread(agentflow, code, "migrate", "--database", dsn)
        assert done.returncode == 0, done.stderr
        tenants = await _tenants(servers, database)
        far = FarSide(7, trouble=0.1)
        await far.start()
        stack.push_async_callback(far.close)
        fleet = Fleet("former", servers, database, folder, far.port)
        stack.push_async_callback(fleet.close)
        listener = Listener(servers.nats.url, {tenant.id: tenant.mark for tenant in tenants})
        await listener.start()
        stack.push_async_callback(listener.stop)
        sampler = Sampler(lambda: dsn)
        stack.push_async_callback(sampler.stop)
        passable(fleet.temp)
        passable(folder / "home")
        load = Load("upgrade", tenants, fleet, sampler, listener, f"http://127.0.0.1:{far.port}/effect", team=None)
        stack.push_async_callback(load.client.close)
        at = World(servers, database, code, fleet, load, tenants, far, listener, sampler)
        await at.roll_out("former", tuple(FORM), code)
        await load.register()
        sampler.start()
        yield at


async def _tenants(servers: Servers, database: str) -> list[Tenant]:
    """Three tenants, one of them with a budget that some of its runs exceed, as the former version knows it."""
    dsn = servers.postgres.dsn(database=database)
    tenants = []
    for number in range(3):
        tenant = await create_tenant(dsn, f"tenant-{number}")
        tenants.append(Tenant(tenant, str(mint(tenant)), f"mark{uuid4().hex[:12]}"))
    async with servers.admin(database) as conn:
        for each in tenants:
            key = parse(each.key)
            assert key is not None
            row = "insert into agentflow.api_keys (tenant_id, key_id, hash) values (%s, %s, %s)"
            await conn.execute(row, (each.id, key.id, key.hashed(PEPPER)))
        row = "insert into agentflow.budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', %s)"
        await conn.execute(row, (tenants[-1].id, POOR_MICRO))
    return tenants


@pytest.mark.history
@pytest.mark.xdist_group("chaos-upgrade")
async def test_there_and_back_under_load(tmp_path: Path) -> None:
    async with world(tmp_path) as at:
        over = asyncio.Event()
        driving = asyncio.create_task(at.drive(over))
        dsn = at.servers.postgres.dsn(database=at.database)
        done = await asyncio.to_thread(agentflow, OURS, "migrate", "--database", dsn)
        assert done.returncode == 0, done.stderr
        assert "0012_spend.sql" in done.stdout
        for names in ORDER:
            await at.roll_out("ours", names)
            await at.at_work(names, "former", "ours")
            await at.take_away("former", names)
        await at.at_work(tuple(FORM), "ours")
        for names in reversed(ORDER):
            await at.roll_out("back", names, at.code)
            await at.at_work(names, "ours", "back")
            await at.take_away("ours", names)
        await at.at_work(tuple(FORM), "back")
        over.set()
        await driving
        quiet = await at.sampler.until(lambda: at.sampler.quiet, within_s=60)
        await _judge(at, quiet)


async def _judge(at: World, quiet: bool) -> None:
    await at.listener.catch_up()
    around = Round(at.load.submissions, [], at.tenants, at.sampler, at.listener, at.far, at.fleet, False, quiet)
    dsn = partial(at.servers.postgres.dsn, database=at.database)
    sql = await Statements.connect(dsn())
    try:
        # What is rolled up for reports begins with 0012: of what the former version settles it has nothing.
        books, found = await check(sql, around, dsn, without=frozenset({check_sums}))
        await at.load.client.close()
        await at.fleet.stop()
        found += await check_ended(sql, at.fleet)
    finally:
        await sql.close()
    # A former dispatch that halts a call leaves the claim that ours had made; it goes with its run.
    found = [each for each in found if not each.what.startswith("the claim of step")]
    assert found + at.load.client.violations == []
    assert len(books.runs) > 5 * WAVE
