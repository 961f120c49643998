"""Types: what conforms, what becomes of it, and the JSON Schema they stand for."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.types import conform, json_schema, object_schema, parse, problem, zero

TEXTS = [
    "string",
    "int",
    "double",
    "bool",
    "json",
    "file",
    "list(string)",
    "map(list(int))",
    "list(map(json))",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_type_is_named_as_it_was_written(text: str) -> None:
    assert parse(f" {text} ").name == text
    assert problem(zero(parse(text)), parse(text), "v") is None, "its zero conforms"


@pytest.mark.parametrize(
    "text",
    ["", "integer", "list", "list()", "list(int", "set(int)", "list(" * 7 + "int" + ")" * 7, "x" * 200],
)
def test_unknown_types_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"unknown type|at most 100"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value", "becomes"),
    [
        ("double", 3, 3.0),
        ("int", 3.0, 3),
        ("list(double)", [1, 2.5], [1.0, 2.5]),
        ("map(int)", {"a": 1.0}, {"a": 1}),
        ("json", {"a": [None, True, 1, 1.5, "s"]}, {"a": [None, True, 1, 1.5, "s"]}),
        ("double", -0.0, 0.0),
    ],
)
def test_conform(text: str, value: Any, becomes: Any) -> None:
    found = conform(value, parse(text))
    assert repr(found) == repr(becomes)


@pytest.mark.parametrize(
    ("text", "value", "fault"),
    [
        ("string", 1, "v: must be a string, not 1"),
        ("string", None, "v: must be a string, not null"),
        ("string", "a\0b", "v: must not contain the character U+0000"),
        ("string", "\ud800", "v: is not valid Unicode (a lone surrogate)"),
        ("int", True, "v: must be a whole number, not true"),
        ("int", 1.5, "v: must be a whole number, not 1.5"),
        ("int", 2**63, "v: does not fit in 64 bits"),
        ("double", "1", "v: must be a number, not '1'"),
        ("double", float("inf"), "v: must be a finite number"),
        ("bool", 0, "v: must be true or false, not 0"),
        ("list(int)", [1, "x"], "v[1]: must be a whole number, not 'x'"),
        ("map(list(int))", {"a": [1, None]}, "v.a[1]: must be a whole number, not null"),
        ("map(int)", {1: 1}, "v: has a key that is not a string: 1"),
        ("list(int)", {"a": 1}, "v: must be a list, not an object"),
        ("json", {"a": {1, 2}}, "v: must be a JSON value, not set"),
        ("file", 3, "v: must be a file reference, not 3"),
    ],
)
def test_mismatch(text: str, value: Any, fault: str) -> None:
    found = problem(value, parse(text), "v")
    assert found is not None
    assert f"{found.path}: {found.message}" == fault


def test_depth_is_bounded() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    found = problem(deep, parse("json"), "v")
    assert found is not None
    assert found.message == "is nested more than 64 deep"


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-5, 5).filter(lambda x: x != int(x))
    | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=1), inner, max_size=3),
    max_leaves=6,
)


@given(values, st.sampled_from(TEXTS))
def test_the_schema_says_the_same(value: Any, text: str) -> None:
    valid = jsonschema.Draft202012Validator(json_schema(parse(text))).is_valid(value)
    assert valid == (problem(value, parse(text), "v") is None)


def test_the_schema_of_fields_is_strict() -> None:
    schema = object_schema({"n": parse("int"), "tags": parse("list(string)")})
    check = jsonschema.Draft202012Validator(schema)
    assert check.is_valid({"n": 1, "tags": ["x"]})
    assert not check.is_valid({"n": 1})
    assert not check.is_valid({"n": 1, "tags": [], "more": 1})
