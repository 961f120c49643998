"""Fan-out and join: one run that starts 100, 1,000 or 10,000 steps at once and goes on when all have ended.

What is measured is what the client sees: from its request to the commit of the run's end. Per-child times of
10,000 and of 100 are put beside each other: linear means that their ratio is 1.

    python tests/bench/fanout.py [--runs 30] [--widths 100,1000,10000] [--profile FILE] [--full]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import report
from report import Row, at_most, median, quantile, row, say
from stack import Stack, burst, stack
from workloads import fan_out, parallel

from agentflow.runtime.host import Host

LINEAR = 1.2
PARALLEL = 100
BY = 100  # how many children of a map with bounded concurrency run at a time


async def times_ms(host: Host, on: Stack, workflow: str, width: int, runs: int) -> list[float]:
    """Milliseconds from the request of a run to the commit of its end, run by run."""
    given: dict[str, Any] = {} if workflow.startswith("parallel") else {"items": list(range(width))}
    return [await burst(host, on, workflow, [given]) * 1000 for _ in range(runs)]


async def bench(args: argparse.Namespace) -> Row:
    widths = [int(width) for width in args.widths.split(",")]
    async with stack() as on, on.host() as host:
        return await measure(args, host, on, widths)


async def measure(args: argparse.Namespace, host: Host, on: Stack, widths: list[int]) -> Row:
    took: dict[str, list[float]] = {}
    children = 0
    await on.register(fan_out(10))
    await times_ms(host, on, "map-10", 10, 20)
    await on.database.wipe()
    runs_of = {width: max(1, 3_000 // width) for width in widths} | {widths[0]: args.runs}
    for width in widths:
        await on.register(fan_out(width))
    await on.register(parallel(PARALLEL))
    await on.register(fan_out(widths[-1], BY))
    work = [(f"map-{width}", width, runs_of[width]) for width in widths]
    work += [(f"parallel-{PARALLEL}", PARALLEL, args.runs)]
    work += [(f"map-{widths[-1]}-by-{BY}", widths[-1], 1)]
    profile = _profile(args.profile)
    for workflow, width, runs in work:
        began = time.perf_counter()
        took[workflow] = await times_ms(host, on, workflow, width, runs)
        children += width * runs
        say(f"{workflow}: {runs} runs in {time.perf_counter() - began:.1f} s")
    if profile:
        profile.disable()
        profile.dump_stats(args.profile)
    totals = await on.database.totals()
    ran = sum(runs for _, _, runs in work)
    assert totals == {"runs": ran, "steps": children, "settled": children, "open": 0}, totals
    per_child = {width: statistics.median(took[f"map-{width}"]) / width for width in widths}
    first, last = widths[0], widths[-1]
    ratio = round(per_child[last] / per_child[first], 2)
    p50 = median(took[f"map-{first}"])
    goals = [
        at_most(f"fan-out of {first} and join, p50", p50, 20, "ms"),
        at_most(f"time per child, {last} against {first}", ratio, LINEAR, "x"),
    ]
    figures = {
        f"fan{first}_ms": p50,
        f"fan{first}_p99_ms": quantile(took[f"map-{first}"], 0.99),
        f"parallel{PARALLEL}_ms": median(took[f"parallel-{PARALLEL}"]),
        "ms_per_child": {str(width): round(ms, 3) for width, ms in per_child.items()},
        f"ms_per_child_{last}_by_{BY}": round(took[f"map-{last}-by-{BY}"][0] / last, 3),
        "runs": {str(width): runs for width, runs in runs_of.items()},
    }
    return row("fanout", goals, figures)


def _profile(path: str | None) -> Any:
    if not path:
        return None
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
    return profile


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--widths", default="100,1000,10000")
    parser.add_argument("--profile")
    parser.add_argument("--full", action="store_true", help="nothing more: this row is always whole")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
