"""Text of a plan document, from outside, to plain values: bounded, and without YAML's surprises.

Every fault names its line and its path.
"""

from __future__ import annotations

import json
from typing import Any

from agentflow.errors import Invalid, Problem
from agentflow.wire.document_bounds import INT64, MAX_BYTES, MAX_DEPTH, check_bounds, fault_at


def load(data: bytes) -> dict[str, Any]:
    """The object in ``data``, JSON when it is JSON and YAML otherwise; ``Invalid`` with line and path."""
    text = decode(data)
    if text.lstrip().startswith("{"):
        try:
            return _json(text)
        except json.JSONDecodeError:
            return _yaml(text)  # a flow mapping, or a fault that YAML's message names as well
    return _yaml(text)


def load_json(data: bytes) -> dict[str, Any]:
    """The object in a JSON text; ``Invalid`` with line and path."""
    text = decode(data)
    try:
        return _json(text)
    except json.JSONDecodeError as fault:
        raise fault_at("", fault.lineno, f"is not JSON: {fault.msg} (column {fault.colno})") from None


def load_yaml(data: bytes) -> dict[str, Any]:
    """The object in a YAML text; ``Invalid`` with line and path."""
    return _yaml(decode(data))


def decode(data: bytes) -> str:
    """The text of a document; ``Invalid`` when it is too large, or is not UTF-8."""
    if len(data) > MAX_BYTES:
        size = f"has {len(data):,} bytes; a plan has at most {MAX_BYTES:,}"
        raise Invalid([Problem("", size, "move data and large code out of the plan", "too_large")])
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise fault_at("", line, f"is not UTF-8 (byte {fault.start})") from None


def lines(data: bytes) -> dict[str, int]:
    """The line of every path in a document's text, as far as it can be read."""
    from agentflow.wire.document_yaml import lines as lines_of

    try:
        return lines_of(decode(data))
    except Invalid:
        return {}


class _Twice(ValueError):
    pass


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_whole)
    except _Twice as fault:
        _yaml(text)  # reads the same text and says where
        raise fault_at("", 0, str(fault)) from None
    except RecursionError:
        raise Invalid(
            [Problem("", f"is nested more than {MAX_DEPTH} deep", "flatten it", "too_deep")]
        ) from None
    except json.JSONDecodeError:
        raise
    except ValueError as fault:
        raise fault_at("", 0, str(fault)) from None
    if not isinstance(value, dict):
        raise fault_at("", 1, "must be an object")
    check_bounds(value)
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(f"the key {key!r} is given twice")
            seen.add(key)
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def _whole(digits: str) -> int:
    if len(digits) > 20 or not -INT64 <= int(digits) < INT64:
        raise ValueError(f"the number {digits[:24]} does not fit in 64 bits")
    return int(digits)


def _yaml(text: str) -> dict[str, Any]:
    from agentflow.wire.document_yaml import read

    return read(text)
