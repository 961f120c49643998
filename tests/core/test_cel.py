"""Expressions: typed when compiled, JSON when evaluated, bounded, and the same in every process."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.cel import CelFault, Expr, compile_expr
from agentflow.core.types import parse

TYPES = {
    "n": "int",
    "d": "double",
    "s": "string",
    "b": "bool",
    "l": "list(string)",
    "m": "map(int)",
    "j": "json",
    "result.ok": "bool",
    "result.n": "int",
}
NAMES = {name: parse(text) for name, text in TYPES.items()}
VALUES: dict[str, Any] = {
    "n": 3,
    "d": 0.5,
    "s": "text",
    "b": True,
    "l": ["p", "q"],
    "m": {"y": 2, "x": 1},
    "j": {"k": [1, 2.5, None, "t", {"z": 1, "a": [True]}]},
}
LOCAL = {"result.ok": True, "result.n": 7}


def expr(source: str, want: str = "") -> Expr:
    return compile_expr(source, NAMES, parse(want) if want else None)


@pytest.mark.parametrize(
    ("source", "want", "value"),
    [
        ("n + 1", "int", 4),
        ("n", "double", 3.0),
        ("n > 2 && result.ok", "bool", True),
        ("result.n", "", 7),
        (".n", "int", 3),
        ("s", "json", "text"),
        ("j.k[4].a", "json", [True]),
        ("j.k[0]", "int", 1),
        ("{'b': 1, 'a': n}", "", {"a": 3, "b": 1}),
        ("[]", "list(int)", []),
        ("{}", "map(string)", {}),
        ("null", "json", None),
        ("l.map(x, x + '!')", "list(string)", ["p!", "q!"]),
        ("list(j.k).filter(x, type(x) == int)", "json", [1]),
        ("m.all(k, m[k] > 0)", "bool", True),
        ("m.exists(k, k == 'x')", "bool", True),
        ("-0.0 * d", "double", 0.0),
        ("timestamp('2020-01-01T00:00:00Z') > timestamp('2019-01-01T00:00:00Z')", "bool", True),
    ],
)
def test_value(source: str, want: str, value: Any) -> None:
    found = expr(source, want).value(VALUES, LOCAL)
    assert found == value
    assert type(found) is type(value)
    assert repr(found) == repr(value), "the order of keys and the sign of zero too"


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("l[9]", "Index error: index=9 size=2"),
        ("j.nope", 'Key not found in map : "nope"'),
        ("n / 0", "divide by zero"),
        ("9223372036854775807 + n", "integer overflow"),
        ("int(s)", "cannot convert string to int"),
        ("d / 0.0", "its value must be a finite number"),
        ("j.k[4].a > 1", "No matching overloads"),
        ("dyn(b'bytes')", "its value is a bytearray, which JSON does not have"),
        ("dyn({n: 1})", "its value has a map key that is not a string"),
        ("list(j)", "No matching overloads"),
    ],
)
def test_fault(source: str, fault: str) -> None:
    with pytest.raises(CelFault, match="^" + fault.replace("+", "\\+").replace("(", "\\(")):
        expr(source).value(VALUES, LOCAL)


def test_a_value_of_another_type_than_declared_is_a_fault() -> None:
    with pytest.raises(CelFault, match="its value must be a whole number, not a list"):
        expr("j.k", "int").value(VALUES)
    with pytest.raises(CelFault, match=r"its value at \[1\] must be a whole number, not 2.5"):
        expr("j.k", "list(int)").value(VALUES)


@pytest.mark.parametrize("value", ["\ud800", 2**70, float("nan"), object()])
def test_data_that_is_not_json_is_a_fault(value: object) -> None:
    with pytest.raises(CelFault):
        expr("[j]").value({"j": value})
    with pytest.raises(CelFault):
        expr("j", "json").value({"j": value})


@pytest.mark.parametrize(
    ("source", "want", "fault", "mend"),
    [
        ("", "", "is empty", ""),
        ("x" * 1001, "", "has 1,001 characters", ""),
        ("n +", "", "Syntax error", ""),
        ("(" * 60 + "n" + ")" * 60, "", "Expression recursion limit exceeded", ""),
        ("nn", "", "unknown name or function 'nn'", "did you mean 'n'?"),
        ("s.split(',')", "", "unknown name or function 'split'", ""),
        ("n + d", "", "`+` does not work on (int, double)", "CEL never mixes int and double"),
        ("d", "int", "gives double, but int is needed", "wrap it in int(...)"),
        ("n", "string", "gives int, but string is needed", "wrap it in string(...)"),
        ("n", "bool", "gives int, but bool is needed", "compare it"),
        (
            "result.gone",
            "",
            "unknown result field 'result.gone'",
            "the task's result has result.n, result.ok",
        ),
        ("has(result.ok)", "", "has() on a result field", "use the field itself"),
        ("item", "", "there is no `item` here", "inside a map only"),
        ("m.map(k, k)", "", "loops over a map", "list(...)"),
        ("m.filter(k, true)", "", "loops over a map", "list(...)"),
        ("m.exists_one(k, true)", "", "loops over a map", "list(...)"),
        ("[m].map(x, x.map(k, k))", "", "loops over a map", "list(...)"),
        ("j.map(x, x)", "", "loops over a value that may be a map", "wrap it in list(...)"),
        ("timestamp(s)", "", "gives a value of type timestamp", "string(...)"),
        ("[duration('1s')]", "", "gives a value of type duration", "string(...)"),
        ("b'x'", "", "gives a value of type bytes", "string(...)"),
        ("1u", "", "gives a value of type uint", "int(...)"),
        ("{1: 2}", "", "gives a map with keys that are not strings", "string keys"),
        ("1 / 0", "", "divide by zero", ""),
    ],
)
def test_refused(source: str, want: str, fault: str, mend: str) -> None:
    with pytest.raises(CelFault) as caught:
        expr(source, want)
    assert caught.value.message.startswith(fault)
    assert mend in caught.value.mend


def test_text_in_quotes_is_not_read_as_code() -> None:
    assert expr("s == 'has(result.ok) and j.map(x, x)'", "bool").value(VALUES, LOCAL) is False


def test_only_the_names_that_are_used_are_needed() -> None:
    assert expr("n + 1").names == ("n",)
    assert expr("l.all(n, n != s)").names == ("l", "s"), "a loop's own variable is not the declared one"
    assert expr("l.all(n, n != string(.n))").names == ("l", "n"), "unless it is named with a point"


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        ("['a']" + ".map(x, x + x)" * 9, True),
        ("['a']" + ".map(x, x + x)" * 10, False),
        ("['a']" + ".map(x, [x + x + x + x].map(y, y + y + y + y)[0])" * 3, False),
        ("[1, 2].filter(x, x > 0 && x < 9 && x != 5).map(x, x * x + x)", True),
        ("[[1, 2]].all(x, " + " && ".join(["x.size() > 0"] * 20) + ")", True),  # what is true or false does not grow
    ],
)
def test_what_loops_make_of_each_others_results_is_bounded(source: str, fits: bool) -> None:
    """A value without names is worked out when it is compiled: it must be refused before that."""
    if fits:
        compile_expr(source, {})
    else:
        with pytest.raises(CelFault, match="may grow"):
            compile_expr(source, {})


def test_work_is_bounded() -> None:
    many = [str(n) for n in range(9_000)]
    with pytest.raises(CelFault, match="loops over too much data"):
        expr("l.map(x, l)").value({"l": many[:2_000]})
    with pytest.raises(CelFault, match="loops over too much data"):
        expr("l.map(x, x + s)").value({"l": many[:2_000], "s": "x" * 100_000})
    with pytest.raises(CelFault, match="Iteration budget exceeded"):
        expr("l.all(x, x != '')").value({"l": many * 3})
    with pytest.raises(CelFault, match="more than 20,000 elements"):
        expr("l + l + l").value({"l": many})
    with pytest.raises(CelFault, match="more than 1,000,000 characters"):
        expr("s + s").value({"s": "x" * 600_000})
    with pytest.raises(CelFault, match="builds a list from 9,000 elements; at most 2,000 are allowed"):
        expr("l.map(x, x + '!')").value({"l": many})
    assert expr("l.all(x, x != '')").value({"l": many}), "a loop that builds nothing is as long as CEL allows"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdef", max_size=3), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
def test_json_comes_out_as_it_went_in(value: Any) -> None:
    assert expr("[j]").value({"j": value}) == [value]
    assert expr("j", "json").value({"j": value}) == value


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["n", "l", ".", "(", ")", "map", "x", ",", "+", "'", "1"])).map("".join)
)
def test_any_text_compiles_or_is_refused(source: str) -> None:
    with contextlib.suppress(CelFault):
        expr(source)
