"""What an external call gave, and who makes one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from agentflow.core.message import Message

NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 0}


@dataclass(frozen=True, slots=True)
class Performed:
    """A call's outcome: the step's output and what it used; ``error`` when it gave nothing usable, at a cost.

    ``usage`` has the keys of ``NO_USAGE``, and those of wire/payloads.py that there is any of;
    ``error`` is {code, message, retryable, retry_after_ms}.
    """

    output: dict[str, Any] | None
    usage: dict[str, Any] = field(default_factory=lambda: dict(NO_USAGE))
    error: dict[str, Any] | None = None


Begins = Callable[[], None]


def ignored() -> None:
    """Nobody wants to know when a call begins."""


class Effect(Protocol):
    """Makes the external call that a request asks for. Raises ``Rejected``, ``RetryLater`` or ``UnknownOutcome``."""

    def at_once(self, request: Message) -> Performed | None:
        """The result where it takes no waiting (a built-in tool), else None. No side effects."""
        ...

    async def perform(self, request: Message, begins: Begins = ignored) -> Performed:
        """Make the call. ``begins`` is called when there is no way back: from then on it may have had its effect."""
        ...

    async def close(self) -> None: ...
