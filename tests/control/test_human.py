"""What waits for people, their answers, pausing, and workflows that run others."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from .world import World, problem

PLAN: dict[str, Any] = {"agentflow": "plan/v1", "kind": "bt", "limits": {"steps": 5, "usd": 1}}
ASK = {
    **PLAN, "name": "ask", "vars": {"ok": "bool", "n": "int"},
    "tasks": {
        "sign": {"kind": "human", "use": "boss", "in": {"n": "n"}, "out": {"ok": "bool", "n": "int"}, "timeout": "1h"},
        "note": {"kind": "human", "use": "clerk"},
    },
    "root": {"parallel": [{"task": "sign", "set": {"ok": "result.ok"}}, "note"]},
}  # fmt: skip


async def registered(world: World, document: dict[str, Any]) -> None:
    answer = await world.a.http.post("/v1/workflows", json=document)
    assert answer.status_code == 201, answer.text


async def asked(world: World, **given: Any) -> str:
    await registered(world, ASK)
    run = (await world.a.http.post("/v1/runs", json={"workflow": "ask", "input": given})).json()["id"]
    await waiting(world, 2, run=run)
    return str(run)


async def waiting(world: World, count: int, **query: Any) -> list[dict[str, Any]]:
    """What waits for people, once there is so much of it."""
    while True:
        items: list[dict[str, Any]] = (await world.a.http.get("/v1/tasks", params=query)).json()["items"]
        if len(items) >= count:
            return items
        await asyncio.sleep(0.02)


async def test_what_waits_for_people_is_listed_and_answered(world: World) -> None:
    run = await asked(world, n=3)
    sign, note = (await world.a.http.get("/v1/tasks")).json()["items"]
    assert (sign["run"], sign["step"], sign["workflow"], sign["task"], sign["use"]) == (run, 1, "ask", "sign", "boss")
    assert (sign["input"], sign["out"], note["out"]) == ({"n": 3}, {"n": "int", "ok": "bool"}, None)
    assert sign["asked_at"] < sign["due_at"]
    assert note["due_at"] is None
    body = {"result": {"ok": True, "n": 1}, "by": "the boss"}
    assert (await world.a.http.post(f"/v1/runs/{run}/steps/1/answer", json=body)).status_code == 202
    assert (await world.a.http.post(f"/v1/runs/{run}/steps/2/answer")).status_code == 202
    assert (await world.finished(run))["output"] == {"n": 3, "ok": True}
    lines = (await world.a.http.get(f"/v1/runs/{run}/history")).json()["items"]
    first, second = [line["data"]["by"] for line in lines if line["name"] == "step.answered"]
    assert first == "the boss"
    assert second.startswith("key:")
    assert (await world.a.http.get("/v1/tasks")).json()["items"] == []


@pytest.mark.parametrize(
    ("result", "errors"),
    [
        ({"ok": True}, ["result.n"]),
        ({"ok": 1, "n": 1}, ["result.ok"]),
        ({"ok": True, "n": 1, "why": "x"}, ["result.why"]),
        ({}, ["result.n", "result.ok"]),
    ],
)
async def test_an_answer_of_another_shape_is_refused(world: World, result: Any, errors: list[str]) -> None:
    run = await asked(world)
    refused = await world.a.http.post(f"/v1/runs/{run}/steps/1/answer", json={"result": result})
    assert sorted(error["path"] for error in problem(refused, 422, "invalid_answer")["errors"]) == errors
    assert len((await world.a.http.get("/v1/tasks")).json()["items"]) == 2


async def test_only_what_waits_can_be_answered_and_by_its_own_tenant(world: World) -> None:
    run = await asked(world)
    for step in ("3", "0", "-1", "x", "99999999999999"):
        problem(await world.a.http.post(f"/v1/runs/{run}/steps/{step}/answer"), 409, "not_waiting")
    assert (await world.b.http.get("/v1/tasks")).json()["items"] == []
    problem(await world.b.http.post(f"/v1/runs/{run}/steps/1/answer"), 404, "not_found")
    problem(await world.a.http.post(f"/v1/runs/{uuid4()}/steps/1/answer"), 404, "not_found")


async def test_the_list_has_pages(world: World) -> None:
    await asked(world)
    first = (await world.a.http.get("/v1/tasks", params={"limit": 1})).json()
    second = (await world.a.http.get("/v1/tasks", params={"limit": 1, "cursor": first["next"]})).json()
    assert [page["items"][0]["step"] for page in (first, second)] == [1, 2]
    assert second["next"] is None
    problem(await world.a.http.get("/v1/tasks", params={"cursor": "x"}), 400, "bad_query")


async def test_a_run_is_paused_and_resumed(world: World) -> None:
    run = await asked(world)
    assert (await world.a.http.post(f"/v1/runs/{run}/pause", json={"reason": "lunch"})).status_code == 202
    assert (await world.a.http.get(f"/v1/runs/{run}")).json()["status"] == "paused"
    (paused,) = (await world.a.http.get("/v1/runs", params={"status": "paused"})).json()["items"]
    assert paused["id"] == run
    assert (await world.a.http.post(f"/v1/runs/{run}/resume")).status_code == 202
    assert (await world.a.http.get(f"/v1/runs/{run}")).json()["status"] == "running"
    problem(await world.b.http.post(f"/v1/runs/{run}/pause"), 404, "not_found")


def runner(name: str, use: str, **given: str) -> dict[str, Any]:
    return {
        **PLAN, "name": name, "vars": {"n": "int"},
        "tasks": {"other": {"kind": "workflow", "use": use, "in": given}}, "root": "other",
    }  # fmt: skip


async def test_a_run_says_which_run_it_is_part_of(world: World) -> None:
    await registered(world, {**ASK, "input": {"who": "string"}})
    await registered(world, runner("outer", "ask", who="'you'"))
    outer = (await world.a.http.post("/v1/runs", json={"workflow": "outer"})).json()["id"]
    asks = await waiting(world, 1)
    inner = (await world.a.http.get(f"/v1/runs/{asks[0]['run']}")).json()
    assert (inner["parent"], inner["input"]) == ({"run": outer, "step": 1}, {"who": "you"})
    (step,) = (await world.a.http.get(f"/v1/runs/{outer}/steps")).json()["items"]
    assert (step["kind"], step["status"], step["child"]) == ("workflow", "requested", inner["id"])


async def test_a_workflow_that_runs_another_is_checked_against_it(world: World) -> None:
    await registered(world, {**ASK, "input": {"who": "string"}})
    for document, path, said in (
        (runner("outer", "nobody"), "tasks.other.use", "there is no workflow nobody"),
        (runner("outer", "ask@7-"), "tasks.other.use", "there is no workflow ask"),
        (runner("outer", "ask"), "tasks.other.in.who", "is missing: ask needs it"),
        (runner("outer", "ask", who="n"), "tasks.other.in.who", "is a int"),
        (runner("outer", "ask", who="'x'", whom="'y'"), "tasks.other.in.whom", "ask takes no input 'whom'"),
    ):
        refused = await world.a.http.post("/v1/workflows", json=document)
        (error,) = problem(refused, 422, "invalid_plan")["errors"]
        assert (error["path"], said in error["message"]) == (path, True), error


async def test_workflows_that_run_each_other_are_refused(world: World) -> None:
    await registered(world, ASK)
    await registered(world, runner("one", "ask"))
    await registered(world, runner("two", "one@1-"))
    await registered(world, runner("three", "two"))
    refused = await world.a.http.post("/v1/workflows", json=runner("one", "three"))
    (error,) = problem(refused, 422, "invalid_plan")["errors"]
    assert error["path"] == "tasks.other.use"
    assert error["message"] == "would run itself again: one → three → two → one"


async def test_a_signal_of_another_shape_is_refused(world: World) -> None:
    machine = {
        **PLAN, "kind": "fsm", "name": "listens", "vars": {"n": "int"}, "events": {"paid": {"n": "int"}},
        "tasks": {"ages": {"kind": "wait", "for": "1h"}}, "initial": "s",
        "states": {
            "s": {"transitions": [{"event": "paid", "set": {"n": "event.data.n"}, "to": "end"}]},
            "end": {"final": "success"},
        },
    }  # fmt: skip
    await registered(world, machine)
    run = (await world.a.http.post("/v1/runs", json={"workflow": "listens"})).json()["id"]
    for data, path in ((None, "data"), ({}, "data.n"), ({"n": "1"}, "data.n"), ({"n": 1, "m": 2}, "data.m")):
        refused = await world.a.http.post(f"/v1/runs/{run}/signals/paid", json={"data": data})
        assert problem(refused, 422, "invalid_signal")["errors"][0]["path"] == path
    await world.a.http.post(f"/v1/runs/{run}/signals/paid", json={"data": {"n": 3}})
    assert (await world.finished(run))["output"] == {"n": 3}
