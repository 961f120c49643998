"""How fast steps go: 2,000 runs of 10 trivial steps, embedded, durable (fsync on). Prints one JSON line.

Everything is on: validation, planner, row-level security, ledger (each step has a price), history, outbox and
sampled tracing. Throughput is measured with all runs at once; per-step overhead with one run at a time, as the
database's time between one decision of the run and the next. With --processes the runs of the throughput are shared
out over so many, each with everything on the same servers (the first one has the relay), as replicas would; CPU and
memory are then their sum. One run at a time always goes in one process.

    python tests/bench/steps.py [--runs 2000] [--single 100] [--processes 1] [--no-handoff] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import resource
import time
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from typing import Any

import report
from database import Database
from peers.fleet import PATIENCE_S, sharing
from report import Row, at_most, median, quantile, row
from stack import Stack, burst, carried, observe, stack, submit
from workloads import STEPS, ten_steps

from agentflow.config import Settings
from agentflow.runtime.host import Host
from agentflow.runtime.loop import run

WARM_UP = 20  # runs of each process before what is measured
LOOK_S = 0.25  # seldom: when the last run ended, its row says


@dataclass(frozen=True, slots=True)
class Spent:
    """What the throughput took: seconds since 1970 at the first submission, seconds of CPU, memory at its most."""

    began: float
    cpu_s: float
    rss_mb: int


@dataclass(frozen=True, slots=True)
class Measured:
    """The throughput: its duration, what it took, and how many runs are there in all."""

    seconds: float
    cpu_s: float
    rss_mb: int
    runs: int


async def one_at_a_time(host: Host, on: Stack, count: int) -> list[float]:
    """Milliseconds per step of ``count`` runs, one after the other, once the process is warm."""
    runs = []
    for _ in range(WARM_UP + count):
        async with on.ending(1):
            runs += await submit(host, "ten-steps", [{}])
    return await on.database.step_ms(runs[WARM_UP:])


async def in_this_process(args: argparse.Namespace, host: Host, on: Stack) -> Measured:
    """All runs at once in the one process that is there."""
    cpu = time.process_time()
    if args.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    seconds = await burst(host, on, "ten-steps", [{}] * args.runs)
    if args.profile:
        profile.disable()
        profile.dump_stats(args.profile)
    return Measured(seconds, time.process_time() - cpu, rss_mb(), args.runs)


async def shared_out(args: argparse.Namespace, on: Stack) -> Measured:
    """All runs at once, each process submitting its share; they begin together once all have warmed up."""
    total = args.runs + args.processes * WARM_UP
    reports = multiprocessing.get_context("spawn").SimpleQueue()
    with sharing(share, (on.settings, args.processes, reports), args.runs, args.processes) as barrier:
        await asyncio.to_thread(barrier.wait, PATIENCE_S)
        await succeeded(on.database, total)
        await asyncio.to_thread(barrier.wait, PATIENCE_S)
    spent: list[Spent] = [reports.get() for _ in range(args.processes)]
    seconds = await on.database.last_end("ten-steps") - min(each.began for each in spent)
    return Measured(seconds, sum(each.cpu_s for each in spent), sum(each.rss_mb for each in spent), total)


def share(given: tuple[Settings, int, Any], number: int, runs: int, barrier: Barrier) -> None:
    """One process of several: a fleet's worker."""
    try:
        run(do_share(*given, number, runs, barrier))
    except BaseException:
        barrier.abort()  # the others need not wait for this one
        raise


async def do_share(
    settings: Settings, processes: int, reports: Any, number: int, runs: int, barrier: Barrier
) -> None:
    observe(settings)
    database = Database(settings.dsn("postgres"))
    async with carried(settings, relay=number == 0) as host:
        await submit(host, "ten-steps", [{}] * WARM_UP)
        await succeeded(database, processes * WARM_UP)
        await asyncio.to_thread(barrier.wait, PATIENCE_S)
        began, cpu = time.time(), time.process_time()
        await submit(host, "ten-steps", [{}] * runs)
        await asyncio.to_thread(barrier.wait, PATIENCE_S)
        reports.put(Spent(began, time.process_time() - cpu, rss_mb()))


async def succeeded(database: Database, runs: int) -> None:
    """Return when so many runs, of whatever process, have succeeded."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await database.succeeded("ten-steps") < runs:  # noqa: ASYNC110  a table tells nobody
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise TimeoutError(f"not within {PATIENCE_S:g} s: {await database.errors()}") from None


def rss_mb() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def bench(args: argparse.Namespace) -> Row:
    async with stack(handoff=not args.no_handoff) as on:
        await on.register(ten_steps())
        async with on.host() as host:
            single = await one_at_a_time(host, on, args.single)
            await on.database.wipe()
            if args.processes == 1:
                return await judge(args, on, single, await in_this_process(args, host, on))
        return await judge(args, on, single, await shared_out(args, on))


async def judge(args: argparse.Namespace, on: Stack, single: list[float], all_at_once: Measured) -> Row:
    steps = all_at_once.runs * STEPS
    totals = await on.database.totals()
    assert totals == {"runs": all_at_once.runs, "steps": steps, "settled": steps, "open": 0}, totals
    p50, p99 = median(single), quantile(single, 0.99)
    goals = [
        at_most("one run at a time, per step, p50", p50, 1.0, "ms"),
        at_most("one run at a time, per step, p99", p99, 2.5, "ms"),
    ]
    figures: dict[str, Any] = {
        "steps_per_s": round(args.runs * STEPS / all_at_once.seconds),
        "step_p50_ms": p50,
        "step_p99_ms": p99,
        "python_cpu_us_per_step": round(all_at_once.cpu_s / (args.runs * STEPS) * 1e6),
        "runs": args.runs,
        "processes": args.processes,
        "handoff": not args.no_handoff,
        "rss_mb": all_at_once.rss_mb,
        "cores": os.cpu_count(),
    }
    return row("steps", goals, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--single", type=int, default=100)
    parser.add_argument("--processes", type=int, default=1, choices=range(1, 17), metavar="1..16")
    parser.add_argument("--no-handoff", action="store_true")
    parser.add_argument("--profile")
    parser.add_argument("--full", action="store_true", help="nothing more: this row is always whole")
    if (given := parser.parse_args()).profile and given.processes > 1:
        parser.error("--profile looks into one process")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
