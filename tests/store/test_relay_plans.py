"""The relay's looks go to what is due and no further, however many timers and requests are pending."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from agentflow.store.queries import load

SQL = load("relay.sql")
LOOKS = {
    "fire_timers": "timers_due",
    "next_timer": "timers_due",
    "resend": "outbox_due",
}


@pytest.fixture(scope="module")
def relay(module_database: Any) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(module_database.dsn("agentflow_relay"), autocommit=True) as conn:
        conn.execute("set enable_seqscan = off")
        yield conn


@pytest.mark.parametrize("name", sorted(LOOKS))
def test_a_look_enters_the_index_at_what_is_due(relay: psycopg.Connection[Any], name: str) -> None:
    statement = SQL[name].replace(b"%b", b"$1")
    plan = [line for (line,) in relay.execute(b"explain (generic_plan) " + statement)]
    (scan,) = [number for number, line in enumerate(plan) if f"using {LOOKS[name]}" in line]
    if name == "next_timer":  # the first in order is all it asks for
        assert "Limit" in plan[scan - 1]
    else:
        assert re.search(r"Index Cond: \((fire|due)_at <= ", plan[scan + 1]), plan
