"""Lines: a request costs the same however many connections there are; closed ones are nobody's fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from agentflow.runtime.lines import Lines

MANY = 300


class Server:
    """Answers at once, but /slow when it is let; knows its connections."""

    def __init__(self) -> None:
        self.made = 0
        self.open = 0
        self.let = asyncio.Event()
        self.writers: list[asyncio.StreamWriter] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.made += 1
        self.open += 1
        self.writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                if b"/slow" in head:
                    await self.let.wait()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, httpx.AsyncClient]]:
    server = Server()
    async with await asyncio.start_server(server, "127.0.0.1", 0, backlog=MANY) as listening:
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(transport=Lines(), base_url=url, timeout=30) as client:
            yield server, client
        server.let.set()


async def took(client: httpx.AsyncClient, count: int = 60) -> float:
    began = time.process_time()
    for _ in range(count):
        assert (await client.get("/")).text == "ok"
    return time.process_time() - began


async def test_a_request_costs_the_same_however_many_connections_there_are(server: Any) -> None:
    far, client = server
    await took(client)
    alone = min([await took(client) for _ in range(3)])
    assert far.made == 1
    out = [asyncio.ensure_future(client.get("/slow")) for _ in range(MANY)]
    while far.open < MANY:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    await took(client, 1)
    far.let.set()
    assert {answer.status_code for answer in await asyncio.gather(*out)} == {200}
    beside = min([await took(client) for _ in range(3)])
    assert beside < 2 * alone, (alone, beside)
    assert far.made <= MANY + 1


async def test_a_connection_that_was_closed_meanwhile_is_replaced(server: Any) -> None:
    far, client = server
    await took(client, 1)
    far.writers[0].close()
    await far.writers[0].wait_closed()
    await asyncio.sleep(0.01)
    await took(client, 1)
    assert far.made == 2


async def test_a_request_that_is_given_up_takes_its_connection_along(server: Any) -> None:
    far, client = server
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await client.get("/slow")
    far.let.set()
    async with asyncio.timeout(5):
        while far.open:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    await took(client, 1)
