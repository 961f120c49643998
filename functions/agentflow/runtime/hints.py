"""Hints: what a host tells the others so that they look sooner. Any of them may be lost.

Runs that have changed are gathered for a moment, so that a busy host says so a hundred times a second and not
once for every commit; timers and calls that nobody waits for any more are told at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple
from uuid import UUID, uuid4

from agentflow.bus.jetstream import JetStream

GATHER_S = 0.01


class Hint(NamedTuple):
    """``timer_ms``: a timer was set, due so soon; ``withdrawn``: requests (run, key) nobody waits for any more."""

    runs: Sequence[UUID]
    timer_ms: int | None
    withdrawn: Sequence[tuple[UUID, str]]
    notes: Sequence[str]


class Hints:
    """``heard`` is told of other hosts' hints. ``background`` runs what nobody waits for."""

    def __init__(
        self, bus: JetStream, heard: Callable[[Hint], None], background: Callable[[Any], None]
    ) -> None:
        self._bus = bus
        self._heard = heard
        self._background = background
        self._id = uuid4().hex
        self._runs: set[bytes] = set()
        self._later: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        await self._bus.on_hint(self._receive)

    def tell(
        self,
        runs: Iterable[UUID],
        timer_ms: int | None = None,
        withdrawn: Sequence[tuple[UUID, str]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        """Tell the other hosts. ``notes`` are words that both sides know."""
        self._runs.update([run.bytes for run in runs])
        if timer_ms is not None or withdrawn or notes:
            self._send(timer_ms, withdrawn, notes)
        elif self._later is None:
            self._later = asyncio.get_running_loop().call_later(GATHER_S, self._send)

    def _send(
        self,
        timer_ms: int | None = None,
        withdrawn: Sequence[tuple[UUID, str]] = (),
        notes: Sequence[str] = (),
    ) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        content: dict[str, Any] = {"from": self._id, "runs": b"".join(self._runs).hex()}
        self._runs.clear()
        if timer_ms is not None:
            content["timer_ms"] = timer_ms
        if withdrawn:
            content["withdrawn"] = [[str(run), key] for run, key in withdrawn]
        if notes:
            content["notes"] = list(notes)
        self._background(self._bus.hint(content))

    def _receive(self, content: dict[str, Any]) -> None:
        if content.get("from") == self._id:
            return
        ids = bytes.fromhex(content.get("runs", ""))
        self._heard(
            Hint(
                [UUID(bytes=ids[at : at + 16]) for at in range(0, len(ids), 16)],
                content.get("timer_ms"),
                [(UUID(run), key) for run, key in content.get("withdrawn", ())],
                content.get("notes", ()),
            )
        )
