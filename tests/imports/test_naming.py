"""Names of other formats and back again: every name has one of ours, and it is told from all others."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.imports.naming import TooLong, event_name, field_name, original, state_name
from agentflow.wire.document_shape import FIELD, NAME

NAMES = st.text(alphabet="aAbZ_-.09éß:x", min_size=1, max_size=9)


@settings(deadline=None)
@given(NAMES, st.booleans())
def test_there_and_back(name: str, capital: bool) -> None:
    assert re.fullmatch(NAME, state_name(name, capital=capital))
    assert original(state_name(name, capital=capital), capital=capital) == name
    assert re.fullmatch(NAME, event_name(name))
    assert original(event_name(name)) == name
    assert re.fullmatch(FIELD, field_name(name))
    assert original(field_name(name)) == name


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("s0", "s0"), ("snake_case", "snake_case"), ("with-dash", "with-dash"), ("camelCase", "camel__case"),
        ("Idle", "idle_"), ("foo.bar", "foo--bar"), ("done", "done__"), ("cancel", "cancel__"), ("_x", "x__9_x"),
    ],
)  # fmt: skip
def test_events(name: str, made: str) -> None:
    assert event_name(name) == made


def test_fields_and_trees() -> None:
    assert field_name("event") == "event__"
    assert field_name("a.b") == "a__022eb"
    assert state_name("MoveBase", capital=True) == "move__base"
    assert state_name("main", capital=True) == "main_"
    with pytest.raises(TooLong):
        state_name("a" * 65)
