"""YAML by the rules of JSON, read from the parser's events: no anchors, aliases, tags or duplicate keys; only
``true``/``false``, ``null`` and decimal numbers are not text (so ``on``, ``no`` and ``1:30`` stay what was written).

A module of its own: functions read plans from the store, where they are JSON, and start sooner without a YAML parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml

from agentflow.errors import Invalid
from agentflow.wire.document_bounds import (
    INT64,
    MAX_DEPTH,
    MAX_KEY,
    MAX_VALUES,
    check_bounds,
    fault_at,
    named_on,
    too_many,
)

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def read(text: str) -> dict[str, Any]:
    """The object in a YAML text; ``Invalid`` with line and path."""
    reader = _Reader(text)
    try:
        value = reader.document()
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        line = mark.line + 1 if mark is not None else reader.line
        message = str(getattr(fault, "problem", None) or getattr(fault, "reason", None) or "cannot be read")
        raise fault_at(reader.path(), line, f"is not YAML: {message}") from None
    if not isinstance(value, dict):
        raise fault_at("", 1, "must be a mapping with the keys of a plan")
    check_bounds(value)
    return value


def is_text(text: str) -> bool:
    """Whether it is text without quotes, too."""
    others = (_NULL, _BOOL, _INT, _FLOAT, _NOT_FINITE)
    return not any(other.fullmatch(text) for other in others)


def lines(text: str) -> dict[str, int]:
    """The line of every path of a text that ``read`` can read, YAML or JSON; as far as it could be read otherwise."""
    reader = _Reader(text, places={})
    with suppress(Invalid, yaml.YAMLError):
        reader.document()
    return reader.places or {}


class _Reader:
    """Builds values from parser events with an explicit stack: no recursion, stops at the first bound.

    ``places``, where it is asked for, is filled with the line of every path.
    """

    def __init__(self, text: str, places: dict[str, int] | None = None) -> None:
        self.events: Iterator[Any] = iter(yaml.parse(text, Loader=_LOADER))
        self.places = places
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
            raise Invalid([too_many(f"line {self.line}: ")])
        if self.places is not None:
            self.places.setdefault(self.path(), self.line)
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
            problem = named_on(self.path())
            raise self.fault(problem.message, problem.mend)
        self.stack[-1] = (container, key)
        if self.places is not None:
            self.places.setdefault(self.path(), self.line)

    def _scalar(self, event: Any) -> Any:
        text: str = event.value
        if event.style or not event.implicit[0]:
            return text
        if _NULL.fullmatch(text):
            return None
        if _BOOL.fullmatch(text):
            return text[0] in "tT"
        if _INT.fullmatch(text):
            if len(text) <= 20 and -INT64 <= int(text) < INT64:
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
        return fault_at(self.path(), self.line, message, mend, code)
