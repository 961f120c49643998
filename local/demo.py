"""`make demo`: a run over HTTP, and one that a CloudEvent on NATS starts; what became of them, and what they cost.

Runs in the network of local/compose.yaml, with nothing but what is in our images.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any
from uuid import uuid4

import nats
import nats.errors
import orjson
from httpx import AsyncClient

from agentflow.bus.servers import servers
from agentflow.config import Settings
from agentflow.errors import AgentFlowError
from agentflow.store.api_keys import parse
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.loading import compile_file
from agentflow.terminal.running import register, start

WORKFLOWS = "/etc/agentflow/workflows"
ARRIVED = "com.example.visitor.arrived"
WAIT_S = 60.0


async def over_http(client: AsyncClient) -> Any:
    """The sample workflow on its log file, as `agentflow run` does it."""
    plan = compile_file(f"{WORKFLOWS}/incident-triage.yaml")
    inputs = read_inputs([f"log=@{WORKFLOWS}/incident-triage/checkout-service.log"], plan.input)
    accepted = await start(client, await register(client, plan), inputs)
    return await ended(client, accepted["id"])


async def by_event(client: AsyncClient, settings: Settings, name: str) -> Any:
    """hello.yaml with a trigger, and an event that any program could have published."""
    document = dict(compile_file(f"{WORKFLOWS}/hello.yaml").document)
    document |= {"name": "hello-visitor", "trigger": {"type": ARRIVED, "input": {"name": "event.data.name"}}}
    await call(client, "POST", "/v1/workflows", json=document)
    known = {run["id"] for run in await visits(client)}
    key = parse(client.headers["authorization"].removeprefix("Bearer "))
    assert key is not None
    event = {
        "specversion": "1.0", "id": str(uuid4()), "source": "/demo", "type": ARRIVED,
        "datacontenttype": "application/json", "data": {"name": name},
    }  # fmt: skip
    connection = await nats.connect(**servers(settings.bus()).options())
    headers = {"Content-Type": "application/cloudevents+json"}
    subject = f"agentflow.{key.tenant}.in.visitor"
    await connection.jetstream().publish(subject, orjson.dumps(event), headers=headers)
    await connection.close()
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if new := [run["id"] for run in await visits(client) if run["id"] not in known]:
            return await ended(client, new[0])
        await asyncio.sleep(0.1)
    raise TimeoutError(f"the event on {subject} has started nothing")


async def visits(client: AsyncClient) -> list[Any]:
    found = await call(client, "GET", "/v1/runs", params={"workflow": "hello-visitor", "limit": 20})
    return list(found["items"])


async def ended(client: AsyncClient, run: str) -> Any:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found = await call(client, "GET", f"/v1/runs/{run}")
        if found["status"] in ("succeeded", "failed", "cancelled"):
            return found
        await asyncio.sleep(0.1)
    raise TimeoutError(f"run {run} has not ended within {WAIT_S:.0f} s")


def tell(how: str, run: Any) -> bool:
    print(f"{how}: {run['workflow']} {run['status']}, cost ${run['spent_micro'] / 1_000_000:.6f}")
    print(f"  {orjson.dumps(run.get('output') or run.get('error')).decode()}")
    return bool(run["status"] == "succeeded")


async def main() -> int:
    settings = Settings.from_env()
    async with api(settings) as client:
        first = tell("over HTTP", await over_http(client))
        return 0 if tell("by a CloudEvent on NATS", await by_event(client, settings, "Ada")) and first else 1


if __name__ == "__main__":
    try:
        sys.exit(asyncio.run(main()))
    except (AgentFlowError, TimeoutError, nats.errors.Error) as fault:
        sys.exit(f"demo: {fault or type(fault).__name__} (docker compose -f local/compose.yaml ps, logs FUNCTION)")
