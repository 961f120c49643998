"""Expressions that are compiled: evaluation to JSON values, bounded and the same in every process.

Map keys come out sorted, and anything that is not JSON is refused. CEL itself stops an evaluation after 10,000
iterations but bounds no memory, so sizes are bounded here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cel_expr_python import cel

from agentflow.core.types import JSON, Mismatch, Type, conform, parse

MAX_VALUE_ITEMS = 20_000
MAX_VALUE_CHARS = 1_000_000
MAX_COLLECTED = 2_000
"""Elements of a list that a loop builds a list from: CEL takes quadratic time for that (0.15 s for these)."""

MAX_AMPLIFIED = 4_000_000
"""Elements looped over times the size of the data that the loop's body repeats (CEL itself bounds no memory)."""

_NOTHING: dict[str, JSON] = {}


class CelFault(ValueError):
    """An expression that cannot be compiled or evaluated; carries the mend."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend


class Expr:
    """A compiled expression.

    ``source`` is its text, ``type`` the type of its value, ``names`` the declared names it reads.
    """

    __slots__ = ("_check", "_collects", "_const", "_program", "_repeats", "_shape", "names", "source", "type")

    def __init__(
        self,
        source: str,
        program: Any,
        type_: Type,
        check: Type | None,
        names: tuple[str, ...],
        repeats: frozenset[str],
        collects: bool,
    ) -> None:
        self.source = source
        self.type = type_
        self.names = names
        self._program = program
        self._check = check
        self._repeats = repeats
        self._collects = collects
        self._const: JSON = None
        # A bare name needs no evaluation and an expression without names only one.
        self._shape = "name" if names == (source,) else "call"
        if not names:
            self._const = self.value(_NOTHING)
            self._shape = "const"

    def __repr__(self) -> str:
        return f"Expr({self.source!r}: {self.type})"

    def value(self, variables: Mapping[str, JSON], local: Mapping[str, JSON] = _NOTHING) -> JSON:
        """The value over ``variables`` and ``local`` (``result.x``, ``item``, ``event``; these win).

        CelFault when the evaluation fails or its value does not have the expression's type.
        """
        shape = self._shape
        if shape == "const":
            return self._const
        try:
            if shape == "name":
                name = self.source
                value = local[name] if name in local else variables[name]
                return value if self._check is None else conform(value, self._check)
            data = {name: local[name] if name in local else variables[name] for name in self.names}
            if self._collects:
                _refuse_long(data)
            if self._repeats:
                _refuse_large(data, self._repeats)
            return self._result(self._program.eval(data=data))
        except KeyError as fault:
            raise CelFault(f"{fault.args[0]} has no value here") from None
        except Mismatch as fault:
            where = f" at {fault.where.lstrip('.')}" if fault.where else ""
            raise CelFault(f"its value{where} {fault.message}") from None
        except RuntimeError as fault:
            raise CelFault(first_line(str(fault))) from None

    def _result(self, result: Any) -> JSON:
        value = result.plain_value()
        cls = value.__class__
        if cls is bool or cls is int:
            return value if self._check is None else conform(value, self._check)
        if cls is str and result.type() == cel.Type.ERROR:
            raise CelFault(first_line(value))
        value = _Plain().value(value)
        return value if self._check is None else conform(value, self._check)


class _Plain:
    """One value made canonical: JSON only, map keys sorted, bounded."""

    def __init__(self) -> None:
        self.items = MAX_VALUE_ITEMS
        self.chars = MAX_VALUE_CHARS

    def value(self, value: Any) -> JSON:
        cls = value.__class__
        if cls is str:
            self.chars -= len(value)
            if self.chars < 0:
                raise CelFault(f"its value has more than {MAX_VALUE_CHARS:,} characters")
            return conform(value, _STRING)
        if cls is float:
            return conform(value, _DOUBLE)
        if cls is bool or cls is int or value is None:
            return value
        if cls is list or cls is dict:
            self.items -= len(value)
            if self.items < 0:
                raise CelFault(f"its value has more than {MAX_VALUE_ITEMS:,} elements")
            if cls is list:
                return [self.value(item) for item in value]
            for key in value:
                if key.__class__ is not str:
                    raise CelFault("its value has a map key that is not a string")
            return {self.value(key): self.value(value[key]) for key in sorted(value)}
        raise CelFault(
            f"its value is a {cls.__name__}, which JSON does not have", "convert it with string(...)"
        )


_STRING = parse("string")
_DOUBLE = parse("double")


def _refuse_long(data: Mapping[str, JSON]) -> None:
    longest = max(map(_longest, data.values()), default=0)
    if longest > MAX_COLLECTED:
        raise CelFault(
            f"builds a list from {longest:,} elements; at most {MAX_COLLECTED:,} are allowed",
            "map over less, or let a tool task do it",
        )


def _longest(value: JSON) -> int:
    """The length of the longest list in ``value``."""
    if isinstance(value, list):
        return max(len(value), max(map(_longest, value), default=0))
    if isinstance(value, dict):
        return max(map(_longest, value.values()), default=0)
    return 0


def _refuse_large(data: Mapping[str, JSON], repeats: frozenset[str]) -> None:
    elements = sum(_size(value, 1) for value in data.values())
    repeated = sum(_size(data[name], 0) for name in repeats)
    if elements * repeated > MAX_AMPLIFIED:
        raise CelFault(
            f"loops over too much data ({elements:,} elements, {repeated:,} repeated for each)",
            "loop over less, or let a tool task do it",
        )


def _size(value: JSON, per_text: int) -> int:
    """The number of elements in ``value``; a text counts ``per_text``, or its characters when that is 0."""
    if isinstance(value, str):
        return per_text or len(value)
    if isinstance(value, list):
        return len(value) + sum(_size(item, per_text) for item in value)
    if isinstance(value, dict):
        return len(value) + sum(_size(k, per_text) + _size(v, per_text) for k, v in value.items())
    return 1


def first_line(text: str) -> str:
    """A CEL status as one short sentence, without its code."""
    line = text.split("\n", 1)[0][:300]
    return re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", line)
