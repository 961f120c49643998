"""What a document from outside may hold at most, and how a fault in it is told: by line and path."""

from __future__ import annotations

from typing import Any

from agentflow.core.types import parse, problem
from agentflow.errors import Invalid, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 100
MAX_VALUES = 20_000
MAX_KEY = 256
INT64 = 2**63
_STRING = parse("string")


def check_bounds(document: dict[str, Any]) -> None:
    """Refuse a document (already values) that is too deep or too large, has a key ``on``, or text that is none."""
    found = 0
    todo: list[tuple[Any, int, str]] = [(document, 1, "")]
    while todo:
        value, depth, path = todo.pop()
        found += 1
        if found > MAX_VALUES:
            raise Invalid([too_many("")])
        if depth > MAX_DEPTH:
            raise Invalid(
                [Problem(path[:200], f"is nested more than {MAX_DEPTH} deep", "flatten it", "too_deep")]
            )
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise Invalid([Problem(path, f"the key {key!r} is not text", "quote it", "syntax")])
                if key == "on":
                    raise Invalid([named_on(path)])
                todo.append((item, depth + 1, f"{path}.{key}".lstrip(".")))
        elif isinstance(value, list):
            todo.extend((item, depth + 1, f"{path}[{i}]") for i, item in enumerate(value))
        elif isinstance(value, str) and (fault := problem(value, _STRING, path)):
            raise Invalid([fault])


def fault_at(path: str, line: int, message: str, mend: str = "", code: str = "syntax") -> Invalid:
    """A fault in a text, at ``path`` and ``line`` (0: unknown)."""
    place = f"line {line}: " if line else ""
    return Invalid([Problem(path, place + message, mend, code)], code="invalid_plan")


def too_many(place: str) -> Problem:
    """More values than a document may have."""
    return Problem("", f"{place}there are more than {MAX_VALUES:,} values", "split the workflow", "too_large")


def named_on(path: str) -> Problem:
    """A key ``on``: no two YAML readers agree on it."""
    return Problem(
        path, "no key may be named `on`", "YAML readers take it for true; choose another name", "syntax"
    )
