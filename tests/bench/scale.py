"""Scale out: the same load on 1, 2 and 4 worker processes, apart by function and as equals.

Apart: each process carries some functions, and what one emits the next pulls from JetStream. Equals: each carries all
functions, and JetStream deals the runs out. Runs are submitted by a process of their own (this one, which carries the
API's function and nothing else), so every run crosses at least one process boundary, also with one worker.

CPU is that of everything: workers, submitter, PostgreSQL, NATS. ``cores_busy`` is the share of the machine's cores that
worked, for us or for others: where it comes near 1, more processes can't bring more. Commits are PostgreSQL's count.

    python tests/bench/scale.py [--runs 600] [--turns 2] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise

import report
from cpu import machine_s, spent_s
from report import Goal, Row, at_least, row, say
from stack import Stack, stack, submit
from worker import Worker, workers
from workloads import STEPS, ten_steps

from agentflow.runtime.host import Host

ALL = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost")
APART: dict[int, list[tuple[str, ...]]] = {
    1: [ALL],
    2: [("plan", "dispatch", "account_cost"), ("run_tool", "invoke_llm")],
    4: [("plan",), ("dispatch",), ("account_cost",), ("run_tool", "invoke_llm")],
}
EQUALS: dict[int, list[tuple[str, ...]]] = {1: [ALL], 2: [ALL] * 2, 4: [ALL] * 4}
WARM_RUNS = 30
FULL_BUSY = 0.85  # of all cores: the rest is what a machine that waits for its disk leaves
COLLAPSE = 0.7


async def load(on: Stack, host: Host, runs: int) -> float:
    """Seconds from the first submission to the end of the last run, by the database's clock."""
    began = time.time()
    made = await submit(host, "ten-steps", [{}] * runs)
    deadline = time.monotonic() + 120
    async with await on.database.connect() as conn:
        query = "select count(*) from runs where run_id = any (%s) and finished_at is not null"
        while (await (await conn.execute(query, (made,))).fetchone()) != (runs,):
            assert time.monotonic() < deadline, "runs do not end"
            await asyncio.sleep(0.1)
    return await on.database.last_end("ten-steps") - began


async def measure(on: Stack, groups: Sequence[Sequence[str]], runs: int) -> Row:
    """One burst on these workers."""
    await on.database.wipe()
    commits = await on.database.transactions()
    async with on.host(("api",), relay=False) as host, workers(on, groups) as running:
        await load(on, host, WARM_RUNS)
        servers = {"postgres": on.running.postgres.pid, "nats": on.running.nats.pid}
        before = _cpu(running, servers)
        worked, idle = machine_s()
        seconds = await load(on, host, runs)
        worked, idle = (after - was for after, was in zip(machine_s(), (worked, idle), strict=True))
        spent = {name: after - before[name] for name, after in _cpu(running, servers).items()}
    # Counted at the end of the sessions; the look itself is a transaction, too.
    commits = await on.database.transactions() - commits - 2
    ran = WARM_RUNS + runs
    totals = await on.database.totals()
    assert totals == {"runs": ran, "steps": ran * STEPS, "settled": ran * STEPS, "open": 0}, totals
    steps = runs * STEPS
    return {
        "steps_per_s": round(steps / seconds),
        "sent_again_per_step": round(sum(worker.sent_again for worker in running) / (ran * STEPS), 2),
        "cpu_us_per_step": round(sum(spent.values()) / steps * 1e6),
        **{f"{name}_us": round(cpu / steps * 1e6) for name, cpu in spent.items()},
        "cores_busy": round(worked / (worked + idle), 2),
        "commits_per_step": round(commits / (ran * STEPS), 2),
    }


def _cpu(running: Sequence[Worker], servers: dict[str, int | None]) -> dict[str, float]:
    found = {name: spent_s(pid) for name, pid in servers.items() if pid is not None}
    return found | {
        "workers": sum(spent_s(worker.pid) for worker in running),
        "submitter": time.process_time(),
    }


def _medians(each: list[Row]) -> Row:
    return {name: round(statistics.median(one[name] for one in each), 2) for name in each[0]}


def verdict(what: str, by_count: dict[int, Row]) -> Goal:
    """Whether throughput rises with every doubling until the cores are full, and never collapses.

    The figure is the least share of the best throughput with fewer processes that is kept, counted as 1 or more where
    it rises; below ``COLLAPSE`` it is a collapse whatever the cores do.
    """
    counts = sorted(by_count)
    worst = float("inf")
    for before, after in pairwise(counts):
        best = max(by_count[count]["steps_per_s"] for count in counts if count <= before)
        kept = by_count[after]["steps_per_s"] / best
        full = by_count[before]["cores_busy"] >= FULL_BUSY
        worst = min(worst, kept if not full else max(kept, 1.0) if kept >= COLLAPSE else kept)
    return at_least(
        f"{what}: throughput kept with more processes, until cores are full", round(worst, 2), 1.0, "x"
    )


async def bench(args: argparse.Namespace) -> Row:
    took: dict[str, dict[int, list[Row]]] = {"apart": {1: [], 2: [], 4: []}, "equals": {2: [], 4: []}}
    runs = args.runs * 3 if args.full else args.runs
    async with stack() as on:
        await on.register(ten_steps())
        for turn in range(args.turns):
            for kind, groups in (("apart", APART), ("equals", EQUALS)):
                for count in took[kind] if turn % 2 else reversed(took[kind]):
                    found = await measure(on, groups[count], runs)
                    took[kind][count].append(found)
                    say(f"{kind} {count}: {found}")
    by_kind = {kind: {count: _medians(each) for count, each in rows.items()} for kind, rows in took.items()}
    by_kind["equals"][1] = by_kind["apart"][1]  # with one worker they are the same
    goals = [verdict("functions apart", by_kind["apart"]), verdict("equal workers", by_kind["equals"])]
    return row("scale", goals, {"runs": runs, "cores": os.cpu_count(), **by_kind})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="three times as many runs")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
