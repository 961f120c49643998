"""Named SQL: statements live in ``*.sql`` beside this file, each under a ``-- name:`` line."""

from __future__ import annotations

import re
from pathlib import Path

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


def load(file: str) -> dict[str, bytes]:
    """The statements of one file by name, without comments, ready to be prepared."""
    parts = _NAME.split((Path(__file__).parent / file).read_text())[1:]
    return {name: _bare(text).encode() for name, text in zip(parts[::2], parts[1::2], strict=True)}


def _bare(text: str) -> str:
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(lines).strip().rstrip(";")
