"""Parts: the events of a message that carries several, each handled as if it had come in a message of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nats.aio.msg import Msg

from agentflow.errors import RetryLater
from agentflow.wire.http import STRUCTURED
from agentflow.wire.nats import CONTENT_TYPE, split_batch

Again = Callable[[str, Mapping[str, str], bytes], Awaitable[None]]


class Part:
    """One event of a batch: what handlers use of a ``Msg``.

    The message is acknowledged when all its parts have come to an end. One that is to be tried again goes back on the
    bus by itself, so that it holds up no other; should that fail, the outbox still has it.
    """

    __slots__ = ("_again", "_number", "_open", "_whole", "data", "headers")

    def __init__(self, whole: Msg, number: int, data: bytes, still_open: set[int], again: Again) -> None:
        self._whole = whole
        self._number = number
        self._open = still_open
        self._again = again
        self.data = data
        self.headers = {CONTENT_TYPE: STRUCTURED}

    @property
    def place(self) -> str:
        """Where in which stream it lies; no other event has the same."""
        return f"{place(self._whole)}.{self._number}"

    @property
    def subject(self) -> str:
        return self._whole.subject

    @property
    def metadata(self) -> Any:
        """Of the whole message: its place in the stream, and how often it was delivered."""
        return self._whole.metadata

    async def ack(self) -> None:
        await self._ended()

    async def term(self) -> None:
        await self._ended()

    async def nak(self, delay: float | None = None) -> None:
        """Have it tried again; the first time at once, since JetStream can't hold back a message that is published."""
        with contextlib.suppress(RetryLater):
            await self._again(self.subject, self.headers, self.data)
        await self._ended()

    async def in_progress(self) -> None:
        await self._whole.in_progress()

    async def _ended(self) -> None:
        self._open.discard(self._number)
        if not self._open:
            await self._whole.ack()


Delivered = Msg | Part


def place(msg: Delivered) -> str:
    """Where in which stream an event lies, and since when: a stream that is made anew counts from one again."""
    if isinstance(msg, Part):
        return msg.place
    at = msg.metadata
    return f"{at.stream}:{at.sequence.stream}:{at.timestamp.timestamp():.6f}"


def parts(msg: Msg, again: Again) -> Sequence[Delivered]:
    """What a message is handled as: its parts, or itself."""
    bodies = split_batch(msg.headers, msg.data)
    if not bodies:
        return [msg]
    still_open = set(range(len(bodies)))
    return [Part(msg, number, body, still_open, again) for number, body in enumerate(bodies)]
