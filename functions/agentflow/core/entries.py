"""The tables of a tree's cursor while one tick works on them, and the journal by which a part of it is taken back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from immutables import Map

Journal = list[tuple[dict[str, Any], str, Any]]
"""What has been written in this tick, in order: the table, the key, and what was there before."""

EMPTY: Map[str, Any] = Map()
_ABSENT = object()


def put(journal: Journal, table: dict[str, Any], key: str, value: Any) -> None:
    """Write, so that it can be undone."""
    journal.append((table, key, table.get(key, _ABSENT)))
    table[key] = value


def take(journal: Journal, table: dict[str, Any], key: str) -> Any:
    """The entry, which goes; None where there is none."""
    if key not in table:
        return None
    journal.append((table, key, table[key]))
    return table.pop(key)


def undo(journal: Journal, length: int) -> None:
    """Take back what was written since the journal was so long, in the time that writing it took."""
    while len(journal) > length:
        table, key, was = journal.pop()
        if was is _ABSENT:
            table.pop(key, None)
        else:
            table[key] = was


class Entries:
    """A table of the cursor: as it was, and over that what has ``changed`` (None: gone).

    A value is shared with earlier states and replaced, never changed.
    """

    __slots__ = ("_journal", "_was", "changed")

    def __init__(self, was: Mapping[str, Any], journal: Journal) -> None:
        self._was: Map[str, Any] = Map(was)  # the very same where it is one already
        self._journal = journal
        self.changed: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.changed[key] if key in self.changed else self._was.get(key)

    def __setitem__(self, key: str, value: Any) -> None:
        """The entry's new value; None: it goes."""
        changed = self.changed
        self._journal.append((changed, key, changed.get(key, _ABSENT)))
        changed[key] = value

    def __bool__(self) -> bool:
        """Whether there are any: work that grows with what has changed, not with the table."""
        if any(value is not None for value in self.changed.values()):
            return True
        return len(self._was) > sum(key in self._was for key in self.changed)

    def pop(self, key: str) -> Any:
        """The entry, which goes; None where there is none."""
        held = self.get(key)
        if held is not None:
            self[key] = None
        return held

    def names(self) -> list[str]:
        """All of them, in no order: work that grows with the table."""
        return [key for key in {**self._was, **self.changed} if self.get(key) is not None]

    def close(self) -> Map[str, Any]:
        """The table's next version."""
        if not self.changed:
            return self._was
        after = self._was.mutate()
        for key, value in self.changed.items():
            if value is not None:
                after[key] = value
            else:
                after.pop(key, None)
        return after.finish()
