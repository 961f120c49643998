"""The control block: a page of memory that the harness and one worker share.

The harness arms a failpoint or moves the worker's clock while the worker runs; the worker looks at a cell, which
costs it nothing. The block outlives the process, so a clock that was moved stays moved when it starts again.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

POINTS = (
    "take.before", "commit.before", "commit.after", "publish.before", "publish.after", "send.before", "send.after",
    "claim.before", "claim.after",
    "call.before", "call.after", "report.before", "report.after", "ack.before", "ack.after", "relay.before",
    "relay.after",
)  # fmt: skip
"""Every boundary at which a worker can be told to stop short."""

ACTIONS = ("kill", "stop", "term")
_ARMED, _COUNTDOWN, _ACTION, _FIRED, _CLOCK_MS = range(5)
_SIZE = 4096


class Control:
    """Cells of one worker, in a file that both sides map."""

    def __init__(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(descriptor, _SIZE)
        self._cells = memoryview(mmap.mmap(descriptor, _SIZE)).cast("q")
        os.close(descriptor)

    def arm(self, point: str, action: str, *, after: int = 1) -> None:
        """Do ``action`` at the ``after``-th passage of ``point`` from now on."""
        self._cells[_ARMED] = 0
        self._cells[_COUNTDOWN] = after
        self._cells[_ACTION] = ACTIONS.index(action)
        self._cells[_ARMED] = POINTS.index(point) + 1

    def disarm(self) -> None:
        self._cells[_ARMED] = 0

    def passes(self, point: int) -> str | None:
        """The worker passes a point (its index): what it must do there, if anything."""
        cells = self._cells
        if cells[_ARMED] != point + 1:
            return None
        cells[_COUNTDOWN] -= 1
        if cells[_COUNTDOWN] > 0:
            return None
        cells[_ARMED] = 0
        cells[_FIRED] += 1
        return ACTIONS[cells[_ACTION]]

    @property
    def fired(self) -> int:
        """How often a failpoint has fired."""
        return self._cells[_FIRED]

    @property
    def clock_ms(self) -> int:
        """By how much the worker's clock is wrong."""
        return self._cells[_CLOCK_MS]

    @clock_ms.setter
    def clock_ms(self, offset: int) -> None:
        self._cells[_CLOCK_MS] = offset
