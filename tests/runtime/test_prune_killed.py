"""``agentflow prune`` killed at any moment: a run is in the database whole, or in the archive whole."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from aged import Past, week
from aged import past as past
from house import eventually

from agentflow.archive import open_archive
from agentflow.archive.format import manifests

SEED = int(os.environ.get("AGENTFLOW_CHAOS_SEED", random.SystemRandom().randrange(2**32)))
PER_WEEK = int(os.environ.get("AGENTFLOW_CHAOS_RUNS", 450))  # runs of the killing test


async def _is(value: bool) -> bool:
    return value


@asynccontextmanager
async def pruning(past: Past, archive: str, **environment: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """``agentflow prune`` as a process of its own, dead when the block ends."""
    await asyncio.to_thread(forgotten, past)
    process = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-m", "agentflow", "prune", "--json", "--database", past.database.admin],
        env={
            "PATH": os.environ["PATH"],
            "AGENTFLOW_RETENTION": "30d",
            "AGENTFLOW_ARCHIVE": archive,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        await asyncio.to_thread(process.communicate)


async def ended(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    out, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0, err.decode()
    return dict(json.loads(out))


AT_IT = "select count(*) from pg_stat_activity where application_name = 'agentflow-keeper'"


def check(past: Past, archive_url: str, tenant: UUID, runs: list[UUID]) -> int:
    """Each run is either here whole or in the archive whole, at every moment; how many are gone."""
    archive = open_archive(archive_url)
    assert archive is not None
    archived: set[UUID] = set()
    if any(Path(archive_url.removeprefix("file://")).glob("manifests/*")):
        for manifest in manifests(archive, tenant):
            assert manifest.counts["steps"] == manifest.counts["history"] == 3 * len(manifest.runs), (
                f"seed {SEED}"
            )
            archived.update(manifest.runs)
    gone = 0
    left = {table: counts(past, table) for table in ("runs", "steps", "history")}
    noted = set(past.column("select run_id from agentflow.leftovers"))
    for run in runs:
        if run in left["runs"]:
            assert (left["steps"][run], left["history"][run]) == (3, 3), f"seed {SEED}"
            continue
        gone += 1
        assert run in archived, f"seed {SEED}"
        if run in left["steps"] or run in left["history"]:
            assert run in noted, f"seed {SEED}: rows that nobody will ever delete"
    return gone


def counts(past: Past, table: str) -> dict[UUID, int]:
    return dict(past.conn.execute(f"select run_id, count(*) from agentflow.{table} group by 1").fetchall())


async def test_killed_at_any_moment_a_run_is_here_or_in_the_archive(past: Past, tmp_path: Path) -> None:
    """In the middle of archiving, removing, deleting by key and dropping weeks: whatever the moment falls upon."""
    chance = random.Random(SEED)
    tenant, other = past.tenant(), past.tenant(runs="forever")
    # One week is kept by somebody, one is not; several chunks each.
    runs = [run for days in (40, 55) for run in past.runs(tenant, days, count=PER_WEEK, steps=3)]
    keep = past.runs(other, 40, count=50, steps=3)
    url = f"file://{tmp_path}/archive"
    gone, kills = 0, 0
    while gone < len(runs) and kills < 30:
        async with pruning(past, url) as process:
            if await asyncio.to_thread(began, past, process):
                await asyncio.sleep(chance.uniform(0.0, 0.3 * 1.2**kills))
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.communicate)
        kills += 1
        print(f"kill {kills}: {gone} gone")
        gone = check(past, url, tenant, runs)
    async with pruning(past, url) as process:
        await ended(process)
    assert check(past, url, tenant, runs) == len(runs)
    assert kills > 1, f"seed {SEED}: it was never killed in the middle"
    assert past.column("select distinct tenant_id from agentflow.steps") == [other]
    assert past.one("select count(*) from agentflow.leftovers") == 0
    assert f"steps_{week(55)}" not in past.partitions("steps")
    assert f"history_{week(55)}" not in past.partitions("history")
    assert sorted(past.column("select run_id from agentflow.runs")) == sorted(keep)
    assert sorted(set(past.column("select run_id from agentflow.steps"))) == sorted(keep)


def began(past: Past, process: subprocess.Popen[bytes]) -> bool:
    """Wait until it keeps house; False when it has ended before."""
    while not past.one(AT_IT):
        if process.poll() is not None:
            return False
    return True


def forgotten(past: Past) -> None:
    """Wait until PostgreSQL has noticed that whoever kept house was killed: until then nobody else may."""
    while past.one(AT_IT):
        time.sleep(0.01)


async def test_killed_while_it_deletes_it_has_deleted_nothing(past: Past, tmp_path: Path) -> None:
    """It waits for a run that somebody writes to: archived, and neither removed nor half removed."""
    tenant = past.tenant()
    runs = past.runs(tenant, 50, count=5, steps=3)
    url = f"file://{tmp_path}"
    with psycopg.connect(past.database.admin) as writer:
        writer.execute("select from agentflow.runs where run_id = %s for update", (runs[3],))
        async with pruning(past, url) as process:
            await eventually(lambda: _is(past.one("select count(*) from pg_locks where not granted") > 0))
            process.kill()
        await eventually(lambda: _is(not past.one("select count(*) from pg_locks where not granted")))
    assert check(past, url, tenant, runs) == 0
    async with pruning(past, url) as process:
        assert (await ended(process))["complete"]
    assert check(past, url, tenant, runs) == 5
    assert len(list(manifests(open_archive(url), tenant))) == 1  # type: ignore[arg-type]


async def test_killed_while_it_drops_a_week_nothing_is_dropped_and_nobody_waits(
    past: Past, tmp_path: Path
) -> None:
    tenant = past.tenant()
    runs = past.runs(tenant, 50, count=5, steps=3)
    url = f"file://{tmp_path}"
    with psycopg.connect(past.database.admin) as reader:
        reader.execute("select count(*) from agentflow.steps")
        async with pruning(past, url) as process:
            waiting = "select count(*) from pg_locks where not granted and mode = 'AccessExclusiveLock'"
            await eventually(lambda: _is(past.one(waiting) > 0))
            process.kill()
        await eventually(lambda: _is(past.one(waiting) == 0))
    assert f"steps_{week(50)}" in past.partitions("steps")
    assert check(past, url, tenant, runs) == 5  # they had gone before
    async with pruning(past, url) as process:
        report = await ended(process)
    assert f"steps_{week(50)}" in {dropped["name"] for dropped in report["partitions"]}
    assert past.one("select count(*) from agentflow.steps") == 0


async def test_killed_while_the_bucket_does_not_answer(
    past: Past, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the middle of sending: nothing was removed, and the next one sends it again, under the same name."""
    tenant = past.tenant()
    runs = past.runs(tenant, 50, count=5, steps=3)
    access = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    async with s3_server(tmp_path) as (server, endpoint):
        environment = {"AGENTFLOW_ARCHIVE_ENDPOINT": endpoint, "NO_PROXY": "127.0.0.1", **access}
        server.send_signal(signal.SIGSTOP)
        async with pruning(past, "s3://cold/runs", **environment) as process:
            reading = """select count(*) from pg_stat_activity
                         where application_name = 'agentflow-archive' and state = 'idle' and query ilike 'commit'"""
            await eventually(lambda: _is(past.one(reading) > 0))  # it has read all, and sends
            process.kill()
        server.send_signal(signal.SIGCONT)
        assert [past.rows_of(run)["runs"] for run in runs] == [1] * 5
        async with pruning(past, "s3://cold/runs", **environment) as process:
            assert (await ended(process))["complete"]
        archive = open_archive("s3://cold/runs", endpoint=endpoint)
        assert archive is not None
        (manifest,) = await asyncio.to_thread(lambda: list(manifests(archive, tenant)))
    assert sorted(manifest.runs) == sorted(runs)
    assert past.one("select count(*) from agentflow.runs") == 0


@asynccontextmanager
async def s3_server(tmp_path: Path) -> AsyncIterator[tuple[subprocess.Popen[bytes], str]]:
    """A server that speaks S3, as a process of its own, with the bucket ``cold``."""
    import boto3

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (tmp_path / "s3.log").open("wb") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: ASYNC220
    endpoint = f"http://127.0.0.1:{port}"

    async def made() -> bool:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return False
        await asyncio.to_thread(boto3.client("s3", endpoint_url=endpoint).create_bucket, Bucket="cold")
        return True

    try:
        await eventually(made)
        yield process, endpoint
    finally:
        process.kill()
        await asyncio.to_thread(process.wait)


async def test_two_at_once_one_is_told_to_come_back(past: Past, tmp_path: Path) -> None:
    with psycopg.connect(past.database.dsn("agentflow_keeper"), autocommit=True) as leader:
        leader.execute("select pg_try_advisory_lock(7305801104022009)")
        async with pruning(past, f"file://{tmp_path}") as process:
            _, err = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 1
    assert json.loads(err)["code"] == "busy"
