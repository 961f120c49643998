"""Many runs: the same real runs on an empty database and on one that holds many finished runs already.

Two stacks of servers side by side; the runs that are there are copies of a real one, row for row, made by SQL. Bursts
of real runs and runs one at a time go in turns to one and to the other.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from cpu import spent_s
from report import Row, median, say
from stack import Stack, burst, stack, submit
from workloads import STEPS, ten_steps

from agentflow.runtime.host import Host

BURST = 300
SINGLE = 10


@asynccontextmanager
async def side(count: int) -> AsyncIterator[tuple[Stack, Host]]:
    """Servers of their own that hold ``count`` finished runs, and a host on them."""
    async with AsyncExitStack() as both:
        on = await both.enter_async_context(stack())
        await on.register(ten_steps())
        if count:
            async with on.host() as host, on.ending(1):
                (model,) = await submit(host, "ten-steps", [{}])
            began = time.monotonic()
            await on.database.clone(model, count - 1)
            await on.database.settle_down()
            assert await on.database.succeeded("ten-steps") == count
            say(f"{count} runs made in {time.monotonic() - began:.0f} s: {await on.database.size_mb()} MB")
        host = await both.enter_async_context(on.host())
        await burst(host, on, "ten-steps", [{}] * BURST)
        yield on, host


async def many_runs(count: int, turns: int) -> Row:
    """The same real runs where there were none before and where there are ``count``, in turns."""
    took: dict[str, list[float]] = {"empty": [], "full": []}
    single: dict[str, list[float]] = {"empty": [], "full": []}
    postgres: dict[str, list[float]] = {"empty": [], "full": []}
    async with side(0) as empty, side(count) as full:
        for turn in range(turns):
            pair = [("empty", *empty), ("full", *full)]
            for name, on, host in pair if turn % 2 else reversed(pair):
                pid = on.running.postgres.pid
                assert pid is not None
                before = spent_s(pid)
                took[name].append(await burst(host, on, "ten-steps", [{}] * BURST) * 1000 / (BURST * STEPS))
                postgres[name].append((spent_s(pid) - before) / (BURST * STEPS) * 1e6)
                runs = []
                for _ in range(SINGLE):
                    async with on.ending(1):
                        runs += await submit(host, "ten-steps", [{}])
                single[name] += await on.database.step_ms(runs)
        size = await full[0].database.size_mb()
        assert await full[0].database.succeeded("ten-steps") == count + BURST + turns * (BURST + SINGLE)
    return {
        "runs_there": count,
        "size_mb": size,
        "ratio": round(statistics.median(f / e for f, e in zip(took["full"], took["empty"], strict=True)), 2),
        "single_ratio": round(statistics.median(single["full"]) / statistics.median(single["empty"]), 2),
        "empty_ms_per_step": median(took["empty"], 3),
        "full_ms_per_step": median(took["full"], 3),
        "empty_single_ms": median(single["empty"], 3),
        "full_single_ms": median(single["full"], 3),
        "empty_postgres_us": median(postgres["empty"], 0),
        "full_postgres_us": median(postgres["full"], 0),
    }
