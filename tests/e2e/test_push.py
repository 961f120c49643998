"""The same handlers by push: six processes behind functions-framework, the bridge between them and JetStream."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from house import House, eventually
from test_flow import COUNT

import agentflow
from agentflow.store.admin import issue_key
from agentflow.wire.http import from_http

FUNCTIONS = ("plan", "dispatch", "invoke-llm", "run-tool", "account-cost", "api")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


class Sink(ThreadingHTTPServer):
    """Where facts are posted to; refuses the first of them, as sinks do now and then."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Taking)
        self.facts: list[tuple[str, str, Any]] = []  # id, type, data
        self.refused = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/facts"


class _Taking(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Sink)
        body = self.rfile.read(int(self.headers["content-length"]))
        (event,) = from_http(self.headers, body)
        if not self.server.refused:
            self.server.refused += 1
            self.send_response(503)
        else:
            self.server.facts.append((event.id, event.type, event.data))
            self.send_response(202)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def sink() -> Iterator[Sink]:
    with Sink() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Fleet:
    """One process per function, the bridge and the relay."""

    def __init__(self, house: House, folder: Path) -> None:
        self.ports = {name: free_port() for name in (*FUNCTIONS, "bridge", "relay")}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = folder
        urls = {n.replace("-", "_"): f"http://127.0.0.1:{p}" for n, p in self.ports.items() if n in FUNCTIONS}
        self.environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(Path(agentflow.__file__).parents[1]),  # this code, wherever it was installed from
            "AGENTFLOW_DATABASE_URL": house.database.admin,
            "AGENTFLOW_NATS_URL": house.nats.url,
            "AGENTFLOW_FUNCTION_URLS": json.dumps(urls),
            "AGENTFLOW_SANDBOX": "process",
            "AGENTFLOW_HOME": str(folder),
        }

    def start(self, name: str) -> None:
        what = [name] if name in ("bridge", "relay") else ["serve", name, "--push"]
        command = [sys.executable, "-m", "agentflow", *what]
        environment = self.environment | {"PORT": str(self.ports[name])}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def stop(self, name: str, sign: signal.Signals = signal.SIGTERM) -> int:
        process = self.processes.pop(name)
        process.send_signal(sign)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            pytest.fail(f"{name} does not stop: {(self.folder / f'{name}.log').read_text()[-2000:]}")

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.ports[name]}"

    async def ready(self) -> None:
        async with httpx.AsyncClient() as client:
            for name in self.processes:
                await eventually(lambda name=name: self._answers(client, name), within_s=90)

    async def _answers(self, client: httpx.AsyncClient, name: str) -> bool:
        if self.processes[name].poll() is not None:
            pytest.fail((self.folder / f"{name}.log").read_text()[-3000:])
        try:
            return (await client.get(self.url(name) + "/readyz")).status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture
def fleet(house: House, tmp_path: Path) -> Iterator[Fleet]:
    fleet = Fleet(house, tmp_path)
    yield fleet
    for name in list(fleet.processes):
        fleet.stop(name, signal.SIGKILL)


async def test_six_processes_and_a_bridge_do_what_one_process_does(house: House, fleet: Fleet, sink: Sink) -> None:
    fleet.environment["K_SINK"] = sink.url
    for name in (*FUNCTIONS, "bridge", "relay"):
        fleet.start(name)
    await fleet.ready()
    key = str(await issue_key(house.database.admin, house.tenant, house.settings.key_pepper))
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=fleet.url("api"), headers=headers, timeout=40) as api:
        made = await api.post("/v1/workflows", json=COUNT)
        assert made.status_code == 201, made.text
        answer = await api.post("/v1/runs?wait=30s", json={"workflow": "count", "input": {"n": 4}})
        assert answer.status_code == 200, answer.text
        run = answer.json()
        assert (run["status"], run["output"]) == ("succeeded", {"n": 7})
        # run_tool goes away in the middle: what it was to do waits for it, and nothing is parked meanwhile
        assert fleet.stop("run-tool") == 0
        accepted = await api.post("/v1/runs", json={"workflow": "count", "input": {"n": 1}})
        assert accepted.status_code == 202
        await eventually(lambda: house.rows("select 1 from outbox where name = 'tool.requested'"))
        fleet.start("run-tool")
        finished = await eventually(lambda: succeeded(api, accepted.headers["location"]))
        assert finished["output"] == {"n": 4}
    ended = "agentflow.run.completed.v1"
    await eventually(lambda: sum(kind == ended for _, kind, _ in sink.facts) >= 2)
    assert sink.refused == 1
    assert {data["run"] for _, kind, data in sink.facts if kind == ended} == {
        str(row["run_id"]) for row in await house.rows("select run_id from runs")
    }
    rows = await house.rows("select spent_micro, held_micro from runs")
    assert [tuple(row.values()) for row in rows] == [(300, 0), (300, 0)]
    assert await house.rows("select * from parked") == []
    assert await house.rows("select * from outbox where consumer <> 'facts'") == []
    for name in list(fleet.processes):
        assert fleet.stop(name) == 0, (fleet.folder / f"{name}.log").read_text()[-2000:]


async def succeeded(api: httpx.AsyncClient, location: str) -> dict[str, Any] | None:
    run = (await api.get(location)).json()
    return run if run["status"] == "succeeded" else None


async def test_a_function_tells_a_bad_event_from_a_bad_moment(house: House, fleet: Fleet) -> None:
    """400 for what can never be handled, 422 for what contradicts the record: the bridge parks those."""
    fleet.start("dispatch")
    await fleet.ready()
    good = {
        "ce-specversion": "1.0", "ce-id": "7d5ff97e-4a0b-4b2e-8f3e-2d9c60f1f0aa:1.1:done", "ce-source": "/x",
        "ce-type": "agentflow.step.completed.v1", "ce-tenantid": str(house.tenant), "content-type": "application/json",
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=fleet.url("dispatch")) as client:
        shape = await client.post("/", headers=good, content=b'{"run": 5}')
        assert shape.status_code == 400
        assert "data.run" in shape.text
        usage = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 1}
        data = {
            "run": "7d5ff97e-4a0b-4b2e-8f3e-2d9c60f1f0aa", "step": 1, "attempt": 1, "epoch": 0, "task": "add",
            "status": "succeeded", "output": {}, "error": None, "usage": usage, "cost_micro": 0, "duration_ms": 1,
        }  # fmt: skip
        unknown = await client.post("/", headers=good, json=data)
        assert unknown.status_code == 422
        assert "there is no run" in unknown.text
        other = await client.post("/", headers=good | {"ce-type": "agentflow.llm.requested.v1"}, json=data)
        assert other.status_code == 400
        batch = [
            {
                "specversion": "1.0",
                "id": "x",
                "source": "/x",
                "type": "com.example.x",
                "tenantid": str(house.tenant),
            }
        ]
        several = await client.post(
            "/", headers={"content-type": "application/cloudevents-batch+json"}, json=batch
        )
        assert several.status_code == several.json()["failed"][0]["status"] == 400
        assert several.json()["failed"][0]["index"] == 0
        assert (await client.post("/", content=b"nothing")).status_code == 400


async def test_what_a_broker_has_given_up_on_is_parked_with_its_reason(house: House, fleet: Fleet) -> None:
    fleet.start("plan")
    await fleet.ready()
    dead = {
        "ce-specversion": "1.0", "ce-id": "7", "ce-source": "/shop", "ce-type": "com.example.order",
        "ce-tenantid": str(house.tenant), "ce-knativeerrorcode": "500", "ce-knativeerrordest": "http://plan",
        "content-type": "application/json",
    }  # fmt: skip
    async with httpx.AsyncClient(base_url=fleet.url("plan")) as client:
        for _ in range(2):  # brokers repeat themselves
            assert (await client.post("/dead-letters", headers=dead, content=b'{"n": 1}')).status_code == 200
        assert (await client.post("/dead-letters", content=b"nothing")).status_code == 400
    (row,) = await house.rows("select tenant_id, consumer, subject, reason from parked")
    assert (row["tenant_id"], row["consumer"]) == (house.tenant, "plan")
    assert row["subject"] == f"agentflow.{house.tenant}.in.event"
    assert row["reason"] == "was not delivered: 500 http://plan"


async def test_a_function_waits_for_its_backends_and_says_so(house: House, fleet: Fleet) -> None:
    fleet.environment["AGENTFLOW_NATS_URL"] = f"nats://127.0.0.1:{free_port()}"
    fleet.start("plan")
    async with httpx.AsyncClient(base_url=fleet.url("plan")) as client:

        async def alive() -> bool:
            try:
                return (await client.get("/healthz")).status_code == 200
            except httpx.HTTPError:
                return False

        await eventually(alive)
        unready = await client.get("/readyz")
        assert (unready.status_code, unready.json()["reason"]) == (503, "starting")
        assert (await client.post("/", content=b"{}")).status_code == 503
        await asyncio.sleep(0)
    assert fleet.stop("plan") == 0
