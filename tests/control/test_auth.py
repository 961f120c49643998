"""API keys: who gets in, who does not, and what nobody can learn."""

from __future__ import annotations

import httpx
import pytest

from agentflow.control.auth import TTL_S, Keys
from agentflow.control.routes import ROUTES
from agentflow.errors import Rejected
from agentflow.store.admin import create_tenant, issue_key, revoke_key
from agentflow.store.api_keys import mint, parse

from .world import PEPPER, World, problem

TRACE = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}


def _without(key: str) -> str:
    return key[:-1] + ("A" if key[-1] != "A" else "B")


async def test_every_operation_needs_a_key(world: World) -> None:
    for route in ROUTES:
        path = route.path.replace("{run}", "x").replace("{name}", "x").replace("{parked}", "x")
        answer = await world.a.http.request(route.method, path, headers={"authorization": ""})
        document = problem(answer, 401, "unauthorized")
        assert "agentflow key create" in document["mend"]
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_wrong_keys_are_refused_alike(world: World) -> None:
    key = world.a.key
    tenant, key_id, secret = key[3:35], key[36:48], key[49:]
    wrong = [
        _without(key),
        key + "x",
        key[:-1],
        f"af_{tenant}_ffffffffffff_{secret}",
        f"af_{world.b.id.hex}_{key_id}_{secret}",
        f"af_{'0' * 32}_{key_id}_{secret}",
        key.upper(),
        "af_x_y_z",
        "x" * 100_000,
        str(mint(world.a.id)),
    ]
    bodies = set()
    for text in wrong:
        answer = await world.a.http.get("/v1/runs", headers=TRACE | {"authorization": f"Bearer {text}"})
        problem(answer, 401, "unauthorized")
        bodies.add(answer.content)
    assert len(bodies) == 1
    for header in (f"Basic {key}", key, "Bearer", "Bearer "):
        problem(await world.a.http.get("/v1/runs", headers={"authorization": header}), 401, "unauthorized")


async def test_the_scheme_is_read_without_regard_to_case(world: World) -> None:
    answer = await world.a.http.get("/v1/runs", headers={"authorization": f"bearer  {world.a.key}"})
    assert answer.status_code == 200


async def test_only_a_peppered_hash_is_stored(world: World) -> None:
    import psycopg

    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        cursor = await conn.execute("select * from agentflow.api_keys where tenant_id = %s", (world.a.id,))
        (row,) = await cursor.fetchall()
    key = parse(world.a.key)
    assert key is not None
    assert not any(
        key.secret in str(value) or key.secret.encode() in bytes(str(value), "utf-8") for value in row
    )
    assert key.matches(key.hashed(PEPPER), PEPPER)
    assert not key.matches(key.hashed(PEPPER), "another pepper")
    assert not key.matches(None, PEPPER)
    assert key.secret not in repr(key)


class Shelf:
    """A key store that counts how often it is asked."""

    def __init__(self) -> None:
        self.hashes: dict[tuple[object, str], bytes] = {}
        self.asked = 0

    async def key_hash(self, tenant: object, key_id: str) -> bytes | None:
        self.asked += 1
        return self.hashes.get((tenant, key_id))


async def test_a_key_is_remembered_for_seconds_only_and_unknown_ones_not_at_all(world: World) -> None:
    now, shelf = 0.0, Shelf()
    keys = Keys(shelf, PEPPER, clock=lambda: now)
    key = mint(world.a.id)
    header = f"Bearer {key}"
    for asked in (1, 2):
        with pytest.raises(Rejected):
            await keys.owner(header)
        assert shelf.asked == asked
    shelf.hashes[key.tenant, key.id] = key.hashed(PEPPER)
    assert await keys.owner(header) == (world.a.id, key.id)
    assert await keys.owner(header) == (world.a.id, key.id)
    assert shelf.asked == 3
    shelf.hashes.clear()
    now = TTL_S + 0.001
    with pytest.raises(Rejected):
        await keys.owner(header)
    assert TTL_S <= 5


async def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentflow.control.auth.MAX_KEYS", 3)
    shelf = Shelf()
    keys = Keys(shelf, PEPPER)
    for _ in range(10):
        key = mint(world.a.id)
        shelf.hashes[key.tenant, key.id] = key.hashed(PEPPER)
        await keys.owner(f"Bearer {key}")
    assert len(keys._hashes) == 3


async def test_a_revoked_key_ends(world: World) -> None:
    key = await issue_key(world.database.admin, world.a.id, PEPPER)
    headers = {"authorization": f"Bearer {key}"}
    assert await revoke_key(world.database.admin, world.a.id, key.id)
    assert not await revoke_key(world.database.admin, world.a.id, key.id)
    problem(await world.a.http.get("/v1/runs", headers=headers), 401, "unauthorized")


async def test_a_key_for_a_tenant_that_does_not_exist_is_not_made(world: World) -> None:
    with pytest.raises(Rejected, match="tenant create"):
        await issue_key(world.database.admin, mint(world.a.id).tenant.__class__(int=7), PEPPER)
    with pytest.raises(Rejected, match="name"):
        await create_tenant(world.database.admin, "")
    with pytest.raises(Rejected, match="BYPASSRLS"):
        await create_tenant(world.database.dsn("agentflow_api"), "sneaky")


async def test_another_tenants_run_cannot_be_told_from_one_that_does_not_exist(world: World) -> None:
    await world.register()
    run = await world.start("echo", text="hello")
    await world.finished(run)
    unknown = "00000000-0000-7000-8000-000000000000"

    async def answers(run_id: str, client: httpx.AsyncClient) -> list[tuple[int, bytes]]:
        found = []
        for method, path in (
            ("GET", ""), ("GET", "/steps"), ("GET", "/events"), ("POST", "/cancel"), ("POST", "/signals/go"),
        ):  # fmt: skip
            answer = await client.request(method, f"/v1/runs/{run_id}{path}", headers=TRACE)
            found.append((answer.status_code, answer.content.replace(run_id.encode(), b"ID")))
        return found

    foreign = await answers(run, world.b.http)
    assert foreign == await answers(unknown, world.b.http)
    assert {status for status, _ in foreign} == {404}
    assert (await world.b.http.get("/v1/runs")).json() == {"items": [], "next": None}
    assert (await world.a.http.get(f"/v1/runs/{run}")).status_code == 200
