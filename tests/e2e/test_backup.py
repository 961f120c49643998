"""Backup and restore by the commands of infra/operations/backup.md: a system under load is saved and lost, and its copy
goes on in a new PostgreSQL with an empty JetStream."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from chaos.books import Books, Round
from chaos.checks_audit import check_chain
from chaos.checks_money import check_accounts, check_sums
from chaos.checks_runs import check_ends, check_histories, check_pending
from chaos.fleet import OURS, Fleet
from chaos.listener import Listener
from chaos.report import Script
from chaos.sampler import Sampler
from chaos.servers import Servers, passable
from chaos.stage import Stage, stage
from chaos.statements import Statements

from agentflow.runtime.embedded_postgres import binaries

PAGE = OURS / "infra" / "operations" / "backup.md"
RUNS = 40
WORKFLOWS = "charged waits"
OPEN_CHARGES = """select r.input ->> 'token' || '/charge/0' as key from agentflow.outbox o
    join agentflow.runs r using (tenant_id, run_id) where o.consumer = 'run_tool' and (o.data ->> 'once')::boolean"""
CHARGES = """select r.input ->> 'token' || '/charge/0' as key, s.status, s.error ->> 'code' as code
    from agentflow.steps s join agentflow.runs r using (tenant_id, run_id) where s.task = 'charge'"""


def commands(name: str) -> str:
    """The commands of the page's block of that name."""
    (block,) = re.findall(rf"<!-- tested: {name} -->\n```sh\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return str(block)


async def page(name: str, folder: Path, **words: str) -> str:
    """Run a block of the page; what it printed."""
    path = os.pathsep.join((str(binaries()), str(Path(sys.executable).parent), os.environ["PATH"]))
    environment = {"PATH": path, "PYTHONPATH": str(OURS / "functions"), **words}
    done = await asyncio.to_thread(
        subprocess.run,
        ["sh", "-eu", "-c", commands(name)],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.xdist_group("chaos-backup")
async def test_what_was_saved_under_load_goes_on_elsewhere(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "w1", tmp_path / "w2"):
        passable(folder)
    former, other = Servers(tmp_path / "former"), Servers(tmp_path / "other")
    await former.start()
    try:
        async with stage(former, Script("backup", "one", RUNS, only=WORKFLOWS, trouble=0.0), tmp_path / "w1") as on:
            driving = await load(on)
            await save(on, tmp_path)
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)
            await on.fleet.close()
            await other.start()
            await put_back(on, other, tmp_path)
    finally:
        await former.stop()
        await other.stop()


async def load(on: Stage) -> asyncio.Task[None]:
    """Runs under way. Calls that may be made once: the first of each tenant is out, the others wait for it."""
    on.far.charging = asyncio.Event()
    for tenant in on.tenants:
        await on.load.client.ask(tenant, "PUT", "/v1/limits/tool:charge", {200}, json={"concurrency": 1})
    driving = asyncio.create_task(on.load.run(RUNS, in_flight=RUNS, over_s=1.0))
    await on.sampler.until(lambda: len(on.load.submissions) >= RUNS and charges(on) > 1, within_s=60)
    return driving


async def save(on: Stage, folder: Path) -> None:
    """Back up, and let the system go on a little: what it does then is lost, and was done."""
    await page("take", folder, FROM=on.servers.postgres.dsn(database=on.database))
    made = charges(on)
    assert on.far.charging is not None
    on.far.charging.set()
    await on.sampler.until(lambda: charges(on) > made, within_s=30)


def charges(on: Stage) -> int:
    """How many calls that may be made once have reached the far side."""
    return sum(len(calls) for key, calls in on.far.calls.items() if "/charge/" in key)


async def put_back(on: Stage, other: Servers, folder: Path) -> None:
    """Restore, start functions there, and see to it that all is done, once."""
    server, to = other.postgres.dsn(database="postgres"), other.postgres.dsn()
    async with other.admin() as conn:
        await conn.execute("drop database if exists agentflow with (force)")
    said = await page("put back", folder, SERVER=server, TO=to)
    rows = await other.rows("agentflow", "select input ->> 'token' as token from agentflow.runs")
    saved = {row["token"] for row in rows}
    once = {row["key"] for row in await other.rows("agentflow", OPEN_CHARGES)}
    assert f"{len(once)} calls that may be made once were under way" in said
    made_before = {key: len(on.far.calls.get(key, ())) for key in once}
    assert sorted(set(made_before.values())) == [0, 1], "some were made, and some were not, when it was lost"
    async with second_life(on, other, folder) as (fleet, sampler, listener):
        await sampler.next()
        quiet = await sampler.until(lambda: sampler.quiet, within_s=90)
        kept = [each for each in on.load.submissions if each.token in saved]
        around = Round(kept, [], on.tenants, sampler, listener, on.far, fleet, False, quiet)
        sql = await Statements.connect(to)
        books = await Books.read(sql, around)
        found: list[Any] = list(sampler.violations)
        for check in (check_ends, check_pending, check_histories, check_accounts, check_sums):
            found += check(books)
        found += [each async for each in check_chain(books, partial(other.postgres.dsn, database="agentflow"))]
        await sql.close()
        assert found == []
        assert quiet
    assert "nothing was changed" in await page("verify", folder, TO=to)
    for row in await other.rows("agentflow", CHARGES):
        if row["key"] in once:
            assert row["code"] == "outcome_unknown", row
    assert {key: len(on.far.calls.get(key, ())) for key in once} == made_before  # none was made again


@asynccontextmanager
async def second_life(on: Stage, other: Servers, folder: Path) -> AsyncIterator[tuple[Fleet, Sampler, Listener]]:
    """Functions on the restored database, with a JetStream that nobody has used."""
    fleet = Fleet("one", other, "agentflow", folder / "w2", on.far.port)
    listener = Listener(other.nats.url, {tenant.id: tenant.mark for tenant in on.tenants})
    sampler = Sampler(lambda: other.postgres.dsn())
    try:
        await listener.start()
        await fleet.start()
        sampler.start()
        yield fleet, sampler, listener
        await fleet.stop()
    finally:
        await sampler.stop()
        await listener.stop()
        await fleet.close()
