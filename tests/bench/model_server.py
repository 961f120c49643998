"""A chat-completions server in a process of its own that answers after as long as the path says, and counts.

    POST /<milliseconds>/v1/chat/completions    GET /count -> {"calls": n, "most": m}

``most`` is the largest number of calls that were waiting at the same time. Nothing but what the bench needs: the
machine's cores are for what is measured.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from subprocess import PIPE, Popen
from typing import cast

REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "said"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10},
    }
).encode()


class Server:
    """Calls seen, and those that wait."""

    def __init__(self) -> None:
        self.calls = self.waiting = self.most = 0


class Exchange(asyncio.Protocol):
    """One connection: requests one after the other, each answered when its time has come."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one, though not by descent

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            _, _, rest = head.partition(b"content-length:")
            size = int(rest.split(b"\r\n", 1)[0] or 0)
            if len(self._buffer) < end + 4 + size:
                return
            self._buffer = self._buffer[end + 4 + size :]
            self._asked(head.split(b" ", 2)[1].decode())

    def _asked(self, path: str) -> None:
        server = self._server
        if path == "/count":
            self._answer(json.dumps({"calls": server.calls, "most": server.most}).encode())
            return
        server.calls += 1
        server.waiting += 1
        server.most = max(server.most, server.waiting)
        asyncio.get_running_loop().call_later(int(path.split("/")[1]) / 1000, self._reply)

    def _reply(self) -> None:
        self._server.waiting -= 1
        self._answer(REPLY)

    def _answer(self, body: bytes) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        if not self._transport.is_closing():
            self._transport.write(head.encode() + body)


def allow_connections() -> int:
    """As many open files as the machine lets this process have; how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


async def serve() -> None:
    server = Server()
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Exchange(server), "127.0.0.1", 0, backlog=8192)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)  # until whoever started it closes the pipe, or dies


@contextmanager
def model_server() -> Iterator[str]:
    """The server, running; its address."""
    with Popen([sys.executable, __file__], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin and process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.stdin.close()
            process.wait(10)


def counted(url: str) -> dict[str, int]:
    """What the server at ``url`` has seen."""
    with urllib.request.urlopen(f"{url}/count", timeout=10) as answer:
        found: dict[str, int] = json.load(answer)
    return found


if __name__ == "__main__":
    import uvloop

    allow_connections()
    uvloop.run(serve())
