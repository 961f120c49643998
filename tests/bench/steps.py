"""How fast steps go: 2,000 runs of 10 trivial steps, embedded, durable (fsync on). Prints one JSON line.

Everything is on: validation, planner, row-level security, ledger (each step has a price), history, outbox and
sampled tracing. Throughput is measured with all runs at once; per-step overhead with one run at a time, as the
database's time between one decision of the run and the next.

    python tests/bench/steps.py [--runs 2000] [--single 100] [--no-handoff] [--profile FILE]
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from typing import Any

import report
from report import Row, at_most, median, quantile, row
from stack import Stack, burst, stack, submit
from workloads import STEPS, ten_steps

from agentflow.runtime.host import Host


async def one_at_a_time(host: Host, on: Stack, count: int) -> list[float]:
    """Milliseconds per step of ``count`` runs, one after the other."""
    runs = []
    for _ in range(count):
        async with on.ending(1):
            runs += await submit(host, "ten-steps", [{}])
    return await on.database.step_ms(runs)


async def bench(args: argparse.Namespace) -> Row:
    async with stack(handoff=not args.no_handoff) as on:
        await on.register(ten_steps())
        async with on.host() as host:
            return await measure(args, host, on)


async def measure(args: argparse.Namespace, host: Host, on: Stack) -> Row:
    single = await one_at_a_time(host, on, args.single)
    await on.database.wipe()
    cpu = time.process_time()
    if args.profile:
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
    seconds = await burst(host, on, "ten-steps", [{}] * args.runs)
    if args.profile:
        profile.disable()
        profile.dump_stats(args.profile)
    cpu = time.process_time() - cpu
    steps = args.runs * STEPS
    totals = await on.database.totals()
    assert totals == {"runs": args.runs, "steps": steps, "settled": steps, "open": 0}, totals
    p50, p99 = median(single), quantile(single, 0.99)
    goals = [
        at_most("one run at a time, per step, p50", p50, 1.0, "ms"),
        at_most("one run at a time, per step, p99", p99, 2.5, "ms"),
    ]
    figures: dict[str, Any] = {
        "steps_per_s": round(steps / seconds),
        "step_p50_ms": p50,
        "step_p99_ms": p99,
        "python_cpu_us_per_step": round(cpu / steps * 1e6),
        "runs": args.runs,
        "handoff": not args.no_handoff,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count(),
    }
    return row("steps", goals, figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--single", type=int, default=100)
    parser.add_argument("--no-handoff", action="store_true")
    parser.add_argument("--profile")
    parser.add_argument("--full", action="store_true", help="nothing more: this row is always whole")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
