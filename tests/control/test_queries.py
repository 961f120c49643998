"""What a page costs does not depend on how much there is: the plans of the API's statements, on filled tables."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
import pytest_asyncio

from agentflow.store.control import SCAN, SQL

RUN, OTHER = UUID(int=1), UUID(int=2)
MANY = 6_000

FILL = """
insert into agentflow.tenants select ('0000000a-0000-0000-0000-00000000000' || n)::uuid, 't' || n
from generate_series(1, 3) n;
insert into agentflow.workflows (tenant_id, name, version, hash, document)
select tenant_id, 'w' || n, v, n || '.' || v, '{{}}'
from agentflow.tenants, generate_series(1, 5) n, generate_series(1, 500) v;
insert into agentflow.runs (tenant_id, run_id, workflow, version, status, created_at, state)
select tenant_id, lpad(to_hex(n), 32, '0')::uuid, 'w1', 1, 'succeeded', timestamptz '2026-01-01' + n * interval '1 s',
       '{{"open": {{"1": ["t", 1, 0, "person", 0, null]}}}}'
from agentflow.tenants, generate_series(1, {many}) n;
insert into agentflow.subscriptions (tenant_id, event_type, run_id, step)
select tenant_id, 'agentflow.human', run_id, 1 from agentflow.runs;
insert into agentflow.steps (tenant_id, born, run_id, step, attempt, epoch, task, kind, status, requested_at)
select tenant_id, created_at, run_id, n, a, 0, 't', 'tool', 'succeeded', created_at
from agentflow.runs, generate_series(1, {many} / 2) n, generate_series(1, 2) a where run_id in ('{run}', '{other}');
insert into agentflow.history (tenant_id, born, run_id, seq, name, data, hash)
select tenant_id, created_at, run_id, n, 'step.completed', '{{}}', ''
from agentflow.runs, generate_series(1, {many}) n where run_id = '{run}';
insert into agentflow.parked (tenant_id, parked_id, consumer, subject, reason, headers, payload, tries)
select tenant_id, lpad(to_hex(n), 32, '0')::uuid, 'plan', 's', 'r', '{{}}', 'x', 1
from agentflow.tenants, generate_series(1, {many}) n;
insert into agentflow.spend
select t.tenant_id, date '2026-01-01' + n / 20, 'w' || n % 20, 1, '', 'llm', 'p', 'm', 'v', '', 0, '', 1, 1, 1, 0, 0, 0,
       1, 1, 1 from agentflow.tenants t, generate_series(0, {many} - 1) n;
insert into agentflow.run_spend
select tenant_id, day, workflow, version, case when extract(day from day) > 15 then 't' else '' end, 0, 1, 1, 1, 1, 1,
       1, 1, 0, 0, 0 from agentflow.spend;
analyze agentflow.spend, agentflow.run_spend;
analyze agentflow.subscriptions, agentflow.workflows, agentflow.runs, agentflow.steps, agentflow.history,
  agentflow.parked;
"""

TENANT = "0000000a-0000-0000-0000-000000000002"
DEEP = "2026-01-01T01:00:00Z"
NONE = {"at": None, "run": RUN, "status": None, "workflow": None}
REUSED = {
    "from": RUN, "step": MANY // 4, "attempt": 1, "limit": 50, "last": MANY, "open": [1, 2], "younger": [],
}  # fmt: skip

COSTS = {
    "by": "workflow", "period": "day", "workflow": None, "place": None, "limit": 101, "after_workflow": "",
    "after_task": "", "after_agent": "", "after_provider": "", "after_name": "",
}  # fmt: skip

STATEMENTS: list[tuple[str, dict[str, Any], int]] = [
    # statement, parameters deep inside the list, most rows any node of its plan may see
    ("list_runs", NONE | {"scan": 51, "limit": 50}, 55),
    ("list_runs", NONE | {"at": DEEP, "scan": 51, "limit": 50}, 55),
    ("list_runs", NONE | {"at": DEEP, "scan": SCAN, "limit": 50, "status": "failed"}, SCAN),
    ("list_steps", {"run": RUN, "step": MANY // 4, "attempt": 1, "limit": 50}, 50),
    ("list_reused", REUSED, 50),
    ("list_reused", REUSED | {"younger": [UUID(int=3)]}, 50),
    ("read_reused", {"run": RUN}, 1),
    ("list_results", {"run": RUN, "steps": list(range(100, 200))}, 200),
    ("list_history", {"run": RUN, "after": MANY // 2, "limit": 200}, 200),
    ("list_workflows", {"after": "w2", "limit": 51}, 55),
    ("read_workflow", {"name": "w3", "version": None}, 1),
    ("newest_version", {"name": "w3", "first": None, "last": None}, 1),
    ("newest_version", {"name": "w3", "first": 3, "last": 40}, 1),
    ("list_human", {"run": None, "step": None, "after_run": UUID(int=9), "after_step": 1, "limit": 51}, 55),
    ("list_human", {"run": UUID(int=7), "step": 1, "after_run": UUID(int=0), "after_step": 0, "limit": 1}, 1),
    ("list_costs", COSTS | {"since": "2026-02-01", "until": "2026-02-03"}, 90),
    ("list_costs", COSTS | {"since": "2026-02-01", "until": "2026-02-03", "by": "model"}, 90),
    ("read_observed", {"workflow": "w3", "version": 1, "days": 10_000}, 2 * MANY // 20),
    ("list_parked", {"after": UUID(int=MANY // 2), "limit": 51}, 51),
    ("read_run", {"run": RUN}, 1),
    ("read_run_status", {"run": RUN}, 1),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def filled(module_database: Any) -> Any:
    """A database with three tenants, each with much of everything."""
    async with await psycopg.AsyncConnection.connect(module_database.admin) as conn:
        await conn.execute("set session_replication_role = replica")  # without checking every foreign key
        await conn.execute(FILL.format(many=MANY, run=RUN, other=OTHER))
    return module_database


@pytest.mark.parametrize(
    ("name", "values", "most"), STATEMENTS, ids=lambda value: value if isinstance(value, str) else ""
)
async def test_a_page_deep_in_the_list_costs_no_more_than_its_rows(
    filled: Any, name: str, values: dict[str, Any], most: int
) -> None:
    async with await psycopg.AsyncConnection.connect(filled.dsn("agentflow_api")) as conn:
        await conn.execute("select set_config('app.tenant_id', %s, true)", (TENANT,))
        cursor = await conn.execute(b"explain (analyze, buffers, format json) " + SQL[name], values)
        row = await cursor.fetchone()
    assert row is not None
    plan = row[0][0]["Plan"]
    nodes = list(_nodes(plan))
    # An empty partition may well be scanned; a page of rows is looked up.
    assert not [
        n for n in nodes if n["Node Type"] == "Seq Scan" and n["Shared Hit Blocks"] + n["Shared Read Blocks"]
    ], plan
    seen = max(
        (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"] for node in nodes
    )
    assert seen <= most, (seen, plan)


def _nodes(plan: dict[str, Any]) -> Any:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)
