"""Limits by the API: a tenant's own and nobody else's, in force at once; nonsense is refused with path and mend."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from agentflow.config import Settings
from agentflow.control.app import create_app
from agentflow.store.admin import issue_key

from .conftest import Backend
from .world import PEPPER, WAITER, KnownModels, Tenant, World, problem

OPERATOR = UUID(int=0)
NONE = {"concurrency": None, "per_second": None, "burst": None, "weight": 1}


@pytest.fixture
def world(world: World, backend: Backend) -> World:
    """The host itself is the engine: it is told of changes."""
    app = create_app(backend.host, backend.store, Settings(key_pepper=PEPPER), KnownModels())
    for tenant in (world.a, world.b):
        tenant.http._transport = httpx.ASGITransport(app, raise_app_exceptions=False)  # type: ignore[attr-defined]
    world.app = app
    return world


async def put(tenant: Tenant, scope: str, **limit: Any) -> dict[str, Any]:
    answer = await tenant.http.put(f"/v1/limits/{scope}", json=limit)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_a_limit_is_set_changed_seen_and_removed(world: World) -> None:
    made = await put(world.a, "model:small", concurrency=3, per_second=2.5, burst=4)
    assert made | {"updated_at": None} == {
        "scope": "model:small", "concurrency": 3, "per_second": 2.5, "burst": 4, "weight": 1, "updated_at": None,
    }  # fmt: skip
    assert (await world.a.http.get("/v1/limits/model:small")).json() == made
    changed = await put(world.a, "model:small", concurrency=0)
    assert changed | {"updated_at": None} == {"scope": "model:small", "updated_at": None} | NONE | {
        "concurrency": 0
    }
    answer = await world.a.http.delete("/v1/limits/model:small")
    assert (answer.status_code, answer.content) == (204, b"")
    problem(await world.a.http.get("/v1/limits/model:small"), 404, "not_found")
    problem(await world.a.http.delete("/v1/limits/model:small"), 404, "not_found")


async def test_a_models_alias_may_have_slashes(world: World) -> None:
    await put(world.a, "model:openai/gpt-5", concurrency=1)
    await put(world.a, "tool:std.echo", concurrency=1)
    assert (await world.a.http.get("/v1/limits/model:openai%2Fgpt-5")).json()["concurrency"] == 1
    assert (await world.a.http.get("/v1/limits/tool:std.echo")).status_code == 200


async def test_limits_are_listed_by_scope_page_by_page_and_only_ones_own(world: World) -> None:
    scopes = ["tenant", "tool:*", "model:Z", "model:a", "workflow:w"]
    for scope in scopes:
        await put(world.a, scope, concurrency=1)
    await put(world.b, "tool:b", concurrency=1)
    found, cursor = [], None
    while True:
        page = (
            await world.a.http.get("/v1/limits", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))
        ).json()
        found += [item["scope"] for item in page["items"]]
        if not (cursor := page["next"]):
            break
    assert found == sorted(scopes)
    problem(await world.b.http.get("/v1/limits/model:a"), 404, "not_found")
    problem(await world.b.http.delete("/v1/limits/model:a"), 404, "not_found")


@pytest.mark.parametrize(
    ("scope", "body", "path"),
    [
        ("nothing", {"concurrency": 1}, "scope"),
        ("workflow:Not a name", {"concurrency": 1}, "scope"),
        ("tenant:00000000-0000-0000-0000-000000000001", {"concurrency": 1}, "scope"),
        ("tenant", {"concurrency": -1}, "concurrency"),
        ("tenant", {"concurrency": 1.5}, "concurrency"),
        ("tenant", {"concurrency": 10**9}, "concurrency"),
        ("tenant", {"per_second": 0}, "per_second"),
        ("tenant", {"per_second": "2"}, "per_second"),
        ("tenant", {"burst": 2}, "burst"),
        ("tenant", {"weight": 2}, "weight"),
        ("tenant", {"concurrency": 1, "weight": 0}, "weight"),
        ("tenant", {}, "concurrency"),
        ("tenant", {"concurency": 1}, "concurency"),
    ],
)
async def test_nonsense_is_refused_with_its_path_and_a_mend(
    world: World, scope: str, body: dict[str, Any], path: str
) -> None:
    answer = await world.a.http.put(f"/v1/limits/{scope}", json=body)
    document = problem(answer, 422, answer.json()["code"])
    assert [fault["path"] for fault in document["errors"]] == [path]
    assert document["mend"] or document["errors"][0]["mend"]
    assert (await world.a.http.get("/v1/limits")).json()["items"] == []


async def test_the_operator_limits_all_together_and_weighs_tenants(world: World) -> None:
    key = str(await issue_key(world.database.admin, OPERATOR, PEPPER))
    transport = httpx.ASGITransport(world.app, raise_app_exceptions=False)
    headers = {"authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(transport=transport, base_url="http://api", headers=headers) as http:
        operator = Tenant(OPERATOR, key, http)
        made = await put(operator, f"tenant:{world.a.id}", weight=5)
        assert made["weight"] == 5
        await put(operator, "model:small", per_second=10)
        problem(await world.a.http.get("/v1/limits/model:small"), 404, "not_found")
        for scope in (f"tenant:{world.a.id}", "model:small"):
            assert (await http.delete(f"/v1/limits/{scope}")).status_code == 204


async def test_runs_over_a_limit_wait_are_seen_and_can_be_cancelled_and_go_on_when_it_is_raised(
    world: World,
) -> None:
    await world.register(WAITER)
    await put(world.a, "tenant", concurrency=1)
    first = await world.start("waiter")
    second, third = await world.start("waiter"), await world.start("waiter")
    async with world.engine.watch(UUID(first)) as watch:
        while (await world.a.http.get(f"/v1/runs/{first}")).json()["status"] != "running":
            assert await watch.changed(5)
    assert await statuses(world, second, third) == ["requested", "requested"]
    answer = await world.a.http.post(f"/v1/runs/{second}/cancel")
    assert answer.status_code == 202
    assert (await world.finished(second))["status"] == "cancelled"
    assert await statuses(world, third) == ["requested"]
    await put(world.a, "tenant", concurrency=2)
    async with world.engine.watch(UUID(third)) as watch:
        while (await world.a.http.get(f"/v1/runs/{third}")).json()["status"] != "running":
            assert await watch.changed(5)
    for run in (first, third):
        await world.a.http.post(f"/v1/runs/{run}/cancel")
        await world.finished(run)
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        left = await conn.execute(
            "select key from agentflow.outbox where tenant_id = %s and gate is not null", (world.a.id,)
        )
        assert await left.fetchall() == []


async def statuses(world: World, *runs: str) -> list[str]:
    return [(await world.a.http.get(f"/v1/runs/{run}")).json()["status"] for run in runs]


async def test_a_run_has_a_priority_and_the_key_stands_for_it_too(world: World) -> None:
    await world.register()
    body = {"workflow": "echo", "input": {"text": "x"}, "priority": 9}
    headers = {"idempotency-key": "k"}
    answer = await world.a.http.post("/v1/runs", json=body, headers=headers)
    assert answer.status_code == 202
    assert (await world.finished(answer.json()["id"]))["status"] == "succeeded"
    assert (await world.a.http.post("/v1/runs", json=body, headers=headers)).json()["id"] == answer.json()[
        "id"
    ]
    other = await world.a.http.post("/v1/runs", json=body | {"priority": 1}, headers=headers)
    problem(other, 422, "idempotency_mismatch")
    refused = await world.a.http.post("/v1/runs", json=body | {"priority": 10})
    assert problem(refused, 422, "invalid")["errors"][0]["path"] == "priority"
