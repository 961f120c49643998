"""Registering, checking and looking up workflows."""

from __future__ import annotations

import json

import pytest

from agentflow.wire.document import MAX_BYTES, compile_document

from .world import ECHO, TRIGGERED, YAML, World, problem


async def test_the_same_content_keeps_its_version_and_new_content_gets_the_next(world: World) -> None:
    first = await world.a.http.post("/v1/workflows", content=ECHO.format(name="echo"), headers=YAML)
    assert first.status_code == 201
    said = first.json() | {"hash": "", "warnings": []}
    assert said == {"name": "echo", "kind": "fsm", "hash": "", "version": 1, "warnings": []}
    assert first.headers["location"] == "/v1/workflows/echo?version=1"

    as_json = compile_document(ECHO.format(name="echo").encode()).document
    again = await world.a.http.post("/v1/workflows", json=as_json)
    assert (again.status_code, again.json()["version"]) == (200, 1)

    changed = ECHO.format(name="echo").replace("steps: 10", "steps: 11")
    second = await world.a.http.post("/v1/workflows", content=changed, headers=YAML)
    assert (second.status_code, second.json()["version"]) == (201, 2)
    old = await world.a.http.post("/v1/workflows", content=ECHO.format(name="echo"), headers=YAML)
    assert (old.status_code, old.json()["version"]) == (200, 1)


async def test_versions_stay_readable_and_the_newest_is_the_default(world: World) -> None:
    await world.register()
    await world.register(ECHO.format(name="echo").replace("steps: 10", "steps: 11"))
    newest = (await world.a.http.get("/v1/workflows/echo")).json()
    assert (newest["version"], newest["document"]["limits"]["steps"]) == (2, 11)
    first = (await world.a.http.get("/v1/workflows/echo", params={"version": 1})).json()
    assert (first["version"], first["document"]["limits"]["steps"]) == (1, 10)


async def test_workflows_are_listed_by_name_with_their_newest_version_page_by_page(world: World) -> None:
    for name in ("cc", "aa", "bb"):
        await world.register(name=name)
    await world.register(ECHO.format(name="aa").replace("steps: 10", "steps: 11"))
    await world.register(name="dd", tenant=world.b)
    found, cursor = [], None
    for _ in range(3):
        page = (
            await world.a.http.get(
                "/v1/workflows", params={"limit": 1} | ({"cursor": cursor} if cursor else {})
            )
        ).json()
        found += [(item["name"], item["version"]) for item in page["items"]]
        cursor = page["next"]
    assert found == [("aa", 2), ("bb", 1), ("cc", 1)]
    assert cursor is None


async def test_triggers_belong_to_the_newest_version_only(world: World) -> None:
    await world.register(TRIGGERED)
    event = {
        "specversion": "1.0",
        "id": "1",
        "source": "/t",
        "type": "com.example.order.placed",
        "data": {"order": "7"},
    }
    headers = {"content-type": "application/cloudevents+json"}
    assert (await world.a.http.post("/v1/events", json=event, headers=headers)).status_code == 202
    await world.all_finished(1)
    without = TRIGGERED.replace(
        "trigger: {type: com.example.order.placed, input: {order: event.data.order}}\n", ""
    )
    await world.register(without)
    assert (
        await world.a.http.post("/v1/events", json=event | {"id": "2"}, headers=headers)
    ).status_code == 202
    await world.register(TRIGGERED.replace("name: triggered", "name: another"))
    assert (
        await world.a.http.post("/v1/events", json=event | {"id": "3"}, headers=headers)
    ).status_code == 202
    runs = await world.all_finished(2)
    assert [(run["workflow"], run["version"]) for run in runs] == [("another", 1), ("triggered", 1)]


BROKEN = """
agentflow: plan/v1
kind: fsm
name: broken
limits: {steps: 10, usd: 1}
vars: {score: double}
tasks:
  look: {kind: tool, use: std.echo}
  ask: {kind: llm, use: small, prompt: hello}
initial: a
states:
  a: {run: lok, transitions: [{event: done, if: "score > 1", to: nowhere}]}
  b: {run: look, transitions: [{event: done, if: "scroe > 1.0", to: ok}]}
  ok: {final: success}
"""


async def test_every_fault_of_a_document_is_named_at_once_with_its_path_and_mend(world: World) -> None:
    answer = await world.a.http.post("/v1/workflows", content=BROKEN, headers=YAML)
    errors = problem(answer, 422, "invalid_plan")["errors"]
    paths = {error["path"] for error in errors}
    assert {"states.a.run", "states.a.transitions[0].to", "states.b.transitions[0].if"} <= paths, paths
    assert all(error["message"] and error["code"] for error in errors)
    assert any(error["mend"] for error in errors)
    assert (await world.a.http.get("/v1/workflows")).json()["items"] == []


async def test_a_model_nobody_knows_is_refused_at_registration(world: World) -> None:
    text = """
agentflow: plan/v1
kind: fsm
name: asks
limits: {steps: 10, usd: 1}
tasks:
  ask: {kind: llm, use: huge, prompt: hello}
initial: a
states:
  a: {run: ask, transitions: [{event: done, to: ok}]}
  ok: {final: success}
"""
    (error,) = problem(
        await world.a.http.post("/v1/workflows", content=text, headers=YAML), 422, "invalid_plan"
    )["errors"]
    assert (error["path"], error["code"]) == ("tasks.ask.use", "unknown_model")
    assert "AGENTFLOW_MODELS" in error["mend"]
    known = await world.a.http.post("/v1/workflows", content=text.replace("huge", "small"), headers=YAML)
    assert known.status_code == 201


@pytest.mark.parametrize(
    ("body", "media", "status", "code"),
    [
        (b'{"kind": ', "application/json", 400, "bad_json"),
        (b"[1]", "application/json", 422, "invalid_plan"),
        (b"- 1", "application/yaml", 422, None),
        (b"kind: [", "application/yaml", 422, None),
        (b"a: &a [*a]", "application/yaml", 422, None),
        (b"\xff\xfe\x00", "application/yaml", 422, None),
        (b"", "application/yaml", 422, None),
        (b"kind: fsm", "text/plain", 415, "unsupported_media_type"),
        (b"kind: fsm", "", 415, "unsupported_media_type"),
        (b"x" * (MAX_BYTES + 1), "application/yaml", 413, "too_large"),
    ],
)
async def test_what_is_no_document_is_refused(
    world: World, body: bytes, media: str, status: int, code: str | None
) -> None:
    answer = await world.a.http.post("/v1/workflows", content=body, headers={"content-type": media})
    assert answer.status_code == status, answer.text
    problem(answer, status, code or answer.json()["code"])
    assert answer.json()["code"] != "internal"


async def test_a_tools_file_is_not_read_by_the_server(world: World) -> None:
    text = ECHO.format(name="echo").replace("vars:", "tools: {t: {kind: python, file: /etc/passwd}}\nvars:")
    errors = problem(
        await world.a.http.post("/v1/workflows", content=text, headers=YAML), 422, "invalid_plan"
    )["errors"]
    assert any(error["path"].startswith("tools.t") for error in errors), errors
    assert "root:" not in json.dumps(errors)


async def test_validate_checks_the_same_and_registers_nothing(world: World) -> None:
    good = await world.a.http.post("/v1/validate", content=ECHO.format(name="echo"), headers=YAML)
    assert (good.status_code, good.json()["name"], good.json()["kind"]) == (200, "echo", "fsm")
    bad = await world.a.http.post("/v1/validate", content=BROKEN, headers=YAML)
    assert len(problem(bad, 422, "invalid_plan")["errors"]) >= 3
    assert (await world.a.http.get("/v1/workflows")).json()["items"] == []


async def test_a_warning_is_told_and_refuses_nothing(world: World) -> None:
    text = ECHO.format(name="echo").replace("vars: {", "vars: {idle: int, ")
    for path, status in (("/v1/validate", 200), ("/v1/workflows", 201), ("/v1/workflows", 200)):
        answer = await world.a.http.post(path, content=text, headers=YAML)
        assert answer.status_code == status, answer.text
        assert {
            "path": "vars.idle",
            "message": "nothing sets or reads the variable 'idle'",
            "mend": "use it, or remove it",
            "code": "unused",
        } in answer.json()["warnings"]


async def test_a_transition_that_is_never_taken_is_refused_and_was_not_before(world: World) -> None:
    text = ECHO.format(name="echo")
    once = "{event: done, set: {said: result.said}, to: ok}"
    assert once in text, text
    shadowed = text.replace(once, f"{once}, {once}")
    (error,) = problem(
        await world.a.http.post("/v1/workflows", content=shadowed, headers=YAML), 422, "invalid_plan"
    )["errors"]
    assert error["code"] == "shadowed"
    # One that is registered from before goes on.
    assert compile_document(shadowed.encode()).name == "echo"


async def test_another_tenants_workflow_is_as_unknown_as_any(world: World) -> None:
    await world.register()
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-00"}
    foreign = await world.b.http.get("/v1/workflows/echo", headers=headers)
    problem(foreign, 404, "not_found")
    for path in ("/v1/workflows/nope", "/v1/workflows/NOT%20a%20name", "/v1/workflows/" + "x" * 5_000):
        problem(await world.b.http.get(path), 404, "not_found")
    problem(await world.a.http.get("/v1/workflows/echo", params={"version": 2}), 404, "not_found")
    # The same name is another workflow there.
    assert await world.register(tenant=world.b) == "echo@1"


@pytest.mark.parametrize(
    "query", ["version=0", "version=x", "version=99999999999", "vresion=1", "version=1&version=2"]
)
async def test_malformed_queries_are_refused(world: World, query: str) -> None:
    await world.register()
    errors = problem(await world.a.http.get(f"/v1/workflows/echo?{query}"), 400, "bad_query")["errors"]
    assert errors[0]["path"] in query


@pytest.mark.parametrize("cursor", ["x", "####", "WzFd", "WyJhIiwiYiJd", "é", "a" * 301])
async def test_malformed_cursors_are_refused(world: World, cursor: str) -> None:
    for path in ("/v1/workflows", "/v1/runs", "/v1/parked"):
        problem(await world.a.http.get(path, params={"cursor": cursor}), 400, "bad_query")


async def test_an_installation_may_allow_less(world: World) -> None:
    registry = world.app.state.services.registry
    registry.limits = registry.limits._replace(nodes=1, steps=5)
    refused = await world.a.http.post("/v1/workflows", content=ECHO.format(name="echo"), headers=YAML)
    errors = problem(refused, 422, "invalid_plan")["errors"]
    assert [error["path"] for error in errors] == ["states", "limits.steps"]
    registry.limits = registry.limits._replace(bytes=10)
    refused = await world.a.http.post("/v1/workflows", content=ECHO.format(name="echo"), headers=YAML)
    problem(refused, 413, "too_large")


async def test_what_the_model_check_proves_is_refused_and_what_is_too_large_for_it_is_not(world: World) -> None:
    registry = world.app.state.services.registry
    echo = ECHO.format(name="echo")
    once = "{event: done, set: {said: result.said}, to: ok}"
    trap = (
        "  trap: {transitions: [{event: go, to: trapped}]}\n"
        "  trapped: {visits: 3, transitions: [{event: go, to: trap}]}\n"
    )
    assert once in echo
    trapped = echo.replace(once, "{event: done, if: said != text, to: ok}, {event: done, to: trap}")
    trapped = trapped.replace("  ok:", trap + "  ok:")
    refused = await world.a.http.post("/v1/workflows", content=trapped, headers=YAML)
    (error,) = problem(refused, 422, "invalid_plan")["errors"]
    assert (error["code"], error["path"]) == ("no_end", "states")
    assert "from here no final state can be reached" in error["message"]
    registry.limits = registry.limits._replace(states=2)  # it is cut short: nothing is proven
    assert (await world.a.http.post("/v1/validate", content=trapped, headers=YAML)).status_code == 200
    registry.limits = registry.limits._replace(states=0)
    assert (await world.a.http.post("/v1/workflows", content=trapped, headers=YAML)).status_code == 201


async def test_that_no_run_can_succeed_is_told(world: World) -> None:
    only_bad = ECHO.format(name="echo").replace("to: ok}", "to: bad}").replace("  ok: {final: success}\n", "")
    answer = await world.a.http.post("/v1/workflows", content=only_bad, headers=YAML)
    assert answer.status_code == 201, answer.text
    assert [(each["path"], each["code"]) for each in answer.json()["warnings"] if "model check" in each["message"]] == [
        ("states", "no_success")
    ]  # fmt: skip
