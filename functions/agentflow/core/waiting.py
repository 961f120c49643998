"""Steps that wait for money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from immutables import Map

RUN = "run"
"""The scope of a run's own limit, which is no account."""
BLOCK = 128


class Shortage(NamedTuple):
    """What a step waits for that does not fit: so much, in a scope (``run``: the run's own limit). ``since_ms``: its
    place among those that wait for an account."""

    scope: str
    period: str
    needed_micro: int
    since_ms: int = 0


class Waiting(Mapping[int, Shortage]):
    """Step -> what it waits for. A change makes another value and costs the same however many wait, and so do the
    first few of those that wait for their own run, which every settlement looks at: they are kept in blocks by their
    numbers, so that ten thousand need not be sorted to find them."""

    __slots__ = ("_all", "_own")

    def __init__(self, every: Map[int, Shortage], own: Map[int, Map[int, None]]) -> None:
        self._all = every
        self._own = own

    def set(self, step: int, shortage: Shortage) -> Waiting:
        other = self.delete(step) if step in self._all else self
        own = other._own
        if shortage.scope == RUN:
            block: Map[int, None] = own.get(step // BLOCK, Map())
            own = own.set(step // BLOCK, block.set(step, None))
        return Waiting(other._all.set(step, shortage), own)

    def delete(self, step: int) -> Waiting:
        """Without a step that waits, else ``KeyError``."""
        own = self._own
        if self._all[step].scope == RUN:
            block = own[step // BLOCK].delete(step)
            own = own.set(step // BLOCK, block) if block else own.delete(step // BLOCK)
        return Waiting(self._all.delete(step), own)

    def own(self) -> Iterator[int]:
        """The steps that wait for their run's own limit, the lowest first."""
        for number in sorted(self._own):
            yield from sorted(self._own[number])

    def __getitem__(self, step: int) -> Shortage:
        return self._all[step]

    def __contains__(self, step: object) -> bool:
        return step in self._all

    def __iter__(self) -> Iterator[int]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)


NOBODY = Waiting(Map(), Map())
