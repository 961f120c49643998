"""Text of a plan document, from outside, to plain values: bounded, and without YAML's surprises.

YAML is read from the parser's events by the rules of JSON: no anchors, aliases, tags or duplicate keys; only
``true``/``false``, ``null`` and decimal numbers are not text (so ``on``, ``no`` and ``1:30`` stay what was written).
Every fault names its line and its path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from agentflow.core.types import parse, problem
from agentflow.errors import Invalid, Problem

MAX_BYTES = 256 * 1024
MAX_DEPTH = 100
MAX_VALUES = 20_000
MAX_KEY = 256
_INT64 = 2**63
_STRING = parse("string")

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def load(data: bytes) -> dict[str, Any]:
    """The object in ``data``, JSON when it is JSON and YAML otherwise; ``Invalid`` with line and path."""
    text = _decode(data)
    if text.lstrip().startswith("{"):
        try:
            return _json(text)
        except json.JSONDecodeError:
            return _yaml(text)  # a flow mapping, or a fault that YAML's message names as well
    return _yaml(text)


def load_json(data: bytes) -> dict[str, Any]:
    """The object in a JSON text; ``Invalid`` with line and path."""
    text = _decode(data)
    try:
        return _json(text)
    except json.JSONDecodeError as fault:
        raise _fault("", fault.lineno, f"is not JSON: {fault.msg} (column {fault.colno})") from None


def load_yaml(data: bytes) -> dict[str, Any]:
    """The object in a YAML text; ``Invalid`` with line and path."""
    return _yaml(_decode(data))


def check_bounds(document: dict[str, Any]) -> None:
    """Refuse a document (already values) that is too deep or too large, has a key ``on``, or text that is none."""
    found = 0
    todo: list[tuple[Any, int, str]] = [(document, 1, "")]
    while todo:
        value, depth, path = todo.pop()
        found += 1
        if found > MAX_VALUES:
            raise Invalid([_too_many("")])
        if depth > MAX_DEPTH:
            raise Invalid(
                [Problem(path[:200], f"is nested more than {MAX_DEPTH} deep", "flatten it", "too_deep")]
            )
        if isinstance(value, dict):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise Invalid([Problem(path, f"the key {key!r} is not text", "quote it", "syntax")])
                if key == "on":
                    raise Invalid([_named_on(path)])
                todo.append((item, depth + 1, f"{path}.{key}".lstrip(".")))
        elif isinstance(value, list):
            todo.extend((item, depth + 1, f"{path}[{i}]") for i, item in enumerate(value))
        elif isinstance(value, str) and (fault := problem(value, _STRING, path)):
            raise Invalid([fault])


def _decode(data: bytes) -> str:
    if len(data) > MAX_BYTES:
        size = f"has {len(data):,} bytes; a plan has at most {MAX_BYTES:,}"
        raise Invalid([Problem("", size, "move data and large code out of the plan", "too_large")])
    try:
        return data.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as fault:
        line = data.count(b"\n", 0, fault.start) + 1
        raise _fault("", line, f"is not UTF-8 (byte {fault.start})") from None


# -------------------------------------------------------------------------------------------------------- JSON


class _Twice(ValueError):
    pass


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_int=_whole)
    except _Twice as fault:
        _yaml(text)  # reads the same text and says where
        raise _fault("", 0, str(fault)) from None
    except RecursionError:
        raise Invalid(
            [Problem("", f"is nested more than {MAX_DEPTH} deep", "flatten it", "too_deep")]
        ) from None
    except json.JSONDecodeError:
        raise
    except ValueError as fault:
        raise _fault("", 0, str(fault)) from None
    if not isinstance(value, dict):
        raise _fault("", 1, "must be an object")
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
    if len(digits) > 20 or not -_INT64 <= int(digits) < _INT64:
        raise ValueError(f"the number {digits[:24]} does not fit in 64 bits")
    return int(digits)


# -------------------------------------------------------------------------------------------------------- YAML


def _yaml(text: str) -> dict[str, Any]:
    reader = _Reader(text)
    try:
        value = reader.document()
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = mark.line + 1 if mark is not None else reader.line
        message = str(getattr(fault, "problem", None) or getattr(fault, "reason", None) or "cannot be read")
        raise _fault(reader.path(), line, f"is not YAML: {message}") from None
    if not isinstance(value, dict):
        raise _fault("", 1, "must be a mapping with the keys of a plan")
    check_bounds(value)
    return value


class _Reader:
    """Builds values from parser events with an explicit stack: no recursion, stops at the first bound."""

    def __init__(self, text: str) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.stack: list[tuple[Any, str | None]] = []  # container, the key that waits for its value
        self.line = 1
        self.values = 0

    def path(self) -> str:
        """Where the reader is."""
        text = ""
        for container, key in self.stack:
            if isinstance(container, list):
                text += f"[{len(container)}]"
            elif key is not None:
                text += f".{key}"
        return text.lstrip(".")[:300]

    def document(self) -> Any:
        """The only document of the text."""
        result: Any = None
        documents = 0
        for event in self.events:
            self.line = event.start_mark.line + 1
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise self.fault("there is more than one document", "give one plan")
                if event.tags:
                    raise self.fault("tags are not allowed", "remove the %TAG line")
            elif isinstance(event, yaml.AliasEvent):
                raise self.fault("aliases are not allowed", "write the value out")
            elif isinstance(event, yaml.NodeEvent):
                done, value = self._node(event)
                if done:
                    result = value
            elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
                value, _ = self.stack.pop()
                if not self.stack:
                    result = value
                else:
                    self._add(value)
        return result

    def _node(self, event: Any) -> tuple[bool, Any]:
        if event.anchor is not None:
            raise self.fault("anchors are not allowed", "write the value out where it is used")
        if event.tag is not None:
            raise self.fault(f"the tag {event.tag[:40]!r} is not allowed", "write plain values")
        self.values += 1
        if self.values > MAX_VALUES:
            raise Invalid([_too_many(f"line {self.line}: ")])
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event)
            if not self.stack:
                return True, value
            self._add(value)
            return False, None
        if self.stack and isinstance(self.stack[-1][0], dict) and self.stack[-1][1] is None:
            raise self.fault("a key must be text", "quote it")
        if len(self.stack) >= MAX_DEPTH:
            raise self.fault(f"is nested more than {MAX_DEPTH} deep", "flatten it", "too_deep")
        self.stack.append(({} if isinstance(event, yaml.MappingStartEvent) else [], None))
        return False, None

    def _add(self, value: Any) -> None:
        container, key = self.stack[-1]
        if isinstance(container, list):
            container.append(value)
        elif key is None:
            self._key(container, value)
        else:
            container[key] = value
            self.stack[-1] = (container, None)

    def _key(self, container: dict[str, Any], key: Any) -> None:
        if not isinstance(key, str) or len(key) > MAX_KEY:
            raise self.fault(f"the key {str(key)[:40]!r} is not a short text", "quote it, or shorten it")
        if key in container:
            raise self.fault(f"the key {key!r} is given twice", "keep one of them")
        if key == "on":
            problem = _named_on(self.path())
            raise self.fault(problem.message, problem.mend)
        self.stack[-1] = (container, key)

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or not event.implicit[0]:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text[0] in "tT"
        if _INT.fullmatch(text):
            if len(text) <= 20 and -_INT64 <= int(text) < _INT64:
                return int(text)
            raise self.fault(f"the number {text[:24]} does not fit in 64 bits", "quote it")
        if _FLOAT.fullmatch(text):
            value = float(text)
            if value in (float("inf"), float("-inf")):
                raise self.fault(f"the number {text[:24]} is too large", "quote it")
            return value
        if _NOT_FINITE.fullmatch(text):
            raise self.fault(f"{text} is not a JSON number", "quote it")
        return text

    def fault(self, message: str, mend: str = "", code: str = "syntax") -> Invalid:
        return _fault(self.path(), self.line, message, mend, code)


def _fault(path: str, line: int, message: str, mend: str = "", code: str = "syntax") -> Invalid:
    place = f"line {line}: " if line else ""
    return Invalid([Problem(path, place + message, mend, code)], code="invalid_plan")


def _too_many(place: str) -> Problem:
    return Problem("", f"{place}there are more than {MAX_VALUES:,} values", "split the workflow", "too_large")


def _named_on(path: str) -> Problem:
    return Problem(
        path, "no key may be named `on`", "YAML readers take it for true; choose another name", "syntax"
    )
