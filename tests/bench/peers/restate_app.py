"""The service that Restate calls; granian serves ``app``."""

from __future__ import annotations

import time
from typing import Any

import restate
import work

bench = restate.Service("bench")
WHOLE = restate.RunOptions(type_hint=int)


def echo(n: int, starts: list[float]) -> int:
    starts.append(time.perf_counter())
    return n + 1


@bench.handler()
async def ten_steps(ctx: restate.Context) -> dict[str, Any]:
    n = 0
    starts: list[float] = []
    for _ in range(work.STEPS):
        n = await ctx.run_typed("echo", echo, WHOLE, n, starts)
    return {"n": n, "starts": starts}


@bench.handler()
async def fan_out(ctx: restate.Context) -> int:
    starts: list[float] = []
    branches = [ctx.run_typed("echo", echo, WHOLE, n, starts) for n in range(work.WIDTH)]
    await restate.gather(*branches)
    return sum([await branch for branch in branches])


app = restate.app([bench])
