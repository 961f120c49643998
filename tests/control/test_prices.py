"""Prices by the API: what is in force for a tenant, what it was told, and registration by both."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.store.admin import prices, set_price

from .world import YAML, World, problem

CARD = {"input_micro_per_mtok": 7, "output_micro_per_mtok": 8, "tiers": [{"above": 9, "input": 10, "output": 11}]}

ASK = """
agentflow: plan/v1
name: asking
limits: {{steps: 10, usd: 1}}
tasks:
  ask: {{kind: llm, use: {model}, prompt: hello}}
"""


async def told(world: World, scope: str, card: dict[str, Any] | None) -> int:
    return await set_price(world.database.admin, world.a.id, scope, card)


async def test_prices_are_those_of_the_table_and_those_a_tenant_was_told(world: World) -> None:
    (small,) = (await world.a.http.get("/v1/prices")).json()["items"]
    assert small == {
        "scope": "model:small", "provider": "scripted", "model": "small", "price_version": "scripted-1",
        "price": {"input_micro_per_mtok": 250_000, "output_micro_per_mtok": 2_000_000}, "set_at": None, "unknown": None,
    }  # fmt: skip
    assert [await told(world, "model:small", CARD) for _ in range(2)] == [1, 2]
    tool = {"micro_per_call": 500, "micro_per_million_seconds": 0}
    await told(world, "tool:search", tool)
    found = (await world.a.http.get("/v1/prices")).json()["items"]
    assert [(item["scope"], item["price"], item["price_version"]) for item in found] == [
        ("model:small", CARD, "tenant 2"), ("tool:search", tool, "tenant 1"),
    ]  # fmt: skip
    assert found[0]["model"] == "small" and found[0]["set_at"] is not None
    # Nobody else sees or pays it.
    assert [item["price_version"] for item in (await world.b.http.get("/v1/prices")).json()["items"]] == ["scripted-1"]


async def test_what_was_told_is_kept_when_it_is_taken_back(world: World) -> None:
    await told(world, "model:small", CARD)
    await told(world, "model:small", None)
    found = (await world.a.http.get("/v1/prices/model:small")).json()
    assert found["price_version"] == "scripted-1"
    assert [(line["version"], line["card"]) for line in found["versions"]] == [(2, None), (1, CARD)]
    assert [row["version"] for row in await prices(world.database.admin, world.a.id)] == [2, 1]
    nobody = (await world.a.http.get("/v1/prices/model:nobody")).json()
    assert nobody["price"] is None and "AGENTFLOW_MODELS" in nobody["unknown"] and nobody["versions"] == []
    problem(await world.a.http.get("/v1/prices/tool:search"), 404, "not_found")
    problem(await world.a.http.get("/v1/prices/everything"), 422, "bad_scope")


async def test_pages_of_prices_follow_each_other(world: World) -> None:
    for name in ("a", "b", "c"):
        await told(world, f"tool:{name}", {"micro_per_call": 1, "micro_per_million_seconds": 0})
    first = (await world.a.http.get("/v1/prices?limit=3")).json()
    rest = (await world.a.http.get(f"/v1/prices?limit=3&cursor={first['next']}")).json()
    scopes = [item["scope"] for item in first["items"] + rest["items"]]
    assert scopes == ["model:small", "tool:a", "tool:b", "tool:c"] and rest["next"] is None


async def test_a_model_counts_as_known_for_the_tenant_that_was_told_its_price(world: World) -> None:
    document = ASK.format(model="ours")
    problem(await world.a.http.post("/v1/workflows", content=document, headers=YAML), 422, "invalid_plan")
    await told(world, "model:ours", CARD)
    assert (await world.a.http.post("/v1/workflows", content=document, headers=YAML)).status_code == 201
    problem(await world.b.http.post("/v1/workflows", content=document, headers=YAML), 422, "invalid_plan")


async def test_only_an_administrator_may_set_prices_and_nobody_changes_one(world: World) -> None:
    import psycopg

    for method in ("PUT", "POST", "DELETE"):
        assert (await world.a.http.request(method, "/v1/prices/model:small", json=CARD)).status_code == 405
    await told(world, "model:small", CARD)
    async with await psycopg.AsyncConnection.connect(world.database.dsn("agentflow_api")) as conn:
        await conn.execute("select set_config('app.tenant_id', %s, true)", (str(world.a.id),))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await conn.execute("insert into agentflow.prices values (%s, 'model:x', 1, '{}')", (world.a.id,))
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation, match="set the next one"):
            await conn.execute("update agentflow.prices set card = '{}'")


async def test_hosts_can_be_told_to_read_prices_again(world: World) -> None:
    assert (await world.a.http.post("/v1/prices/reload")).status_code == 204
