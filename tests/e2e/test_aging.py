"""Real runs grow old: archived and removed while others go on, by the host that carries the relay."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aged import Past, week
from house import ALL, House, eventually

from agentflow.archive import open_archive
from agentflow.archive.format import find_run
from agentflow.core.message import Message
from agentflow.errors import Rejected
from agentflow.runtime.host import Host
from agentflow.runtime.pruning import prune
from agentflow.runtime.retention import sweep_of
from agentflow.store.control import ControlStore
from agentflow.store.retention import keeping

WORK = {
    "agentflow": "plan/v1",
    "kind": "bt",
    "name": "work",
    "limits": {"steps": 10, "usd": 0.01},
    "input": {"n": "int"},
    "vars": {"m": "int"},
    "tasks": {
        "add": {"kind": "tool", "use": "std.echo", "in": {"m": "n + 1"}, "out": {"m": "int"}, "usd": 0.0001},
        "wait": {"kind": "wait", "for": "400ms"},
    },
    "root": {
        "type": "sequence",
        "children": [{"type": "task", "task": name} for name in ("add", "wait", "add")],
    },
}
TABLES = ("runs", "steps", "history", "ledger")


@asynccontextmanager
async def sweeping(house: House, archive: str) -> AsyncIterator[Any]:
    """A sweep that takes whatever has finished by now."""
    settings = replace(house.settings, archive=archive)
    async with keeping(house.database.dsn("agentflow_keeper")) as store:
        now, leads = await store.lead()
        assert leads
        deadline = asyncio.get_running_loop().time() + 60
        async with sweep_of(settings, store, house.database.dsn("agentflow_engine"), now, deadline) as sweep:
            yield replace(sweep, before=now, patience=timedelta(0), rest=0.0)


async def whole(house: House, run: UUID) -> dict[str, list[Any]]:
    """All rows of a run as JSON."""
    found: dict[str, list[Any]] = {}
    for table in TABLES:
        rows = await house.rows(
            f"select to_json(t) as row from {table} t where run_id = %s order by t::text", run
        )
        found[table] = [row["row"] for row in rows]
    return found


async def test_finished_runs_are_archived_and_removed_while_others_run_on(
    house: House, tmp_path: Path
) -> None:
    await house.register(WORK)
    url = f"file://{tmp_path}/archive"
    async with house.host() as host:
        old = [await house.submit(host, "work", {"n": n}) for n in range(20)]
        await settle(house, host, old)
        before = {run: await whole(house, run) for run in old}
        waiting = [await house.submit(host, "work", {"n": n}) for n in range(20)]
        async with sweeping(house, url) as sweep:
            report = await prune(sweep)
        ended = [await house.ended(run) for run in waiting]
    assert {row["status"] for row in ended} == {"succeeded"}
    assert report.rows[house.tenant]["runs"] >= 20
    archive = open_archive(url)
    assert archive is not None
    for run in old:
        assert {table: len(rows) for table, rows in (await whole(house, run)).items() if rows} == {
            "ledger": 4
        }
        kept = find_run(archive, house.tenant, run)
        assert kept is not None
        for table in TABLES:
            assert sorted(map(str, kept[table])) == sorted(map(str, before[run][table])), table
    for run in waiting:
        assert len((await whole(house, run))["steps"]) == 3
    assert await house.rows("select * from parked") == []


async def settle(house: House, host: Host, runs: list[UUID]) -> None:
    """Wait until these runs are over and the bus has told everybody; the twins of facts go with what comes next."""
    for run in runs:
        await house.ended(run)

    async def told() -> bool:
        await house.submit(host, "work", {"n": 0})
        return not await house.rows("select 1 from outbox where run_id = any (%s)", runs)

    await eventually(told)


async def removed(house: House, host: Host) -> UUID:
    """A run that has ended and was swept away."""
    run = await house.submit(host, "work", {"n": 1})
    await settle(house, host, [run])
    async with sweeping(house, "") as sweep:
        await prune(sweep)
    return run


async def test_a_removed_run_is_unknown_and_its_id_free(house: House) -> None:
    """After its time a run may be requested anew, under the same Idempotency-Key."""
    await house.register(WORK)
    async with house.host() as host:
        run = await removed(house, host)
        api = ControlStore(house.database.dsn("agentflow_api"), connections=1)
        await api.open()
        assert await api.run(house.tenant, run) is None
        assert (await api.steps(house.tenant, run, (0, 0), 10))[0] is False
        await api.close()
        await house.submit(host, "work", {"n": 2}, run=run)
        assert (await house.ended(run))["status"] == "succeeded"
    assert len(await house.rows("select 1 from steps where run_id = %s", run)) == 3


async def test_what_comes_late_for_a_removed_run_is_refused_and_changes_nothing(house: House) -> None:
    await house.register(WORK)
    async with house.host() as host:
        run = await removed(house, host)
        late = {"run": str(run), "reason": "too late"}
        with pytest.raises(Rejected, match="no such run"):
            await host.submit(Message("run.cancel_requested", house.tenant, run, "cancel", late))
    left = await whole(house, run)
    assert {table for table, rows in left.items() if rows} == {"ledger"}


async def test_the_host_with_the_relay_keeps_house(house: House) -> None:
    """From its start on: partitions for the weeks to come, and old runs gone."""
    past = await asyncio.to_thread(Past, house.database)
    past.runs(house.tenant, 50, count=3)
    past.conn.execute(f"drop table agentflow.steps_{week(-14)}")
    host = Host(
        replace(house.settings, retention="30d"),
        ALL,
        engine_dsn=house.database.dsn("agentflow_engine"),
        relay_dsn=house.database.dsn("agentflow_relay"),
        keeper_dsn=house.database.dsn("agentflow_keeper"),
        nats_url=house.nats.url,
    )
    await host.start()
    try:
        await eventually(lambda: no_runs(house))
        await eventually(lambda: swept(house))
    finally:
        await host.stop()
    assert f"steps_{week(-14)}" in past.partitions("steps")
    past.close()


async def no_runs(house: House) -> bool:
    return await house.rows("select 1 from runs") == []


async def swept(house: House) -> bool:
    return bool(await house.rows("select 1 from upkeep where chore = 'prune'"))
