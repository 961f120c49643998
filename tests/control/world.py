"""The API over real PostgreSQL and the real reactor; only the tools are played, and no bus carries messages away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx

from agentflow.control.ports import ParkedMessage
from agentflow.core.decide import account_cost, api, dispatch, plan, record
from agentflow.core.message import Message
from agentflow.core.performed import Performed
from agentflow.core.run import Price, Run
from agentflow.errors import Rejected, RetryLater
from agentflow.runtime.batch import FACTS, Item, Leaving
from agentflow.runtime.performer import Performer
from agentflow.runtime.plans import Plans
from agentflow.runtime.reactor import Reactor
from agentflow.runtime.receive import once
from agentflow.runtime.watch import Watch, Watchers
from agentflow.store.changes import Changes
from agentflow.store.control import ControlStore
from agentflow.store.postgres import PostgresStore

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


class Tools:
    """Plays run_tool: echoes, once ``gate`` is open, and fails on request."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()

    def at_once(self, request: Message) -> None:
        return None

    async def perform(self, request: Message) -> Performed:
        await self.gate.wait()
        given = request.data["input"]
        if given.get("said") == "fail":
            raise Rejected("the tool was told to fail", code="tool_error")
        return Performed(dict(given))

    async def close(self) -> None:
        pass


class LocalEngine:
    """The real reactor with all pure functions. The place of ``runtime.host.Host``, without its bus and relay."""

    def __init__(self, dsn: str) -> None:
        self.store = PostgresStore(dsn)
        functions = {
            "api": api.decide, "plan": plan.decide, "dispatch": dispatch.decide, "account_cost": account_cost.decide,
            "run_tool": record.decide,
        }  # fmt: skip
        self.reactor = Reactor(functions, self.store, Plans(), self._price, self)
        self.tools = Tools()
        self.performer = Performer("run_tool", self.tools, self.reactor, limit=100)
        self.watchers = Watchers()
        self.redelivered: list[ParkedMessage] = []
        self.submitted: list[Message] = []
        self.away: str | None = None

    async def __aenter__(self) -> LocalEngine:
        await self.store.open()
        self.reactor.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.performer.close(grace_s=0)
        await self.reactor.stop()
        await self.store.close()

    async def submit(self, message: Message) -> Run | None:
        if self.away and self.away in str(message.data):
            raise RetryLater("too much is queued", after=2)
        self.submitted.append(message)
        return await self.reactor.handle(Item("api", message, once=once(message)))

    async def redeliver(self, message: ParkedMessage) -> None:
        if self.away:
            raise RetryLater("NATS is away")
        self.redelivered.append(message)

    def watch(self, run: UUID) -> Watch:
        return self.watchers.watch(run)

    def ready(self) -> tuple[bool, str]:
        return True, "ready"

    # the reactor's outlet

    def send(self, leaving: Sequence[Leaving]) -> None:
        for leave in leaving:
            if leave.consumer == "run_tool":
                self.performer.offer(leave.message)
            elif leave.consumer != FACTS:
                self.reactor.offer(Item(leave.consumer, leave.message, leave.twin, once(leave.message)))

    def changed(self, runs: Sequence[UUID], changes: Changes) -> None:
        self.watchers.wake(runs)

    def refused(self, item: Item, fault: Exception) -> None:
        pass

    @staticmethod
    def _price(alias: str) -> Price:
        return Price("scripted", alias, 1, 1, "test")


class KnownModels:
    """A catalogue of models that knows one alias."""

    def resolve(self, alias: str) -> Any:
        if alias != "small":
            raise Rejected(
                f"no model for {alias!r}", code="unknown_model", mend="name it in AGENTFLOW_MODELS"
            )
        return alias


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
    engine: LocalEngine
    store: ControlStore
    app: Any
    a: Tenant
    b: Tenant
    clients: list[httpx.AsyncClient] = field(default_factory=list)

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
