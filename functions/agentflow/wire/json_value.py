"""JSON values from outside and for Postgres: parsed once by orjson, bounded in depth, free of NUL.

PostgreSQL's ``text`` and ``jsonb`` cannot hold U+0000, and deep nesting breaks consumers that recurse, so
both are refused here, at the edge, with the path of the fault. orjson itself refuses NaN, infinities, lone
surrogates, raw control characters and malformed UTF-8.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from agentflow.errors import Invalid, Problem

MAX_DEPTH = 64
"""Deepest nesting of objects and arrays in one event, the event's own object included."""

MAX_VALUE_DEPTH = 48
"""Deepest nesting of a value from outside: a tool's output, the data of a foreign event. It leaves room for
the objects that such a value is put into on its way."""

MAX_PROBLEMS = 20
"""Most problems reported for one input; the rest would only repeat them."""

_MAX_PATH = 300
_NUL = b"\\u0000"
_INT_MIN, _INT_MAX = -(2**63), 2**64 - 1


def loads(body: bytes, path: str = "") -> Any:
    """Parse JSON text; ``Invalid`` addresses the fault below ``path``."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as fault:
        raise Invalid(
            [Problem(path, f"is not JSON: {_reason(fault)}", "send well-formed JSON in UTF-8", "bad_json")]
        ) from None
    _refuse(value, body, path)
    return value


def dumps(value: Any, path: str = "") -> bytes:
    """Write JSON text; UUIDs and datetimes become strings. ``Invalid`` when the value is not JSON."""
    try:
        body = orjson.dumps(value, option=orjson.OPT_UTC_Z)
    except TypeError as fault:
        problems = check(value, path, max_depth=MAX_DEPTH)
        raise Invalid(problems or [Problem(path, f"is not JSON: {fault}", code="bad_json")]) from None
    _refuse(value, body, path)
    return body


def check(value: Any, path: str = "data", *, max_depth: int = MAX_VALUE_DEPTH) -> list[Problem]:
    """Every fault of a value that has to travel and be stored as JSON, with its path; [] when there is none.

    For values made by tools and models: finds NUL characters, lone surrogates, NaN and infinities, integers
    beyond 64 bits, keys that are not strings, Python types that JSON lacks and nesting beyond ``max_depth``.
    """
    problems: list[Problem] = []
    stack: list[tuple[Any, str, int]] = [(value, path, 1)]
    while stack and len(problems) < MAX_PROBLEMS:
        item, at, depth = stack.pop()
        if isinstance(item, str):
            _check_text(item, at, problems)
        elif isinstance(item, dict | list | tuple):
            if depth > max_depth:
                mend = "flatten it, or send it as a file"
                problems.append(Problem(at, f"is nested deeper than {max_depth}", mend, "too_deep"))
            elif isinstance(item, dict):
                for key, child in item.items():
                    if not isinstance(key, str):
                        problems.append(Problem(at, f"key {key!r} is not a string", code="bad_json"))
                        continue
                    child_at = _below(at, f".{key[:60]}" if at else key[:60])
                    _check_text(key, child_at, problems)
                    stack.append((child, child_at, depth + 1))
            else:
                stack.extend((child, _below(at, f"[{index}]"), depth + 1) for index, child in enumerate(item))
        elif isinstance(item, float):
            if item != item or item in (float("inf"), float("-inf")):
                problems.append(Problem(at, f"{item} is not a JSON number", code="bad_json"))
        elif isinstance(item, int):  # bool is one too, and always fits
            if not _INT_MIN <= item <= _INT_MAX:
                problems.append(Problem(at, "integer exceeds 64 bits", "send it as a string", "bad_json"))
        elif item is not None and not isinstance(item, UUID | datetime):
            problems.append(Problem(at, f"{type(item).__name__} is not a JSON value", code="bad_json"))
    return problems


def _refuse(value: Any, body: bytes, path: str) -> None:
    # Counting bytes is one fast scan; only a suspicious document is walked in Python.
    if _NUL in body or (body.count(b"{") + body.count(b"[") > MAX_DEPTH and _too_deep(value)):
        problems = check(value, path, max_depth=MAX_DEPTH)
        if problems:
            raise Invalid(problems, code=problems[0].code)


def _too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if type(item) is dict else item)
            if type(child) is dict or type(child) is list or type(child) is tuple
        ]
        if not level:
            return False
    return True


def _below(path: str, part: str) -> str:
    # Bounded, because keys and depth are an outsider's choice.
    return path if len(path) > _MAX_PATH else path + part


def _check_text(text: str, path: str, problems: list[Problem]) -> None:
    if "\x00" in text:
        mend = "remove it, or send the value base64-encoded"
        shown = path.replace("\x00", "\\u0000")
        problems.append(Problem(shown, "contains the character U+0000", mend, "nul"))
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            shown = path.encode("ascii", "backslashreplace").decode()
            problems.append(Problem(shown, "contains a lone surrogate", "send valid Unicode", "bad_json"))


def _reason(fault: orjson.JSONDecodeError) -> str:
    text = fault.msg
    return text if "line" in text else f"{text}: line {fault.lineno} column {fault.colno}"
