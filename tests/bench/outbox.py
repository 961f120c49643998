"""What the outbox costs after a million rows have come and gone: its size, a delete, the relay's look for leftovers.

    python tests/bench/outbox.py [--rows 1000000] [--reader 60] [--plain]

Rows come and go as the engine's statements bring and take them, 256 at a time, a few thousand in flight, with
autovacuum at work. ``--reader`` keeps a transaction open for so many seconds from the middle on; ``--plain`` takes
the tables' own vacuum settings away, for comparison. Prints a line per tenth, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg

from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.store.migrate import migrate
from agentflow.store.postgres import PLANNING

BATCH, IN_FLIGHT = 256, 4_096
INSERT = """
insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, due_at)
select %(tenant)s, r, '1.1', 'run_tool', 'tool.requested', %(data)s::json, clock_timestamp() + interval '3 seconds'
from unnest(%(runs)s::uuid[]) r
"""
DELETE = """
delete from agentflow.outbox o
using unnest(%(tenants)s::uuid[], %(runs)s::uuid[], %(keys)s::text[], %(consumers)s::text[])
  as c (tenant_id, run_id, key, consumer)
where o.tenant_id = c.tenant_id and o.run_id = c.run_id and o.key = c.key and o.consumer = c.consumer
"""
LOOK = """
select count(*) from (select 1 from agentflow.outbox where due_at <= clock_timestamp() order by due_at limit 500) o
"""
SIZE = """
select pg_relation_size('agentflow.outbox'), pg_indexes_size('agentflow.outbox'), n_dead_tup, autovacuum_count
from pg_stat_all_tables where relid = 'agentflow.outbox'::regclass
"""
PLAIN = """
alter table agentflow.outbox reset (fillfactor, autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,
  autovacuum_vacuum_cost_delay, autovacuum_analyze_scale_factor, autovacuum_analyze_threshold, vacuum_truncate)
"""


def new_id() -> UUID:
    """As the API makes them: by time."""
    stamp = time.time_ns() // 1_000_000
    return UUID(int=(stamp << 80) | (7 << 76) | (2 << 62) | uuid4().int & (1 << 62) - 1)


def measure(dsn: str, admin: psycopg.Connection[Any], rows: int, reader_s: float) -> list[dict[str, Any]]:
    """Push rows through, and report on every tenth of them."""
    tenant = uuid4()
    admin.execute("insert into agentflow.tenants values (%s, 'x')", (tenant,))
    waiting: deque[list[UUID]] = deque()
    report: list[dict[str, Any]] = []
    deletes: list[float] = []
    looks: list[float] = []
    reader: psycopg.Connection[Any] | None = None
    reader_until = 0.0
    with psycopg.connect(dsn) as engine:
        for setting in PLANNING:
            engine.execute(f"set {setting}".encode())
        engine.commit()
        for number in range(1, rows // BATCH + 1):
            runs = [new_id() for _ in range(BATCH)]
            waiting.append(runs)
            engine.execute("select set_config('app.tenants', %s, true)", (f"{{{tenant}}}",))
            values = {"tenant": tenant, "runs": runs, "data": json.dumps({"input": "x" * 300})}
            engine.execute(INSERT, values, prepare=True)
            if len(waiting) * BATCH > IN_FLIGHT:
                gone = {
                    "tenants": [tenant] * BATCH, "runs": waiting.popleft(), "keys": ["1.1"] * BATCH,
                    "consumers": ["run_tool"] * BATCH,
                }  # fmt: skip
                began = time.perf_counter()
                engine.execute(DELETE, gone, prepare=True)
                deletes.append((time.perf_counter() - began) / BATCH * 1e6)
            engine.commit()
            if number % 50 == 0:
                began = time.perf_counter()
                admin.execute(LOOK, prepare=True)
                looks.append((time.perf_counter() - began) * 1e3)
            if reader_s and number * BATCH >= rows // 2 and not reader_until:
                reader = psycopg.connect(dsn.replace("agentflow_engine", "postgres"))
                reader.execute("set transaction isolation level repeatable read")
                reader.execute("select count(*) from agentflow.tenants")
                reader_until = time.perf_counter() + reader_s
            if reader is not None and time.perf_counter() > reader_until:
                reader.close()
                reader = None
            if number % max(rows // BATCH // 10, 1) == 0:
                heap, indexes, dead, vacuums = admin.execute(SIZE).fetchone() or (0, 0, 0, 0)
                line = {
                    "rows": number * BATCH, "heap_mb": round(heap / 2**20, 1), "indexes_mb": round(indexes / 2**20, 1),
                    "delete_us": round(statistics.median(deletes or [0]), 1), "dead": dead, "vacuums": vacuums,
                    "delete_max_ms": round(max(deletes or [0]) * BATCH / 1e3, 1),
                    "look_ms": round(statistics.median(looks or [0]), 2),
                    "look_max_ms": round(max(looks or [0]), 2), "reader": reader is not None,
                }  # fmt: skip
                print(" ".join(f"{name}={value}" for name, value in line.items()), flush=True)
                report.append(line)
                deletes, looks = [], []
    if reader is not None:
        reader.close()
    return report


def main() -> None:
    import asyncio

    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--reader", type=float, default=0.0)
    parser.add_argument("--set", default="", help="storage parameters to try")
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="agentflow-outbox-") as home:
        server = EmbeddedPostgres(Path(home))
        server.up()
        try:
            asyncio.run(migrate(server.dsn()))
            with psycopg.connect(server.dsn(), autocommit=True) as admin:
                if asked.set:
                    admin.execute(f"alter table agentflow.outbox set ({asked.set})".encode())
                if asked.plain:
                    admin.execute(PLAIN)
                report = measure(server.dsn("agentflow_engine"), admin, asked.rows, asked.reader)
        finally:
            server.down()
    print(json.dumps({"outbox": report[-1] | {"plain": asked.plain}}))


if __name__ == "__main__":
    main()
