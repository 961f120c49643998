"""Our encoding of columns is what PostgreSQL reads."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.store.arrays import COLUMNS, columns, register

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids(),
    "text": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
    "int": st.none() | st.integers(-(2**31), 2**31 - 1),
    "bigint": st.none() | st.integers(-(2**63), 2**63 - 1),
    "bool": st.none() | st.booleans(),
    "bytea": st.none() | st.binary(),
}


@pytest.mark.parametrize("kind", sorted(COLUMNS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_column_comes_back_as_it_went(module_database: Any, kind: str, data: st.DataObject) -> None:
    column = data.draw(st.lists(VALUES[kind], max_size=20))
    conn = connection(module_database)
    rows = conn.execute(f"select * from unnest(%b::{kind}[])", (COLUMNS[kind](column),), binary=True).fetchall()
    assert [value for (value,) in rows] == column


def test_rows_become_columns_of_the_statements_types(module_database: Any) -> None:
    rows = [(UUID(int=1), None, 1), (UUID(int=2), "b", None)]
    encoded = columns([COLUMNS["uuid"], COLUMNS["text"], COLUMNS["int"]], rows)
    query = "select * from unnest(%b::uuid[], %b::text[], %b::int[])"
    assert connection(module_database).execute(query, encoded).fetchall() == rows


_connections: dict[str, psycopg.Connection[Any]] = {}


def connection(database: Any) -> psycopg.Connection[Any]:
    """One connection for the module: a thousand examples do not need one each."""
    if database.name not in _connections:
        conn = psycopg.connect(database.admin, autocommit=True)
        register(conn.adapters)
        _connections[database.name] = conn
    return _connections[database.name]


@pytest.fixture(scope="module", autouse=True)
def _closed() -> Any:
    yield
    for conn in _connections.values():
        conn.close()
    _connections.clear()
