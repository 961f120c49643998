"""The far side: an OpenAI-compatible model endpoint, and a place for tools' effects, that counts what reaches it.

Every call carries a key (which task of which run wants what) in its prompt. By seed, the first calls of a key may
be answered with 429, 500, nonsense, half an answer, much later, or never; after at most ``WORST`` bad answers a key
gets good ones. Every answer holds a nonce, so that an accepted result names the call that gave it.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections import defaultdict
from dataclasses import dataclass, field

WORST = 2
KEY = re.compile(r"\[\[([^\]]+)\]\]")
BAD = ("429", "500", "garbage", "bad_shape", "half", "hang", "slow")
HANG_S = 20.0


@dataclass(slots=True)
class Call:
    """One call as it was seen here. ``at``: wall clock. ``usage``: input and output tokens billed."""

    key: str
    at: float
    kind: str
    nonce: str = ""
    usage: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class FarSide:
    """The server. ``trouble``: the share of keys whose first calls go wrong; ``storm``: until then all fail;
    ``charging``: until then no charge is answered."""

    seed: int
    trouble: float = 0.3
    storm_until: float = 0.0
    calls: dict[str, list[Call]] = field(default_factory=lambda: defaultdict(list))
    nonces: dict[str, Call] = field(default_factory=dict)
    charging: asyncio.Event | None = None
    port: int = 0
    _server: asyncio.Server | None = None
    _clients: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def storm(self, seconds: float) -> None:
        """For a while every call fails."""
        self.storm_until = time.monotonic() + seconds

    @property
    def total(self) -> int:
        return sum(map(len, self.calls.values()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?i)content-length: (\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                if not await self._answer(body, writer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or we go: asyncio's streams complain of a handler that was cancelled
        finally:
            self._clients.discard(task)
            writer.transport.abort()

    async def _answer(self, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False when the connection is over."""
        asked = json.loads(body or b"{}")
        key = _key(asked)
        chance = random.Random(f"{self.seed}/{key}/{len(self.calls[key])}")
        call = Call(key, time.time(), self._kind(key, chance), f"{chance.getrandbits(64):016x}")
        self.calls[key].append(call)
        self.nonces[call.nonce] = call
        kind = call.kind
        if self.charging is not None and "/charge" in key:
            await self.charging.wait()
        if kind == "hang":
            await asyncio.sleep(HANG_S)
            return False
        if kind in ("429", "500"):
            fault = {"error": {"message": "not now", "type": "chaos", "param": None, "code": None}}
            return await _send(writer, int(kind), fault, "retry-after-ms: 50\r\n")
        await asyncio.sleep(chance.uniform(0.5, 1.2) if kind == "slow" else chance.uniform(0.0, 0.03))
        if "messages" not in asked:
            return await _send(writer, 200, {"nonce": call.nonce})
        return await self._complete(asked, call, chance, writer)

    def _kind(self, key: str, chance: random.Random) -> str:
        what = key.partition("/")[2]
        if what.startswith(("effect", "charge")):
            return "good"  # a tool that fails has failed: it is not tried again
        if time.monotonic() < self.storm_until:
            return chance.choice(("429", "500"))
        if what.startswith("slowly"):
            return "slow"
        troubled = random.Random(f"{self.seed}/{key}").random() < self.trouble
        if not troubled or len(self.calls[key]) >= WORST or chance.random() < 0.3:
            return "good"
        return chance.choice(BAD)

    async def _complete(
        self, asked: dict[str, object], call: Call, chance: random.Random, writer: asyncio.StreamWriter
    ) -> bool:
        if call.kind == "garbage":
            return await _send(writer, 200, "this is no completion")
        call.usage = (chance.randrange(5, 40), chance.randrange(1, 20))
        content: object = f"nonce {call.nonce}"
        calls = self._calls(asked, call) if "tools" in asked else []
        if calls:
            pass  # an agent's turn: what it calls may be of the wrong shape, too
        elif "response_format" in asked:
            content = json.dumps(
                {"nonce": 5 if call.kind == "bad_shape" else call.nonce, "n": chance.randrange(100)}
            )
        elif call.kind == "bad_shape":
            call.kind = "good"  # text of any shape is fine
        message = {"role": "assistant", "content": content, "tool_calls": calls}
        usage = {
            "prompt_tokens": call.usage[0],
            "completion_tokens": call.usage[1],
            "total_tokens": sum(call.usage),
        }
        reply = {
            "id": call.nonce, "object": "chat.completion", "created": 1, "model": "chaos", "usage": usage,
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        }  # fmt: skip
        if call.kind == "half":
            text = json.dumps(reply).encode()
            writer.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(text)
            )
            writer.write(text[: len(text) // 2])
            await writer.drain()
            return False
        return await _send(writer, 200, reply)


    def _calls(self, asked: dict[str, object], call: Call) -> list[dict[str, object]]:
        """What an agent calls: two effects, until one of them is known to have come to something; then the answer."""
        messages: list[dict[str, object]] = asked["messages"]  # type: ignore[assignment]
        if any(each["role"] == "tool" and '"nonce"' in str(each["content"]) for each in messages):
            made: list[tuple[str, dict[str, object]]] = [("answer", {"nonce": call.nonce})]
        else:
            token, _, n = call.key.split("/")[:3]
            url = f"http://127.0.0.1:{self.port}/effect"
            made = [("effect", {"url": url, "key": f"[[{token}/effect-{n}/{place}]]"}) for place in (1, 2)]
        if call.kind == "bad_shape":
            made = [(name, {"nonce": 5}) for name, _ in made]
        return [
            {"id": f"call_{place}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for place, (name, given) in enumerate(made)
        ]


def _key(asked: dict[str, object]) -> str:
    """Whose call it is: what the prompt says; of an agent, whose prompt comes first, with the number of the turn."""
    messages: list[dict[str, object]] = asked.get("messages") or [  # type: ignore[assignment]
        {"role": "user", "content": str(asked.get("key", ""))}
    ]
    match = next((found for each in messages if (found := KEY.search(str(each["content"])))), None)
    if match is None:
        return f"unknown: {str(messages[-1]['content'])[:80]}"
    turn = 1 + sum(each["role"] == "assistant" for each in messages)
    return f"{match[1]}/{turn}" if "/seek/" in match[1] else match[1]


async def _send(writer: asyncio.StreamWriter, status: int, content: object, more: str = "") -> bool:
    text = json.dumps(content).encode()
    head = (
        f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{more}content-length: {len(text)}\r\n\r\n"
    )
    writer.write(head.encode() + text)
    await writer.drain()
    return True
