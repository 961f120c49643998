"""CEL expressions out of Python's operators: ``(score >= 0.9) & ~done`` is ``(score >= 0.9) && !done``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence

Literal = str | int | float | bool | None | Sequence["Literal"] | Mapping[str, "Literal"]
"""A value of JSON."""

_ATOM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*|[0-9]+(\.[0-9]+)?")


class Expr:
    """A CEL expression. Operators give others, ``x.name`` and ``x[i]`` are parts; ``str()`` is its text."""

    __slots__ = ("_source",)

    def __init__(self, source: str) -> None:
        self._source = source

    def __str__(self) -> str:
        return self._source

    def __repr__(self) -> str:
        return f"<{self._source}>"

    def __bool__(self) -> bool:
        raise TypeError(
            f"`{self._source}` has no value before the run: combine with & | ~ in place of and, or, not"
        )

    def __hash__(self) -> int:
        return id(self)  # == gives an expression: as a key it is only the same as itself

    def __getattr__(self, name: str) -> Expr:
        if name.startswith("_"):
            raise AttributeError(name)
        return Expr(f"{_operand(self)}.{name}")

    def __getitem__(self, key: Expr | str | int) -> Expr:
        return Expr(f"{_operand(self)}[{key if isinstance(key, Expr) else literal(key)}]")

    def __eq__(self, other: Expr | Literal) -> Expr:  # type: ignore[override]
        return _binary(self, "==", other)

    def __ne__(self, other: Expr | Literal) -> Expr:  # type: ignore[override]
        return _binary(self, "!=", other)

    def __lt__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "<", other)

    def __le__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "<=", other)

    def __gt__(self, other: Expr | Literal) -> Expr:
        return _binary(self, ">", other)

    def __ge__(self, other: Expr | Literal) -> Expr:
        return _binary(self, ">=", other)

    def __add__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "+", other)

    def __radd__(self, other: Literal) -> Expr:
        return _binary(other, "+", self)

    def __sub__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "-", other)

    def __rsub__(self, other: Literal) -> Expr:
        return _binary(other, "-", self)

    def __mul__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "*", other)

    def __rmul__(self, other: Literal) -> Expr:
        return _binary(other, "*", self)

    def __truediv__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "/", other)

    def __mod__(self, other: Expr | Literal) -> Expr:
        return _binary(self, "%", other)

    def __and__(self, other: Expr | bool) -> Expr:
        return _binary(self, "&&", other)

    def __or__(self, other: Expr | bool) -> Expr:
        return _binary(self, "||", other)

    def __invert__(self) -> Expr:
        return Expr(f"!{_operand(self)}")

    def __neg__(self) -> Expr:
        return Expr(f"-{_operand(self)}")


Value = Expr | str | int | float | bool | None
"""Where an expression is wanted: one, its text, or a literal that is no text."""

Condition = Expr | str | bool
Exprs = Mapping[str, Value]
Sets = Mapping["Expr | str", Value]
"""Assignments: variables, or their names, and what they are set to."""

result = Expr("result")
"""What a task came to, where its own end is handled."""

event = Expr("event")
item = Expr("item")
"""The element of a map."""


def cel(text: str) -> Expr:
    """An expression as CEL text."""
    return Expr(text)


def value(of: Literal) -> Expr:
    """A value as an expression: text by itself is CEL."""
    return Expr(literal(of))


def size(value: Expr) -> Expr:
    """How many characters, elements or entries it has."""
    return Expr(f"size({value})")


def one_of(value: Expr, *values: Expr | Literal) -> Expr:
    """Whether it is one of these."""
    return Expr(f"{_operand(value)} in [{', '.join(map(_operand, values))}]")


def literal(value: Literal) -> str:
    """The CEL text of a value; ValueError for a number that is not finite."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a number of JSON")
    return json.dumps(value, ensure_ascii=False)


def _binary(left: Expr | Literal, operator: str, right: Expr | Literal) -> Expr:
    return Expr(f"{_operand(left)} {operator} {_operand(right)}")


def _operand(value: Expr | Literal) -> str:
    if not isinstance(value, Expr):
        return literal(value)
    text = str(value)
    return text if _closed(text) else f"({text})"


def _closed(text: str) -> bool:
    """Whether no operator beside it can take it apart: a name, a number, a call or an element."""
    if _ATOM.fullmatch(text):
        return True
    name, bracket, rest = text.partition("[" if "[" in text and "(" not in text.partition("[")[0] else "(")
    if not bracket or not rest.endswith("]" if bracket == "[" else ")") or not (_ATOM.fullmatch(name)):
        return False
    return not set(rest[:-1]) & set("()[]\"'")
