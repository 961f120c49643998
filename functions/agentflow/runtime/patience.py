"""Patience: what has to be written is tried until the store is there to take it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from agentflow.errors import RetryLater

FIRST_S, LONGEST_S = 0.05, 2.0
Found = TypeVar("Found")


async def until_taken(work: Callable[[], Awaitable[Found]]) -> Found:
    """What ``work`` comes to, once it does not raise ``RetryLater`` any more; the pauses grow to two seconds."""
    pause = FIRST_S
    while True:
        try:
            return await work()
        except RetryLater:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_S)
