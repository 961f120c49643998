"""DBOS on PostgreSQL; runs in the environment of requirements-dbos.txt. Prints one JSON line."""

from __future__ import annotations

import argparse
import asyncio
import time
from importlib.metadata import version
from multiprocessing.synchronize import Barrier
from typing import Any

import fleet
import psycopg
import work
from dbos import DBOS, DBOSConfig

starts: list[float] = []


@DBOS.step()
async def echo(n: int) -> int:
    starts.append(time.perf_counter())
    return n + 1


@DBOS.workflow()
async def ten_steps() -> int:
    n = 0
    for _ in range(work.STEPS):
        n = await echo(n)
    return n


@DBOS.workflow()
async def fan_out() -> int:
    return sum(await asyncio.gather(*(echo(n) for n in range(work.WIDTH))))


@DBOS.step()
def echo_sync(n: int) -> int:
    starts.append(time.perf_counter())
    return n + 1


@DBOS.workflow()
def ten_steps_sync() -> int:
    n = 0
    for _ in range(work.STEPS):
        n = echo_sync(n)
    return n


async def one_run(workflows: str) -> None:
    if workflows == "async":
        n = await (await DBOS.start_workflow_async(ten_steps)).get_result()
    else:
        n = await asyncio.to_thread(lambda: DBOS.start_workflow(ten_steps_sync).get_result())
    assert n == work.STEPS, n


def launch(given: argparse.Namespace, executor: str) -> None:
    config: DBOSConfig = {
        "name": "bench",
        "executor_id": executor,
        "system_database_url": given.dsn,
        "sys_db_pool_size": given.pool,
        "max_executor_threads": given.threads,
        "db_engine_kwargs": {"pool_pre_ping": given.ping, "max_overflow": 0},
        "log_level": "ERROR",
    }
    DBOS(config=config)
    DBOS.launch()


async def one_at_a_time(given: argparse.Namespace) -> work.Clock:
    launch(given, "single")
    clock = work.Clock()
    for _ in range(work.SINGLES_BEFORE + work.SINGLES):
        starts.clear()
        await one_run(given.workflows)
        clock.single(starts)
    for _ in range(work.FANS_BEFORE + work.FANS):
        began = time.perf_counter()
        joined = await (await DBOS.start_workflow_async(fan_out)).get_result()
        clock.fan(began)
        assert joined == work.JOINED, joined
    DBOS.destroy()
    return clock


async def at_once(given: argparse.Namespace, number: int, runs: int, barrier: Barrier) -> None:
    launch(given, f"worker-{number}")
    places = asyncio.Semaphore(given.in_flight)

    async def one() -> None:
        async with places:
            await one_run(given.workflows)

    def in_threads() -> None:
        handles = [DBOS.start_workflow(ten_steps_sync) for _ in range(runs)]
        assert all(handle.get_result() == work.STEPS for handle in handles)

    barrier.wait(fleet.PATIENCE_S)
    if given.workflows == "async":
        await asyncio.gather(*(one() for _ in range(runs)))
    else:
        await asyncio.to_thread(in_threads)
    barrier.wait(fleet.PATIENCE_S)
    assert len(starts) == runs * work.STEPS, len(starts)
    DBOS.destroy()


def worker(given: Any, number: int, runs: int, barrier: Barrier) -> None:
    asyncio.run(at_once(given, number, runs, barrier))


def count(dsn: str) -> int:
    """Checkpointed steps, by DBOS's own table."""
    with psycopg.connect(dsn) as conn:
        row = conn.execute("select count(*) from dbos.operation_outputs where error is null").fetchone()
    assert row is not None
    return int(row[0])


def main() -> None:
    parser = work.arguments(__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--workflows", choices=("sync", "async"), default="sync")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--pool", type=int, default=20)
    parser.add_argument("--ping", action="store_true", help="check a connection at each use of it")
    parser.add_argument("--in-flight", type=int, default=100, help="of async workflows, per process")
    given = parser.parse_args()
    clock = asyncio.run(one_at_a_time(given))
    seconds = fleet.seconds(worker, given, given.runs, given.processes)
    settings = [
        f"{given.workflows} workflows",
        f"{given.processes} processes",
        f"{given.threads} executor threads and {given.pool} connections each",
    ]
    work.emit(
        clock.measured(
            given.runs,
            seconds,
            steps_counted=count(given.dsn),
            version=version("dbos"),
            durability="PostgreSQL: a commit per step, fsync on",
            settings=", ".join(settings),
        )
    )


if __name__ == "__main__":
    main()
