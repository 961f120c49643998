"""A link: the road between one worker and one server, which can be cut, delayed, held, or cut at a COMMIT.

A proxy of our own, because it needs no root and can tell one worker's connections from another's. Bytes are never
reordered or lost within a connection that stays open: that is what TCP promises too.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentflow.errors import AgentFlowError

Connect = Callable[[Callable[[], asyncio.Protocol]], Awaitable[tuple[asyncio.Transport, asyncio.Protocol]]]
WRITES = (b"update_runs", b"insert_runs", b"COMMIT", b"commit")
"""What the bytes that commit a batch hold: its statements (the sync after them commits), or the word itself."""

READY = b"Z\0\0\0\x05I"  # PostgreSQL's ReadyForQuery outside a transaction: what was sent has been decided
ENOUGH = 1 << 20


class Link:
    """One worker's connections to one server. Start with ``unix`` or ``tcp``, end with ``close``."""

    def __init__(self, connect: Connect) -> None:
        self._connect = connect
        self._server: asyncio.Server | None = None
        self._pairs: set[_Pair] = set()
        self.delay_s = 0.0
        self.held = False
        self.refusing = False
        self.at_commit: str | None = (
            None  # what becomes of the next COMMIT: reply_lost, request_lost or killed
        )
        self.on_killed: Callable[[], object] = lambda: None
        self.hit = asyncio.Event()  # the next COMMIT has come

    async def unix(self, path: Path) -> None:
        """Listen on a unix socket."""
        self._server = await asyncio.get_running_loop().create_unix_server(self._accept, path, backlog=256)

    async def tcp(self) -> int:
        """Listen on a free port of the loopback address; gives the port."""
        self._server = await asyncio.get_running_loop().create_server(
            self._accept, "127.0.0.1", 0, backlog=256
        )
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        return len(self._pairs)

    def cut(self) -> None:
        """Drop every connection; new ones are taken."""
        for pair in list(self._pairs):
            pair.abort()

    def hold(self) -> None:
        """From now on nothing gets through in either direction, and nobody is told."""
        self.held = True

    def release(self) -> None:
        """Let everything through again: first what was held."""
        self.held = self.refusing = False
        self.delay_s = 0.0
        for pair in list(self._pairs):
            pair.flush()

    async def close(self) -> None:
        self.cut()
        if self._server is not None:
            self._server.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._server.wait_closed(), 2)

    def _accept(self) -> asyncio.Protocol:
        pair = _Pair(self)
        self._pairs.add(pair)
        return pair.near

    def joined(self, pair: _Pair) -> None:
        """A client has connected: connect to the server for it."""
        if self.refusing:
            pair.abort()
        else:
            pair.task = asyncio.ensure_future(self._join(pair))

    async def _join(self, pair: _Pair) -> None:
        try:
            await self._connect(lambda: pair.far)
        except (OSError, AgentFlowError):  # it is away, or just being started
            pair.abort()

    def left(self, pair: _Pair) -> None:
        self._pairs.discard(pair)


class _Pair:
    """Both ends of one connection."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.near = _End(self)
        self.far = _End(self)
        self.near.other, self.far.other = self.far, self.near
        self.task: asyncio.Future[None] | None = None
        self.lost: str | None = None  # replies are swallowed from here on

    def abort(self) -> None:
        for end in (self.near, self.far):
            if end.transport is not None:
                end.transport.abort()
        if self.task is not None:
            self.task.cancel()
        self.link.left(self)

    def flush(self) -> None:
        self.near.pump()
        self.far.pump()

    def committing(self, data: bytes) -> bool:
        """A client's bytes: whether they may pass. The one that carries a COMMIT may meet its fate here."""
        fate = self.link.at_commit
        if fate is None or not any(word in data for word in WRITES):
            return True
        self.link.at_commit = None
        self.link.hit.set()
        if fate == "request_lost":
            self.abort()
            return False
        self.lost = fate
        if fate == "killed":
            self.link.on_killed()
        return True

    def answered(self, data: bytes) -> bool:
        """A server's bytes: whether they may pass. The client never learns what became of a lost COMMIT."""
        if self.lost is None:
            return True
        if data.endswith(READY):
            self.abort()
        return False


class _End(asyncio.Protocol):
    """One end: what it receives goes out at the other."""

    def __init__(self, pair: _Pair) -> None:
        self.pair = pair
        self.other: _End = self
        self.transport: asyncio.Transport | None = None
        self._waiting: deque[tuple[float, bytes]] = (
            deque()
        )  # (not before, bytes) on their way out of this end
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._size = 0
        self._over = False  # the other end has sent all it had

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        if self is self.pair.near:
            self.pair.link.joined(self.pair)
        else:
            self.pump()

    def data_received(self, data: bytes) -> None:
        pair = self.pair
        if not (pair.committing(data) if self is pair.near else pair.answered(data)):
            return
        out, link = self.other, pair.link
        if out.transport is not None and not out._waiting and not link.held and not link.delay_s:
            out.transport.write(data)
            return
        out._last = max(out._last, asyncio.get_running_loop().time() + link.delay_s)
        out._waiting.append((out._last, data))
        out._size += len(data)
        if out._size > ENOUGH and self.transport is not None:
            self.transport.pause_reading()
        out.pump()

    def pump(self) -> None:
        """Write what is due."""
        if self.transport is None or self.pair.link.held:
            return
        loop = asyncio.get_running_loop()
        while self._waiting and self._waiting[0][0] <= loop.time():
            data = self._waiting.popleft()[1]
            self._size -= len(data)
            self.transport.write(data)
        if self._size <= ENOUGH and self.other.transport is not None:
            self.other.transport.resume_reading()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting:
            self._timer = loop.call_at(self._waiting[0][0], self.pump)
        elif self._over:
            self.transport.close()

    def connection_lost(self, fault: Exception | None) -> None:
        other = self.other
        other._over = True
        self._waiting.clear()
        if other.transport is None or other.transport.is_closing() or fault is not None:
            self.pair.abort()
        else:
            other.pump()
