"""The key to the push doors: without it nothing is handled, and while it differs nothing is lost."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import nats as nats_client
import orjson
from house import House, eventually
from test_flow import COUNT
from test_push import FUNCTIONS, Fleet, succeeded
from test_push import fleet as fleet

from agentflow.store.admin import issue_key
from agentflow.wire.catalogue import incoming_subject, make
from agentflow.wire.event import Event
from agentflow.wire.http import to_http
from agentflow.wire.json_format import to_dict

NEW, OLD, OTHER = "new-" + "n" * 32, "old-" + "o" * 32, "other-" + "x" * 32
TRIGGERED = {**COUNT, "trigger": {"type": "com.example.go", "input": {"n": "event.data.n"}}}


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def requested(tenant: UUID) -> Event:
    """A request for a run, as only we send it."""
    run = uuid4()
    data = {"run": str(run), "workflow": "count", "version": None, "input": {"n": 1}, "budget_micro": None}
    now = datetime.now(UTC)
    return make("run.requested", run=run, key="requested", source_function="api", tenant=tenant, time=now, data=data)


def ordered(tenant: UUID) -> dict[str, str]:
    """Headers of a client's event that a workflow has for its trigger."""
    return {
        "ce-specversion": "1.0", "ce-id": str(uuid4()), "ce-source": "/shop", "ce-type": "com.example.go",
        "ce-tenantid": str(tenant), "content-type": "application/json",
    }  # fmt: skip


async def refusals(client: httpx.AsyncClient) -> int:
    lines = (await client.get("/metrics")).text.splitlines()
    return sum(int(float(line.rpartition(" ")[2])) for line in lines if line.startswith("agentflow_push_refused_total"))


async def _nothing(house: House) -> bool:
    return not any([await house.rows(f"select 1 from {table}") for table in ("runs", "outbox", "inbox", "parked")])


async def test_nobody_without_the_key_has_anything_handled(house: House, fleet: Fleet) -> None:
    fleet.environment |= {"AGENTFLOW_PUSH_KEY": f"{NEW},{OLD}", "AGENTFLOW_HTTP_HOST": "0.0.0.0"}
    await house.register(TRIGGERED)
    fleet.start("plan")
    await fleet.ready()
    forged, body = to_http(requested(house.tenant))
    order, given = ordered(house.tenant), b'{"n": 1}'
    batch = {"content-type": "application/cloudevents-batch+json"}
    structured = {"content-type": "application/cloudevents+json"}
    document = orjson.dumps(to_dict(requested(house.tenant)))
    async with httpx.AsyncClient(base_url=fleet.url("plan")) as client:
        strangers = {}, bearer(OTHER), bearer(NEW[:-1]), {"authorization": "Bearer"}, {"authorization": f"Basic {NEW}"}
        for key in strangers:
            for path, headers, content in (
                ("/", forged, body), ("/", order, given), ("/", batch, b"[" + document + b"]"),
                ("/", structured, document), ("/dead-letters", order, given), ("/anything", forged, body),
            ):  # fmt: skip
                answer = await client.post(path, headers={**headers, **key}, content=content)
                assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer"), answer.text
                assert answer.headers["content-type"] == "application/problem+json"
                (fault,) = answer.json()["errors"]
                assert fault["path"] == "AGENTFLOW_PUSH_KEY" and "Authorization: Bearer" in fault["mend"]
        assert await _nothing(house)
        assert await refusals(client) == 30
        for path in ("/healthz", "/readyz", "/_/health", "/_/ready", "/metrics"):
            assert (await client.get(path)).status_code == 200, path
        log = (fleet.folder / "plan.log").read_text()
        told = [line for line in map(json.loads, log.splitlines()) if "key" in line["message"]]
        assert [line["function"] for line in told] == ["plan"]
        assert not any(key in log for key in (NEW, OLD, OTHER))
        # Whoever has it, the new one or the old one, is heard as before.
        for key in (NEW, OLD):
            for headers, content in (
                (to_http(requested(house.tenant))), (ordered(house.tenant), given), (structured, document),
                (batch, b"[" + orjson.dumps(to_dict(requested(house.tenant))) + b"]"),
            ):  # fmt: skip
                answer = await client.post("/", headers={**headers, **bearer(key)}, content=content)
                assert answer.status_code in (200, 202, 204), answer.text
    assert len(await house.rows("select 1 from runs where status <> 'failed'")) == 7  # one of eight was sent twice
    assert await house.rows("select 1 from inbox")


async def test_a_door_that_stands_open_is_open_to_clients_events_alone(house: House, fleet: Fleet) -> None:
    """As a Broker's Triggers need it, which can send no key."""
    fleet.environment |= {
        "AGENTFLOW_PUSH_KEY": NEW, "AGENTFLOW_PUSH_OPEN": "true", "AGENTFLOW_HTTP_HOST": "0.0.0.0",
    }  # fmt: skip
    fleet.start("plan")
    await fleet.ready()
    forged, body = to_http(requested(house.tenant))
    structured = {"content-type": "application/cloudevents+json"}
    document = orjson.dumps(to_dict(requested(house.tenant)))
    order = ordered(house.tenant)
    mixed = orjson.dumps([
        {"specversion": "1.0", "id": "1", "source": "/x", "type": "com.example.x", "tenantid": str(house.tenant)},
        to_dict(requested(house.tenant)),
    ])  # fmt: skip
    async with httpx.AsyncClient(base_url=fleet.url("plan")) as client:
        for path, headers, content in (
            ("/", forged, body), ("/", structured, document), ("/dead-letters", forged, body),
            ("/", {"content-type": "application/cloudevents-batch+json"}, mixed), ("/", order | bearer(OTHER), b""),
        ):  # fmt: skip
            answer = await client.post(path, headers=headers, content=content)
            assert answer.status_code == 401, (path, headers, answer.text)
        assert await _nothing(house)
        assert (await client.post("/", headers=order, content=b'{"n": 1}')).status_code == 200
        assert len(await house.rows("select 1 from inbox")) == 1
        assert (await client.post("/", headers=order, content=b"{")).status_code == 400
        assert (await client.post("/dead-letters", headers=order, content=b'{"n": 1}')).status_code == 200
        assert len(await house.rows("select 1 from parked")) == 1
        assert (await client.post("/", headers={**forged, **bearer(NEW)}, content=body)).status_code in (200, 204)


async def test_while_the_keys_differ_everything_waits(house: House, fleet: Fleet) -> None:
    """The bridge has none, then a wrong one, then the old one of two, then both and functions the new one alone."""
    common = fleet.environment | {"AGENTFLOW_PUSH_KEY": f"{NEW},{OLD}"}
    without = {name: value for name, value in common.items() if name != "AGENTFLOW_PUSH_KEY"}
    fleet.environment = common
    for name in (*FUNCTIONS, "relay"):
        fleet.start(name)
    fleet.environment = without
    fleet.start("bridge")
    await fleet.ready()
    key = str(await issue_key(house.database.admin, house.tenant, house.settings.key_pepper))
    async with (
        httpx.AsyncClient(base_url=fleet.url("api"), headers=bearer(key), timeout=40) as api,
        httpx.AsyncClient(base_url=fleet.url("plan")) as plan,
    ):
        made = await api.post("/v1/workflows", json=COUNT)
        assert made.status_code == 201, made.text
        accepted = await api.post("/v1/runs", json={"workflow": "count", "input": {"n": 1}})
        await eventually(lambda: _told(fleet, "asks for a key, and the bridge has none"))
        assert fleet.stop("bridge") == 0
        fleet.environment = common | {"AGENTFLOW_PUSH_KEY": OTHER}
        before = await refusals(plan)
        fleet.start("bridge")
        await eventually(lambda: _told(fleet, "refuses the bridge's key"))
        # More deliveries than any other answer is given before a message is parked.
        assert await eventually(lambda: _more(plan, before + 6))
        assert await house.rows("select * from parked") == []
        assert fleet.stop("bridge") == 0
        fleet.environment = common | {"AGENTFLOW_PUSH_KEY": OLD}
        fleet.start("bridge")
        assert (await eventually(lambda: succeeded(api, accepted.headers["location"])))["output"] == {"n": 4}
        # The key is changed while it goes on.
        assert fleet.stop("bridge") == 0
        fleet.environment = common
        fleet.start("bridge")
        for name in ("plan", "dispatch"):
            assert fleet.stop(name) == 0
            fleet.environment = common | {"AGENTFLOW_PUSH_KEY": NEW}
            fleet.start(name)
        accepted = await api.post("/v1/runs", json={"workflow": "count", "input": {"n": 2}})
        assert (await eventually(lambda: succeeded(api, accepted.headers["location"])))["output"] == {"n": 5}
    assert await house.rows("select * from parked") == []
    rows = await house.rows("select spent_micro, held_micro from runs")
    assert [tuple(row.values()) for row in rows] == [(300, 0), (300, 0)]


async def test_what_clients_may_not_publish_the_bridge_does_not_pass_on(house: House, fleet: Fleet) -> None:
    fleet.environment["AGENTFLOW_PUSH_KEY"] = NEW
    await house.register(COUNT)
    for name in ("plan", "bridge"):
        fleet.start(name)
    await fleet.ready()
    client = await nats_client.connect(house.nats.url)
    headers = {"Content-Type": "application/cloudevents+json"}
    payload = orjson.dumps(to_dict(requested(house.tenant)))
    await client.jetstream().publish(incoming_subject(house.tenant, "go"), payload, headers=headers)
    await client.close()
    (row,) = await eventually(lambda: house.rows("select consumer, reason from parked"))
    assert row["consumer"] == "plan"
    assert "agentflow.run.requested.v1 may not be published by clients" in row["reason"]
    assert await house.rows("select 1 from runs") == []


def _told(fleet: Fleet, reason: str) -> bool:
    lines: list[dict[str, Any]] = [json.loads(line) for line in (fleet.folder / "bridge.log").read_text().splitlines()]
    return any(line["message"] == "events wait" and reason in line["reason"] for line in lines)


async def _more(client: httpx.AsyncClient, count: int) -> bool:
    return await refusals(client) >= count
