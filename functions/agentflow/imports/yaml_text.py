"""A document as YAML for people: keys in the order they are given, short parts on one line."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

WIDTH = 110
_PLAIN = re.compile(r"[A-Za-z(_][A-Za-z0-9_ .()+*/<>=&|?-]*(?<! )")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_BLOCKS = frozenset({"states", "tasks", "trees"})


def yaml_text(document: dict[str, Any]) -> str:
    """The text; ``agentflow.wire.document`` reads the same document in it."""
    return "\n".join(_block(document, 0)) + "\n"


def _block(table: dict[str, Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    for key, value in table.items():
        short = f"{pad}{_scalar(key)}: {_flow(value)}"
        if not isinstance(value, dict | list) or not value or (len(short) <= WIDTH and key not in _BLOCKS):
            yield short
        elif isinstance(value, dict):
            yield f"{pad}{_scalar(key)}:"
            yield from _block(value, indent + 2)
        else:
            yield f"{pad}{_scalar(key)}:"
            yield from _list(value, indent + 2)


def _list(items: list[Any], indent: int) -> Iterator[str]:
    pad = " " * indent
    for item in items:
        short = f"{pad}- {_flow(item)}"
        if len(short) <= WIDTH or not isinstance(item, dict):
            yield short
        else:
            first, *rest = _block(item, indent + 2)
            yield f"{pad}- {first.lstrip()}"
            yield from rest


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _WORDS:
        return value
    return json.dumps(value, ensure_ascii=False)
