"""Messages that could not be handled: seen with their reason, by their tenant only, and tried again."""

from __future__ import annotations

from uuid import UUID, uuid4

import psycopg
import pytest

from .world import Tenant, World, problem


async def park(world: World, tenant: Tenant, reason: str = "Invalid: source: is missing") -> UUID:
    """What the engine does with a message it cannot handle, written as the engine writes it."""
    parked = uuid4()
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        await conn.execute(
            "insert into agentflow.parked (tenant_id, parked_id, consumer, subject, reason, headers, payload, tries)"
            " values (%s, %s, 'plan', %s, %s, %s, %s, 3)",
            (tenant.id, parked, f"agentflow.{tenant.id}.in.x", reason, '{"ce-id": "1"}', b"\x00\xffnot json"),
        )
    return parked


async def test_parked_messages_are_listed_with_their_reason_page_by_page(world: World) -> None:
    parked = {await park(world, world.a) for _ in range(3)}
    await park(world, world.b)
    found, cursor = set(), None
    for size in (2, 1):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await world.a.http.get("/v1/parked", params=params)).json()
        assert len(page["items"]) == size
        found |= {UUID(item["id"]) for item in page["items"]}
        cursor = page["next"]
    assert cursor is None
    assert found == parked
    item = page["items"][0]
    assert (item["consumer"], item["reason"], item["tries"], item["size"]) == (
        "plan", "Invalid: source: is missing", 3, 10,
    )  # fmt: skip
    assert "payload" not in item


async def test_a_retried_message_is_sent_as_it_came_and_is_parked_no_more(world: World) -> None:
    parked = await park(world, world.a)
    answer = await world.a.http.post(f"/v1/parked/{parked}/retry")
    assert (answer.status_code, answer.json()) == (202, {"id": str(parked)})
    (message,) = world.engine.redelivered
    assert (message.tenant, message.consumer) == (world.a.id, "plan")
    assert message.subject == f"agentflow.{world.a.id}.in.x"
    assert (message.headers, message.payload) == ({"ce-id": "1"}, b"\x00\xffnot json")
    problem(await world.a.http.post(f"/v1/parked/{parked}/retry"), 404, "not_found")
    assert len(world.engine.redelivered) == 1


async def test_when_it_cannot_be_sent_it_stays_parked(world: World) -> None:
    parked = await park(world, world.a)
    world.engine.away = "anything"
    problem(await world.a.http.post(f"/v1/parked/{parked}/retry"), 503, "retry_later")
    page = (await world.a.http.get("/v1/parked")).json()
    assert [item["id"] for item in page["items"]] == [str(parked)]


@pytest.mark.parametrize("name", ["x", "00000000-0000-0000-0000-000000000000", "%00"])
async def test_unknown_messages_are_not_found(world: World, name: str) -> None:
    problem(await world.a.http.post(f"/v1/parked/{name}/retry"), 404, "not_found")


async def test_another_tenants_message_is_neither_seen_nor_sent(world: World) -> None:
    parked = await park(world, world.b)
    assert (await world.a.http.get("/v1/parked")).json()["items"] == []
    problem(await world.a.http.post(f"/v1/parked/{parked}/retry"), 404, "not_found")
    assert world.engine.redelivered == []
    assert len((await world.b.http.get("/v1/parked")).json()["items"]) == 1


async def test_retrying_takes_no_body(world: World) -> None:
    parked = await park(world, world.a)
    problem(await world.a.http.post(f"/v1/parked/{parked}/retry", content=b"x"), 413, "too_large")
