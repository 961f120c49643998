"""Budgets: what holds and accounts cost a step, and how fast many processes are told that one is exhausted.

Runs of one step, on ``--workers`` equal processes: first of one that costs nothing, then of a paid one without any
account, then charged to three (the tenant's, the workflow's and a named one), then against accounts that admit a tenth
of them: the others are refused when they would hold. Every hold and settlement of a tenant takes the lock of the same
rows, so that what they cost is mostly what they wait.

    python tests/bench/budgets.py [--runs 1000] [--workers 2]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from typing import Any

import report
from report import Row, at_least, row, say
from stack import Stack, stack, submit
from worker import workers

from agentflow.runtime.embedded import LOCAL_TENANT
from agentflow.runtime.host import Host
from agentflow.store.budgets import remove_budget, set_budget

ALL = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost")
PRICE = 100
KEPT = 0.8
PAID = {
    "agentflow": "plan/v1", "kind": "bt", "name": "paid", "limits": {"steps": 2, "usd": 0.01, "budget": "team"},
    "tasks": {
        "pay": {"kind": "tool", "use": "std.echo", "usd": PRICE / 1e6},
        # Never begun: what might wait is accepted where nothing is left, so that the step is what is refused.
        "more": {"kind": "tool", "use": "std.echo", "usd": PRICE / 1e6, "at_limit": "wait"},
    },
    "vars": {"again": "bool"},
    "root": {"sequence": ["pay", {"if": "again", "then": "more", "else": {"check": "true"}}]},
}  # fmt: skip
PLAIN = {
    **PAID, "name": "plain", "limits": {"steps": 2},
    "tasks": {name: {"kind": "tool", "use": "std.echo"} for name in ("pay", "more")},
}  # fmt: skip
SCOPES = (("tenant", "total"), ("workflow:paid", "day"), ("budget:team", "month"))


async def load(on: Stack, host: Host, runs: int, workflow: str = "paid") -> tuple[float, int]:
    """Steps decided upon per second, and how many were admitted."""
    began = time.monotonic()
    made = await submit(host, workflow, [{}] * runs)
    ended: Any = (0, 0)
    query = """select count(*), count(*) filter (where status = 'succeeded') from runs
               where run_id = any (%s) and finished_at is not null"""
    async with await on.database.connect() as conn:
        while ended[0] < runs:
            assert time.monotonic() - began < 120, "runs do not end"
            await asyncio.sleep(0.05)
            ended = await (await conn.execute(query, (made,))).fetchone()
    return round(runs / (time.monotonic() - began)), ended[1]


async def limit(on: Stack, count: int | None) -> None:
    """Accounts that admit so many more steps; None: none."""
    for scope, period in SCOPES:
        where = (on.running.admin_dsn, LOCAL_TENANT, scope, period)
        await remove_budget(*where)
        if count is not None:
            begun = await set_budget(*where, limit_micro=None)
            await set_budget(*where, limit_micro=begun["spent_micro"] + count * PRICE)


async def bench(args: argparse.Namespace) -> Row:
    async with stack() as on, workers(on, [ALL] * args.workers), on.host(("api",)) as host:
        for document in (PAID, PLAIN):
            await on.register(document)
            await load(on, host, 50, document["name"])
        figures: dict[str, Any] = {"runs": args.runs, "workers": args.workers}
        rows = (("plain", None), ("without", None), ("with", args.runs), ("exhausted", args.runs // 10))
        for name, count in rows:
            await limit(on, count)
            workflow = "plain" if name == "plain" else "paid"
            figures[f"{name}_per_s"], admitted = await load(on, host, args.runs, workflow)
            assert admitted == (args.runs if count is None else count)
            say(f"{name}: {figures[f'{name}_per_s']} steps/s, {admitted} admitted")
    figures["without_of_plain"] = round(figures["without_per_s"] / figures["plain_per_s"], 2)
    kept = figures["with_of_without"] = round(figures["with_per_s"] / figures["without_per_s"], 2)
    return row("budgets", [at_least("with three accounts, of without", kept, KEPT)], figures)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--full", action="store_true", help="the same: it is short")
    report.main(parser, bench)
