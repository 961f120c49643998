"""The relay's sleep: it ends when the next timer is due, whenever that was set, and not before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from agentflow.runtime.relay import SQL, Relay


class Database:
    """A connection on which nothing is due. ``asked`` runs while the next timer is being asked for."""

    def __init__(self, next_ms: int | None, asked: Callable[[], None]) -> None:
        self._next_ms = next_ms
        self._asked = asked
        self.door, self.server = socket.socketpair()

    def fileno(self) -> int:
        return self.door.fileno()

    def close(self) -> None:
        self.door.close()
        self.server.close()

    async def execute(self, statement: Any, params: Any = None) -> Database:
        if statement == SQL["next_timer"]:
            self._asked()
        return self

    async def fetchall(self) -> list[Any]:
        return []

    async def fetchone(self) -> tuple[int] | None:
        return (self._next_ms,) if self._next_ms is not None else None


@contextmanager
def database(next_ms: int | None, asked: Callable[[], None]) -> Iterator[Any]:
    found = Database(next_ms, asked)
    yield found
    found.close()


def relay_at_rest() -> Relay:
    relay = Relay("", lambda leaving: None)
    relay._resend_all = False
    return relay


async def test_a_timer_set_while_it_asks_for_the_next_is_not_slept_through() -> None:
    relay = relay_at_rest()
    loop = asyncio.get_running_loop()
    with database(None, lambda: relay.timer_set(40)) as conn:
        await relay._once(conn)
    assert relay._next_timer <= loop.time() + 0.04


async def test_it_sleeps_until_the_timer_it_has_found() -> None:
    relay = relay_at_rest()
    loop = asyncio.get_running_loop()
    with database(120, lambda: None) as conn:
        await relay._once(conn)
        began = loop.time()
        await relay._sleep(conn)
    assert 0.1 < loop.time() - began < 2, "neither again and again nor until the next sweep"


async def test_it_sleeps_no_longer_than_until_the_database_says_something() -> None:
    relay = relay_at_rest()
    loop = asyncio.get_running_loop()
    with database(None, lambda: None) as conn:
        await relay._once(conn)
        began = loop.time()
        loop.call_later(0.1, conn.server.send, b"!")
        await relay._sleep(conn)
    assert 0.09 < loop.time() - began < 5, "the sweep is after thirty seconds"
