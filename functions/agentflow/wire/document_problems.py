"""pydantic's errors as problems of a plan: the author's path, what is wrong, and how to mend it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from agentflow.errors import Problem
from agentflow.wire import document_shape as shape

_PATTERNS = {
    shape.NAME: (
        "is not a name",
        "use lower-case letters, digits, _ and -, beginning with a letter, at most 64",
    ),
    shape.FIELD: (
        "is not a field name",
        "use lower-case letters, digits and _, beginning with a letter, at most 64",
    ),
    shape.PLACE: ("is not the name of a state or parent.region", "e.g. in: checks or in: checks.look"),
    shape.TOOL: ("is not the name of a tool", "a key of `tools`, or a built-in such as std.echo"),
    shape.DURATION: ("is not a duration", "write e.g. 500ms, 30s, 5m, 2h or 1d"),
    shape.SIZE: ("is not a size", "write e.g. 64KiB or 256MiB"),
    shape.WORKFLOW: ("is not a workflow", "write name, name@3 (that version), name@3- or name@3-5"),
    shape.EVENT_TYPE: ("is not a CloudEvent type", "e.g. com.example.order.placed"),
}
_WANTED = {
    "string_type": "text", "int_type": "a whole number", "float_type": "a number", "bool_type": "true or false",
    "dict_type": "a mapping", "list_type": "a list", "model_type": "a mapping", "model_attributes_type": "a mapping",
    "int_from_float": "a whole number",
}  # fmt: skip
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"), "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"), "less_than": ("lt", "less than"),
}  # fmt: skip
_KNOWN_KEYS = sorted(
    {
        field.alias or name
        for model in vars(shape).values()
        if isinstance(model, type) and issubclass(model, BaseModel)
        for name, field in model.model_fields.items()
    }
)


def problem(error: Mapping[str, Any], document: Mapping[str, Any]) -> Problem:
    """One entry of ``ValidationError.errors()`` as a problem."""
    path = _path(error["loc"], document)
    kind, context, given = error["type"], error.get("ctx", {}), error.get("input")
    code = "schema"
    if kind == "missing":
        return Problem(path, "is missing", "add it", code)
    if kind == "extra_forbidden":
        key = str(error["loc"][-1])
        close = difflib.get_close_matches(key, _KNOWN_KEYS, 1, 0.7)
        mend = f"did you mean {close[0]!r}?" if close and close[0] != key else "remove it"
        return Problem(path, f"there is no key {key[:64]!r} here", mend, code)
    if kind == "string_pattern_mismatch":
        message, mend = _PATTERNS[context["pattern"]]
        return Problem(path, f"{_show(given)} {message}", mend, code)
    if kind == "union_tag_invalid":
        return _unknown(path, context, code)
    if kind == "union_tag_not_found":
        key = context["discriminator"].strip("'")
        mend = "e.g. kind: llm" if key == "kind" else "write a task's name, {sequence: [...]}, or {type: ...}"
        return Problem(path, f"has no `{key}`", mend, code)
    if kind == "literal_error":
        return Problem(path, f"is {_show(given)}", f"use {context['expected']}", code)
    if kind in _WANTED:
        return Problem(path, f"must be {_WANTED[kind]}, not {_show(given)}", "", code)
    if kind in _BOUNDS:
        key, words = _BOUNDS[kind]
        return Problem(path, f"is {_show(given)}", f"give {words} {int(context[key]):,}", code)
    if kind in ("too_short", "too_long", "string_too_short", "string_too_long"):
        return _length(path, kind, context, code)
    message = str(context["error"]) if kind == "value_error" else error["msg"]
    return Problem(path, message[:300], "", code)


def _unknown(path: str, context: Mapping[str, Any], code: str) -> Problem:
    key = context["discriminator"].strip("'")
    known = [name.strip(" '") for name in context["expected_tags"].split(",")]
    close = difflib.get_close_matches(str(context["tag"]), known, 1)
    mend = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(known)}"
    return Problem(f"{path}.{key}", f"there is no {key} {str(context['tag'])[:64]!r}", mend, code)


def _length(path: str, kind: str, context: Mapping[str, Any], code: str) -> Problem:
    what = "characters" if kind.startswith("string") else "entries"
    if kind.endswith("short"):
        return Problem(path, "is too short", f"give at least {context['min_length']:,} {what}", code)
    return Problem(path, "is too long", f"give at most {context['max_length']:,} {what}", code)


def _path(loc: tuple[str | int, ...], document: Any) -> str:
    """``loc`` without the union tags that pydantic puts in: found by walking the document along it."""
    text = ""
    value: Any = document
    tagged = False  # whether the next part is the tag of the node or task that was just entered
    for i, part in enumerate(loc):
        if part == "[key]":
            break
        if tagged:
            tagged = False
            continue
        if isinstance(value, str):  # a name alone, where a list of names or a mapping may stand
            break
        text += f"[{part}]" if isinstance(part, int) else f".{part[:64]}"
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        before = loc[i - 1] if i else None
        node = part in ("root", "child", "default") or before == "cases"
        node = node or (isinstance(part, int) and before == "children")
        tagged = (node or (before == "tasks" and i == 1)) and isinstance(value, dict)
    return text.lstrip(".")


def _show(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
