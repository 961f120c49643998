"""A plan document as YAML that a person would have written: keys in a fixed order, short parts on one line."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import yaml

from agentflow.core.canonical import PAYLOAD
from agentflow.wire.document_notes import Notes
from agentflow.wire.document_yaml import is_text

WIDTH = 100

ORDER = tuple(
    """
    agentflow ir kind name type task label description limits trigger file code input vars output events tools agents
    tasks use model in prompt system out over value event after for until match if while then do else
    initial regions run history visits set raise data to internal final as need fail_at wait scope max concurrency
    backoff factor max_backoff jitter only never turns max_tokens min_tokens cheaper key timeout retry steps memory cpu
    usd usd_per_second wall preflight budget at_limit effects undo
    reactive ok_if fail_if success_if skip_if on_success on_failure on_halt post entry exit transitions
    states trees tree share root try catch child children cases default reason
    plan goal by approve fallback class cache
    """.split()  # noqa: SIM905 - a list of 80 strings is no easier to read
)
"""The keys of all parts in the order in which they are written; others follow in the order of the document."""

TABLES = frozenset(
    {"input", "vars", "output", "events", "trees", "share", "tools", "agents", "tasks", "states", "in", "out"}
    | {"set", "cases", "data"}
    | {"on_success", "on_failure", "on_halt", "post"}
)
"""Keys whose entries have names of the author's, which stay in the author's order."""

LONG = frozenset({"tools", "agents", "tasks", "states"})
"""Tables with a line for each entry, however short."""

PROSE = frozenset({"description", "prompt", "system"})
"""Texts that may be broken between words."""

_RANK = {key: rank for rank, key in enumerate(ORDER)}
_DUMPER: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_NO_LITERAL = re.compile(
    r"[^\t\n -~\u00a0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)


def printed(document: Mapping[str, Any], notes: Notes) -> str:
    """The YAML text, with the notes at their paths."""
    printer = _Printer(notes)
    lines = [line for entry in _inner(ordered(document), "") for line in printer.entry(*entry, 0)]
    lines += notes.before.get("", [])
    return "\n".join(lines).strip("\n") + "\n"


def ordered(value: Any, *, table: bool = False) -> Any:
    """The value with its parts' keys in order; a table's names stay where they are."""
    if isinstance(value, list):
        return [ordered(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if table:
        return {name: ordered(each) for name, each in value.items()}
    short = (
        next((key for key in PAYLOAD if key in value), None) if not {"type", "kind"} & value.keys() else None
    )
    keys = sorted(value, key=lambda key: -1 if key == short else _RANK.get(key, len(_RANK)))
    return {key: ordered(value[key], table=key in TABLES) for key in keys}


def paths(value: Any, path: str = "") -> Iterator[str]:
    """The path of a value and those of all that is in it."""
    yield path
    for _, each, at in _inner(value, path):
        yield from paths(each, at)


def _inner(value: Any, path: str) -> list[tuple[str, Any, str]]:
    """The entries of a collection: prefix, value, path."""
    if isinstance(value, Mapping):
        return [(_key(key), each, f"{path}.{key}".lstrip(".")) for key, each in value.items()]
    if isinstance(value, list):
        return [("-", each, f"{path}[{index}]") for index, each in enumerate(value)]
    return []


class _Printer:
    def __init__(self, notes: Notes) -> None:
        self.before = dict(notes.before)
        self.behind = dict(notes.behind)

    def entry(self, prefix: str, value: Any, path: str, indent: int) -> Iterator[str]:
        """The lines of one entry: ``prefix`` is its key, or the dash of a list's item."""
        inner = _inner(value, path)
        pad = " " * indent
        line = self._line(value, path, inner)
        behind = f"  {self.behind[path]}" if path in self.behind else ""
        fits = line is not None and indent + len(prefix) + 1 + len(line + behind) <= WIDTH
        above = self.before.get(path, [])
        if prefix == "-" and inner and not fits:  # beside the dash stands the first entry inside, and no note
            above = [*above, *filter(None, [behind.lstrip()]), *self.before.pop(inner[0][2], [])]
        yield from (pad + each if each else "" for each in above)
        if not inner:
            yield from _scalar(f"{pad}{prefix}", value, path, indent + 2, behind)
        elif fits:
            yield f"{pad}{prefix} {line}{behind}"
        else:
            below = [each for entry in inner for each in self.entry(*entry, indent + 2)]
            yield f"{pad}- {below.pop(0).lstrip()}" if prefix == "-" else pad + prefix + behind
            yield from below

    def _line(self, value: Any, path: str, inner: list[tuple[str, Any, str]]) -> str | None:
        """A collection on one line, None where it may not stand so: a long table, one with notes in it."""
        noted = (
            each in self.before or each in self.behind for _, item, at in inner for each in paths(item, at)
        )
        return None if path in LONG or any(noted) else _flow(value)


def _flow(value: Any) -> str | None:
    """A value on one line; None where it holds text of several."""
    if isinstance(value, Mapping):
        parts = {name: _flow(each) for name, each in value.items()}
        line = ", ".join(f"{_key(name)} {part}" for name, part in parts.items())
        return None if None in parts.values() else f"{{{line}}}"
    if isinstance(value, list):
        items = [_flow(each) for each in value]
        return None if None in items else f"[{', '.join(map(str, items))}]"
    if isinstance(value, str):
        return None if "\n" in value else _quoted(value, inside=True)
    return json.dumps(value)


def _scalar(prefix: str, value: Any, path: str, indent: int, behind: str) -> Iterator[str]:
    """The lines of text, of another scalar, or of a collection that is empty."""
    if not isinstance(value, str):
        yield f"{prefix} {json.dumps(value)}{behind}"
    elif "\n" in value and _literal(value):
        hint = "2" if value[0] in " \n" else ""
        yield f"{prefix} |{hint}{'' if value.endswith(chr(10)) else '-'}{behind}"
        yield from (" " * indent + each if each else "" for each in value.removesuffix("\n").split("\n"))
    else:
        line = f"{prefix} {_quoted(value, inside=False)}"
        if len(line) <= WIDTH or path.rpartition(".")[2] not in PROSE or not _foldable(value):
            yield line + behind
        else:
            yield f"{prefix} >-{behind}"
            yield from textwrap.wrap(
                value, WIDTH, initial_indent=" " * indent, subsequent_indent=" " * indent,
                break_long_words=False, break_on_hyphens=False,
            )  # fmt: skip


def _literal(text: str) -> bool:
    """Whether a literal block gives the same text, and nothing of it depends on what follows."""
    return _NO_LITERAL.search(text) is None and not text.endswith("\n\n") and bool(text.strip())


def _foldable(text: str) -> bool:
    """Whether breaking it between words can be undone."""
    return _NO_LITERAL.search(text) is None and text.split() == text.split(" ")


def _key(name: str) -> str:
    return _quoted(name, inside=True) + ":"


@lru_cache(maxsize=4096)
def _quoted(text: str, *, inside: bool) -> str:
    """Text on one line, quoted where it would be read as something else. ``inside``: of brackets."""
    wrapped: Any = [text] if inside else {"k": text}
    style = '"' if "\n" in text else None
    dumped = yaml.dump(
        wrapped,
        Dumper=_DUMPER,
        default_flow_style=inside,
        default_style=style,
        width=1 << 30,
        allow_unicode=True,
    ).strip("\n")
    line = dumped[1:-1] if inside else dumped.partition(": ")[2]
    if line.startswith("'") and "'" in text and not set(text) & set('"\\'):
        return f'"{text}"'
    return line if line != text or is_text(text) else f"'{text}'"
