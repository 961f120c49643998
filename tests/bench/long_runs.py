"""Long runs: late steps of a run against early ones, in turns.

A run is one loop that stops at a gate (a CloudEvent) just before the steps that are measured: early runs after 10
steps, late runs after nearly 10,000. Then the gates are opened one after the other, early and late in turns, so that
whatever else the machine does befalls both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from uuid import UUID

from cpu import spent_s
from report import Row, median, say
from stack import Stack, burst, publish, stack, submit
from workloads import GATE, gated_loop, ten_steps

from agentflow.runtime.host import Host

EARLY_STEPS = 10
CALM_MS = 300  # between the gate and the first measured step: the event's own work is over by then
Cost = dict[str, float]


async def measured(on: Stack, host: Host, name: str, run: UUID, steps: int) -> Cost:
    """What each of the run's last ``steps`` steps cost, once its gate is opened."""
    pid = on.running.postgres.pid
    assert pid is not None
    async with on.ending(1):
        await publish(host, GATE, name)
        await asyncio.sleep(CALM_MS / 1000 / 2)
        python, postgres = time.process_time(), spent_s(pid)
    python, postgres = time.process_time() - python, spent_s(pid) - postgres
    took = await on.database.step_ms([run])
    return {
        "ms": statistics.median(took[-steps:]),
        "python_us": python / steps * 1e6,
        "postgres_us": postgres / steps * 1e6,
    }


async def at_the_gate(on: Stack, host: Host, steps: int, last: int, runs: int) -> dict[str, UUID]:
    """Runs, by the name of their gate, that have done ``steps`` steps and wait."""
    workflow = await on.register(gated_loop(steps, last, CALM_MS))
    began = time.monotonic()
    names = [f"{workflow}-{number}" for number in range(runs)]
    made = await submit(host, workflow, [{"gate": name} for name in names])
    async with await on.database.connect() as conn:
        query = "select count(*) from subscriptions where run_id = any (%s)"
        while (await (await conn.execute(query, (made,))).fetchone()) != (runs,):
            assert time.monotonic() - began < 300, "runs do not come to their gate"
            await asyncio.sleep(0.2)
    say(f"{runs} runs at step {steps} after {time.monotonic() - began:.0f} s")
    return dict(zip(names, made, strict=True))


async def long_runs(args: argparse.Namespace) -> Row:
    """Medians of both, and the median of the ratios of neighbours."""
    last = args.measured
    early: list[Cost] = []
    late: list[Cost] = []
    async with stack() as on:
        await on.register(ten_steps())
        async with on.host() as host:
            await burst(host, on, "ten-steps", [{}] * 100)
            old = await at_the_gate(on, host, args.steps - last, last, args.pairs)
            young = await at_the_gate(on, host, EARLY_STEPS, last, args.pairs)
            for turn, pair in enumerate(zip(young.items(), old.items(), strict=True)):
                for which in (0, 1) if turn % 2 else (1, 0):
                    (early, late)[which].append(await measured(on, host, *pair[which], last))
            for runs, steps in ((young, EARLY_STEPS + last), (old, args.steps)):
                for each in runs.values():
                    assert (
                        await on.database.results(each) == steps + 2
                    )  # the gate and the pause are steps, too
    figures: Row = {"steps": args.steps, "measured": last, "pairs": args.pairs}
    for what in ("ms", "python_us", "postgres_us"):
        a, b = [cost[what] for cost in early], [cost[what] for cost in late]
        ratio = statistics.median(y / x for x, y in zip(a, b, strict=True))
        figures |= {f"early_{what}": median(a), f"late_{what}": median(b), f"{what}_ratio": round(ratio, 2)}
    return figures
