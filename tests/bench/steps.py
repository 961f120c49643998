"""How fast steps go: 2,000 runs of 10 trivial steps, embedded, durable (fsync on). Prints one JSON line.

Everything is on: validation, planner, row-level security, ledger (each step has a price), history, outbox and
sampled tracing. Throughput is measured with all runs at once; per-step overhead with one run at a time, as the
database's time between the request of a step and the request of the next.

    python tests/bench/steps.py [--runs 2000] [--single 100] [--no-handoff] [--profile FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.observe import logs, traces
from agentflow.runtime.embedded import LOCAL_TENANT, backends, local_key
from agentflow.runtime.function import NAMES
from agentflow.runtime.host import Host
from agentflow.runtime.loop import run

STEPS = 10
WORKFLOW: dict[str, Any] = {
    "agentflow": "plan/v1",
    "kind": "bt",
    "name": "ten-steps",
    "limits": {"steps": STEPS, "usd": 0.01},
    "vars": {"n": "int"},
    "tasks": {
        "step": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.00001}
    },
    "root": {
        "type": "sequence",
        "children": [{"type": "task", "task": "step", "set": {"n": "result.n"}} for _ in range(STEPS)],
    },
}


async def register(dsn: str) -> None:
    """Put the workflow into the registry, as the API does."""
    from agentflow.wire.document import compile_document

    plan = compile_document(WORKFLOW)
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute(
            "insert into agentflow.workflows (tenant_id, name, version, hash, document) values (%s, %s, 1, %s, %s)",
            (LOCAL_TENANT, plan.name, plan.hash, json.dumps(plan.document)),
        )
        await conn.execute(
            "insert into agentflow.budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 1000000000)",
            (LOCAL_TENANT,),
        )


async def burst(host: Host, dsn: str, count: int) -> float:
    """Seconds from the first submission until the database says that all ``count`` runs have succeeded."""
    began = time.perf_counter()
    messages = []
    for _ in range(count):
        run = uuid4()
        data = {"run": str(run), "workflow": "ten-steps", "version": 1, "input": {}, "budget_micro": None}
        messages.append(Message("run.requested", LOCAL_TENANT, run, "requested", data))
    await asyncio.gather(*(host.submit(message) for message in messages))
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        while True:
            row = await (
                await conn.execute("select count(*) from agentflow.runs where status = 'succeeded'")
            ).fetchone()
            assert row is not None
            if row[0] >= count:
                return time.perf_counter() - began
            await asyncio.sleep(0.02)


async def one_at_a_time(host: Host, dsn: str, count: int) -> list[float]:
    """Milliseconds per step of ``count`` runs, one after the other."""
    runs = []
    for _ in range(count):
        run = uuid4()
        runs.append(run)
        data = {"run": str(run), "workflow": "ten-steps", "version": 1, "input": {}, "budget_micro": None}
        await host.submit(Message("run.requested", LOCAL_TENANT, run, "requested", data))
        await asyncio.sleep(0.05)  # long enough for ten steps; the assertion at the end would tell
    query = """
        select extract(epoch from lead(requested_at) over (partition by run_id order by step) - requested_at) * 1000
        from agentflow.steps where run_id = any(%s)"""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        rows = await (await conn.execute(query, (runs,))).fetchall()
    return sorted(float(row[0]) for row in rows if row[0] is not None)


async def bench(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="agentflow-bench-", ignore_cleanup_errors=True) as home:
        settings = replace(Settings(), home=Path(home), handoff=not args.no_handoff, trace_sample=0.01)
        traces.configure(settings)
        logs.configure("warning", sys.stderr)
        return await measure(args, settings)


async def measure(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    async with backends(settings) as running:
        await local_key(settings, running)
        await register(running.admin_dsn)
        host = Host(
            settings,
            NAMES,
            engine_dsn=running.engine_dsn,
            relay_dsn=running.relay_dsn,
            nats_url=running.nats.url,
        )
        await host.start()
        try:
            single = await one_at_a_time(host, running.admin_dsn, args.single)
            await wipe(running.admin_dsn)
            cpu = time.process_time()
            if args.profile:
                import cProfile

                profile = cProfile.Profile()
                profile.enable()
            seconds = await burst(host, running.admin_dsn, args.runs)
            if args.profile:
                profile.disable()
                profile.dump_stats(args.profile)
            cpu = time.process_time() - cpu
            counts = await totals(running.admin_dsn)
        finally:
            await host.stop()
    steps = args.runs * STEPS
    assert counts == {"runs": args.runs, "steps": steps, "settled": steps, "open": 0}, counts
    return {
        "steps_per_s": round(steps / seconds),
        "step_p50_ms": round(statistics.median(single), 2),
        "step_p99_ms": round(single[int(len(single) * 0.99)], 2),
        "python_cpu_us_per_step": round(cpu / steps * 1e6),
        "runs": args.runs,
        "handoff": not args.no_handoff,
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count(),
    }


async def wipe(dsn: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        await conn.execute(
            "truncate agentflow.runs, agentflow.steps, agentflow.history, agentflow.ledger, agentflow.timers, "
            "agentflow.subscriptions, agentflow.outbox"
        )


async def totals(dsn: str) -> dict[str, int]:
    """What must be there afterwards: nothing lost, nothing twice."""
    query = """
        select (select count(*) from agentflow.runs where status = 'succeeded'),
               (select count(*) from agentflow.steps where status = 'succeeded'),
               (select count(*) from agentflow.ledger where entry = 'settle'),
               (select count(*) from agentflow.outbox where consumer <> 'facts')"""
    async with await psycopg.AsyncConnection.connect(dsn) as conn:
        row = await (await conn.execute(query)).fetchone()
    assert row is not None
    return dict(zip(("runs", "steps", "settled", "open"), row, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--single", type=int, default=100)
    parser.add_argument("--no-handoff", action="store_true")
    parser.add_argument("--profile")
    print(json.dumps(run(bench(parser.parse_args()))))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
