"""The comments and blank lines of a YAML text, by the path of what they stand at.

YAML's parser drops them, but says where each value begins and ends; what is left between values holds the comments.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # marks are the same
_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*")
_END = ""  # the path of what stands after everything


@dataclass(slots=True)
class Notes:
    """``before``: the lines above an entry, '' for blank ones; ``behind``: the comment on its line."""

    before: dict[str, list[str]] = field(default_factory=dict)
    behind: dict[str, str] = field(default_factory=dict)

    def comments(self) -> Counter[str]:
        """All comments, and how often each is there."""
        lines = [line for above in self.before.values() for line in above if line] + list(
            self.behind.values()
        )
        return Counter(each.lstrip("# ").rstrip() for line in lines for each in line.split("  #"))

    def moved(self, place: Callable[[str], str]) -> Notes:
        """The same, each at the path that ``place`` gives for its own."""
        notes = Notes()
        for path, lines in self.before.items():
            notes.before.setdefault(place(path) if path != _END else _END, []).extend(lines)
        for path, line in self.behind.items():
            notes.add_behind(place(path), line)
        return notes

    def add_behind(self, path: str, comment: str) -> None:
        """One more comment on the line of an entry."""
        held = self.behind.get(path)
        self.behind[path] = comment if held is None else f"{held}  {comment}"


def notes(text: str) -> Notes:
    """The notes of a YAML text that can be read (``document_yaml.read``)."""
    reader = _Reader(text)
    for event in yaml.parse(text, Loader=_LOADER):
        reader.take(event)
    return reader.notes


class _Reader:
    """Follows the parser's events; ``pending`` are lines that wait for the entry that comes next."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.notes = Notes()
        self.stack: list[
            list[Any]
        ] = []  # [path, the key whose value comes next or the number of items, is a list]
        self.pending: list[str] = []
        self.end = 0
        self.last = _END

    def take(self, event: Any) -> None:
        """One event: first what stands in front of it."""
        if not isinstance(event, (yaml.NodeEvent, yaml.CollectionEndEvent, yaml.DocumentEndEvent)):
            return
        start, end = _index(event.start_mark), _index(event.end_mark)
        self._between(self.text[self.end : start])
        self.end = max(self.end, end if isinstance(event, yaml.ScalarEvent) else start)
        if isinstance(event, yaml.DocumentEndEvent):
            self._between(self.text[self.end :])
            if any(self.pending):
                self.notes.before[_END] = self.pending
        elif isinstance(event, yaml.CollectionEndEvent):
            self.last = self.stack.pop()[0]
            if self.text[start:end] in ("]", "}"):
                self.end = end
        else:
            self._node(event)

    def _node(self, event: Any) -> None:
        path = self._path()
        scalar = isinstance(event, yaml.ScalarEvent)
        is_key = scalar and bool(self.stack) and not self.stack[-1][2] and self.stack[-1][1] is None
        if is_key:
            self.stack[-1][1] = event.value
            path = self._path()
        if self.stack:
            if self.pending and (is_key or scalar or self.stack[-1][2]):
                self.notes.before.setdefault(path, []).extend(self.pending)
                self.pending = []
            if not is_key:
                self.stack[-1][1] = self.stack[-1][1] + 1 if self.stack[-1][2] else None
        self.last = path
        if not scalar:
            self.end = max(self.end, event.start_mark.index + (self.text[event.start_mark.index] in "[{"))
            is_list = isinstance(event, yaml.SequenceStartEvent)
            self.stack.append([path, 0 if is_list else None, is_list])
        elif event.style in ("|", ">"):
            block = self.text[event.start_mark.index : event.end_mark.index].rstrip()
            self.end = event.start_mark.index + len(block)
            if comment := _COMMENT.search(block.partition("\n")[0]):
                self.notes.add_behind(path, comment[0].rstrip())

    def _path(self) -> str:
        if not self.stack:
            return ""
        path, key, is_list = self.stack[-1]
        return f"{path}[{key}]" if is_list else f"{path}.{key}".lstrip(".")

    def _between(self, gap: str) -> None:
        """The comments and blank lines of what stands between two values."""
        first, *rest = gap.split("\n")
        if comment := _COMMENT.search(first):
            if self.end:
                self.notes.add_behind(self.last, comment[0].rstrip())
            else:
                self.pending.append(comment[0].rstrip())
        for number, line in enumerate(rest, 1):
            if comment := _COMMENT.search(line):
                self.pending.append(comment[0].rstrip())
            elif number < len(rest) and not line.strip() and self.pending[-1:] != [""] and self.end:
                self.pending.append("")


def _index(mark: Any) -> int:
    """How many characters stand before a mark."""
    return int(mark.index)
