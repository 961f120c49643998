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
    """What the tenant's chain says of a run: the last entry that names it, and by row number the link (hexadecimal) and
    when that was sealed (milliseconds since 1970)."""

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
    chain: bytes | None

    @property
    def terminal(self) -> bool:
        return self.status in TERMINAL


class Verdict:
    """Give it all rows in the order of their numbers (``add``), then ask for what it has found (``end``)."""

    def __init__(self, run: RunRow, named: NamedRun, keys: ChainKeys, tenant: UUID) -> None:
        self._run = run
        self._points = dict(named.points)
        self._keys = keys
        self._findings: list[str] = []
        self._ended = False
        self._lost = False  # the thread: what comes after can't be told right from wrong
        self._lines = 0
        self._money = [0, 0]  # spent, held
        self._youngest = run.born
        self._sure = 0  # the last row that a link has confirmed
        self.rows = 0
        assert run.chain is not None
        self._whole = bytes(run.chain)
        if not keys.knows(self._whole):
            self._lose(
                f"its chain was begun with key {self._whole[:4].hex()}, which is not in AGENTFLOW_AUDIT_KEY"
            )
            self._chain = self._whole
            return
        who = (tenant, run.id, run.born_ms, run.workflow, _bytes(run.input), run.request_hash)
        self._chain = keys.begun_with(self._whole[:4], links.run_content(*who))
        self._pass_point("what was asked for")

    def add(self, row: Sequence[Any]) -> None:
        """One more row: (number, kind, at, numbers, texts, three JSON texts, hash, link)."""
        number, kind, at, numbers, texts, one, two, three, hashed, link = row
        self.rows += 1
        if self._lost:
            return
        name = _name(kind, numbers, texts)
        if number is None:
            self._lose(f"{name} was added: it has no number")
            return
        expected = links.number(self._chain) + 1
        if number == expected + 1 and self._run.terminal and not self._ended:
            self._fold_end()
            expected += 1
        if number < expected:
            self._lose(f"{name} was added, or moved: there are two rows of number {number}")
            return
        if number > expected:
            self._lose(f"row {expected} was deleted: after it comes {name}")
            return
        if kind == "step":
            values = (*numbers[:3], *texts, *numbers[3:])
            content = links.step_content(values, _bytes(one), _bytes(two), _bytes(three))
        elif kind == "line":
            self._lines += 1
            content = links.line_content(numbers[0], texts[0], _bytes(one), bytes(hashed))
        else:
            self._money[0] += numbers[2] if texts[0] == "settle" else 0
            self._money[1] += numbers[3]
            values = (numbers[0], numbers[1], texts[0], *numbers[2:], texts[1])
            content = links.entry_content(values, _bytes(one))
        self._chain = self._keys.follow(self._chain, content)
        if at is not None:
            self._youngest = max(self._youngest, at)
            if at < self._run.born - SLACK:
                self._lose(f"{name} is older than its run")
                return
        if link is not None and bytes(link) != self._chain[links.SHOWN]:
            self._lose(
                f"{self._rows_since()} was changed, deleted or put in another order: {name} does not follow"
            )
            return
        if link is not None:
            self._sure = number
        self._pass_point(name)

    def end(self) -> list[str]:
        """What is wrong with the run; nothing, if all is well."""
        run = self._run
        if self._lost:
            return self._findings
        if run.terminal and not self._ended:
            self._fold_end()
        if self._lost:
            return self._findings
        last, said = links.number(self._chain), links.number(self._whole)
        further = [number for number in self._points if number > last]
        money = f"spent {run.spent_micro}, held {run.held_micro}"
        if last < said:
            self._lose(f"rows {last + 1} to {said} were deleted: the run's end was cut off")
        elif last > said:
            self._lose(f"it has {last} rows, and its chain is of {said}: the run's row is an older one")
        elif self._chain != self._whole:
            self._lose(f"{self._rows_since()} was changed, or how it has ended, or the run's chain")
        elif further:
            self._lose(f"it had {max(further)} rows when it was sealed: it was set back")
        elif run.seq != self._lines:
            self._lose(f"it says that it has decided {run.seq} times, its history {self._lines}")
        elif [run.spent_micro, run.held_micro] != self._money:
            self._lose(f"it says {money}; its ledger {self._money[0]} and {self._money[1]}")
        return self._findings

    def _fold_end(self) -> None:
        run = self._run
        self._ended = True
        content = links.end_content(run.status, _bytes(run.output), _bytes(run.error))
        self._chain = self._keys.follow(self._chain, content)
        self._pass_point("how it has ended")

    def _pass_point(self, name: str) -> None:
        point = self._points.pop(links.number(self._chain), None)
        if point is None:
            return
        link, sealed_ms = point
        if link != self._chain[links.SHOWN].hex():
            self._lose(f"{name} is not what was sealed, or a row before it was changed or deleted")
        elif self._youngest > datetime.fromtimestamp(sealed_ms / 1000, UTC) + SLACK:
            self._lose(f"a row is of {self._youngest.isoformat()}, after it was sealed")

    def _rows_since(self) -> str:
        first, last = self._sure + 1, links.number(self._chain)
        rows = f"row {last}" if first >= last else f"one of rows {first} to {last}"
        return rows if self._sure else f"what was asked for, or {rows},"

    def _lose(self, what: str) -> None:
        self._findings.append(f"run {self._run.id}: {what}")
        self._lost = True


def _name(kind: str, numbers: Sequence[int], texts: Sequence[str]) -> str:
    if kind == "line":
        return f"history {numbers[0]} ({texts[0]})"
    if kind == "step":
        return f"step {numbers[0]}.{numbers[1]} ({texts[0]})"
    return f"ledger {numbers[0]}.{numbers[1]} ({texts[0]})"


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else text.encode()
