"""The API over a real host, real PostgreSQL and real JetStream, and the workflows the tests run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx

from agentflow.control.ports import ParkedMessage, Watch
from agentflow.core.message import Message
from agentflow.core.price import Price
from agentflow.core.run import Run
from agentflow.errors import Rejected, RetryLater
from agentflow.runtime.host import Host
from agentflow.store.control import ControlStore

PEPPER = "a pepper for tests"

ECHO = """
agentflow: plan/v1
kind: fsm
name: {name}
limits: {{steps: 10}}
input: {{text: string}}
vars: {{said: string}}
tasks:
  say: {{kind: tool, use: std.echo, in: {{said: text}}, out: {{said: string}}}}
initial: a
states:
  a: {{run: say, transitions: [{{event: done, set: {{said: result.said}}, to: ok}}, {{event: failed, to: bad}}]}}
  ok: {{final: success}}
  bad: {{final: failure}}
"""

WAITER = """
agentflow: plan/v1
kind: fsm
name: waiter
limits: {steps: 10}
vars: {said: string}
tasks:
  idle: {kind: wait, for: 1h}
initial: a
states:
  a: {run: idle, transitions: [{event: done, to: ok}, {event: go, to: ok}]}
  ok: {final: success}
"""

FAILER = """
agentflow: plan/v1
kind: fsm
name: failer
limits: {steps: 10}
vars: {why: string}
tasks:
  break: {kind: tool, use: std.fail, in: {code: "'broken'", message: why}}
initial: a
states:
  a: {run: break, transitions: [{event: done, to: bad}, {event: failed, to: bad}]}
  bad: {final: failure}
"""

FILES = """
agentflow: plan/v1
kind: fsm
name: filer
limits: {steps: 10}
input: {log: file, more: list(file), n: int}
tasks:
  say: {kind: tool, use: std.echo, in: {log: log}}
initial: a
states:
  a: {run: say, transitions: [{event: done, to: ok}]}
  ok: {final: success}
"""

TRIGGERED = """
agentflow: plan/v1
kind: fsm
name: triggered
limits: {steps: 10}
input: {order: string}
trigger: {type: com.example.order.placed, input: {order: event.data.order}}
tasks:
  say: {kind: tool, use: std.echo, in: {order: order}}
initial: a
states:
  a: {run: say, transitions: [{event: done, to: ok}]}
  ok: {final: success}
"""


class Recorder:
    """The real host as the API's engine, with an ear on what is asked of it and a way to be away."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.submitted: list[Message] = []
        self.redelivered: list[ParkedMessage] = []
        self.away = ""
        """Requests whose data has this text in it find the engine full."""

    async def submit(self, message: Message) -> Run | None:
        if self.away and self.away in str(message.data):
            raise RetryLater("too much is queued", after=2)
        self.submitted.append(message)
        return await self._host.submit(message)

    async def redeliver(self, message: ParkedMessage) -> None:
        if self.away:
            raise RetryLater("NATS is away")
        self.redelivered.append(message)
        await self._host.redeliver(message)

    def watch(self, run: UUID) -> Watch:
        return self._host.watch(run)

    def ready(self) -> tuple[bool, str]:
        return self._host.ready()


class KnownModels:
    """A catalogue of models that knows one alias, and what it was told."""

    def resolve(self, alias: str, told: Callable[[str], Price | None] | None = None) -> Price:
        if told is not None and (found := told(alias)) is not None:
            return found._replace(provider="told", model=alias)
        if alias != "small":
            raise Rejected(
                f"no model for {alias!r}", code="unknown_model", mend="name it in AGENTFLOW_MODELS"
            )
        return Price("scripted", alias, 250_000, 2_000_000, "scripted-1")

    def aliases(self) -> list[str]:
        return ["small"]

    def window(self, alias: str) -> int | None:
        return None


@dataclass
class Tenant:
    """A tenant and a client that holds its key."""

    id: UUID
    key: str
    http: httpx.AsyncClient


@dataclass
class World:
    """The API, served in process, and two tenants."""

    database: Any
    engine: Recorder
    store: ControlStore
    app: Any
    a: Tenant
    b: Tenant

    async def register(self, document: str = "", *, tenant: Tenant | None = None, **names: str) -> str:
        text = document or ECHO.format(name=names.get("name", "echo"))
        answer = await (tenant or self.a).http.post("/v1/workflows", content=text, headers=YAML)
        assert answer.status_code in (200, 201), answer.text
        return f"{answer.json()['name']}@{answer.json()['version']}"

    async def start(self, workflow: str, tenant: Tenant | None = None, **given: Any) -> str:
        answer = await (tenant or self.a).http.post("/v1/runs", json={"workflow": workflow, "input": given})
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    async def finished(self, run: str, tenant: Tenant | None = None) -> dict[str, Any]:
        """The run once it has ended."""
        client = (tenant or self.a).http
        async with self.engine.watch(UUID(run)) as watch:
            while True:
                found = (await client.get(f"/v1/runs/{run}")).json()
                if found["status"] in ("succeeded", "failed", "cancelled"):
                    return dict(found)
                assert await watch.changed(5)

    async def all_finished(self, count: int) -> list[dict[str, Any]]:
        """The newest runs of tenant A, once there are ``count`` and all have ended."""
        async with asyncio.timeout(5):
            while True:
                found: list[dict[str, Any]] = (await self.a.http.get("/v1/runs")).json()["items"]
                if len(found) >= count and all(run["finished_at"] for run in found):
                    return found
                await asyncio.sleep(0.02)


YAML = {"content-type": "application/yaml"}


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document of a refused request, checked for what every one of them has."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert document["status"] == status
    assert document["code"] == code, document
    assert document["type"] == f"urn:agentflow:problem:{code}"
    assert document["instance"] == answer.request.url.path
    assert len(document["trace_id"]) == 32
    assert document["title"] and document["detail"]
    return document
