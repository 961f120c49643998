"""Timers: 100,000 pending, some of them due all the time; how late each fires, and that none is early.

Late is the time from when a timer was due to when its run's step was decided to be over, both by the database's clock.
Runs are started at an even rate and each sleeps for the same time, so as many timers fall due per second, among those
that are due tomorrow. Then 1,000 are due in the same instant. A timer has fired when its commit is on disk: how long
small flushes took meanwhile stands beside it.

    python tests/bench/timers.py [--pending 100000] [--rate 200] [--seconds 10] [--burst 1000] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from uuid import UUID

import report
from disk import flushes
from report import Row, at_least, at_most, quantile, row, say
from stack import Stack, stack, submit
from workloads import one_wait

from agentflow.runtime.host import Host

FULL_S = 60
SLEEP_S = 3
FAR = "24h"
TICKS = 20  # submissions per second


async def pend(on: Stack, timers: int) -> None:
    """Have ``timers`` timers pend: a run that sleeps has two, one of them its own time limit."""
    workflow = await on.register(one_wait(FAR))
    async with on.host() as host:
        (model,) = await submit(host, workflow, [{}])
        for _ in range(200):
            if await on.database.pending_timers() == 2:
                break
            await asyncio.sleep(0.05)
    await on.database.clone(model, timers // 2 - 1)
    await on.database.settle_down()
    assert await on.database.pending_timers() == timers


async def at_a_rate(on: Stack, host: Host, workflow: str, per_s: int, seconds: int) -> dict[UUID, float]:
    """Start runs evenly; when each one's timer is due."""
    each = per_s // TICKS
    due: dict[UUID, float] = {}
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with on.ending(each * TICKS * seconds):
        for tick in range(TICKS * seconds):
            await asyncio.sleep(max(0.0, began + tick / TICKS - loop.time()))
            await submit(host, workflow, [{}] * each)
            if tick % TICKS == TICKS - 1:  # noted before the first of them is due
                due |= await on.database.due(workflow)
    return due


async def at_one_instant(on: Stack, host: Host, workflow: str, count: int) -> dict[UUID, float]:
    """Start runs whose timers are then all moved to the same instant; when that is."""
    async with on.ending(count):
        await submit(host, workflow, [{}] * count)
        await asyncio.sleep(SLEEP_S / 2)  # all sleep by then, which is looked at below
        await on.database.make_due(workflow, SLEEP_S)
        due = await on.database.due(workflow)
        assert len(due) == count and len(set(due.values())) == 1, (len(due), set(due.values()))
    return due


async def late(on: Stack, workflow: str, work: Callable[[], Awaitable[dict[UUID, float]]]) -> list[float]:
    """Milliseconds by which each timer was late; none is negative."""
    due = await work()
    woken = await on.database.woken(workflow)
    assert woken.keys() == due.keys(), (len(woken), len(due))
    found = [(woken[run_id] - at) * 1000 for run_id, at in due.items()]
    assert min(found) >= 0, f"{min(found)} ms late: early"
    say(f"{workflow}: {len(found)} timers, p50 {quantile(found, 0.5)} ms late, most {max(found):.1f}")
    return found


async def bench(args: argparse.Namespace) -> Row:
    seconds = FULL_S if args.full else args.seconds
    async with stack() as on:
        await pend(on, args.pending)
        steady = await on.register(one_wait(f"{SLEEP_S}s"))
        sudden = await on.register(one_wait(f"{SLEEP_S + 1}s"))
        async with on.host() as host, flushes(on.settings.home) as disk:
            rate = await late(on, steady, lambda: at_a_rate(on, host, steady, args.rate, seconds))
            burst = await late(on, sudden, lambda: at_one_instant(on, host, sudden, args.burst))
        assert await on.database.pending_timers() == args.pending
    p99 = quantile(rate, 0.99)
    what = f"{args.rate}/s among {args.pending:,} pending"
    goals = [
        at_most(f"{what}: late, p99", p99, 50, "ms"),
        at_least(f"{what}: least late (early is below 0)", round(min(rate + burst), 3), 0, "ms"),
    ]
    figures = {
        "pending": args.pending,
        "fired": len(rate),
        "late_p50_ms": quantile(rate, 0.5),
        "late_p99_ms": p99,
        "late_most_ms": round(max(rate), 2),
        "disk_flush_p99_ms": quantile(disk, 0.99),
        "disk_flush_most_ms": round(max(disk), 2),
        f"at_once_{args.burst}": {
            "late_p50_ms": quantile(burst, 0.5),
            "late_p99_ms": quantile(burst, 0.99),
            "late_most_ms": round(max(burst), 2),
        },
    }
    return row("timers", goals, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pending", type=int, default=100_000)
    parser.add_argument("--rate", type=int, default=200)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--burst", type=int, default=1_000)
    parser.add_argument("--full", action="store_true", help=f"{FULL_S} seconds")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
