"""What a checked CEL expression says, read from its serialised form (a protobuf ``cel.expr.CheckedExpr``).

Only what the checks need is read: the names it refers to, and its loops (comprehensions) with the type of what
they run over. The wire format is read directly: the protobuf package would be a dependency for thirty lines.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

_BLOB = 2
_Fields = dict[int, list[int | bytes]]


@dataclass(frozen=True, slots=True)
class Loop:
    """One comprehension.

    ``over``: what it runs over: "list", "map", "dyn" or "other". ``ordered``: the order of iteration can show
    (map, filter, exists_one; not all and exists). ``outer``: the names in its body that are not its own variables.
    """

    over: str
    ordered: bool
    nested: bool
    outer: frozenset[str]


@dataclass(frozen=True, slots=True)
class Ast:
    """The free names of an expression (dotted where declared so) and its loops. ``growth``: how many times larger than
    what they begin with the results of loops that run over each other's results may be."""

    names: frozenset[str]
    loops: tuple[Loop, ...]
    growth: int


def read(serialised: bytes) -> Ast:
    """Parse ``Expression.serialize()``. CEL's parser bounds the nesting (32)."""
    checked = _fields(_blob(_fields(serialised), 2))
    walker = _Walker(
        {key: _text(_fields(ref), 1) for key, ref in _id_map(checked, 2).items()},
        {key: _type_kind(_fields(value)) for key, value in _id_map(checked, 3).items()},
    )
    names = walker.walk(_fields(_blob(checked, 4)), False)
    return Ast(frozenset(name.lstrip(".") for name in names), tuple(walker.loops), walker.growth)


class _Walker:
    def __init__(self, references: dict[int, str], types: dict[int, str]) -> None:
        self.references = references
        self.types = types
        self.loops: list[Loop] = []
        self.growth = 1
        self.repeated: list[dict[str, int]] = []  # of each loop around: how often its body names its variables

    def walk(self, expr: _Fields, looping: bool) -> set[str]:
        """The free names of ``expr``, the variables of enclosing loops among them; notes the loops it meets."""
        name = self.references.get(_int(expr, 2), "")
        if 4 in expr:  # identifier
            name = name or _text(_fields(_blob(expr, 4)), 1)
            for times in self.repeated:
                if name in times:
                    times[name] += 1
            return {name}
        if 5 in expr:  # select; a dotted variable is a reference on the select itself
            return {name} if name else self._children(_fields(_blob(expr, 5)), (1,), looping)
        if 6 in expr:  # call: target, arguments
            return self._children(_fields(_blob(expr, 6)), (1, 3), looping)
        if 7 in expr:  # list
            return self._children(_fields(_blob(expr, 7)), (1,), looping)
        if 8 in expr:  # map or message: keys and values
            entries = [_fields(entry) for entry in _blobs(_fields(_blob(expr, 8)), 2)]
            return set().union(*(self._children(entry, (3, 4), looping) for entry in entries))
        if 9 in expr:
            return self._loop(_fields(_blob(expr, 9)), looping)
        return set()

    def _loop(self, loop: _Fields, looping: bool) -> set[str]:
        elements, own = {_text(loop, 1), _text(loop, 8)} - {""}, {_text(loop, 1), _text(loop, 3), _text(loop, 8)}
        before, self.growth = self.growth, 1
        over = self._children(loop, (2,), looping)
        begun, self.growth = self.growth, 1
        start = self._children(loop, (4,), looping)
        self.repeated.append(dict.fromkeys(elements, 0))
        body = self._children(loop, (5, 6, 7), True) - own
        copies = max(1, *self.repeated.pop().values())
        kind = self.types.get(_int(_fields(_blob(loop, 2)), 2), "dyn")
        begins_with_bool = 2 in _fields(_blob(_fields(_blob(loop, 4)), 3))
        self.growth = max(before, begun * self.growth * (1 if begins_with_bool else copies))
        self.loops.append(Loop(kind, not begins_with_bool, looping, frozenset(body)))
        return over | start | body

    def _children(self, fields: _Fields, numbers: tuple[int, ...], looping: bool) -> set[str]:
        children = [child for number in numbers for child in _blobs(fields, number)]
        return set().union(*(self.walk(_fields(child), looping) for child in children))


def _type_kind(type_: _Fields) -> str:
    if 6 in type_:
        return "list"
    if 7 in type_:
        return "map"
    return "dyn" if 1 in type_ or 9 in type_ else "other"


def _id_map(fields: _Fields, number: int) -> dict[int, bytes]:
    entries = map(_fields, _blobs(fields, number))
    return {_int(entry, 1): _blob(entry, 2) for entry in entries}


def _blobs(fields: _Fields, number: int) -> list[bytes]:
    return [value for value in fields.get(number, ()) if isinstance(value, bytes)]


def _blob(fields: _Fields, number: int) -> bytes:
    return next(iter(_blobs(fields, number)), b"")


def _int(fields: _Fields, number: int) -> int:
    value = fields.get(number, [0])[0]
    return value if isinstance(value, int) else 0


def _text(fields: _Fields, number: int) -> str:
    return _blob(fields, number).decode()


def _fields(data: bytes) -> _Fields:
    found: _Fields = {}
    for number, value in _walk_fields(data):
        found.setdefault(number, []).append(value)
    return found


def _walk_fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
        elif kind == _BLOB:
            size, at = _varint(data, at)
            yield tag >> 3, data[at : at + size]
            at += size
        else:  # 1: eight bytes (a double), 5: four bytes
            size = 8 if kind == 1 else 4
            yield tag >> 3, data[at : at + size]
            at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
