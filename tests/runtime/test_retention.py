"""The keeper: once a day, by one host of many, through restarts of the database."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from aged import Past, week
from aged import past as past
from house import eventually

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.observe import retention as metrics
from agentflow.runtime import retention, sweep
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.runtime.retention import Keeper

KEPT_30 = replace(Settings(), retention="30d", retention_ledger="30d")


def keeper(past: Past, settings: Settings = KEPT_30) -> Keeper:
    return Keeper(settings, past.database.dsn("agentflow_keeper"), past.database.dsn("agentflow_engine"))


def runs_left(past: Past) -> int:
    return int(past.one("select count(*) from agentflow.runs"))


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "REST", 0.0)


async def test_old_runs_go_once_a_day(past: Past) -> None:
    tenant = past.tenant()
    past.runs(tenant, 50)
    assert await keeper(past).keep()
    assert runs_left(past) == 0
    past.runs(tenant, 50)
    assert await keeper(past).keep()  # any host's: it was done today
    assert runs_left(past) == 1
    past.conn.execute(
        "update agentflow.upkeep set done_at = done_at - interval '23 hours' where chore = 'prune'"
    )
    before = metrics.LAST._value.get()
    assert await keeper(past).keep()
    assert runs_left(past) == 0
    assert metrics.LAST._value.get() > before


async def test_partitions_are_seen_to_by_every_host_at_its_start(past: Past) -> None:
    assert await keeper(past).keep()
    past.conn.execute(f"drop table agentflow.steps_{week(-14)}, agentflow.inbox_{week(-14)}")
    assert await keeper(past).keep()
    for table in ("steps", "history", "ledger", "inbox"):
        assert f"{table}_{week(-14)}" in past.partitions(table)


async def test_of_ten_hosts_one_does_it(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = past.tenant()
    past.runs(tenant, 50, count=20)
    swept = 0
    real = retention.prune

    async def counted(at_hand: Any) -> Any:
        nonlocal swept
        swept += 1
        await asyncio.sleep(0.2)  # so that the others come while it is at it
        return await real(at_hand)

    monkeypatch.setattr(retention, "prune", counted)
    assert await asyncio.gather(*(keeper(past).keep() for _ in range(10))) == [True] * 10
    assert swept == 1
    assert runs_left(past) == 0


async def test_whoever_leads_and_dies_is_followed(past: Past) -> None:
    past.runs(past.tenant(), 50)
    with psycopg.connect(past.database.dsn("agentflow_keeper"), autocommit=True) as leader:
        leader.execute("select pg_try_advisory_lock(7305801104022009)")
        assert await keeper(past).keep()
        assert runs_left(past) == 1
        past.one("select pg_terminate_backend(%s)", leader.info.backend_pid)

    async def followed() -> bool:
        await keeper(past).keep()
        return runs_left(past) == 0

    await eventually(followed)


async def test_a_fault_is_counted_and_tried_again(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "SOON_S", 0.05)
    past.runs(past.tenant(), 50)
    blocked = tmp_path / "archive"
    blocked.write_text("a file where the folder should be")
    before = metrics.FAILED._value.get()
    at_work = keeper(past, replace(KEPT_30, archive=f"file://{blocked}"))
    at_work.start()
    try:
        await eventually(lambda: _is(metrics.FAILED._value.get() >= before + 2))
        assert runs_left(past) == 1
        blocked.unlink()
        await eventually(lambda: _is(runs_left(past) == 0))
    finally:
        await at_work.stop()
    assert len(list(blocked.rglob("*.jsonl.gz"))) == 1


async def _is(value: bool) -> bool:
    return value


async def test_the_database_restarts_and_the_keeper_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentflow.store.migrate import migrate

    monkeypatch.setattr(retention, "SOON_S", 0.05)
    monkeypatch.setattr(sweep, "REST", 0.3)
    server = EmbeddedPostgres(tmp_path)
    await asyncio.to_thread(server.up)
    try:
        await migrate(server.dsn())
        at = Server(server)
        past = Past(at)
        past.runs(past.tenant(), 50, count=5)
        past.runs(past.tenant(runs="forever"), 50)
        past.close()
        at_work = keeper(past)
        at_work.start()
        try:
            for _ in range(3):
                await asyncio.to_thread(server.down)
                await asyncio.to_thread(server.up)
            past.conn = psycopg.connect(at.admin, autocommit=True)
            await eventually(
                lambda: _is(past.one("select count(*) from agentflow.upkeep where chore = 'prune'") == 1)
            )
        finally:
            await at_work.stop()
        assert runs_left(past) == 1
        assert past.one("select count(*) from agentflow.steps") == 2
        past.close()
    finally:
        await asyncio.to_thread(server.down)


class Server:
    """A server of this test's own, as ``Past`` wants a database."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.dsn = server.dsn

    @property
    def admin(self) -> str:
        return self.dsn("postgres")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention", "90"),
        ("retention_ledger", "0d"),
        ("retention_inbox", "-1d"),
        ("retention_parked", "soon"),
        ("retention_spend", "3 years"),
    ],
)
def test_a_malformed_age_is_refused_at_the_start(setting: str, value: str) -> None:
    with pytest.raises(Rejected, match=f"AGENTFLOW_{setting.upper()}"):
        Keeper(replace(Settings(), **{setting: value}), "", "")
