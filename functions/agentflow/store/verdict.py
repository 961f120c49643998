"""A run's chain, followed row by row: what was changed, deleted, added or put in another order. No I/O here."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from agentflow.core.run import TERMINAL
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys

SLACK = timedelta(minutes=1)  # clocks are set back now and then: that is not tampering


class NamedRun(NamedTuple):
    """What the tenant's chain says of a run: the last entry that names it, and by rev the link (hexadecimal) and when
    that was sealed (milliseconds since 1970)."""

    entry: int
    points: dict[int, tuple[str, int]]


class RunRow(NamedTuple):
    """A run's row, as far as it is folded; JSON as text."""

    id: UUID
    born: datetime
    born_ms: int
    workflow: str
    status: str
    seq: int
    spent_micro: int
    held_micro: int
    input: str | None
    output: str | None
    error: str | None
    request_hash: str
    rev: int
    chain: bytes | None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


class Verdict:
    """Give it all rows in the order of their revs (``add``), then ask for what it has found (``end``)."""

    def __init__(self, run: RunRow, named: NamedRun, keys: ChainKeys, tenant: UUID) -> None:
        self._run = run
        self._points = named.points
        self._keys = keys
        self._found: str | None = None  # the first fault: what comes after can't be told right from wrong
        self._ended = False
        self._lines = self._spent = self._held = 0
        self._youngest = run.born
        self._written: list[links.Values] = []  # the rows of the write at hand
        self._names: list[str] = []
        self._links: set[bytes] = set()
        self._rev = 0  # of the last write that was followed
        self._sure = 0  # and of the last that a link has confirmed
        self.rows = 0
        assert run.chain is not None
        self._whole = bytes(run.chain)
        if keys.knows(self._whole):
            who = (tenant, run.id, run.born_ms, run.workflow, _bytes(run.input), run.request_hash)
            self._chain = keys.begin(links.run_content(*who), self._whole[:4])
        else:
            self._say(
                f"its chain was begun with key {self._whole[:4].hex()}, which is not in AGENTFLOW_AUDIT_KEY"
            )

    def add(self, row: Sequence[Any]) -> None:
        """One more row: (rev, kind, at, numbers, texts, three JSON texts, hash, link)."""
        rev, kind, at, numbers, texts, one, two, three, hashed, link = row
        self.rows += 1
        if self._found:
            return
        name = _name(kind, numbers, texts)
        if rev is None or not self._rev < rev <= self._run.rev:
            self._say(
                f"{name} was added, or the run was set back: it is of rev {rev}, the run of {self._run.rev}"
            )
            return
        self._follow(rev - 1)
        self._names.append(name)
        if kind == "step":
            rest = (*numbers[2:3], *texts, *numbers[3:], _bytes(one), _bytes(two), _bytes(three))
            self._written.append(links.step_values(*numbers[:2], *rest))
        elif kind == "line":
            self._lines += 1
            self._written.append(links.line_values(numbers[0], texts[0], _bytes(one), bytes(hashed)))
            self._links.add(bytes(link or b""))
        else:
            self._spent += numbers[2] if texts[0] in ("settle", "correct") else 0
            self._held += numbers[3]
            self._written.append(
                links.entry_values(*numbers[:2], texts[0], *numbers[2:], texts[1], _bytes(one))
            )
        if at is not None and at < self._run.born - SLACK:
            self._say(f"{name} is older than its run")
        elif at is not None:
            self._youngest = max(self._youngest, at)

    def end(self) -> list[str]:
        """What is wrong with the run; nothing, if all is well."""
        run = self._run
        self._follow(run.rev)
        if not self._found:
            if self._chain != self._whole:
                self._say(f"{self._since()} was changed or deleted, or the run's chain was")
            elif run.terminal and not self._ended:
                self._say("it never came to its end")
            elif further := [rev for rev in self._points if rev > run.rev]:
                self._say(f"it was written {max(further)} times when it was sealed: it was set back")
            elif run.seq != self._lines:
                self._say(f"it says that it has decided {run.seq} times, its history {self._lines}")
            elif (run.spent_micro, run.held_micro) != (self._spent, self._held):
                said = f"spent {run.spent_micro}, held {run.held_micro}"
                self._say(f"it says {said}; its ledger {self._spent} and {self._held}")
        return [f"run {run.id}: {self._found}"] if self._found else []

    def _follow(self, until: int) -> None:
        """Follow the writes up to a rev; the rows of the first are at hand, others have left none."""
        while self._rev < until and not self._found:
            self._rev += 1
            before = self._chain
            self._chain = self._folded(before, self._written)
            if self._run.terminal and not self._ended and self._strange():
                # A run's end leaves no row but its own.
                ended = links.end_values(self._run.status, _bytes(self._run.output), _bytes(self._run.error))
                self._chain = self._folded(before, [*self._written, ended])
                self._ended = not self._strange()
            self._check()
            self._written, self._names, self._links = [], [], set()

    def _folded(self, chain: bytes, rows: list[links.Values]) -> bytes:
        return self._keys.follow(chain, self._rev, links.rows_content(rows))

    def _strange(self) -> bool:
        """Whether the links of the write at hand are not what the chain has come to."""
        return self._links - {self._chain[links.SHOWN]} != set()

    def _check(self) -> None:
        if self._strange():
            names = ", ".join(self._names)
            self._say(f"{self._since()} was changed, deleted, added or put in another order: up to {names}")
            return
        if self._links:
            self._sure = self._rev
        if self._rev not in self._points:
            return
        link, sealed_ms = self._points[self._rev]
        if link != self._chain[links.SHOWN].hex():
            self._say(f"{self._since()} was changed or deleted: it is not what was sealed")
        elif self._youngest > datetime.fromtimestamp(sealed_ms / 1000, UTC) + SLACK:
            self._say(f"a row is of {self._youngest.isoformat()}, after it was sealed")

    def _since(self) -> str:
        """What may be wrong when a link does not fit."""
        first, last = self._sure + 1, self._rev
        asked = "" if self._sure else "what was asked for, or "
        ended = ", or how it has ended," if self._run.terminal and not self._ended else ""
        return f"{asked}what was written as rev {f'{first} to {last}' if first < last else last}{ended}"

    def _say(self, what: str) -> None:
        self._found = self._found or what


def _name(kind: str, numbers: Sequence[int], texts: Sequence[str]) -> str:
    if kind == "line":
        return f"history {numbers[0]} ({texts[0]})"
    if kind == "step":
        return f"step {numbers[0]}.{numbers[1]} ({texts[0]})"
    return f"ledger {numbers[0]}.{numbers[1]} ({texts[0]})"


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
