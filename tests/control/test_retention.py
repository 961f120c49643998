"""How long things are kept, over HTTP: set by a tenant for itself, and fixed by the operator."""

from __future__ import annotations

import pytest

from agentflow.store.ages import write_ages

from .world import World, problem

UNSET = {"runs": None, "ledger": None, "inbox": None, "parked": None, "spend": None, "fixed": False}


async def test_nothing_is_set_at_first(world: World) -> None:
    answer = await world.a.http.get("/v1/retention")
    assert (answer.status_code, answer.json()) == (200, UNSET)


async def test_what_is_put_is_set_and_what_is_left_out_is_not(world: World) -> None:
    first = await world.a.http.put("/v1/retention", json={"runs": "90d", "ledger": "forever", "inbox": "7d"})
    assert (first.status_code, first.json()) == (
        200,
        UNSET | {"runs": "90d", "ledger": "forever", "inbox": "7d"},
    )
    second = await world.a.http.put("/v1/retention", json={"runs": "30d"})
    assert second.json() == (await world.a.http.get("/v1/retention")).json() == UNSET | {"runs": "30d"}


async def test_another_tenant_is_not_concerned(world: World) -> None:
    await world.a.http.put("/v1/retention", json={"runs": "90d"})
    assert (await world.b.http.get("/v1/retention")).json() == UNSET


@pytest.mark.parametrize("age", ["90", "0d", "-1d", "90 d", "1.5d", "999999d", "Forever", "", 90, True])
async def test_what_is_no_age_is_refused_with_its_place(world: World, age: object) -> None:
    answer = await world.a.http.put("/v1/retention", json={"runs": "1d", "parked": age})
    assert problem(answer, 422, "invalid")["errors"][0]["path"] == "parked"
    assert (await world.a.http.get("/v1/retention")).json() == UNSET


async def test_what_the_operator_has_fixed_stays(world: World) -> None:
    await write_ages(world.database.admin, world.a.id, {"runs": "400d"}, fixed=True)
    problem(await world.a.http.put("/v1/retention", json={"runs": "1d"}), 409, "fixed")
    assert (await world.a.http.get("/v1/retention")).json() == UNSET | {"runs": "400d", "fixed": True}
    await write_ages(world.database.admin, world.a.id, {"runs": "400d"}, fixed=False)
    assert (await world.a.http.put("/v1/retention", json={"runs": "1d"})).status_code == 200


async def test_nobody_sets_it_without_a_key(world: World) -> None:
    answer = await world.a.http.put(
        "/v1/retention", json={"runs": "1d"}, headers={"authorization": "Bearer x"}
    )
    problem(answer, 401, "unauthorized")
