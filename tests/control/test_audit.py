"""The audit chain by the API: what was sealed, under whose name, and nobody else's."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.store.api_keys import parse
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import seal

from .world import World, problem


async def sealed(world: World) -> None:
    await seal(world.database.dsn("agentflow_relay"), ChainKeys(Settings().audit_key))


async def test_what_was_done_is_listed_with_the_key_it_was_done_with(world: World) -> None:
    await world.register()
    await sealed(world)
    before = len((await world.a.http.get("/v1/audit?limit=100")).json()["items"])
    assert (await world.a.http.put("/v1/limits/tenant", json={"concurrency": 3})).status_code == 200
    assert (await world.a.http.put("/v1/retention", json={"runs": "90d"})).status_code == 200
    assert (await world.a.http.delete("/v1/limits/tenant")).status_code == 204
    await sealed(world)
    items = (await world.a.http.get("/v1/audit?limit=100")).json()["items"]
    assert [item["n"] for item in items] == list(range(1, len(items) + 1))
    assert [item["kind"] for item in items[before:]] == ["limits.insert", "retention.insert", "limits.delete"]
    key = parse(world.a.key)
    assert key is not None
    for item in items[before:]:
        assert item["data"]["by"] == f"agentflow_api/{key.id}"
    assert items[before]["data"]["row"]["concurrency"] == 3
    assert "workflows.insert" in {item["kind"] for item in items}


async def test_the_list_comes_in_pages(world: World) -> None:
    for concurrency in range(5):
        await world.a.http.put("/v1/limits/tenant", json={"concurrency": concurrency})
    await sealed(world)
    whole = (await world.a.http.get("/v1/audit?limit=100")).json()
    assert whole["next"] is None
    found, cursor = [], ""
    while cursor is not None:
        asked = f"/v1/audit?limit=2{'&cursor=' + cursor if cursor else ''}"
        page = (await world.a.http.get(asked)).json()
        found += page["items"]
        cursor = page["next"]
    assert found == whole["items"]
    problem(await world.a.http.get("/v1/audit?cursor=x"), 400, "bad_query")
    problem(await world.a.http.get("/v1/audit?limit=0"), 400, "bad_query")


async def test_another_tenant_sees_its_own_chain_only(world: World) -> None:
    await world.b.http.put("/v1/limits/tenant", json={"concurrency": 3})
    await sealed(world)
    mine = (await world.a.http.get("/v1/audit?limit=100")).text
    assert str(world.b.id) not in mine
    assert str(world.b.id) in (await world.b.http.get("/v1/audit?limit=100")).text
