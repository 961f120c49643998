"""Publishing after commit: what fails here is sent again by the relay, because its twin is still there."""

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


class Publisher:
    """Publishes in the background; ``acknowledged(twin)`` is told of public facts that the stream has."""

    def __init__(self, bus: JetStream, acknowledged: Callable[[Twin], None]) -> None:
        self._bus = bus
        self._acknowledged = acknowledged
        self._tasks: set[asyncio.Task[None]] = set()

    def send(self, leaving: Sequence[Leaving]) -> None:
        self.background(self.publish(leaving))

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for, and let ``close`` wait for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def publish(self, leaving: Sequence[Leaving]) -> None:
        """Publish all, then wait for the stream's acknowledgements."""
        try:
            sent = [(leave, await self._bus.send(*envelope(leave))) for leave in leaving]
        except RetryLater as fault:
            log.warning("not published, the relay will", events=len(leaving), reason=str(fault))
            return
        for leave, acknowledged in sent:
            try:
                await acknowledged
            except Exception as fault:
                log.warning("not published, the relay will", event=leave.message.id, reason=str(fault))
                continue
            if leave.consumer == FACTS:
                self._acknowledged(leave.twin)

    async def close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)
