"""Fairness: how long another tenant's first step takes while one tenant has thousands of runs queued.

Tenant A submits ``--runs`` runs of ten steps at once. While they are worked on, tenant B submits one run after the
other; from its submission to the result of its first step, by the database's clock on this machine, is what counts,
beside the same on the idle system. Once with all functions in one process, once with a process for each; there, runs
are accepted much faster than they are worked on, and what counts is measured when all are queued.

    python tests/bench/fairness.py [--runs 20000] [--probes 15] [--only together|apart]
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, LiteralString
from uuid import UUID, uuid4

import psycopg
import report
from report import Row, at_most, median, quantile, row, say
from stack import Stack, stack
from worker import workers
from workloads import ten_steps

from agentflow.core.message import Message
from agentflow.errors import RetryLater
from agentflow.runtime.embedded import LOCAL_TENANT
from agentflow.runtime.host import Host
from agentflow.store.admin import create_tenant
from agentflow.wire.document import compile_document

GOAL_MS = 100
EACH = [("plan",), ("dispatch",), ("account_cost",), ("run_tool",), ("invoke_llm",)]
FIRST_STEP = """select extract(epoch from completed_at)::float8 from agentflow.steps
                where tenant_id = %s and run_id = %s and step = 1"""


def request(tenant: UUID) -> Message:
    run = uuid4()
    data = {"run": str(run), "workflow": "ten-steps", "version": 1, "input": {}, "budget_micro": None}
    return Message("run.requested", tenant, run, "requested", data)


async def submit(host: Host, message: Message) -> None:
    """Submit a run as a client does: again when the API says later."""
    while True:
        try:
            await host.submit(message)
            return
        except RetryLater as later:
            await asyncio.sleep(later.after)


class Prober:
    """A tenant that submits one run at a time, and a session that looks at its rows."""

    def __init__(self, conn: psycopg.AsyncConnection[Any], host: Host, tenant: UUID) -> None:
        self._conn = conn
        self._host = host
        self._tenant = tenant

    async def probe(self, *, within_s: float = 60) -> float:
        """Milliseconds from the submission of a run to the result of its first step."""
        message = request(self._tenant)
        began = time.time()
        await submit(self._host, message)
        async with asyncio.timeout(within_s):
            while not (found := await self._one(FIRST_STEP, self._tenant, message.run)):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        return float((found - began) * 1000)

    async def probes(self, count: int) -> list[float]:
        """Several, on an idle system."""
        took = []
        for _ in range(count):
            took.append(await self.probe())
            await asyncio.sleep(0.05)
        return took

    async def finished(self) -> int:
        """Runs of the other tenant that have ended."""
        query = "select count(*) from runs where tenant_id = %s and finished_at is not null"
        return int(await self._one(query, LOCAL_TENANT))

    async def _one(self, query: LiteralString, *params: Any) -> Any:
        row = await (await self._conn.execute(query, params)).fetchone()
        return row[0] if row else None


async def measure(host: Host, prober: Prober, args: argparse.Namespace, *, queues: bool) -> Row:
    """``queues``: whether runs are accepted faster than they are worked on, so that all can be queued first."""
    await prober.probes(3)
    idle = await prober.probes(args.probes)
    gate = asyncio.Semaphore(args.clients)

    async def one() -> None:
        async with gate:
            await submit(host, request(LOCAL_TENANT))

    load = [asyncio.create_task(one()) for _ in range(args.runs)]
    try:
        await asyncio.sleep(1.0)
        found: Row = {"idle_p50_ms": median(idle)}
        if queues:
            submitting = await beside(prober, args, lambda: all(task.done() for task in load))
            found["while_submitting_p50_ms"] = median([took for took, _ in submitting])
            await asyncio.gather(*load)
        busy = await beside(prober, args, lambda: False)
    finally:
        for task in load:
            task.cancel()
        await asyncio.gather(*load, return_exceptions=True)
    return found | {
        "busy_p50_ms": median([took for took, _ in busy]),
        "busy_max_ms": quantile([took for took, _ in busy], 1.0),
        "probes": len(busy),
        "queued": min(waiting for _, waiting in busy),
    }


async def beside(
    prober: Prober, args: argparse.Namespace, over: Callable[[], bool]
) -> list[tuple[float, int]]:
    """Probes with the number of runs the other tenant waited for, until all are made or it is ``over``."""
    found = []
    for _ in range(args.probes):
        took = await prober.probe()
        found.append((took, args.runs - await prober.finished()))
        say(f"{took:.0f} ms while another tenant waited for {found[-1][1]} runs")
        if over():
            break
        await asyncio.sleep(0.2)
    return found


async def prepare(on: Stack) -> UUID:
    """A second tenant with the same workflow."""
    document = ten_steps()
    await on.register(document)
    tenant = await create_tenant(on.running.admin_dsn, "other")
    plan = compile_document(document)
    await on.database.register(tenant, plan.name, plan.hash, plan.document)
    await on.database.open_account(tenant)
    return tenant


async def bench(args: argparse.Namespace) -> Row:
    found: dict[str, Any] = {}
    goals = []
    for how, groups in (("together", ()), ("apart", EACH)):
        if args.only not in ("", how):
            continue
        async with stack() as on, AsyncExitStack() as running:
            tenant = await prepare(on)
            if groups:
                await running.enter_async_context(workers(on, groups))
            names: Sequence[Any] = [("api",)] if groups else []
            host = await running.enter_async_context(
                on.host(*names, relay=not groups, **({"batch": args.batch} if args.batch else {}))
            )
            conn = await running.enter_async_context(await on.database.connect())
            found[how] = await measure(host, Prober(conn, host, tenant), args, queues=bool(groups))
        more = round(found[how]["busy_p50_ms"] - found[how]["idle_p50_ms"], 2)
        goals.append(
            at_most(f"functions {how}: first step later than on the idle system, p50", more, GOAL_MS, "ms")
        )
        say(f"{how}: {found[how]}")
    return row("fairness", goals, {"runs": args.runs, **found})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--probes", type=int, default=15)
    parser.add_argument("--batch", type=int, help="events per transaction, where not the default")
    parser.add_argument("--clients", type=int, default=500, help="submissions of the one tenant at a time")
    parser.add_argument("--only", choices=["", "together", "apart"], default="")
    parser.add_argument("--full", action="store_true", help="nothing more: --runs says how many")
    report.main(parser, bench)


if __name__ == "__main__":
    main()
