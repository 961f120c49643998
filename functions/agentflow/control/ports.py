"""What the API needs from its host: somebody who makes requests durable and says when a run has moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol
from uuid import UUID

from agentflow.core.message import Message
from agentflow.core.run import Run


@dataclass(frozen=True, slots=True)
class ParkedMessage:
    """A message as it came from the bus, with the function that could not handle it."""

    tenant: UUID
    consumer: str
    subject: str
    headers: Mapping[str, Any]
    payload: bytes


class Watch(Protocol):
    """An open eye on one run; what happens between two calls of ``changed`` is not missed."""

    async def __aenter__(self) -> Watch: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def changed(self, timeout_s: float) -> bool:
        """Wait until the run's history may have grown; False when ``timeout_s`` is over first."""
        ...


class Engine(Protocol):
    """The reactor, as the API sees it."""

    async def submit(self, message: Message) -> Run | None:
        """Make a request durable: committed to Postgres when this returns; the run after the commit, if any.

        Raises ``Rejected``, ``Conflict`` or ``RetryLater``; then nothing was accepted.
        """
        ...

    async def redeliver(self, message: ParkedMessage) -> None:
        """Put a parked message back on its subject for its consumer; on the bus when this returns."""
        ...

    def watch(self, run: UUID) -> Watch:
        """Watch a run, also one that does not exist yet. Does not poll."""
        ...

    def ready(self) -> tuple[bool, str]:
        """Whether requests can be accepted now, and why not."""
        ...
