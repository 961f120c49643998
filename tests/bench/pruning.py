"""What pruning takes from the engine: bursts of real runs while old rows go key by key, and while weeks are dropped.

    python tests/bench/pruning.py [--runs 10000] [--turns 3] [--embedded] [--archive]

Old runs are made by SQL. ``agentflow prune`` removes them in a process of its own (with --embedded in this one, as the
embedded stack does), and bursts of 300 runs of ten steps go on until it has ended; as many go before it, with nothing
else going on. Prints a line per turn, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from aged import Past
from report import say
from stack import Stack, burst, stack
from workloads import STEPS, ten_steps

from agentflow.runtime.host import Host
from agentflow.runtime.pruning import prune
from agentflow.runtime.retention import sweep_of
from agentflow.store.retention import keeping

BURST = 300
KEPT, DROPPED = 40, 60  # days ago: a week that somebody keeps, and one that nobody keeps


class Here:
    """The stack's database, as ``Past`` wants one."""

    def __init__(self, on: Stack) -> None:
        self.dsn = on.running.postgres.dsn
        self.admin = on.running.admin_dsn


async def pruned(on: Stack, asked: argparse.Namespace) -> dict[str, Any]:
    """One sweep by hand; its report."""
    archive = f"file://{on.settings.home}/archive" if asked.archive else ""
    if asked.embedded:
        settings = replace(on.settings, retention="30d", archive=archive)
        async with keeping(on.running.keeper_dsn) as store:
            now, leads = await store.lead()
            assert leads
            forever = asyncio.get_running_loop().time() + 3600
            async with sweep_of(settings, store, on.running.engine_dsn, now, forever) as sweep:
                return (await prune(replace(sweep, patience=timedelta(0)))).json()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agentflow", "prune", "--json", "--database", on.running.admin_dsn,
        env={"PATH": os.environ["PATH"], "AGENTFLOW_RETENTION": "30d", "AGENTFLOW_ARCHIVE": archive},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0
    return dict(json.loads(out))


async def turn(
    on: Stack, host: Host, past: Past, days_ago: int, asked: argparse.Namespace
) -> dict[str, float]:
    """Bursts with nothing else going on, and bursts while old runs go."""
    tenant = past.tenant()
    if days_ago == KEPT:
        past.runs(past.tenant(runs="forever"), days_ago)
    for _ in range(asked.runs // 1000):
        past.runs(tenant, days_ago, count=1000, steps=STEPS)
    await on.database.settle_down()
    quiet = [await bursts(on, host) for _ in range(3)]
    began = time.monotonic()
    removing = asyncio.ensure_future(pruned(on, asked))
    busy: list[float] = []
    while not removing.done() or not busy:
        busy.append(await bursts(on, host))
    report, seconds = removing.result(), time.monotonic() - began
    assert report["complete"], report
    quiet += [await bursts(on, host) for _ in range(3)]
    assert past.one("select count(*) from agentflow.steps where tenant_id = %s", tenant) == 0
    return {
        "quiet": BURST * STEPS / statistics.median(quiet),
        "busy": BURST * STEPS / statistics.median(busy),
        "slowest": BURST * STEPS / max(busy),
        "slowest_quiet": BURST * STEPS / max(quiet),
        "runs_per_s": asked.runs / seconds,
        "bursts": len(busy),
    }


async def bursts(on: Stack, host: Host) -> float:
    return await burst(host, on, "ten-steps", [{}] * BURST)


async def measure(asked: argparse.Namespace) -> dict[str, Any]:
    """Both kinds of going, in turns."""
    found: dict[int, list[dict[str, float]]] = {KEPT: [], DROPPED: []}
    async with stack() as on:
        await on.register(ten_steps())
        past = await asyncio.to_thread(Past, Here(on))
        async with on.host() as host:
            await bursts(on, host)
            for _ in range(asked.turns):
                for days, name in ((KEPT, "by key"), (DROPPED, "by week")):
                    found[days].append(line := await turn(on, host, past, days, asked))
                    say(f"{name}: " + " ".join(f"{key}={value:.0f}" for key, value in line.items()))
        past.close()
    return {
        name: {
            "steps_per_s_quiet": round(statistics.median(line["quiet"] for line in found[days])),
            "steps_per_s_pruning": round(statistics.median(line["busy"] for line in found[days])),
            "ratio": round(statistics.median(line["busy"] / line["quiet"] for line in found[days]), 2),
            "slowest_burst_ratio": round(
                statistics.median(line["slowest"] / line["slowest_quiet"] for line in found[days]), 2
            ),
            "runs_removed_per_s": round(statistics.median(line["runs_per_s"] for line in found[days])),
        }
        for days, name in ((KEPT, "by_key"), (DROPPED, "by_week"))
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--embedded", action="store_true")
    parser.add_argument("--archive", action="store_true")
    print(json.dumps({"pruning": asyncio.run(measure(parser.parse_args()))}))


if __name__ == "__main__":
    main()
