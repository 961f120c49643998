"""The OpenAPI document: valid, complete, committed as generated, and true of the answers."""

from __future__ import annotations

import json
from typing import Any

import jsonschema

from agentflow.control.openapi import document, document_bytes, main
from agentflow.control.routes import ROUTES
from agentflow.wire.place import contracts_path

from .world import WAITER, World

PATH = contracts_path() / "schemas" / "openapi.json"


def test_the_committed_file_is_the_generated_one() -> None:
    assert PATH.read_bytes() == document_bytes(), "run: python -m agentflow.control.openapi"


def test_drift_is_found(monkeypatch: Any, tmp_path: Any, capsys: Any) -> None:
    monkeypatch.setattr("agentflow.wire.place.contracts_path", lambda: tmp_path)
    (tmp_path / "schemas").mkdir()
    assert main(["--check"]) == 1
    assert "drifted" in capsys.readouterr().err
    assert main([]) == 0
    assert main(["--check"]) == 0
    file = tmp_path / "schemas" / "openapi.json"
    file.write_text(file.read_text().replace("Start a run", "Begin a run"))
    assert main(["--check"]) == 1


def test_every_reference_leads_somewhere_and_every_schema_is_one() -> None:
    whole = document()

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if "$ref" in value else []
            return own + [found for item in value.values() for found in references(item)]
        return [found for item in value for found in references(item)] if isinstance(value, list) else []

    found = references(whole)
    assert found
    for reference in found:
        target: Any = whole
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    for schema in whole["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_operation_is_named_once_and_says_what_it_may_answer() -> None:
    whole = document()
    operations = [operation for methods in whole["paths"].values() for operation in methods.values()]
    assert len({operation["operationId"] for operation in operations}) == len(ROUTES)
    for operation in operations:
        assert {"401", "500", "503"} <= set(operation["responses"])
        assert any(status.startswith("2") for status in operation["responses"])
        assert operation["summary"] and operation["description"]


async def test_the_answers_are_as_described(world: World) -> None:
    whole = document()
    await world.register()
    await world.register(WAITER)
    run = await world.start("echo", text="x")
    await world.finished(run)
    waiting = await world.start("waiter")
    calls = [
        ("get", "/v1/workflows", {}, None),
        ("get", "/v1/workflows/{name}", {"name": "echo"}, None),
        ("post", "/v1/runs", {}, {"workflow": "echo", "input": {"text": "x"}}),
        ("get", "/v1/runs", {}, None),
        ("get", "/v1/runs/{run}", {"run": run}, None),
        ("get", "/v1/runs/{run}", {"run": waiting}, None),
        ("get", "/v1/runs/{run}/steps", {"run": run}, None),
        ("post", "/v1/runs/{run}/cancel", {"run": waiting}, {}),
        ("get", "/v1/parked", {}, None),
        ("get", "/v1/runs/{run}", {"run": "x"}, None),
    ]
    for method, path, names, body in calls:
        answer = await world.a.http.request(method, path.format(**names), json=body)
        described = whole["paths"][path][method]["responses"][str(answer.status_code)]
        if "$ref" in described:
            described = whole["components"]["responses"]["Problem"]
        media = answer.headers["content-type"].partition(";")[0]
        schema = {**described["content"][media]["schema"], "components": whole["components"]}
        jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker()).validate(
            answer.json()
        )


def test_the_file_is_json_with_the_version_of_openapi() -> None:
    assert json.loads(PATH.read_text())["openapi"] == "3.1.0"
