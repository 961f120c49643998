"""Idle: 100,000 runs that wait for an event, and nothing happens.

One process carries all functions, the API and the relay. For a while it is left alone; then what it, PostgreSQL and
NATS have spent is read, and every statement that reached PostgreSQL in that time (the server's log says which).

    python tests/bench/idle.py [--runs 100000] [--seconds 20] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
import re
import time
from collections import Counter

import report
from cpu import rss_kb, spent_s
from report import Row, at_most, row, say
from stack import Stack, stack, submit
from worker import Worker
from workloads import one_event

from agentflow.runtime.function import NAMES

SETTLE_S = 12.0  # the relay looks often while it has just seen work, and sessions report what they did
FULL_S = 60
LOOKS = (
    0.5  # a second: the relay and the gatekeeper each look every half minute for what nobody has told them
)
STATEMENT = re.compile(r"(?:statement|execute [^:]*): *(.*)")


async def park(on: Stack, runs: int) -> None:
    """Have ``runs`` runs wait: one gets there by itself, the others are as it is."""
    workflow = await on.register(one_event())
    async with on.host() as host:
        (model,) = await submit(host, workflow, [{}])
        async with await on.database.connect() as conn:
            query = "select count(*) from subscriptions where run_id = %s"
            for _ in range(200):
                if (await (await conn.execute(query, (model,))).fetchone()) == (1,):
                    break
                await asyncio.sleep(0.05)
            else:
                raise AssertionError("the run does not come to its event")
    await on.database.clone(model, runs - 1)
    await on.database.settle_down()
    waiting = await on.database.value("select count(*) from subscriptions")
    timers = await on.database.pending_timers()
    assert (waiting, timers) == (runs, 2 * runs), (
        waiting,
        timers,
    )  # the event's time limit, the run's time limit


def statements(said: str) -> Counter[str]:
    """Statements in what the server has logged, by their first words."""
    found = (STATEMENT.search(line) for line in said.splitlines())
    return Counter(" ".join(match.group(1).split()[:4]) for match in found if match and match.group(1))


async def bench(args: argparse.Namespace) -> Row:
    seconds = FULL_S if args.full else args.seconds
    async with stack() as on:
        await park(on, args.runs)
        say(f"{args.runs} runs wait: {await on.database.size_mb()} MB")
        await on.database.log_statements()
        async with Worker(on, tuple(NAMES), relay=True) as worker:
            await asyncio.sleep(SETTLE_S)
            postgres, nats = on.running.postgres.pid, on.running.nats.pid
            assert postgres is not None and nats is not None
            pids = {"process": worker.pid, "postgres": postgres, "nats": nats}
            log = on.running.postgres.log
            before, offset, began = (
                {n: spent_s(pid) for n, pid in pids.items()},
                log.stat().st_size,
                time.monotonic(),
            )
            await asyncio.sleep(seconds)
            elapsed = time.monotonic() - began
            spent = {name: spent_s(pid) - before[name] for name, pid in pids.items()}
            said = log.read_bytes()[offset:].decode(errors="replace")
            memory = rss_kb(worker.pid) // 1024
        still = await on.database.value("select count(*) from runs where status = 'running'")
        assert still == args.runs, still
    asked = statements(said)
    cpu = {f"{name}_percent": round(100 * used / elapsed, 2) for name, used in spent.items()}
    total = round(sum(cpu.values()), 2)
    goals = [
        at_most(f"{args.runs:,} parked runs: CPU of the process, PostgreSQL and NATS", total, 1.0, "%"),
        at_most("statements that PostgreSQL was asked, per second", round(asked.total() / elapsed, 2), LOOKS),
    ]
    figures = {"runs": args.runs, "seconds": seconds, **cpu, "rss_mb": memory, "statements": dict(asked)}
    return row("idle", goals, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--full", action="store_true", help=f"{FULL_S} seconds")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
