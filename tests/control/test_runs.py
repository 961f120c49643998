"""Starting runs, looking at them, cancelling and signalling them."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any

import psycopg
import pytest

from agentflow.control.waiting import Gone, while_connected
from agentflow.store.budgets import set_budget

from .world import FAILER, FILES, WAITER, World, problem


async def test_a_run_is_accepted_with_its_place_and_has_its_result_there(world: World) -> None:
    await world.register()
    answer = await world.a.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "hello"}})
    assert answer.status_code == 202
    accepted = answer.json()
    assert (accepted["workflow"], accepted["version"]) == ("echo", 1)
    assert answer.headers["location"] == f"/v1/runs/{accepted['id']}"
    run = await world.finished(accepted["id"])
    assert (run["status"], run["output"], run["error"]) == ("succeeded", {"said": "hello"}, None)
    assert (run["steps"], run["input"]) == (1, {"text": "hello"})
    assert run["created_at"] <= run["finished_at"]


async def test_waiting_answers_with_the_result(world: World) -> None:
    await world.register()
    request = {"workflow": "echo@1", "input": {"text": "hello"}}
    answer = await world.a.http.post("/v1/runs", params={"wait": "10s"}, json=request)
    assert (answer.status_code, answer.json()["output"]) == (200, {"said": "hello"})
    assert world.app.state.services.waits.open == 0


async def test_waiting_ends_when_time_is_up_and_the_run_goes_on(world: World) -> None:
    await world.register(WAITER)
    answer = await world.a.http.post("/v1/runs", params={"wait": "50ms"}, json={"workflow": "waiter"})
    assert answer.status_code == 202
    assert answer.json()["status"] in ("requested", "planned", "running")
    run = answer.json()["id"]
    assert (await world.a.http.post(f"/v1/runs/{run}/signals/go")).status_code == 202
    assert (await world.finished(run))["status"] == "succeeded"


@pytest.mark.parametrize("wait", ["soon", "30", "-1s", "1h", "9999999s", ""])
async def test_malformed_waits_are_refused(world: World, wait: str) -> None:
    answer = await world.a.http.post("/v1/runs", params={"wait": wait}, json={"workflow": "echo"})
    assert problem(answer, 400, "bad_query")["errors"][0]["path"] == "wait"


async def test_too_many_waiting_clients_are_asked_to_come_back(world: World) -> None:
    await world.register()
    world.app.state.services.waits.limit = 0
    request = {"workflow": "echo", "input": {"text": "x"}}
    answer = await world.a.http.post("/v1/runs", params={"wait": "1s"}, json=request)
    problem(answer, 503, "too_many_waits")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await world.a.http.get("/v1/runs")).json()["items"] == []


async def test_the_same_key_and_request_is_the_same_run(world: World) -> None:
    await world.register()
    headers = {"idempotency-key": "order-42"}
    request = {"workflow": "echo", "input": {"text": "hello"}}
    answers = await asyncio.gather(
        *(world.a.http.post("/v1/runs", json=request, headers=headers) for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {202}
    (run,) = {answer.json()["id"] for answer in answers}
    await world.finished(run)
    # A newer version does not make a repeated request another one.
    await world.register((await _document(world)).replace("steps: 10", "steps: 12"))
    later = await world.a.http.post("/v1/runs", json=request, headers=headers)
    assert (later.json()["id"], later.json()["version"], later.json()["status"]) == (run, 1, "succeeded")
    waited = await world.a.http.post("/v1/runs", json=request, headers=headers, params={"wait": "5s"})
    assert (waited.status_code, waited.json()["output"]) == (200, {"said": "hello"})
    other = await world.b.http.get("/v1/runs")
    assert other.json()["items"] == []
    await world.register(tenant=world.b)
    theirs = await world.b.http.post("/v1/runs", json=request, headers=headers)
    assert theirs.json()["id"] != run


async def _document(world: World) -> str:
    from .world import ECHO

    return ECHO.format(name="echo")


async def test_the_same_key_with_another_request_is_refused(world: World) -> None:
    await world.register()
    headers = {"idempotency-key": "order-42"}
    request: dict[str, Any] = {"workflow": "echo", "input": {"text": "hello"}}
    await world.a.http.post("/v1/runs", json=request, headers=headers)
    for other in ({"input": {"text": "bye"}}, {"workflow": "echo@1"}, {"budget_usd": 1.0}):
        answer = await world.a.http.post("/v1/runs", json=request | other, headers=headers)
        problem(answer, 422, "idempotency_mismatch")
    assert len((await world.a.http.get("/v1/runs")).json()["items"]) == 1


@pytest.mark.parametrize("key", ["", "x" * 201, "a b", "tab\t", "\x7f"])
async def test_malformed_keys_are_refused(world: World, key: str) -> None:
    headers = {"idempotency-key": key}
    answer = await world.a.http.post("/v1/runs", json={"workflow": "echo"}, headers=headers)
    assert problem(answer, 400, "bad_header")["errors"][0]["path"] == "idempotency-key"


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        ({"workflow": "echo", "input": {}}, "input.text"),
        ({"workflow": "echo", "input": {"text": 5}}, "input.text"),
        ({"workflow": "echo", "input": {"text": "x", "txet": "y"}}, "input.txet"),
        ({"workflow": "echo", "input": []}, "input"),
        ({"workflow": "echo", "input": {"text": "x"}, "budget_usd": 0}, "budget_usd"),
        ({"workflow": "echo", "input": {"text": "x"}, "budget_usd": -1}, "budget_usd"),
        ({"workflow": "echo", "input": {"text": "x"}, "budget_usd": "1"}, "budget_usd"),
        ({"workflow": "Echo!"}, "workflow"),
        ({"workflow": "echo@0"}, "workflow"),
        ({"workflow": "echo@latest"}, "workflow"),
        ({"input": {}}, "workflow"),
        ({"workflow": "echo", "extra": 1}, "extra"),
        ([], ""),
    ],
)
async def test_a_request_at_fault_is_refused_with_the_path(world: World, request_: Any, path: str) -> None:
    await world.register()
    answer = await world.a.http.post("/v1/runs", json=request_)
    code = "invalid_input" if path in ("input.text", "input.txet") else "invalid"
    errors = problem(answer, 422, code)["errors"]
    assert [error["path"] for error in errors] == [path]
    assert (await world.a.http.get("/v1/runs")).json()["items"] == []


async def test_unknown_workflows_and_versions_are_not_found(world: World) -> None:
    await world.register()
    for name in ("nope", "echo@2", "nope@1"):
        answer = await world.a.http.post("/v1/runs", json={"workflow": name, "input": {"text": "x"}})
        assert "POST /v1/workflows" in problem(answer, 404, "not_found")["mend"]
    foreign = await world.b.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "x"}})
    problem(foreign, 404, "not_found")


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b'{"workflow": ', {}, 400, "bad_json"),
        (b'{"workflow": "echo", "input": {"text": NaN}}', {}, 400, "bad_json"),
        (b'{"workflow": "echo", "input": {"text": "\\ud800"}}', {}, 400, "bad_json"),
        (b'{"workflow": "echo", "input": {"text": "a\\u0000b"}}', {}, 422, "nul"),
        (b'{"workflow": "echo", "input": {"text": ' + b"[" * 100 + b"]" * 100 + b"}}", {}, 422, "too_deep"),
        (b"\xff\xfe", {}, 400, "bad_json"),
        (b"", {}, 400, "bad_json"),
        (b"workflow: echo", {"content-type": "application/yaml"}, 415, "unsupported_media_type"),
        (b"{}", {"content-type": ""}, 415, "unsupported_media_type"),
        (b"{}", {"content-encoding": "gzip"}, 415, "unsupported_media_type"),
        (b"{}", {"content-length": str(17 * 2**20)}, 413, "too_large"),
    ],
)
async def test_what_is_no_request_is_refused(
    world: World, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    await world.register()
    sent = {"content-type": "application/json"} | headers
    problem(await world.a.http.post("/v1/runs", content=body, headers=sent), status, code)


async def test_a_body_without_a_length_is_cut_off_at_the_limit(world: World) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        while sent < 64 * 2**20:
            sent += 2**20
            yield b" " * 2**20

    answer = await world.a.http.post(
        "/v1/runs", content=endless(), headers={"content-type": "application/json"}
    )
    problem(answer, 413, "too_large")
    assert sent <= 18 * 2**20


async def test_files_travel_by_claim_check(world: World) -> None:
    await world.register(FILES)
    text = "0123456789abcdef\n" * 300_000  # 5 MB: far more than an event may hold
    given = {"log": text, "more": ["one", "two"], "n": 1}
    answer = await world.a.http.post("/v1/runs", json={"workflow": "filer", "input": given})
    assert answer.status_code == 202, answer.text
    ref = "blob:sha256:" + hashlib.sha256(text.encode()).hexdigest()
    message = world.engine.submitted[-1]
    assert message.data["input"]["log"] == ref
    assert message.data["input"]["more"][1] == "blob:sha256:" + hashlib.sha256(b"two").hexdigest()
    assert await _blob(world, ref) == text.encode()
    # A reference to what is there can be sent in place of the content; one to nothing, or another's, cannot.
    again = {"log": ref, "more": [], "n": 1}
    assert (
        await world.a.http.post("/v1/runs", json={"workflow": "filer", "input": again})
    ).status_code == 202
    unknown = {"log": "blob:sha256:" + "0" * 64, "more": [], "n": 1}
    answer = await world.a.http.post("/v1/runs", json={"workflow": "filer", "input": unknown})
    (error,) = problem(answer, 422, "invalid_input")["errors"]
    assert (error["path"], error["code"]) == ("input.log", "unknown_file")
    await world.register(FILES, tenant=world.b)
    answer = await world.b.http.post("/v1/runs", json={"workflow": "filer", "input": again})
    problem(answer, 422, "invalid_input")


async def _blob(world: World, ref: str) -> bytes:
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        cursor = await conn.execute(
            "select content from agentflow.blobs where tenant_id = %s and ref = %s", (world.a.id, ref)
        )
        row = await cursor.fetchone()
    assert row is not None
    return bytes(row[0])


async def test_an_input_too_large_for_an_event_is_refused_with_the_way_out(world: World) -> None:
    await world.register()
    answer = await world.a.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "x" * 2**20}})
    document = problem(answer, 413, "too_large")
    assert document["errors"][0]["path"] == "input"
    assert "file" in document["mend"]


async def test_a_budget_in_dollars_is_kept_in_whole_micro_dollars(world: World) -> None:
    await world.register()
    for dollars, micro in ((0.1, 100_000), (1, 1_000_000), (0.29, 290_000), (0.0000015, 1)):
        request = {"workflow": "echo", "input": {"text": "x"}, "budget_usd": dollars}
        assert (await world.a.http.post("/v1/runs", json=request)).status_code == 202
        assert world.engine.submitted[-1].data["budget_micro"] == micro


async def test_a_budget_that_was_set_just_now_can_be_charged(world: World) -> None:
    body = {"workflow": await world.register(name="charged"), "input": {"text": "hi"}, "budget": "team"}
    problem(await world.a.http.post("/v1/runs", json=body), 422, "unknown_budget")
    await set_budget(world.database.admin, world.a.id, "budget:team", "total", limit_micro=1)
    answer = await world.a.http.post("/v1/runs", json=body)
    assert (answer.status_code, (await world.finished(answer.json()["id"]))["budget"]) == (202, "team")


async def test_when_the_engine_is_full_the_client_is_told_when_to_come_back(world: World) -> None:
    await world.register()
    world.engine.away = "hello"
    answer = await world.a.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "hello"}})
    problem(answer, 503, "retry_later")
    assert answer.headers["retry-after"] == "2"


async def test_runs_are_listed_newest_first_page_by_page(world: World) -> None:
    await world.register()
    await world.register(WAITER)
    started = [await world.start("echo", text=str(index)) for index in range(5)]
    started.append(await world.start("waiter"))
    for run in started[:-1]:
        await world.finished(run)
    found: list[str] = []
    cursor = None
    pages = 0
    while pages == 0 or cursor:
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await world.a.http.get("/v1/runs", params=params)).json()
        found += [item["id"] for item in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert found == started[::-1]
    assert pages == 3
    running = (await world.a.http.get("/v1/runs", params={"status": "running"})).json()
    assert [item["id"] for item in running["items"]] == started[-1:]
    assert running["next"] is None
    echoes = (await world.a.http.get("/v1/runs", params={"workflow": "echo", "limit": 3})).json()
    assert [item["id"] for item in echoes["items"]] == started[4:1:-1]
    assert "output" not in echoes["items"][0]


async def test_a_filter_looks_at_a_bounded_stretch_and_says_where_it_stopped(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentflow.store.control.SCAN", 3)
    await world.register()
    await world.register(WAITER)
    old = await world.start("waiter")
    for index in range(7):
        await world.finished(await world.start("echo", text=str(index)))
    found: list[str] = []
    lengths = []
    cursor = None
    while not lengths or cursor:
        params = {"workflow": "waiter"} | ({"cursor": cursor} if cursor else {})
        page = (await world.a.http.get("/v1/runs", params=params)).json()
        found += [item["id"] for item in page["items"]]
        lengths.append(len(page["items"]))
        cursor = page["next"]
    assert found == [old]
    assert lengths == [0, 0, 1]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "limit=x", "status=done", "workflow=A", "x=1", "limit=1&limit=2"]
)
async def test_malformed_list_queries_are_refused(world: World, query: str) -> None:
    problem(await world.a.http.get(f"/v1/runs?{query}"), 400, "bad_query")


async def test_steps_are_listed_in_order_page_by_page(world: World) -> None:
    await world.register(LOOP)
    run = await world.start("loop")
    assert (await world.finished(run))["status"] == "succeeded"
    first = (await world.a.http.get(f"/v1/runs/{run}/steps", params={"limit": 3})).json()
    rest = (await world.a.http.get(f"/v1/runs/{run}/steps", params={"cursor": first["next"]})).json()
    steps = first["items"] + rest["items"]
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5]
    assert rest["next"] is None
    one = steps[0]
    assert (one["task"], one["kind"], one["status"], one["attempt"]) == ("say", "tool", "succeeded", 1)
    assert one["output"] == {"n": 0}
    assert one["requested_at"] <= one["completed_at"]


LOOP = """
agentflow: plan/v1
kind: fsm
name: loop
limits: {steps: 10}
vars: {n: int}
tasks:
  say: {kind: tool, use: std.echo, in: {n: n}, out: {n: int}}
initial: a
states:
  a:
    run: say
    visits: 6
    transitions:
      - {event: done, if: "n < 4", set: {n: n + 1}, to: a}
      - {event: done, to: ok}
  ok: {final: success}
"""


async def test_a_failed_run_says_why_and_where(world: World) -> None:
    await world.register(FAILER)
    run = await world.finished(await world.start("failer", why="it had to"))
    assert run["status"] == "failed"
    assert run["output"] is None
    assert run["error"]["code"]
    assert run["error"]["message"]
    (step,) = (await world.a.http.get(f"/v1/runs/{run['id']}/steps")).json()["items"]
    assert (step["status"], step["error"]["code"]) == ("failed", "broken")
    assert "it had to" in step["error"]["message"]


async def test_cancelling_is_idempotent_and_a_run_that_is_over_cannot_be(world: World) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    first = await world.a.http.post(f"/v1/runs/{run}/cancel", json={"reason": "changed my mind"})
    assert (first.status_code, first.json()) == (202, {"id": run})
    assert (await world.finished(run))["status"] == "cancelled"
    assert (await world.a.http.post(f"/v1/runs/{run}/cancel")).status_code == 202
    await world.register()
    done = await world.start("echo", text="x")
    await world.finished(done)
    problem(await world.a.http.post(f"/v1/runs/{done}/cancel"), 409, "run_over")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"reason": 5}', 422, "invalid"),
        (b'{"reason": ""}', 422, "invalid"),
        (b'{"raeson": "x"}', 422, "invalid"),
        (b"{", 400, "bad_json"),
        (b'{"reason": "' + b"x" * 70_000 + b'"}', 413, "too_large"),
    ],
)
async def test_malformed_cancels_are_refused(world: World, body: bytes, status: int, code: str) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    headers = {"content-type": "application/json"}
    problem(await world.a.http.post(f"/v1/runs/{run}/cancel", content=body, headers=headers), status, code)


async def test_a_signal_moves_the_run_and_its_key_counts_once(world: World) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    for _ in range(2):
        answer = await world.a.http.post(
            f"/v1/runs/{run}/signals/go", json={"data": {"why": 1}}, headers={"idempotency-key": "s1"}
        )
        assert answer.status_code in (202, 409)
    assert (await world.finished(run))["status"] == "succeeded"
    keys = {message.key for message in world.engine.submitted if message.name == "signal.received"}
    assert keys == {"signal:s1"}
    problem(await world.a.http.post(f"/v1/runs/{run}/signals/go"), 409, "run_over")


@pytest.mark.parametrize("name", ["done", "failed", "timeout", "Go", "a b", "x" * 65, "%00"])
async def test_names_that_are_no_signals_are_refused(world: World, name: str) -> None:
    await world.register(WAITER)
    run = await world.start("waiter")
    answer = await world.a.http.post(f"/v1/runs/{run}/signals/{name}")
    assert problem(answer, 422, "invalid")["errors"][0]["path"] == "name"


async def test_ids_that_are_no_ids_are_not_found(world: World) -> None:
    for run in ("x", "1", "%00", "00000000-0000-0000-0000-00000000000g", "x" * 5_000):
        problem(await world.a.http.get(f"/v1/runs/{run}"), 404, "not_found")


async def test_when_the_waiting_client_leaves_its_work_is_cancelled() -> None:
    state = []

    async def work() -> None:
        try:
            state.append("began")
            await asyncio.sleep(60)
        finally:
            state.append("freed")

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.disconnect"}

    with pytest.raises(Gone):
        await while_connected(receive, work())  # type: ignore[arg-type]
    assert state == ["began", "freed"]


async def test_runs_started_together_have_ids_in_order(world: World) -> None:
    await world.register()
    ids = []
    for index in range(3):
        ids.append(await world.start("echo", text=str(index)))
        await asyncio.sleep(0.002)
    assert ids == sorted(ids)
    assert {run[14] for run in ids} == {"7"}
