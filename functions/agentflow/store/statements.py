"""Statements: the engine's SQL as it is prepared, for one row and for many.

queries.sql writes every statement once. ``unnest(%b::uuid[], %b::int[]) as c (…)`` is a set of rows as columns;
for a single row it becomes ``(values (%b::uuid, %b::int)) as c (…)``, which PostgreSQL plans and runs faster than
a function scan over arrays of one element.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentflow.store.columns import KINDS, Kind

_PLACE = re.compile(r"%b::(\w+)(\[\])?")
_ROWS = re.compile(r"unnest\(((?:%b::\w+\[\],?\s*)+)\)")
FEW = 2  # rows that are sent one by one
Call = tuple[bytes, bytes, list[bytes | None]]  # name, text, parameters


@dataclass(frozen=True, slots=True)
class Statement:
    """One named statement: its texts, and the kinds of its parameters."""

    one_name: bytes
    one: bytes
    many_name: bytes
    many: bytes | None  # None: not a set of rows
    kinds: tuple[Kind, ...]

    def call(self, params: Sequence[Any]) -> Call:
        """The statement for one row, or with its plain parameters."""
        encoded = [kind.one(value) for kind, value in zip(self.kinds, params, strict=True)]
        return (self.one_name, self.one, encoded)

    def calls(self, rows: Sequence[Sequence[Any]]) -> list[Call]:
        """The statement for all rows: one call each while they are few, else one call with columns."""
        if len(rows) <= FEW:
            return [self.call(row) for row in rows]
        return [self._many(rows)]

    def together(self, rows: Sequence[Sequence[Any]]) -> Call:
        """The statement for all rows at once: where what it locks has an order."""
        return self.call(rows[0]) if len(rows) == 1 else self._many(rows)

    def _many(self, rows: Sequence[Sequence[Any]]) -> Call:
        assert self.many is not None
        columns = zip(*rows, strict=True)
        encoded: list[bytes | None] = [
            kind.column(values) for kind, values in zip(self.kinds, columns, strict=True)
        ]
        return (self.many_name, self.many, encoded)


def statements(texts: Mapping[str, bytes]) -> dict[str, Statement]:
    """The statements of a loaded SQL file. Every parameter carries a cast: it tells how it is encoded."""
    return {name: _statement(name, text.decode()) for name, text in texts.items()}


def _statement(name: str, text: str) -> Statement:
    found = _PLACE.findall(text)
    if text.count("%b") != len(found):
        raise ValueError(f"{name}: every %b needs a cast")
    single = _ROWS.sub(lambda rows: f"(values ({rows[1].replace('[]', '')}))", text)
    is_set = single != text
    kinds = tuple(KINDS[kind] for kind, _ in found)
    many = _numbered(text) if is_set else None
    return Statement(f"{name}.1".encode(), _numbered(single), f"{name}.n".encode(), many, kinds)


def _numbered(text: str) -> bytes:
    numbers = iter(range(1, 1000))
    return re.sub("%b", lambda _: f"${next(numbers)}", text).encode()
