"""Prompts: text with ``{name}`` placeholders, ``{{`` and ``}}`` for braces."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from agentflow.core.types import JSON

_PART = re.compile(r"\{\{|\}\}|\{([a-z][a-z0-9_]{0,63})\}|[{}]")


def placeholders(text: str) -> set[str]:
    """The names in ``text``; ValueError for a brace that is neither part of a name nor doubled."""
    names = set()
    for match in _PART.finditer(text):
        if match[1]:
            names.add(match[1])
        elif len(match[0]) == 1:
            line = text.count("\n", 0, match.start()) + 1
            raise ValueError(f"a single {match[0]!r} in line {line} of the text")
    return names


def json_text(value: JSON) -> str:
    """A value as compact JSON, keys sorted: the same text wherever the value has been stored meanwhile."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)


def render(text: str, values: Mapping[str, JSON]) -> str:
    """``text`` with every placeholder filled: strings as they are, other values as compact JSON."""

    def fill(match: re.Match[str]) -> str:
        if match[1] is None:
            return match[0][0]
        value = values[match[1]]
        return value if isinstance(value, str) else json_text(value)

    return _PART.sub(fill, text)
