"""Our encoding of columns is what PostgreSQL reads."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentflow.store.columns import KINDS
from agentflow.store.pipeline import Pool
from agentflow.store.statements import statements

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "uuid": st.uuids(),
    "text": st.none() | st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",))),
    "int": st.none() | st.integers(-(2**31), 2**31 - 1),
    "bigint": st.none() | st.integers(-(2**63), 2**63 - 1),
    "bool": st.none() | st.booleans(),
    "bytea": st.none() | st.binary(),
    "timestamptz": st.none() | st.integers(0, 2**42),
}


def read(value: str, kind: str) -> str:
    """How a value comes back: a time as milliseconds, all others as they are."""
    return f"(extract(epoch from {value}) * 1000)::bigint" if kind == "timestamptz" else value


@pytest.mark.parametrize("kind", sorted(KINDS))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_rows_come_back_as_they_went(module_database: Any, kind: str, data: st.DataObject) -> None:
    """One by one while they are few, as columns when they are many."""
    columns = data.draw(st.lists(st.lists(VALUES[kind], min_size=1, max_size=20), min_size=1, max_size=20))
    assert asyncio.run(there_and_back(module_database.admin, kind, columns)) == columns


async def there_and_back(dsn: str, kind: str, columns: list[list[Any]]) -> list[list[Any]]:
    text = f"select {read('c.v', kind)} from unnest(%b::{kind}[], %b::int[]) as c (v, n) order by n"
    statement = statements({"back": text.encode()})["back"]
    pool = Pool(dsn, size=1)
    back = []
    async with pool.pipeline() as pipeline:
        for column in columns:
            results = await pipeline.run(statement.calls([(value, n) for n, value in enumerate(column)]))
            back.append([value for result in results for (value,) in pipeline.rows(result)])
    await pool.close()
    return back


def test_a_parameter_without_a_cast_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a cast"):
        statements({"bad": b"select %b"})
