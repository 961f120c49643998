"""The relay's sleep: it ends when the next timer is due, whenever that was set, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agentflow.runtime.relay import SQL, Relay


class Database:
    """A connection on which nothing is due. ``asked`` runs while the next timer is being asked for."""

    def __init__(self, next_ms: int | None, asked: Callable[[], None]) -> None:
        self._next_ms = next_ms
        self._asked = asked

    async def execute(self, statement: Any, params: Any = None) -> Database:
        if statement == SQL["next_timer"]:
            self._asked()
        return self

    async def fetchall(self) -> list[Any]:
        return []

    async def fetchone(self) -> tuple[int] | None:
        return (self._next_ms,) if self._next_ms is not None else None


def relay_at_rest() -> Relay:
    relay = Relay("", lambda leaving: None)
    relay._resend_all = False
    return relay


async def test_a_timer_set_while_it_asks_for_the_next_is_not_slept_through() -> None:
    relay = relay_at_rest()
    conn: Any = Database(None, lambda: relay.timer_set(40))
    loop = asyncio.get_running_loop()
    await relay._once(conn)
    assert relay._next_timer <= loop.time() + 0.04


async def test_it_sleeps_until_the_timer_it_has_found() -> None:
    relay = relay_at_rest()
    conn: Any = Database(120, lambda: None)
    loop = asyncio.get_running_loop()
    await relay._once(conn)
    began = loop.time()
    await relay._sleep()
    assert 0.1 < loop.time() - began < 2, "neither again and again nor until the next sweep"
