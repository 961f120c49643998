"""The listener: hears everything that is published on NATS, and can publish it again, twice and out of order."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import defaultdict, deque
from typing import Any
from uuid import UUID

import nats
import nats.errors
import nats.js.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from chaos.violation import Violation

AGAIN = "Chaos-Again"
FACTS = "AGENTFLOW_FACTS"
KEPT = 300


class Listener:
    """One connection beside the system. ``marks``: tenant -> the text that only its events may hold."""

    def __init__(self, url: str, marks: dict[UUID, str]) -> None:
        self._url = url
        self._marks = {str(tenant): mark.encode() for tenant, mark in marks.items()}
        self._nc = Client()
        self._recent: deque[tuple[str, dict[str, str], bytes]] = deque(maxlen=KEPT)
        self.facts: dict[tuple[UUID, str], set[bytes]] = defaultdict(
            set
        )  # (run, fact) -> the data it came with
        self.told: dict[tuple[UUID, str, str, str], set[str]] = defaultdict(set)
        """(tenant, scope, period, fact) -> its ids: what was said of a budget."""
        self.violations: list[Violation] = []
        self.heard = 0
        self.repeated = 0
        self.losses = 0  # how often JetStream's data was lost, and acknowledged events with it

    async def start(self) -> None:
        self._nc = await nats.connect(
            self._url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, connect_timeout=2, error_cb=_quiet,
            disconnected_cb=_quietly, reconnected_cb=_quietly, allow_reconnect=True,
        )  # fmt: skip
        await self._nc.subscribe("agentflow.>", cb=self._hear)

    async def stop(self) -> None:
        with contextlib.suppress(Exception):
            await asyncio.wait_for(self._nc.close(), 5)

    async def publish(self, subject: str, payload: bytes, *, structured: bool = True) -> bool:
        """Publish an event of a client's; whether JetStream has acknowledged it."""
        headers = {"Content-Type": "application/cloudevents+json"} if structured else None
        try:
            await self._nc.jetstream(timeout=2).publish(subject, payload, headers=headers)
        except (nats.errors.Error, nats.js.errors.Error, OSError):
            return False
        return True

    async def publish_surely(self, subject: str, payload: bytes) -> None:
        """Publish an event until JetStream has acknowledged it."""
        while not await self.publish(subject, payload):  # noqa: ASYNC110  each try waits for an answer
            await asyncio.sleep(0.3)

    async def catch_up(self) -> None:
        """Read the stream of facts from its beginning: what was published while this connection was away."""
        jetstream = self._nc.jetstream(timeout=5)
        try:
            stream = (await jetstream.stream_info(FACTS)).state
            heard = await jetstream.subscribe("agentflow.*.fact.>", stream=FACTS, ordered_consumer=True)
            for _ in range(stream.messages):
                msg = await heard.next_msg(timeout=5)
                self._fact(msg.subject.split(".", 3)[3], msg.data)
            await heard.unsubscribe()
        except (nats.errors.Error, nats.js.errors.Error) as fault:
            raise RuntimeError(f"the facts can't be read: {fault!r}") from fault

    async def repeat(self, chance: random.Random, count: int = 40) -> int:
        """Publish some of what was heard again, up to twice and in another order."""
        chosen = [message for message in self._recent if chance.random() < count / KEPT]
        chosen += [message for message in chosen if chance.random() < 0.3]
        chance.shuffle(chosen)
        with contextlib.suppress(nats.errors.Error, OSError):
            for subject, headers, payload in chosen:
                await self._nc.publish(subject, payload, headers={**headers, AGAIN: "1"})
                self.repeated += 1
        return len(chosen)

    async def _hear(self, msg: Msg) -> None:
        self.heard += 1
        tokens = msg.subject.split(".", 3)
        if len(tokens) < 4:
            return  # a hint between hosts
        self._leaks(tokens[1], msg.data)
        headers = {name: text for name, text in (msg.headers or {}).items() if not name.startswith("Nats-")}
        if AGAIN not in headers:
            self._recent.append((msg.subject, headers, msg.data))
            if tokens[2] == "fact":
                self._fact(tokens[3], msg.data)

    def _fact(self, name: str, payload: bytes) -> None:
        event: dict[str, Any] = orjson.loads(payload)
        if event["id"].startswith(name):  # of a budget, and no run
            data = event["data"]
            self.told[UUID(event["tenantid"]), data["scope"], data["period"], name].add(event["id"])
            return
        self.facts[UUID(event["id"].partition(":")[0]), name].add(orjson.dumps(event.get("data")))

    def _leaks(self, tenant: str, payload: bytes) -> None:
        for other, mark in self._marks.items():
            if other != tenant and mark in payload and len(self.violations) < 50:
                self.violations.append(
                    Violation(11, f"an event of tenant {tenant} holds {other}'s data: {payload[:200]!r}")
                )


async def _quiet(fault: Exception) -> None: ...


async def _quietly() -> None: ...
