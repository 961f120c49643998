"""What the bridge adds: the same functions in the same five processes, by pull and by push through the bridge.

A step crosses from dispatch to run_tool and back: by pull each takes the other's messages from JetStream; by push a
bridge takes them and POSTs them, as on Knative. What else a step takes (Postgres, decisions) is the same
in both. One run at a time, then all at once; pull and push in turns, on the same servers. Step times are the
database's, between one decision of a run and the next. What Knative itself puts before a function (queue-proxy,
activator) is not in it.

    python tests/bench/bridge.py [--single 20] [--runs 200] [--turns 2] [--full]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import report
from report import Row, at_most, median, row, say
from scale import WARM_RUNS, load
from stack import Stack, stack
from worker import Worker
from workloads import STEPS, ten_steps

from agentflow.runtime.host import Host

FUNCTIONS = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost")
MOST_MS = 10.0


@asynccontextmanager
async def pulled(on: Stack) -> AsyncIterator[None]:
    """A process per function, and the relay."""
    async with AsyncExitStack() as running:
        for worker in (Worker(on, [], AGENTFLOW_FUNCTION="relay"), *(Worker(on, [name]) for name in FUNCTIONS)):
            await running.enter_async_context(worker)
        yield


@asynccontextmanager
async def pushed(on: Stack) -> AsyncIterator[None]:
    """The same, called by the bridge."""
    functions = {name: Worker(on, [name], push=True) for name in FUNCTIONS}
    async with AsyncExitStack() as running:
        for worker in (Worker(on, [], AGENTFLOW_FUNCTION="relay"), *functions.values()):
            await running.enter_async_context(worker)
        urls = {name: f"http://127.0.0.1:{worker.port}" for name, worker in functions.items()}
        bridge = Worker(on, [], AGENTFLOW_FUNCTION="bridge", AGENTFLOW_FUNCTION_URLS=json.dumps(urls))
        await running.enter_async_context(bridge)
        yield


async def measure(on: Stack, host: Host, args: argparse.Namespace) -> tuple[list[float], float]:
    """Milliseconds per step of runs one at a time; steps a second of many at once."""
    await on.database.wipe()
    await load(on, host, WARM_RUNS)
    await on.database.wipe()
    for _ in range(args.single):
        await load(on, host, 1)
    made = await on.database.rows("select run_id from runs where workflow = 'ten-steps'")
    steps = await on.database.step_ms([run for (run,) in made])
    await on.database.wipe()
    return steps, args.runs * STEPS / await load(on, host, args.runs)


async def bench(args: argparse.Namespace) -> Row:
    turns = args.turns * 3 if args.full else args.turns
    ways = {"pull": pulled, "push": pushed}
    step_ms: dict[str, list[float]] = {way: [] for way in ways}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    async with stack() as on, on.host(("api",), relay=False) as host:
        await on.register(ten_steps())
        for _ in range(turns):
            for way, carried in ways.items():
                async with carried(on):
                    steps, rate = await measure(on, host, args)
                step_ms[way] += steps
                rates[way].append(rate)
                say(f"{way}: {median(steps)} ms a step, {rate:.0f} steps/s")
    pull, push = median(step_ms["pull"]), median(step_ms["push"])
    figures = {
        "pull_step_p50_ms": pull,
        "push_step_p50_ms": push,
        "push_to_pull": round(push / pull, 2),
        "pull_steps_per_s": median(rates["pull"], 0),
        "push_steps_per_s": median(rates["push"], 0),
    }
    goal = at_most("what the bridge adds to a step, p50", round(push - pull, 2), MOST_MS, "ms")
    return row("bridge", [goal], figures)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--single", type=int, default=20, help="runs one at a time, each turn")
    parser.add_argument("--runs", type=int, default=200, help="runs all at once, each turn")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="three times as many turns")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
