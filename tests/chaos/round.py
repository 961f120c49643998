"""A round: a load and a storm on a stage, then rest, then the checker's verdict."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from functools import partial
from pathlib import Path
from uuid import UUID

from chaos.books import Books, Round
from chaos.checker import check, check_ended
from chaos.checks_runs import repeated_calls
from chaos.faults import Scene
from chaos.listener import Listener
from chaos.load import Load
from chaos.poison import Poison, poisons
from chaos.recovery import Recovery
from chaos.report import Report, Script
from chaos.servers import Servers, passable
from chaos.stage import Stage, stage
from chaos.statements import Statements
from chaos.storm import Storm

HANGS_S = 240.0  # starting, healing, checking and ending take less, or the harness hangs
LOOK_S = 10.0  # how often it is noted what keeps a round from coming to rest


async def play(servers: Servers, script: Script, folder: Path) -> Report:
    """Play one round in a folder of its own; the folder is left where it is."""
    report = Report(script, folder=folder)
    began = time.monotonic()
    passable(folder)
    async with asyncio.timeout(script.over_s + script.rest_s + HANGS_S), stage(servers, script, folder) as on:
        bad = poisons([tenant.id for tenant in on.tenants], script.seed, script.poison)
        recovery = Recovery(on.fleet, on.sampler)
        chance = random.Random(f"faults/{script.seed}")
        scene = Scene(
            on.fleet, servers, on.database, on.far, on.listener, on.sampler, recovery, chance, script.stop_s
        )
        storm = Storm(scene, every_s=script.every_s, without=script.without, singly=script.singly)
        driving = asyncio.create_task(
            on.load.run(script.runs, in_flight=script.in_flight, over_s=script.over_s)
        )
        await _run(script, on, storm, bad, driving)
        if not script.calm:
            await storm.calm()
            await on.fleet.ready()
        quiet = await _rest(script, on, bad, driving, report)
        if driving.done():
            driving.result()
        else:
            driving.cancel()
            await asyncio.wait({driving})
        await _judge(script, on, bad, quiet, report)
        report.times = recovery.times()
        report.faults, report.together, report.story = storm.counts, storm.together, storm.story
    report.took_s = time.monotonic() - began
    return report


async def _run(
    script: Script, on: Stage, storm: Storm, bad: list[Poison], driving: asyncio.Task[None]
) -> None:
    """The load and, unless it is calm, the storm, for as long as the script says or the load lasts."""
    raging = None if script.calm else asyncio.create_task(storm.rage())
    dropping = asyncio.create_task(_drop(bad, on.listener, script.over_s))
    await asyncio.wait({driving}, timeout=script.over_s)
    if raging is not None:
        raging.cancel()
        await asyncio.wait({raging})
        if not raging.cancelled() and (fault := raging.exception()) is not None:
            raise fault
    await dropping


async def _drop(bad: list[Poison], listener: Listener, over_s: float) -> None:
    for poison in bad:
        await poison.publish(listener)
        await asyncio.sleep(over_s / (3 * len(bad)))


async def _rest(
    script: Script, on: Stage, bad: list[Poison], driving: asyncio.Task[None], report: Report
) -> bool:
    """Wait until nothing is under way. Whether that came about in time; what was in the way goes into the report."""
    began = time.monotonic()

    def at_rest() -> bool:
        missing = [p.mark for p in bad if p.due(on.listener) and not p.parked(on.sampler.parked)]
        rest = driving.done() and on.sampler.quiet and not missing
        after = time.monotonic() - began
        if not rest and after // LOOK_S > len(report.late):
            going = [
                f"{run['token']} {run['workflow']} {(run['state'] or {}).get('open')}"
                for run in on.sampler.open.values()
            ]
            report.late.append(
                f"after {after:.0f} s: runs {going[:3]}, messages {on.sampler.oldest[:3]}, not parked {missing}"
            )
        return rest

    await on.sampler.next()
    quiet = await on.sampler.until(at_rest, within_s=script.rest_s)
    report.rest_s = time.monotonic() - began
    return quiet


async def _judge(script: Script, on: Stage, bad: list[Poison], quiet: bool, report: Report) -> None:
    """What the checker finds, while the fleet runs and after it has ended."""
    if not on.listener.losses:
        await on.listener.catch_up()
    around = Round(
        on.load.submissions, bad, on.tenants, on.sampler, on.listener, on.far, on.fleet, script.calm, quiet
    )
    dsn = partial(on.servers.postgres.dsn, database=on.database)
    sql = await Statements.connect(dsn())
    try:
        books, found = await check(sql, around, dsn)
        await on.load.client.close()
        await on.fleet.stop()
        found += await check_ended(sql, on.fleet)
    finally:
        await sql.close()
    report.violations = on.load.client.violations + found
    report.counts += counts(books, on.load)
    report.histories = {str(v.run): history_of(books, v.run) for v in found if v.run is not None}


def counts(books: Books, load: Load) -> Counter[str]:
    """What the round has moved."""
    around = books.round
    return Counter(f"runs {run['status']}" for run in books.runs.values()) + Counter(
        runs=len(books.runs),
        forks=sum(bool((run["state"] or {}).get("forked")) for run in books.runs.values()),
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
