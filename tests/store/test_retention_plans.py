"""What retention looks at is what it removes: plans of the keeper's and the archive's statements, on empty tables and
on full ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from agentflow.store import retention, run_rows
from agentflow.store.retention import FIRST_ENTRY

MANY = 4_000
MONDAY = datetime(2026, 8, 3, tzinfo=UTC)
SUNDAY = MONDAY + timedelta(weeks=1)
A, B = UUID(int=0xA), UUID(int=0xB)

# Two tenants, five weeks: in the middle one each run of A is old and over, and has rows in every table.
FILL = """
select agentflow.provide_partitions('2026-07-20', '2026-08-24');
insert into agentflow.tenants select t, 'x' from unnest('{{{a},{b}}}'::uuid[]) t;
insert into agentflow.runs (tenant_id, run_id, workflow, status, steps, seq, created_at, finished_at)
select t, md5(t::text || w || n)::uuid, 'w', 'succeeded', 2, 2,
       timestamptz '2026-07-20 00:00+00' + w * interval '1 week' + n * interval '1 minute', '2026-08-25'
from unnest('{{{a},{b}}}'::uuid[]) t, generate_series(0, 4) w, generate_series(1, {many} / 5) n;
insert into agentflow.steps (tenant_id, born, run_id, step, attempt, epoch, task, kind, status, requested_at)
select tenant_id, created_at, run_id, n, 1, 0, 't', 'tool', 'succeeded', created_at
from agentflow.runs, generate_series(1, 2) n;
insert into agentflow.history (tenant_id, born, run_id, seq, name, data, hash)
select tenant_id, created_at, run_id, n, 'n', '{{}}', '' from agentflow.runs, generate_series(1, 2) n;
insert into agentflow.ledger (tenant_id, born, run_id, step, attempt, entry, amount_micro, held_micro, price, at)
select tenant_id, created_at, run_id, n, 1, 'settle', 1, 1, 'p', created_at
from agentflow.runs, generate_series(1, 2) n;
insert into agentflow.leftovers (tenant_id, born, run_id) select tenant_id, created_at, run_id from agentflow.runs;
insert into agentflow.inbox select tenant_id, 'plan', run_id::text, created_at from agentflow.runs;
insert into agentflow.parked
select tenant_id, run_id, 'plan', 's', 'r', '{{}}', 'x', 1, created_at from agentflow.runs;
insert into agentflow.blobs
select tenant_id, 'blob:sha256:' || md5(run_id::text) || md5(run_id::text), 'x', now(), created_at from agentflow.runs;
insert into agentflow.blob_uses
select tenant_id, 'blob:sha256:' || md5(run_id::text) || md5(run_id::text), run_id from agentflow.runs where steps > 2;
insert into agentflow.audit
select tenant_id, row_number() over (partition by tenant_id), created_at, 'runs',
       json_build_object('runs', json_build_array(json_build_array(run_id, 1, ''))), '', '' from agentflow.runs;
insert into agentflow.spend
select t, date '2026-07-20' + n / 20, 'w' || n % 20, 1, '', '', '', '', '', '', 0, '', 1, 1, 1, 0, 0, 0, 1, 1, 1
from unnest('{{{a},{b}}}'::uuid[]) t, generate_series(0, {many} - 1) n;
insert into agentflow.run_spend
select tenant_id, day, workflow, 1, '', 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0 from agentflow.spend;
insert into agentflow.timers (tenant_id, run_id, key, kind, fire_at)
select tenant_id, gen_random_uuid(), 'k', 'wait', now() from agentflow.runs;
insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, due_at)
select '{b}', gen_random_uuid(), 'k', 'plan', 'n', '{{}}', now() from agentflow.runs;
"""

# The most rows that any node of a statement's plan may see on the full tables, where it is not two.
MOST = {
    "look_at_runs": 300,  # a page of 100, and for each a look at timers and outbox
    "remove_runs": 110,
    "read_leftovers": 100,
    "delete_steps": 4,  # two rows, looked at and deleted
    "delete_history": 4,
    "delete_entries": 110,
    "late_entry": 2,
    "next_leftover": 2,
    "ledger_tenants": 5,
    "inbox_tenants": 5,
    "tenants_with_runs": 6,
    "delete_inbox": 100,
    "delete_parked": 100,
    "unused_blobs": 110,
    "delete_blobs": 110,
    "forget_leftover": 3,
    "forget_week": 100,
    "any_row": 1,
    "steps": 200,
    "history": 200,
    "ledger": 200,
    "runs": 110,
    "refs": 110,
    "empty_audit": 110,
    "delete_spend": 20,
    "delete_run_spend": 20,
    "fold_spend": 20,
    "fold_run_spend": 20,
}
# These look at all there is of something by their nature: tenants, partitions, or what a dry run counts.
ALL = {"tenants", "partitions", "refs_on_the_road"}
ALL |= {"count_entries", "count_inbox", "count_parked", "count_spend", "count_run_spend"}
DOORS = {"lead", "provide", "drop_partition", "name_tenant", "row_bytes"}
STATEMENTS = [("agentflow_keeper", name) for name in retention.SQL] + [
    ("agentflow_engine", name) for name in run_rows.SQL
]


def statement(role: str, name: str) -> tuple[bytes, str]:
    return (
        (retention.SQL[name], retention.PLANNING)
        if role == "agentflow_keeper"
        else (run_rows.SQL[name], run_rows.PLANNING)
    )


@pytest.fixture(scope="module")
def databases(module_database: Any) -> Iterator[dict[str, Any]]:
    """Empty tables, full ones, and full ones that nobody has analysed since they were empty."""
    names = {tables: f"{module_database.name}_{tables}" for tables in ("full", "stale")}
    server = module_database.postgres
    with psycopg.connect(module_database.admin, autocommit=True) as conn:
        conn.execute("select agentflow.provide_partitions('2026-07-20', '2026-08-24')")
    found: dict[str, Any] = {"empty": module_database.dsn}
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        for tables, name in names.items():
            admin.execute(f"create database {name} template {module_database.name}")
            found[tables] = lambda role, name=name: server.dsn(role, name)
            with psycopg.connect(found[tables]("postgres"), autocommit=True) as conn:
                conn.execute("set session_replication_role = replica")
                conn.execute(FILL.format(a=A, b=B, many=MANY).encode())
                if tables == "full":
                    conn.execute("vacuum analyze")
                found["runs"] = conn.execute(
                    """select created_at, run_id, rev from agentflow.runs
                       where tenant_id = %s and created_at >= %s order by 1 limit 100""",
                    (A, MONDAY),
                ).fetchall()
        yield found
        for name in names.values():
            admin.execute(f"drop database {name} with (force)")


def values(name: str, runs: list[Any]) -> dict[str, Any]:
    """What a sweep that is in the middle of it asks with."""
    refs = ["blob:sha256:" + "0" * 64] * 100
    found = {
        **FIRST_ENTRY,
        "tenant": A, "tenants": [A] * 100, "since": MONDAY, "until": SUNDAY, "limit": 100, "fill": 1000,
        "before": datetime(2026, 9, 1, tzinfo=UTC), "at": MONDAY + timedelta(hours=1),
        "born": MONDAY + timedelta(days=0.3), "run": UUID(int=2**128 - 1),
        "borns": [run[0] for run in runs], "runs": [run[1] for run in runs], "revs": [run[2] for run in runs],
        "refs": refs, "ref": refs[0], "chore": "prune", "detail": "", "table": "runs", "inline": 65536,
        "name": "steps_2020w01", "weeks": 1,
    }  # fmt: skip
    if name in ("delete_steps", "delete_history", "forget_leftover"):
        found |= {"born": runs[0][0], "run": runs[0][1]}
    return found


def plan_of(dsn: str, role: str, name: str, runs: list[Any], *, run: bool) -> dict[str, Any]:
    text, planning = statement(role, name)
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(planning.encode())
        conn.execute("set default_transaction_read_only = off")
        with conn.transaction(force_rollback=True):
            conn.execute("select set_config('app.tenants', %s, true)", (f"{{{A}}}",))
            options = b"analyze, format json" if run else b"format json"
            cursor = psycopg.ClientCursor(conn)
            row = cursor.execute(b"explain (" + options + b") " + text, values(name, runs)).fetchone()
    assert row is not None
    found = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return dict(found[0]["Plan"])


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)


@pytest.mark.parametrize("tables", ["empty", "full", "stale"])
@pytest.mark.parametrize(("role", "name"), STATEMENTS)
def test_every_row_is_looked_up_by_key(databases: dict[str, Any], role: str, name: str, tables: str) -> None:
    plan = plan_of(databases[tables](role), role, name, databases["runs"], run=False)
    scans = [node for node in nodes(plan) if node["Node Type"] == "Seq Scan" or node.get("Disabled")]
    assert [node.get("Relation Name") for node in scans] == []
    found = {
        node["Relation Name"]
        for node in nodes(plan)
        if re.search(r"_(\d{4}w\d\d|other)$", node.get("Relation Name", ""))
    }
    text = statement(role, name)[0]
    if b"%(since)s" in text or b"born = %(born)s" in text:  # one week is all it opens
        assert {relation.rpartition("_")[2] for relation in found} <= {"2026w32"}


@pytest.mark.parametrize("tables", ["full", "stale"])
@pytest.mark.parametrize(
    ("role", "name"), [(role, name) for role, name in STATEMENTS if name not in ALL | DOORS]
)
def test_what_is_looked_at_is_what_is_asked_for(
    databases: dict[str, Any], role: str, name: str, tables: str
) -> None:
    plan = plan_of(databases[tables](role), role, name, databases["runs"], run=True)
    seen = max(
        (
            node["Actual Rows"]
            + node.get("Rows Removed by Filter", 0)
            + node.get("Rows Removed by Join Filter", 0)
        )
        * node["Actual Loops"]
        for node in nodes(plan)
    )
    assert seen <= MOST.get(name, 2), (seen, json.dumps(plan, indent=1))


def test_the_check_sees_a_plan_that_walks_a_table(databases: dict[str, Any]) -> None:
    with psycopg.connect(databases["full"]("agentflow_keeper"), autocommit=True) as conn:
        row = conn.execute(
            "explain (format json) select run_id from agentflow.runs where held_micro = 1"
        ).fetchone()
    assert row is not None
    assert [node["Node Type"] for node in nodes(row[0][0]["Plan"])] == ["Seq Scan"]


def test_every_statement_is_looked_at() -> None:
    names = set(retention.SQL) | set(run_rows.SQL)
    assert set(MOST) | ALL | DOORS <= names
    assert names - set(MOST) - ALL - DOORS == {"last_done", "mark_done", "blob"}
