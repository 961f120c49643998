"""What waits in JetStream for each function, measured by who carries the relay, and only when metrics are looked at."""

from __future__ import annotations

import asyncio

from agentflow.bus.jetstream import JetStream
from agentflow.errors import RetryLater
from agentflow.observe import metrics

PATIENCE_S = 2.0  # less than whoever looks has


class Waiting:
    """Sets the gauge of waiting messages whenever metrics are asked for."""

    def __init__(self, bus: JetStream) -> None:
        self._bus = bus

    def start(self) -> None:
        """Begin, once the bus is open."""
        metrics.WHEN_ASKED.add(self._measure)

    def stop(self) -> None:
        """Say nothing more."""
        metrics.WHEN_ASKED.discard(self._measure)
        metrics.waiting({})

    async def _measure(self) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                metrics.waiting(await self._bus.waiting())
        except (RetryLater, TimeoutError):
            metrics.waiting({})  # what was true a while ago is not told as if it were now
