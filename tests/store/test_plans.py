"""Query plans: a batch looks its rows up by key, also when the plan was made while every table was empty."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from agentflow.store.postgres import PLANNING, SQL

TABLES = ("runs", "steps", "outbox", "timers", "subscriptions", "inbox", "claims", "budgets")


@pytest.fixture(scope="module")
def engine(module_database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(module_database.dsn("agentflow_engine"), autocommit=True) as conn:
        for setting in PLANNING:
            conn.execute(f"set {setting}".encode())  # type: ignore[call-overload]
        yield conn


def explain(conn: psycopg.Connection[Any], statement: bytes) -> list[str]:
    text = b"explain (generic_plan) " + statement
    return [line for (line,) in conn.execute(text)]


TEXTS = {
    statement_name.decode(): text
    for statement in SQL.values()
    for statement_name, text in ((statement.one_name, statement.one), (statement.many_name, statement.many))
    if text is not None
}


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_no_statement_of_the_engine_reads_a_whole_table(engine: psycopg.Connection[Any], name: str) -> None:
    plan = explain(engine, TEXTS[name])
    assert [line for line in plan if "Seq Scan" in line or "Disabled: true" in line] == []
    scans = [number for number, line in enumerate(plan) if re.search(r"Index (Only )?Scan", line)]
    for number in scans:
        condition = plan[number + 1]
        assert "Index Cond" in condition, plan
        if re.search(r" on (runs|steps|outbox|timers|subscriptions|inbox|claims)\b", plan[number]):
            # By the whole key, or at least by tenant and run (or event type): never by the tenant alone.
            assert re.search(r"run_id =|event_type =|event_id =", condition), plan


def test_the_check_sees_a_plan_that_walks_a_table(engine: psycopg.Connection[Any]) -> None:
    with engine.transaction():
        engine.execute("set local enable_seqscan = on")
        plan = explain(engine, b"select * from agentflow.runs where status = $1")
    assert any("Seq Scan" in line for line in plan)
