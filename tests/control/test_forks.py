"""Starting runs from points of others: what is reused, what is refused, and what is seen of it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from house import eventually

from agentflow.store.budgets import set_budget

from .world import WAITER, Tenant, World, problem

CHAIN = """
agentflow: plan/v1
kind: bt
name: chain
limits: {steps: 20, usd: 1}
vars: {n: int, log: file, word: string}
tasks:
  add: {kind: tool, use: std.echo, in: {n: n + 1}, out: {n: int}, usd: 0.0001}
  nap: {kind: wait, for: 1h}
root:
  parallel:
    - sequence: [{task: add, set: {n: result.n}}, {task: add, set: {n: result.n}}, {task: add, set: {n: result.n}}]
    - nap
  need: 1
"""


async def chain(world: World) -> dict[str, Any]:
    """A finished run: 1 and 2 start first (add, nap), then 3 and 4 (add); nap is halted at the end."""
    await world.register(CHAIN)
    run = await world.finished(await world.start("chain"))
    assert (run["output"]["n"], run["steps"], run["spent_micro"]) == (3, 4, 300)
    return run


async def fork(world: World, run: str, at: int, **more: Any) -> dict[str, Any]:
    """The run that a fork has come to."""
    answer = await world.a.http.post(f"/v1/runs/{run}/fork", json={"at": at, **more})
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/runs/{answer.json()['id']}"
    return await world.finished(answer.json()["id"])


async def steps(world: World, run: str, limit: int = 100) -> list[dict[str, Any]]:
    """All attempts, page by page."""
    found: list[dict[str, Any]] = []
    params: dict[str, Any] = {"limit": limit}
    while True:
        page = (await world.a.http.get(f"/v1/runs/{run}/steps", params=params)).json()
        found += page["items"]
        assert len(page["items"]) <= limit
        if page["next"] is None:
            return found
        params["cursor"] = page["next"]


async def rows(world: World, query: str, *params: Any) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        await conn.execute("set search_path = agentflow")
        return await (await conn.execute(query, params)).fetchall()


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_steps_before_are_reused_and_cost_nothing(world: World, limit: int) -> None:
    old = await chain(world)
    new = await fork(world, old["id"], 4)
    assert (new["status"], new["output"], new["steps"]) == (old["status"], old["output"], 4)
    assert (new["spent_micro"], new["limit_micro"]) == (100, 1_000_000)
    assert new["forked_from"] == {"run": old["id"], "at": 4}
    listed = await steps(world, new["id"], limit)
    assert [
        (step["step"], step["task"], step["status"], step["reused"], step["cost_micro"]) for step in listed
    ] == [
        (1, "add", "succeeded", old["id"], 0),
        (
            2,
            "nap",
            "halted",
            None,
            0,
        ),  # it was running there: it has been started anew, and was halted here as well
        (3, "add", "succeeded", old["id"], 0),
        (4, "add", "succeeded", None, 100),
    ]
    assert [step["reused"] for step in await steps(world, old["id"], limit)] == [None] * 4
    assert (await rows(world, "select count(*) from ledger where run_id = %s", new["id"]))[0][0] == 2


async def test_forks_of_forks_reuse_what_each_has_made(world: World) -> None:
    old = await chain(world)
    first = await fork(world, old["id"], 3, set={"n": 10})
    assert first["output"]["n"] == 12
    second = await fork(world, first["id"], 4)
    assert second["output"]["n"] == 12
    assert second["forked_from"] == {"run": first["id"], "at": 4}
    made_by = [old["id"], None, first["id"], None]
    for limit in (1, 3, 100):
        assert [step["reused"] for step in await steps(world, second["id"], limit)] == made_by
    # A step that the fork has not made itself: the place is in the history of the run before.
    third = await fork(world, second["id"], 3)
    assert (third["output"]["n"], third["forked_from"]) == (12, {"run": second["id"], "at": 3})
    assert [step["reused"] for step in await steps(world, third["id"])] == [old["id"], None, None, None]
    fourth = await fork(world, second["id"], 1)
    assert (fourth["output"]["n"], fourth["spent_micro"]) == (3, 300)
    assert [step["reused"] for step in await steps(world, fourth["id"])] == [None] * 4


async def test_a_run_that_goes_on_is_forked_where_it_is(world: World) -> None:
    await world.register(WAITER)
    old = await world.start("waiter")
    answer = await world.a.http.post(f"/v1/runs/{old}/fork", json={"at": 1, "set": {"said": "hm"}})
    assert answer.status_code == 202, answer.text
    new = answer.json()["id"]
    for run in (new, old):
        assert (await world.a.http.post(f"/v1/runs/{run}/signals/go")).status_code == 202
        assert (await world.finished(run))["status"] == "succeeded"
    assert (await world.finished(new))["output"] == {"said": "hm"}
    assert (await world.finished(old))["output"] == {"said": ""}
    assert await rows(world, "select key from timers where run_id = %s", new) == []


async def test_a_key_gives_one_fork(world: World) -> None:
    old = (await chain(world))["id"]
    key = {"idempotency-key": "k1"}
    path = f"/v1/runs/{old}/fork"
    first = await world.a.http.post(path, json={"at": 4}, headers=key, params={"wait": "20s"})
    again = await world.a.http.post(path, json={"at": 4, "set": {}}, headers=key, params={"wait": "20s"})
    assert (first.status_code, again.status_code) == (200, 200)
    assert first.json()["id"] == again.json()["id"]
    for body in ({"at": 3}, {"at": 4, "set": {"n": 1}}, {"at": 4, "budget_micro": 5}):
        problem(await world.a.http.post(path, json=body, headers=key), 422, "idempotency_mismatch")
    asked = {"workflow": "chain", "input": {}}
    problem(await world.a.http.post("/v1/runs", json=asked, headers=key), 422, "idempotency_mismatch")


async def test_the_new_run_has_a_budget_of_its_own(world: World) -> None:
    old = (await chain(world))["id"]
    poor = await fork(world, old, 3, budget_micro=150)
    assert (poor["status"], poor["limit_micro"], poor["spent_micro"]) == ("failed", 150, 100)
    assert "budget_exhausted" in poor["error"]["message"]


async def test_a_fork_is_refused_as_any_run_is_but_for_what_is_paid_for(world: World) -> None:
    async def left(micro: int) -> None:
        await set_budget(world.database.admin, world.a.id, "tenant", "total", limit_micro=300 + micro)

    async def forked(at: int) -> Any:
        return await world.a.http.post(f"/v1/runs/{old}/fork", json={"at": at})

    await left(0)
    await world.register(CHAIN.replace("name: chain", "name: careful").replace("usd: 1}", "usd: 1, preflight: refuse}"))
    old = (await world.finished(await world.start("careful")))["id"]
    await left(250)  # a call is 100; two that the fork at 4 goes on with are paid for
    told = problem(await forked(1), 402, "estimate_exceeds_budget")
    assert (told["estimate"], told["budget"]["remaining_micro"]) == ({"most_micro": 300}, 250)
    assert (await forked(3)).status_code == 202
    await eventually(lambda: spent(world, 500))
    told = problem(await forked(3), 402, "estimate_exceeds_budget")
    assert (told["estimate"], told["budget"]["remaining_micro"]) == ({"most_micro": 200}, 50)
    await left(200)
    told = problem(await forked(4), 402, "budget_exhausted")
    assert (told["budget"]["spent_micro"], told["budget"]["remaining_micro"]) == (500, 0)
    assert len((await world.a.http.get("/v1/runs")).json()["items"]) == 2


async def spent(world: World, micro: int) -> bool:
    return (await rows(world, "select spent_micro, held_micro from budgets"))[0] == (micro, 0)


REFUSED: list[tuple[Any, str, str]] = [
    # body, code, what is said
    ({}, "invalid", "at"),
    ({"at": 0}, "invalid", "at"),
    ({"at": "1"}, "invalid", "at"),
    ({"at": True}, "invalid", "at"),
    ({"at": 2**31}, "invalid", "at"),
    ({"at": 5}, "unknown_step", "choose 1 to 4"),
    ({"at": 2**31 - 1}, "unknown_step", "choose 1 to 4"),
    ({"at": 3, "set": []}, "invalid", "set"),
    ({"at": 3, "set": {"m": 1}}, "invalid_input", "set.m: chain has no variable 'm' (it has: log, n, word)"),
    ({"at": 3, "set": {"n": "1"}}, "invalid_input", "set.n: must be a whole number"),
    ({"at": 3, "set": {"n": 2**63}}, "invalid_input", "set.n"),
    ({"at": 3, "set": {"log": "blob:sha256:" + "0" * 64}}, "invalid_input", "set.log: refers to a file"),
    ({"at": 3, "budget_micro": 0}, "invalid", "budget_micro"),
    ({"at": 3, "budget_micro": 1.5}, "invalid", "budget_micro"),
    ({"at": 3, "version": 1}, "invalid", "version"),
]


async def test_what_can_not_be_forked_so_is_refused_with_path_and_mend(world: World) -> None:
    old = (await chain(world))["id"]
    before = len((await world.a.http.get("/v1/runs")).json()["items"])
    for body, code, said in REFUSED:
        answer = await world.a.http.post(
            f"/v1/runs/{old}/fork", content=json.dumps(body), headers={"content-type": "application/json"}
        )
        document = problem(answer, 422, code)
        assert said in f"{document['detail']} {document['mend']} {document['errors']}", document
        assert document["errors"][0]["path"]
    large = {"at": 3, "set": {"word": "x" * 800_000}}
    problem(await world.a.http.post(f"/v1/runs/{old}/fork", json=large), 413, "too_large")
    assert len((await world.a.http.get("/v1/runs")).json()["items"]) == before


async def test_runs_that_are_not_here_are_not_forked(world: World) -> None:
    old = (await chain(world))["id"]
    for tenant, run in (
        (world.a, str(uuid4())),
        (world.b, old),
        (world.a, "nonsense"),
        (world.b, str(UUID(int=0))),
    ):
        assert isinstance(tenant, Tenant)
        problem(await tenant.http.post(f"/v1/runs/{run}/fork", json={"at": 1}), 404, "not_found")
    assert (await world.b.http.get("/v1/runs")).json()["items"] == []


async def test_a_run_that_has_been_removed_is_missed(world: World) -> None:
    old = await chain(world)
    new = await fork(world, old["id"], 4)
    for table in ("steps", "history", "ledger", "timers", "runs"):
        await rows(world, f"delete from {table} where run_id = %s returning 1", old["id"])
    gone = problem(await world.a.http.post(f"/v1/runs/{old['id']}/fork", json={"at": 1}), 404, "not_found")
    assert "removed, archived or not" in gone["mend"]
    # The fork stands by itself; what it has reused can no longer be shown, nor forked.
    assert [step["step"] for step in await steps(world, new["id"])] == [2, 4]
    document = problem(
        await world.a.http.post(f"/v1/runs/{new['id']}/fork", json={"at": 3}), 404, "not_found"
    )
    assert old["id"] in document["detail"]
    assert (await fork(world, new["id"], 4))["output"] == old["output"]


async def test_a_history_that_has_been_tampered_with_is_not_gone_on_from(world: World) -> None:
    old = await chain(world)
    await rows(
        world, "update steps set output = '{\"n\": 7}' where run_id = %s and step = 1 returning 1", old["id"]
    )
    document = problem(await world.a.http.post(f"/v1/runs/{old['id']}/fork", json={"at": 4}), 409, "diverges")
    assert "step 3" in document["detail"] and "earlier" in document["mend"]


async def test_only_so_many_lines_are_read(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = (await chain(world))["id"]
    origins = world.app.state.services.origins
    monkeypatch.setattr("agentflow.control.origins.PAGE", 1)
    monkeypatch.setattr(origins, "_most", 3)
    document = problem(await world.a.http.post(f"/v1/runs/{old}/fork", json={"at": 4}), 422, "too_long")
    assert "AGENTFLOW_FORK_LINES" in document["mend"] and document["errors"][0]["path"] == "at"
    assert (await fork(world, old, 3))["output"]["n"] == 3


async def test_forks_of_forks_are_not_made_without_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = await chain(world)
    first = await fork(world, old["id"], 4)
    monkeypatch.setattr("agentflow.control.origins.MAX_FORKS", 1)
    answer = await world.a.http.post(f"/v1/runs/{first['id']}/fork", json={"at": 4})
    assert "fork an earlier one" in problem(answer, 422, "too_many_forks")["mend"]


async def test_a_file_is_kept_for_the_new_run(world: World) -> None:
    old = await chain(world)
    new = await fork(world, old["id"], 4, set={"log": "some text"})
    ref = new["output"]["log"]
    assert ref.startswith("blob:sha256:") and new["input"] == {"log": ref}
    uses = await rows(world, "select run_id::text from blob_uses where ref = %s", ref)
    assert uses == [(new["id"],)]


async def test_a_stream_says_where_a_run_began_and_not_all_of_it(world: World) -> None:
    old = await chain(world)
    new = await fork(world, old["id"], 4)
    text = (await world.a.http.get(f"/v1/runs/{new['id']}/events")).text
    (line,) = [
        json.loads(row[6:]) for row in text.splitlines() if row.startswith("data: ") and '"run.forked"' in row
    ]
    assert {key: line["data"][key] for key in ("run", "at", "set")} == {"run": old["id"], "at": 4, "set": {}}
    assert "begin" not in line["data"]
    assert [each["step"] for each in line["data"]["started"]] == [4, 2]
    history = (await world.a.http.get(f"/v1/runs/{new['id']}/history")).json()["items"]
    assert [each["name"] for each in history] == ["run.planned", "run.forked", "step.completed"]
    assert history[1]["data"]["begin"]["state"]["vars"]["n"] == 1


PARENT = """
agentflow: plan/v1
kind: bt
name: parent
limits: {steps: 10}
vars: {said: string}
tasks:
  sub: {kind: workflow, use: echo, in: {text: "said + '!'"}, out: {said: string}}
root: {sequence: [{task: sub, set: {said: result.said}}, {task: sub, set: {said: result.said}}]}
"""


async def test_runs_that_a_run_has_started_are_reused_like_other_results(world: World) -> None:
    await world.register()
    await world.register(PARENT)
    old = await world.finished(await world.start("parent"))
    new = await fork(world, old["id"], 2, set={"said": "so"})
    assert (old["output"], new["output"]) == ({"said": "!!"}, {"said": "so!"})
    before, after = await steps(world, old["id"]), await steps(world, new["id"])
    assert [step["reused"] for step in after] == [old["id"], None]
    assert (before[0]["child"] == after[0]["child"], before[1]["child"] == after[1]["child"]) == (True, False)
    for step in (*before, *after):
        assert (await world.finished(step["child"]))["status"] == "succeeded"
    assert len((await world.a.http.get("/v1/runs", params={"workflow": "echo"})).json()["items"]) == 3


PRICED = """
agentflow: plan/v1
kind: bt
name: priced
limits: {steps: 10}
vars: {price: double}
tasks:
  add: {kind: tool, use: std.echo, in: {price: price * 2.0}, out: {price: double}}
root: {sequence: [add, {task: add, set: {price: result.price}}]}
"""


async def test_what_is_set_is_of_the_variables_type(world: World) -> None:
    await world.register(PRICED)
    old = await world.finished(await world.start("priced"))
    assert (await fork(world, old["id"], 2, set={"price": 4}))["output"] == {"price": 8.0}


HOLD = """
agentflow: plan/v1
kind: fsm
name: hold
limits: {steps: 10}
tasks:
  idle: {kind: wait, for: 1h}
  say: {kind: tool, use: std.echo}
initial: both
states:
  both: {regions: [left, right], transitions: [{event: go, to: ok}, {event: done, to: ok}]}
  left: {in: both, run: idle, transitions: [{event: done, to: left_end}]}
  left_end: {in: both.left, final: success}
  right: {in: both, run: say, transitions: [{event: done, to: held}]}
  held: {in: both.right, run: idle, transitions: [{event: done, to: right_end}]}
  right_end: {in: both.right, final: success}
  ok: {final: success}
"""


async def test_a_step_that_runs_again_is_not_listed_as_it_ended_before(world: World) -> None:
    await world.register(HOLD)
    old = await world.start("hold")
    async with world.engine.watch(UUID(old)) as watch:
        while len(await steps(world, old)) < 3:
            assert await watch.changed(5)
    assert (await world.a.http.post(f"/v1/runs/{old}/signals/go")).status_code == 202
    await world.finished(old)
    new = (await world.a.http.post(f"/v1/runs/{old}/fork", json={"at": 3})).json()["id"]
    async with world.engine.watch(UUID(new)) as watch:
        while (await world.a.http.get(f"/v1/runs/{new}")).json()["status"] != "running":
            assert await watch.changed(5)
    for limit in (1, 100):
        assert [(step["step"], step["status"], step["reused"]) for step in await steps(world, new, limit)] == [
            (1, "requested", None), (2, "succeeded", old), (3, "requested", None),
        ]  # fmt: skip
    assert (await world.a.http.post(f"/v1/runs/{new}/signals/go")).status_code == 202
    assert (await world.finished(new))["status"] == "succeeded"
