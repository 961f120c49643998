"""The stage of one round: a database, tenants, the far side, a fleet, and who watches and drives them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

from psycopg.types.json import Json

from agentflow.core.canonical import digest
from agentflow.store.admin import create_tenant, issue_key
from agentflow.store.budgets import set_budget
from chaos.client import Tenant
from chaos.farside import FarSide
from chaos.fleet import Fleet
from chaos.listener import Listener
from chaos.load import Load
from chaos.report import Script
from chaos.sampler import Sampler
from chaos.servers import Servers
from chaos.statements import Statements
from chaos.workflows import TEAM, UNPRICED, WORKFLOWS

PEPPER = "local-development-pepper"
POOR_MICRO = 8_000  # what the last tenant may spend in a round: some of its runs run out of money
RICH_MICRO = 1_000_000_000
WARNED_MICRO = 100  # its soft limit: it is warned of early, and once


@dataclass(frozen=True, slots=True)
class Stage:
    """Everything that a round is played with."""

    servers: Servers
    database: str
    tenants: list[Tenant]
    far: FarSide
    fleet: Fleet
    listener: Listener
    sampler: Sampler
    load: Load


@asynccontextmanager
async def stage(servers: Servers, script: Script, folder: Path) -> AsyncIterator[Stage]:
    """A stage with all workers ready and every workflow registered; nothing of it is left afterwards."""
    database = await servers.fresh()
    seed = random.Random(script.seed).randrange(2**31)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(servers.drop, database)
        tenants = await _tenants(servers.postgres.dsn(database=database))
        far = FarSide(seed, trouble=script.trouble)
        await far.start()
        stack.push_async_callback(far.close)
        fleet = Fleet(script.form, servers, database, folder, far.port, seed=seed, bug=script.bug)
        stack.push_async_callback(fleet.close)
        listener = Listener(servers.nats.url, {tenant.id: tenant.mark for tenant in tenants})
        await listener.start()
        stack.push_async_callback(listener.stop)
        sampler = Sampler(lambda: servers.postgres.dsn(database=database))
        stack.push_async_callback(sampler.stop)
        await fleet.start()
        sampler.start()
        effect_url = f"http://127.0.0.1:{far.port}/effect"
        load = Load(script.seed, tenants, fleet, sampler, listener, effect_url, script.only)
        stack.push_async_callback(load.client.close)
        await load.register()
        sql = await Statements.connect(servers.postgres.dsn(database=database))
        # One that the API has refused, put into the registry behind its back.
        document = Json(UNPRICED.document)
        name, known = UNPRICED.name, digest(UNPRICED.document)
        await sql.run("insert_workflow", tenant=tenants[0].id, name=name, hash=known, document=document)
        await sql.close()
        await load.submit_unpriced(tenants[0])
        if not script.only:
            await load.limit()
        await load.warm_up()
        yield Stage(servers, database, tenants, far, fleet, listener, sampler, load)


async def _tenants(dsn: str) -> list[Tenant]:
    """Four tenants: one without a budget, one with a large one, one with an account for every workflow and a named one
    besides, per day, month and in total, and one with too small a budget."""
    tenants = []
    for number, limit in enumerate((None, RICH_MICRO, RICH_MICRO, POOR_MICRO)):
        tenant: UUID = await create_tenant(dsn, f"tenant-{number}", limit_micro=limit)
        key = await issue_key(dsn, tenant, PEPPER)
        tenants.append(Tenant(tenant, str(key), f"mark{uuid4().hex[:12]}"))
    scopes = [f"workflow:{workflow.name}" for workflow in WORKFLOWS] + [f"budget:{TEAM}"]
    for number, scope in enumerate(["tenant", *scopes]):
        period = ("day", "month", "total")[number % 3] if scope != "tenant" else "day"
        await set_budget(dsn, tenants[-2].id, scope, period, limit_micro=RICH_MICRO, soft_micro=RICH_MICRO // 2)
    await set_budget(dsn, tenants[-1].id, "tenant", "total", limit_micro=POOR_MICRO, soft_micro=WARNED_MICRO)
    return tenants
