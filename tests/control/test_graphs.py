"""Pictures: of a workflow's plan, and of a run with where it is; what is no picture is refused."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from uuid import UUID

import pytest

from .test_forks import CHAIN, chain, fork, rows
from .world import World, problem

SPACE = {"": "http://www.w3.org/2000/svg"}


async def boxes(world: World, path: str) -> dict[str, str]:
    """The class of every box of a picture, by its title."""
    answer = await world.a.http.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in answer.headers["content-security-policy"]
    found = ET.fromstring(answer.content).findall(".//g[@class]", SPACE)
    return {each.findtext("title", "", SPACE).split("\n")[0]: each.attrib["class"] for each in found}


async def test_a_workflow_is_drawn_in_each_version(world: World) -> None:
    await world.register(CHAIN)
    await world.register(CHAIN.replace("nap", "rest"))
    assert (await boxes(world, "/v1/workflows/chain/graph"))["rest"] == "task"
    assert (await boxes(world, "/v1/workflows/chain/graph?version=1"))["nap"] == "task"
    told = await world.a.http.get("/v1/workflows/chain/graph?format=mermaid")
    assert told.headers["content-type"] == "text/plain; charset=utf-8"
    assert told.text.startswith("flowchart TD\n") and '"rest"' in told.text


@pytest.mark.parametrize("lines_at_once", [1, 200])
async def test_a_run_is_drawn_with_what_it_has_done(
    world: World, monkeypatch: pytest.MonkeyPatch, lines_at_once: int
) -> None:
    monkeypatch.setattr("agentflow.control.origins.PAGE", lines_at_once)
    found = await boxes(world, f"/v1/runs/{(await chain(world))['id']}/graph")
    assert (found["add"], found["nap"]) == ("task done", "task")


async def test_a_run_that_goes_on_is_drawn_with_where_it_is(world: World) -> None:
    await world.register(CHAIN.replace("need: 1", "need: 2"))
    run = await world.start("chain")
    async with world.engine.watch(UUID(run)) as watch:
        while (await boxes(world, f"/v1/runs/{run}/graph"))["add"] != "task done":
            assert await watch.changed(5)
    assert (await boxes(world, f"/v1/runs/{run}/graph"))["nap"] == "task active"
    told = (await world.a.http.get(f"/v1/runs/{run}/graph?format=mermaid")).text
    assert "active" in told


async def test_a_fork_is_drawn_from_where_it_began(world: World) -> None:
    new = await fork(world, (await chain(world))["id"], 4)
    assert (await boxes(world, f"/v1/runs/{new['id']}/graph"))["add"] == "task done"


async def test_what_cannot_be_drawn_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await chain(world)
    get, path = world.a.http.get, f"/v1/runs/{old['id']}/graph"
    problem(await get(f"{path}?format=png"), 400, "bad_query")
    problem(await get("/v1/runs/nothing/graph"), 404, "not_found")
    problem(await world.b.http.get(path), 404, "not_found")
    problem(await get("/v1/workflows/Nobody/graph"), 404, "not_found")
    problem(await get("/v1/workflows/chain/graph?version=9"), 404, "not_found")
    problem(await world.b.http.get("/v1/workflows/chain/graph"), 404, "not_found")
    with monkeypatch.context() as patched:
        patched.setattr("agentflow.control.origins.PAGE", 1)
        patched.setattr(world.app.state.services.origins, "_most", 3)
        assert "agentflow graph" in problem(await get(path), 422, "too_long")["mend"]
    await rows(world, "update runs set version = null where run_id = %s returning 1", old["id"])
    problem(await get(path), 422, "not_planned")
    await rows(world, "update runs set version = 1 where run_id = %s returning 1", old["id"])
    tampered = "update steps set output = '{\"n\": 7}' where run_id = %s and step = 1 returning 1"
    await rows(world, tampered, old["id"])
    problem(await get(path), 409, "diverges")
