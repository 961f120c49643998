"""A round: a fleet, a load, a storm of faults, quiescence, and the checker's verdict."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from pathlib import Path
from uuid import UUID, uuid4

from psycopg.types.json import Json

from agentflow.store.admin import create_tenant, issue_key
from chaos.books import Books, Round
from chaos.checker import check, check_ended
from chaos.checks_runs import repeated_calls
from chaos.client import Tenant
from chaos.farside import FarSide
from chaos.faults import Scene
from chaos.fleet import Fleet
from chaos.listener import Listener
from chaos.load import Load
from chaos.poison import Poison, poisons
from chaos.recovery import Recovery
from chaos.report import Report, Script
from chaos.sampler import Sampler
from chaos.servers import Servers, passable
from chaos.statements import Statements
from chaos.storm import Storm
from chaos.workflows import UNPRICED

PEPPER = "local-development-pepper"
POOR_MICRO = 8_000  # what the last tenant may spend in a round: some of its runs run out of money
RICH_MICRO = 1_000_000_000
HANGS_S = 240.0  # starting, healing, checking and ending take less, or the harness hangs


async def play(servers: Servers, script: Script, folder: Path) -> Report:
    """Play one round in a folder of its own; the folder is left where it is."""
    report = Report(script, folder=folder)
    began = time.monotonic()
    passable(folder)
    database = await servers.fresh()
    most_s = script.over_s + script.rest_s + HANGS_S
    async with asyncio.timeout(most_s), contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(servers.drop, database)
        tenants = await make_tenants(servers, database)
        far = FarSide(random.Random(script.seed).randrange(2**32), trouble=script.trouble)
        await far.start()
        stack.push_async_callback(far.close)
        fleet = Fleet(
            script.form, servers, database, folder, far.port, seed=hash_of(script.seed), bug=script.bug
        )
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
        await add_unpriced(servers, database, tenants[0])
        await load.submit_unpriced(tenants[0])
        if not script.only:
            await load.limit()
        await load.warm_up()
        bad = poisons([tenant.id for tenant in tenants], script.seed, script.poison)
        recovery = Recovery(fleet, sampler)
        chance = random.Random(f"faults/{script.seed}")
        scene = Scene(fleet, servers, database, far, listener, sampler, recovery, chance, script.stop_s)
        storm = Storm(scene, every_s=script.every_s, without=script.without, singly=script.singly)
        quiet = await _weather(script, load, storm, bad, listener, sampler, fleet, report)
        if not listener.losses:
            await listener.catch_up()
        around = Round(load.submissions, bad, tenants, sampler, listener, far, fleet, script.calm, quiet)
        sql = await Statements.connect(servers.postgres.dsn(database=database))
        stack.push_async_callback(sql.close)
        books, found = await check(sql, around)
        report.times = recovery.times()
        await load.client.close()
        await fleet.stop()
        found += await check_ended(sql, fleet)
        report.violations = load.client.violations + found
        report.faults, report.together, report.story = storm.counts, storm.together, storm.story
        report.counts += counts(books, load)
        report.histories = {str(v.run): history_of(books, v.run) for v in found if v.run is not None}
    report.took_s = time.monotonic() - began
    return report


async def _weather(script: Script, load: Load, storm: Storm, bad: list[Poison], listener: Listener, sampler: Sampler,
                   fleet: Fleet, report: Report) -> bool:  # fmt: skip
    """The load and, unless it is calm, the storm; then rest. Whether it came to rest in time."""
    driving = asyncio.create_task(load.run(script.runs, in_flight=script.in_flight, over_s=script.over_s))
    dropping = asyncio.create_task(_drop(bad, listener, script.over_s))
    raging = None if script.calm else asyncio.create_task(storm.rage())
    await asyncio.wait({driving}, timeout=script.over_s)
    if raging is not None:
        raging.cancel()
        await asyncio.wait({raging})
        if not raging.cancelled() and (fault := raging.exception()) is not None:
            raise fault
        await storm.calm()
        await fleet.ready()
    began = time.monotonic()

    def at_rest() -> bool:
        missing = [
            poison.mark for poison in bad if poison.due(listener) and not poison.parked(sampler.parked)
        ]
        rest = driving.done() and sampler.quiet and not missing
        after = int(time.monotonic() - began)
        if not rest and after // 10 > len(report.late):
            going = [
                f"{run['token']} {run['workflow']} {(run['state'] or {}).get('open')}"
                for run in sampler.open.values()
            ]
            report.late.append(
                f"after {after} s: runs {going[:3]}, messages {sampler.oldest[:3]}, not parked {missing}"
            )
        return rest

    await sampler.next()
    quiet = await sampler.until(at_rest, within_s=script.rest_s)
    dropping.cancel()
    if driving.done():
        driving.result()
    else:
        driving.cancel()
        await asyncio.wait({driving})
    report.rest_s = time.monotonic() - began
    return quiet


async def _drop(bad: list[Poison], listener: Listener, over_s: float) -> None:
    for poison in bad:
        await poison.publish(listener)
        await asyncio.sleep(over_s / (3 * len(bad)))


async def make_tenants(servers: Servers, database: str) -> list[Tenant]:
    """Three tenants: one without a budget, one with a large one, one with too small a one."""
    dsn = servers.postgres.dsn(database=database)
    tenants = []
    for number, limit in enumerate((None, RICH_MICRO, POOR_MICRO)):
        tenant: UUID = await create_tenant(dsn, f"tenant-{number}", limit_micro=limit)
        key = await issue_key(dsn, tenant, PEPPER)
        tenants.append(Tenant(tenant, str(key), f"mark{uuid4().hex[:12]}"))
    return tenants


async def add_unpriced(servers: Servers, database: str, tenant: Tenant) -> None:
    """A workflow that the API would refuse, put into the registry behind its back."""
    sql = await Statements.connect(servers.postgres.dsn(database=database))
    await sql.run(
        "insert_workflow", tenant=tenant.id, name="unpriced", hash="-", document=Json(UNPRICED.document)
    )
    await sql.close()


def counts(books: Books, load: Load) -> Counter[str]:
    """What the round has moved."""
    around = books.round
    return Counter(f"runs {run['status']}" for run in books.runs.values()) + Counter(
        runs=len(books.runs),
        steps=len(books.tables["steps"]),
        lines=len(books.tables["history"]),
        parked=len(books.tables["parked"]),
        calls=around.far.total,
        calls_repeated=repeated_calls(books),
        messages=around.listener.heard,
        messages_repeated=around.listener.repeated,
        samples=around.sampler.samples,
        requests_retried=load.client.retries,
        requests_answered_500=load.client.internal_errors,
    )


def history_of(books: Books, run: UUID) -> list[str]:
    """A run's history and steps as text, for the report."""
    lines = [
        f"{line['seq']:>4} {line['at']:%H:%M:%S.%f} {line['name']} {line['data']}"
        for line in books.history.get(run, ())
    ]
    lines += [
        f"step {step['step']}.{step['attempt']} {step['task']} {step['status']} epoch {step['epoch']} {step['error']}"
        for step in books.steps.get(run, ())
    ]
    lines += [f"outbox {row['consumer']} {row['key']} due {row['due_at']}" for row in books.tables["outbox"]
              if row["run_id"] == run]  # fmt: skip
    return lines[:80]


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return random.Random(text).randrange(2**31)
