"""The types a plan may declare, and whether a JSON value is of one.

A type is written as text: ``string``, ``int`` (64 bit), ``double``, ``bool``, ``json`` (anything), ``file`` (an
opaque reference, a string to CEL), ``list(T)`` and ``map(T)`` (string keys).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentflow.errors import Problem

JSON = Any
"""A JSON value: dict (string keys), list, str, int, float, bool or None."""

SCALARS = ("string", "int", "double", "bool", "json", "file")
MAX_NESTING = 6
MAX_DEPTH = 64
MAX_TYPE_TEXT = 100
INT_MAX = 2**63 - 1

_ZERO = {"string": "", "int": 0, "double": 0.0, "bool": False, "json": None, "file": ""}
_ENGLISH = {
    "string": "a string", "int": "a whole number", "double": "a number", "bool": "true or false",
    "json": "a JSON value", "file": "a file reference", "list": "a list", "map": "an object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Type:
    """A declared type: its text, its outermost kind and, for list and map, the type of the elements."""

    name: str
    kind: str
    of: Type | None = None

    def __str__(self) -> str:
        return self.name


class Mismatch(ValueError):
    """A value that is not of the type; ``where`` is the path inside the value (``[3].name``)."""

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where

    def under(self, key: str | int) -> Mismatch:
        """The same fault seen from the container: ``key`` comes in front of the path."""
        step = f"[{key}]" if isinstance(key, int) else f".{key}"
        return Mismatch(self.message, step + self.where)


@lru_cache(maxsize=4096)
def parse(text: str) -> Type:
    """The type that ``text`` names; ValueError with the mend when there is none."""
    text = text.strip()
    if len(text) > MAX_TYPE_TEXT:
        raise ValueError(f"a type has at most {MAX_TYPE_TEXT} characters")
    wrapped: list[str] = []
    inner = text
    while inner.endswith(")") and "(" in inner:
        kind, _, inner = inner[:-1].partition("(")
        if kind not in ("list", "map") or len(wrapped) == MAX_NESTING:
            raise ValueError(_unknown(text))
        wrapped.append(kind)
        inner = inner.strip()
    if inner not in SCALARS:
        raise ValueError(_unknown(text))
    type_ = Type(inner, inner)
    for kind in reversed(wrapped):
        type_ = Type(f"{kind}({type_.name})", kind, type_)
    return type_


def _unknown(text: str) -> str:
    return f"unknown type {text!r}: use {', '.join(SCALARS)}, list(T) or map(T), at most {MAX_NESTING} deep"


def zero(type_: Type) -> JSON:
    """The value a working variable starts with: '', 0, 0.0, false, null, [] or {}."""
    if type_.kind == "list":
        return []
    if type_.kind == "map":
        return {}
    return _ZERO[type_.kind]


def conform(value: JSON, type_: Type) -> JSON:
    """``value`` as a value of ``type_``: whole numbers become doubles where a double is declared and the other
    way round where nothing is lost; Mismatch otherwise. The argument is never changed.
    """
    kind = type_.kind
    cls = value.__class__
    if kind == "string" or kind == "file":
        if cls is str:
            return _text(value)
    elif kind == "bool":
        if cls is bool:
            return value
    elif kind == "int":
        if cls is float and value.is_integer():
            value = int(value)
            cls = int
        if cls is int:
            return _whole(value)
    elif kind == "double":
        if cls is float:
            return _finite(value)
        if cls is int:
            return float(_whole(value))
    elif kind == "json":
        return _json(value, 0)
    elif kind == "list":
        if cls is list:
            return [_member(i, item, type_.of) for i, item in enumerate(value)]
    elif cls is dict:
        return {_key(k): _member(k, item, type_.of) for k, item in value.items()}
    raise Mismatch(f"must be {_ENGLISH[kind]}, not {_show(value)}")


def _member(key: str | int, value: JSON, type_: Type | None) -> JSON:
    assert type_ is not None
    try:
        return conform(value, type_)
    except Mismatch as fault:
        raise fault.under(key) from None


def _json(value: JSON, depth: int) -> JSON:
    """``value`` itself when every part of it is JSON that CEL and Postgres can hold."""
    cls = value.__class__
    if cls is str:
        return _text(value)
    if cls is bool or value is None:
        return value
    if cls is int:
        return _whole(value)
    if cls is float:
        return _finite(value)
    if depth == MAX_DEPTH:
        raise Mismatch(f"is nested more than {MAX_DEPTH} deep")
    if cls is list:
        return [_json(item, depth + 1) for item in value]
    if cls is dict:
        return {_key(key): _json(item, depth + 1) for key, item in value.items()}
    raise Mismatch(f"must be a JSON value, not {cls.__name__}")


def _key(key: object) -> str:
    if key.__class__ is not str:
        raise Mismatch(f"has a key that is not a string: {_show(key)}")
    return _text(str(key))


def _text(value: str) -> str:
    if "\0" in value:
        raise Mismatch("must not contain the character U+0000")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise Mismatch("is not valid Unicode (a lone surrogate)") from None
    return value


def _whole(value: int) -> int:
    if -INT_MAX - 1 <= value <= INT_MAX:
        return value
    raise Mismatch("does not fit in 64 bits")


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value + 0.0  # -0.0 becomes 0.0: stores do not keep its sign
    raise Mismatch("must be a finite number")


def _show(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def problem(value: JSON, type_: Type, path: str) -> Problem | None:
    """The fault of ``value`` as a value of ``type_``, addressed from ``path``, or None."""
    try:
        conform(value, type_)
    except Mismatch as fault:
        return Problem(path + fault.where, fault.message, f"give a value of type {type_}", "wrong_type")
    return None


def json_schema(type_: Type) -> dict[str, JSON]:
    """The JSON Schema of ``type_`` as strict structured outputs want it (an object schema for ``map``)."""
    if type_.kind == "list":
        assert type_.of is not None
        return {"type": "array", "items": json_schema(type_.of)}
    if type_.kind == "map":
        assert type_.of is not None
        return {"type": "object", "additionalProperties": json_schema(type_.of)}
    if type_.kind == "json":
        return {}
    names = {"int": "integer", "double": "number", "bool": "boolean"}
    return {"type": names.get(type_.kind, "string")}


def object_schema(fields: dict[str, Type]) -> dict[str, JSON]:
    """The JSON Schema of an object of exactly these fields, all required."""
    return {
        "type": "object",
        "properties": {name: json_schema(type_) for name, type_ in fields.items()},
        "required": list(fields),
        "additionalProperties": False,
    }
