"""Values as PostgreSQL's binary parameters, one by one or a whole column as an array, encoded in one go.

psycopg dumps a list element by element; a batch has sixty columns, and encoding a whole column at once takes a
quarter of the time. The format is that of array_recv: dimensions, null flag, element type, length, lower bound,
then each element behind its length (-1: null).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

_HEADER = struct.Struct("!iiIii")
_LENGTH = struct.Struct("!i")
_NULL = _LENGTH.pack(-1)
_EPOCH_2000_MS = 946_684_800_000


class Kind(NamedTuple):
    """A type: how one value is encoded (None: null) and how the elements of a column are."""

    element: int  # pg_type's oid
    one: Callable[[Any], bytes | None]
    elements: Callable[[Sequence[Any]], bytes]

    def column(self, values: Sequence[Any]) -> bytes:
        """A whole column as an array."""
        count = len(values)
        if not count:
            return _HEADER.pack(0, 0, self.element, 0, 1)[:12]
        # Ids are never null, and comparing a UUID with None takes a call in Python.
        nulls = 0 if self.element == _UUID or None not in values else 1
        return _HEADER.pack(1, nulls, self.element, count, 1) + self.elements(values)


_UUID = 2950


def _join(parts: Sequence[bytes | None]) -> bytes:
    pack = _LENGTH.pack
    return b"".join([_NULL if part is None else pack(len(part)) + part for part in parts])


def _text(value: str | bytes | None) -> bytes | None:
    """Text; JSON comes as the bytes it was dumped to."""
    return value.encode() if value.__class__ is str else value  # type: ignore[return-value]


def _texts(values: Sequence[str | bytes | None]) -> bytes:
    return _join([value.encode() if value.__class__ is str else value for value in values])  # type: ignore[misc]


def _uuid(value: Any) -> bytes | None:
    return None if value is None else value.bytes


def _uuids(values: Sequence[Any]) -> bytes:
    length = _LENGTH.pack(16)
    last: Any = None
    content = b""
    parts: list[bytes] = []
    for value in values:  # rows come in groups of the same run, and of the same tenant
        if value is not last:
            last, content = value, length + value.bytes
        parts.append(content)
    return b"".join(parts)


def _fixed(code: str) -> tuple[Callable[[Any], bytes | None], Callable[[Sequence[Any]], bytes]]:
    size = struct.calcsize("!" + code)
    one = struct.Struct("!" + code).pack
    element = struct.Struct("!i" + code).pack

    def elements(values: Sequence[Any]) -> bytes:
        if None in values:
            return b"".join([_NULL if value is None else element(size, value) for value in values])
        flat: list[Any] = [size] * (2 * len(values))
        flat[1::2] = values
        return struct.pack("!" + ("i" + code) * len(values), *flat)

    return lambda value: None if value is None else one(value), elements


_MICROS = _fixed("q")


def _micros(ms: int | None) -> int | None:
    return None if ms is None else (ms - _EPOCH_2000_MS) * 1000


KINDS: dict[str, Kind] = {
    "uuid": Kind(_UUID, _uuid, _uuids),
    "text": Kind(25, _text, _texts),
    "int": Kind(23, *_fixed("i")),
    "bigint": Kind(20, *_fixed("q")),
    "bool": Kind(16, *_fixed("?")),
    "bytea": Kind(17, lambda value: value, _join),
    # Milliseconds since 1970, as everything here counts time.
    "timestamptz": Kind(
        1184, lambda ms: _MICROS[0](_micros(ms)), lambda column: _MICROS[1]([_micros(ms) for ms in column])
    ),
}
