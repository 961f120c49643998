"""Publishing after commit. If this process dies before it is done, the relay goes on: the twins are still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import structlog

from agentflow.bus.jetstream import JetStream
from agentflow.errors import RetryLater
from agentflow.runtime.batch import FACTS, Leaving
from agentflow.runtime.envelope import envelope
from agentflow.store.changes import Twin

log = structlog.get_logger(__name__)
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0


class Publisher:
    """Publishes in the background; ``acknowledged(twin)`` is told of public facts that the stream has."""

    def __init__(self, bus: JetStream, acknowledged: Callable[[Twin], None]) -> None:
        self._bus = bus
        self._acknowledged = acknowledged
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def send(self, leaving: Sequence[Leaving]) -> None:
        self.background(self.publish(leaving))

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for, and let ``close`` wait for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def publish(self, leaving: Sequence[Leaving]) -> None:
        """Publish until the stream has acknowledged all; between tries the bus gets time to come back."""
        pause = FIRST_PAUSE_S
        while leaving := await self._publish(leaving):
            if self._closing:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def _publish(self, leaving: Sequence[Leaving]) -> list[Leaving]:
        """Publish once; returns what the stream did not acknowledge."""
        failed: list[Leaving] = []
        sent: list[tuple[Leaving, asyncio.Future[Any]]] = []
        reason = ""
        roads: set[tuple[str, str]] = set()
        for leave in leaving:
            event, subject = envelope(leave)
            if (event.id, subject) in roads:
                continue  # two functions consume it: one message reaches both
            roads.add((event.id, subject))
            try:
                sent.append((leave, await self._bus.send(event, subject, tries=leave.tries)))
            except RetryLater as fault:
                failed.append(leave)
                reason = str(fault)
        for leave, acknowledged in sent:
            try:
                await acknowledged
            except Exception as fault:
                failed.append(leave)
                reason = str(fault) or type(fault).__name__
                continue
            if leave.consumer == FACTS:
                self._acknowledged(leave.twin)
        if failed:
            log.warning("not published yet", events=len(failed), reason=reason)
        return failed

    async def close(self) -> None:
        """Give what is under way a moment; the relay sees to the rest."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
