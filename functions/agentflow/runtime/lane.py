"""Lane: what waits for one writer of a reactor, and who is next."""

from __future__ import annotations

import asyncio
import time
from uuid import UUID

from agentflow.core.fair import Fair
from agentflow.runtime.batch import Item

CROWD = 4  # how many tenants may have as much queued as one may
SHARED = 32  # items of a batch while tenants share a writer
SHARED_S = 1.0  # how long after they were last seen to


class Lane:
    """One writer's queue: tenants take turns in it."""

    __slots__ = ("_shared_until", "items", "wake")

    def __init__(self) -> None:
        self.items: Fair[Item] = Fair()
        self.wake = asyncio.Event()
        self._shared_until = 0.0

    def full(self, tenant: UUID, most: int) -> bool:
        """Whether a tenant has too much queued; one that has not is refused only when memory runs out."""
        return self.items.waiting(tenant) >= most or len(self.items) >= CROWD * most

    def take(self, most: int) -> list[Item]:
        """The next items. Large batches are cheap, but whoever comes meanwhile waits for their end: while there is
        more than one tenant about, batches are short."""
        now = time.monotonic()
        if self.items.tenants > 1:
            self._shared_until = now + SHARED_S
        return self.items.turn(min(most, SHARED) if now < self._shared_until else most)
