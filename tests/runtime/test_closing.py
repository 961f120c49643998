"""The end of a host: calls in flight end, no more begin, and only then is what they are made with closed."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from uuid import uuid4

import pytest

from agentflow.core.message import Message
from agentflow.core.performed import Begins, Performed
from agentflow.errors import RetryLater
from agentflow.runtime.batch import Item
from agentflow.runtime.performer import Performer


class Calls:
    """An effect whose calls take until they are told to end; what happened, in order."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.ending = asyncio.Event()

    def at_once(self, request: Message) -> Performed | None:
        return None

    async def perform(self, request: Message, begins: Begins) -> Performed:
        self.seen.append(f"{request.key} begins")
        try:
            await self.ending.wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)  # as a tool's process is ended
            self.seen.append(f"{request.key} is given up")
            raise
        self.seen.append(f"{request.key} ends")
        return Performed(output={}, error=None)

    async def close(self) -> None:
        self.seen.append("closed")


class Reports:
    """In the reactor's place: takes all."""

    async def handle(self, item: Item) -> bool:
        return True


def performer(calls: Calls) -> Performer:
    return Performer("run-tool", cast(Any, calls), cast(Any, Reports()), cast(Any, None), limit=9)


def request(key: str) -> Message:
    data = {"run": "r", "step": 1, "attempt": 1, "epoch": 0, "task": "t", "timeout_ms": 60_000, "hold_micro": 0}
    return Message("tool.requested", uuid4(), uuid4(), key, data)


async def test_at_the_end_no_call_begins_and_those_in_flight_end_first() -> None:
    calls = Calls()
    made = performer(calls)
    assert made.offer(request("first"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(made.close())
    await asyncio.sleep(0)
    assert not made.offer(request("offered"))
    with pytest.raises(RetryLater, match="the host is stopping"):
        await made.finish(request("delivered"))
    calls.ending.set()
    await closing
    assert calls.seen == ["first begins", "first ends", "closed"]


async def test_a_call_that_takes_too_long_gives_back_what_it_holds_before_that_is_closed() -> None:
    calls = Calls()
    made = performer(calls)
    made.offer(request("first"))
    await asyncio.sleep(0)
    await made.close(grace_s=0.01)
    assert calls.seen == ["first begins", "first is given up", "closed"]
