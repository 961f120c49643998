"""Waiting work: 20,000 runs whose one step is a model call that takes a second, in one process.

ideal = the wall time of the same runs with calls that take no time + 1 s: what the engine needs anyway, and the
one second that the last call takes. Measured in turns (0 s, 1 s, 0 s, 1 s …), each with all runs submitted at once;
medians. The scripted model waits in the process (no sockets: the engine alone); the same is then done with calls
over HTTP to a server in another process, which needs one connection per call.

Memory per run: all runs in flight at once (calls that take longer than it takes to submit them all), resident
memory then less what it was before the first of them, divided by their number.

    python tests/bench/waiting.py [--runs 20000] [--http-runs 1000] [--turns 2] [--profile FILE] [--full]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import statistics
import time
from typing import Any

import report
from cpu import rss_kb
from model_server import allow_connections, counted, model_server
from report import Row, at_most, failed, row, say
from stack import Stack, burst, stack, submit, until
from workloads import one_call

from agentflow.observe import metrics
from agentflow.runtime.host import Host

CALL_MS = 1_000
WARM_RUNS = 500
HTTP_WARM_RUNS = 200
SLACK = 4  # calls are held this many times longer than it should take to submit all runs
LOOK_S = 1.1  # the scripted model looks for new rules once a second


def in_flight() -> int:
    """Model calls being made by this process."""
    (family,) = metrics.CALLS.collect()
    return int(sum(s.value for s in family.samples if s.labels["function"] == "invoke_llm"))


def inputs(count: int) -> list[dict[str, Any]]:
    return [{"n": n} for n in range(count)]


async def held(on: Stack, host: Host, count: int, expected_s: float) -> Row:
    """Resident memory with ``count`` runs in flight, all waiting for their model."""
    hold_s = 5 + SLACK * expected_s
    on.script(int(hold_s * 1000))
    await asyncio.sleep(LOOK_S)
    gc.collect()
    before = rss_kb()
    began = time.monotonic()
    await submit(host, "one-call", inputs(count))
    await until(lambda: in_flight() == count, within_s=hold_s, what="all calls are being made")
    seconds = time.monotonic() - began
    assert seconds < hold_s, "the first calls ended before the last began"
    (running,) = await on.database.rows("select count(*) from runs where status = 'running'")
    assert running == (count,), running
    during = rss_kb()
    figures = {
        "in_flight": in_flight(),
        "submit_s": round(seconds, 2),
        "rss_mb": during // 1024,
        "kb_per_run": round((during - before) / count, 1),
    }
    say(f"held: {figures}")
    return figures


async def turns(on: Stack, host: Host, count: int, number: int) -> tuple[float, float]:
    """Median wall seconds of ``count`` runs with calls that take no time, and with calls of a second."""
    walls: dict[int, list[float]] = {0: [], CALL_MS: []}
    for _ in range(number):
        for latency_ms, wall in walls.items():
            on.script(latency_ms)
            await asyncio.sleep(LOOK_S)
            wall.append(await burst(host, on, "one-call", inputs(count)))
            say(f"calls of {latency_ms} ms: {wall[-1]:.2f} s")
    return statistics.median(walls[0]), statistics.median(walls[CALL_MS])


async def scripted(args: argparse.Namespace) -> Row:
    """The engine alone: the model waits in this process."""
    async with stack(calls=2 * args.runs) as on:
        await on.register(one_call())
        async with on.host() as host:
            warm = await burst(host, on, "one-call", inputs(WARM_RUNS))
            profile = _profile(args.profile)
            async with on.ending(args.runs):
                memory = await held(on, host, args.runs, warm * args.runs / WARM_RUNS)
            none, second = await turns(on, host, args.runs, args.turns)
            if profile:
                profile.disable()
                profile.dump_stats(args.profile)
        ran = WARM_RUNS + args.runs * (1 + 2 * args.turns)
        totals = await on.database.totals()
        assert totals == {"runs": ran, "steps": ran, "settled": ran, "open": 0}, totals
    return memory | _walls(none, second)


async def over_http(args: argparse.Namespace, count: int) -> Row:
    """The same through a client, a socket and another process."""
    walls: dict[int, list[float]] = {0: [], CALL_MS: []}
    with model_server() as url:
        for _ in range(args.turns):
            for latency_ms, wall in walls.items():
                wall.append(await _http_turn(url, latency_ms, count))
                say(f"calls of {latency_ms} ms over HTTP: {wall[-1]:.2f} s")
        seen = counted(url)
    runs = (HTTP_WARM_RUNS + count) * 2 * args.turns
    assert seen["calls"] >= runs, seen
    figures = _walls(statistics.median(walls[0]), statistics.median(walls[CALL_MS]))
    calls = round(seen["calls"] / runs, 4)
    return figures | {"runs": count, "calls_per_run": calls, "most_calls_at_once": seen["most"]}


async def _http_turn(url: str, latency_ms: int, count: int) -> float:
    table = {"small": {"model": "bench", "input_usd_per_mtok": 0.25, "output_usd_per_mtok": 2.0}}
    models = json.dumps({"models": table})
    changes = {"calls": max(1000, 2 * count), "models": models, "llm_base_url": f"{url}/{latency_ms}/v1"}
    async with stack(**changes) as on:
        await on.register(one_call())
        async with on.host() as host:
            await burst(host, on, "one-call", inputs(HTTP_WARM_RUNS))
            return await burst(host, on, "one-call", inputs(count))


def _walls(none: float, second: float) -> Row:
    ideal = none + CALL_MS / 1000
    walls = {"wall_0s": round(none, 2), "ideal_s": round(ideal, 2), "wall_1s": round(second, 2)}
    return walls | {"ratio": round(second / ideal, 2)}


def _profile(path: str | None) -> Any:
    if not path:
        return None
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
    return profile


async def bench(args: argparse.Namespace) -> Row:
    allow_connections()
    alone = await scripted(args)
    goals = [
        at_most(f"{args.runs} runs on calls of 1 s, wall against ideal", alone["ratio"], 1.2, "x"),
        at_most("memory per run in flight", alone["kb_per_run"], 30, "KB"),
    ]
    count = args.runs if args.full else args.http_runs
    what = f"{count} runs over HTTP, wall against ideal"
    http: Row = {}
    try:
        http = await over_http(args, count)
        goals.append(at_most(what, http["ratio"], 1.2, "x"))
        goals.append(at_most("calls that the far side has seen, per run", http["calls_per_run"], 1))
    except (AssertionError, TimeoutError) as fault:  # the engine's own figures stand all the same
        goals.append(failed(what, "<= 1.2", "x", str(fault)))
    return row("waiting", goals, {"runs": args.runs, "scripted": alone, "http": http})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--http-runs", type=int, default=1_000)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--profile")
    parser.add_argument(
        "--full", action="store_true", help="as many runs over HTTP as with the scripted model"
    )
    report.main(parser, bench)


if __name__ == "__main__":
    main()
