"""Publishing CloudEvents: every mode, each event once, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .world import TRIGGERED, World, problem

ORDER = {
    "specversion": "1.0",
    "id": "1",
    "source": "https://shop.example/orders",
    "type": "com.example.order.placed",
    "datacontenttype": "application/json",
    "data": {"order": "42"},
}
ONE = {"content-type": "application/cloudevents+json"}
MANY = {"content-type": "application/cloudevents-batch+json"}

AWAITING = """
agentflow: plan/v1
kind: fsm
name: awaiting
limits: {steps: 10}
input: {order: string}
vars: {amount: int}
tasks:
  paid: {kind: event, use: com.example.paid, match: "event.data.order == order", timeout: 1h}
initial: a
states:
  a:
    run: paid
    transitions:
      - {event: done, set: {amount: int(result.data.amount)}, to: ok}
      - {event: timeout, to: bad}
  ok: {final: success}
  bad: {final: failure}
"""


async def runs(world: World) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await world.a.http.get("/v1/runs")).json()["items"]
    return items


async def test_a_structured_event_starts_the_workflows_that_trigger_on_its_type(world: World) -> None:
    await world.register(TRIGGERED)
    answer = await world.a.http.post("/v1/events", content=json.dumps(ORDER), headers=ONE)
    assert answer.status_code == 202
    assert answer.json() == {"accepted": [{"source": ORDER["source"], "id": "1"}]}
    (run,) = await world.all_finished(1)
    found = (await world.a.http.get(f"/v1/runs/{run['id']}")).json()
    assert (found["status"], found["input"]) == ("succeeded", {"order": "42"})


async def test_a_binary_event_does_the_same(world: World) -> None:
    await world.register(TRIGGERED)
    headers = {f"ce-{name}": str(ORDER[name]) for name in ("specversion", "id", "source", "type")}
    answer = await world.a.http.post("/v1/events", json=ORDER["data"], headers=headers)
    assert answer.status_code == 202
    assert len(await world.all_finished(1)) == 1


async def test_a_batch_is_accepted_whole_and_an_event_that_came_before_counts_once(world: World) -> None:
    await world.register(TRIGGERED)
    batch = [ORDER, ORDER | {"id": "2"}, ORDER, ORDER | {"source": "/other"}]
    for _ in range(2):
        answer = await world.a.http.post("/v1/events", content=json.dumps(batch), headers=MANY)
        assert answer.status_code == 202
        assert [accepted["id"] for accepted in answer.json()["accepted"]] == ["1", "2", "1", "1"]
    await world.all_finished(3)
    assert len(await runs(world)) == 3
    empty = await world.a.http.post("/v1/events", content=b"[]", headers=MANY)
    assert (empty.status_code, empty.json()) == (202, {"accepted": []})


async def test_an_event_feeds_the_step_that_waits_for_it(world: World) -> None:
    await world.register(AWAITING)
    run = await world.start("awaiting", order="42")
    for number, order in (("1", "7"), ("2", "42")):
        paid = ORDER | {"id": number, "type": "com.example.paid", "data": {"order": order, "amount": 12}}
        assert (await world.a.http.post("/v1/events", json=paid, headers=ONE)).status_code == 202
    assert (await world.finished(run))["output"] == {"amount": 12}


async def test_the_events_own_trace_goes_on_or_else_the_requests(world: World) -> None:
    traced = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    await world.a.http.post("/v1/events", json=ORDER | traced, headers=ONE)
    await world.a.http.post(
        "/v1/events", json=ORDER | {"id": "2"}, headers=ONE | {"traceparent": f"00-{'ef' * 16}-{'cd' * 8}-01"}
    )
    first, second = world.engine.submitted
    assert first.trace is not None and first.trace[3:35] == "ab" * 16
    assert second.trace is not None and second.trace[3:35] == "ef" * 16


async def test_no_event_can_claim_another_tenant(world: World) -> None:
    await world.register(TRIGGERED, tenant=world.b)
    await world.a.http.post("/v1/events", json=ORDER | {"tenantid": str(world.b.id)}, headers=ONE)
    (message,) = world.engine.submitted
    assert message.tenant == world.a.id
    assert message.data["event"]["tenantid"] == str(world.a.id)
    assert (await world.b.http.get("/v1/runs")).json()["items"] == []


@pytest.mark.parametrize(
    ("event", "path"),
    [
        (ORDER | {"id": ""}, "id"),
        ({name: value for name, value in ORDER.items() if name != "source"}, "source"),
        (ORDER | {"source": "not a uri"}, "source"),
        (ORDER | {"specversion": "0.3"}, "specversion"),
        (ORDER | {"time": "yesterday"}, "time"),
        (ORDER | {"type": "agentflow.step.completed.v1"}, "type"),
        (ORDER | {"UPPER": "x"}, "'UPPER'"),
        (ORDER | {"data": {"a": "b\u0000c"}}, "data.a"),
    ],
)
async def test_an_event_at_fault_is_refused_with_its_path_and_its_index_in_a_batch(
    world: World, event: dict[str, Any], path: str
) -> None:
    alone = await world.a.http.post("/v1/events", json=event, headers=ONE)
    assert alone.status_code == 422, alone.text
    assert problem(alone, 422, alone.json()["code"])["errors"][0]["path"] == path
    batch = await world.a.http.post("/v1/events", json=[ORDER, event], headers=MANY)
    paths = [error["path"] for error in problem(batch, 422, batch.json()["code"])["errors"]]
    assert paths == [f"[1].{path}"]
    assert world.engine.submitted == []


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", ONE, 400),
        (b"[]", ONE, 422),
        (b"{}", MANY, 422),
        (b"{}", {"content-type": "application/json"}, 415),
        (b"", {}, 415),
        (b"x", {"content-type": "application/cloudevents+xml"}, 415),
        (b"{}", {"content-type": "application/cloudevents+json; charset=utf-16"}, 415),
        (b"[" + b"{}," * 1000 + b"{}]", MANY, 413),
        (b" " * (2**20 + 1), ONE, 413),
        (b" " * (8 * 2**20 + 1), MANY, 413),
    ],
)
async def test_what_is_no_event_is_refused(
    world: World, body: bytes, headers: dict[str, str], status: int
) -> None:
    answer = await world.a.http.post("/v1/events", content=body, headers=headers)
    assert answer.status_code == status, answer.text
    problem(answer, status, answer.json()["code"])
    assert world.engine.submitted == []


async def test_when_one_cannot_be_accepted_the_request_fails_with_its_index_and_can_be_sent_again(
    world: World,
) -> None:
    await world.register(TRIGGERED)
    batch = [ORDER | {"id": str(index), "data": {"order": f"order-{index}"}} for index in range(5)]
    world.engine.away = "order-3"
    answer = await world.a.http.post("/v1/events", json=batch, headers=MANY)
    assert problem(answer, 503, "retry_later")["detail"].startswith("[3]: ")
    assert answer.headers["retry-after"] == "2"
    world.engine.away = ""
    assert (await world.a.http.post("/v1/events", json=batch, headers=MANY)).status_code == 202
    await world.all_finished(5)
    assert len(await runs(world)) == 5
