"""The OpenAPI 3.1 document, made from the table of routes: ``python -m agentflow.control.openapi [--check]``.

Without ``--check`` it writes schemas/openapi.json, with it it fails when that file has drifted.
"""

from __future__ import annotations

import json
import re
import sys
from functools import cache
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from agentflow import __version__
from agentflow.control import shapes
from agentflow.control.routes import HEADERS, ROUTES, Answer, Route

ALWAYS = (401, 500, 503)
_PARAMETER = re.compile(r"\{(\w+)(?::path)?\}")
_PATH_SCHEMAS: dict[str, dict[str, Any]] = {
    "run": {"type": "string", "format": "uuid"},
    "parked": {"type": "string", "format": "uuid"},
    "name": {"type": "string", "pattern": shapes.NAME},
    "scope": {"type": "string"},
    "step": {"type": "integer", "minimum": 1},
}


def document() -> dict[str, Any]:
    """The whole document, JSON-able."""
    models = _models()
    references, schemas = models_json_schema(
        [(model, mode) for model, mode in models], ref_template="#/components/schemas/{model}"
    )
    names = {model: references[model, mode]["$ref"] for model, mode in models}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(_PARAMETER.sub(r"{\1}", route.path), {})[route.method.lower()] = _operation(
            route, names
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "AgentFlow",
            "version": __version__,
            "description": "Workflows and their runs. Errors are problem documents (RFC 9457).",
        },
        "security": [{"apiKey": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An API key of one tenant: `af_…`.",
                }
            },
            "schemas": schemas.get("$defs", {}),
            "responses": {"Problem": _problem(names[shapes.ProblemDocument])},
        },
    }


@cache
def document_bytes() -> bytes:
    """The document as it is served and committed."""
    return (json.dumps(document(), indent=2, ensure_ascii=False, sort_keys=False) + "\n").encode()


def _models() -> list[tuple[type[BaseModel], Any]]:
    found: dict[type[BaseModel], Any] = {shapes.ProblemDocument: "serialization"}
    for route in ROUTES:
        found |= {model: "validation" for model in route.request.values() if model is not None}
        found |= {
            answer.body: "serialization" for answer in route.answers.values() if answer.body is not None
        }
    return list(found.items())


def _operation(route: Route, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "description": route.handler.__doc__ or "",
        "parameters": [*_path_parameters(route), *_query_parameters(route), *_header_parameters(route)],
    }
    if not operation["parameters"]:
        del operation["parameters"]
    if route.request:
        content = {
            media: {"schema": {"$ref": names[model]} if model is not None else {}}
            for media, model in route.request.items()
        }
        operation["requestBody"] = {"required": not route.optional_body, "content": content}
    answers = {str(status): _answer(answer, names) for status, answer in sorted(route.answers.items())}
    problem = {"$ref": "#/components/responses/Problem"}
    operation["responses"] = answers | {str(status): problem for status in sorted({*route.errors, *ALWAYS})}
    return operation


def _answer(answer: Answer, names: dict[type[BaseModel], str]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": answer.meaning}
    if answer.body is not None:
        described["content"] = {answer.media: {"schema": {"$ref": names[answer.body]}}}
    elif answer.media != "application/json":
        described["content"] = {answer.media: {"schema": {"type": "string"}}}
    if answer.others:
        described["content"] |= {media: {"schema": {"type": "string"}} for media in answer.others}
    return described


def _problem(reference: str) -> dict[str, Any]:
    statuses = sorted({status for route in ROUTES for status in route.errors} | set(ALWAYS))
    said = ", ".join(f"{status} {HTTPStatus(status).phrase}" for status in statuses)
    return {
        "description": f"Not carried out. `code` says why, `mend` what to do; one of: {said}.",
        "content": {"application/problem+json": {"schema": {"$ref": reference}}},
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": _PATH_SCHEMAS[name]}
        for name in _PARAMETER.findall(route.path)
    ]


def _query_parameters(route: Route) -> list[dict[str, Any]]:
    schema = route.query.model_json_schema()
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": member.pop("description", ""),
            "schema": {key: value for key, value in member.items() if key != "title"},
        }
        for name, member in schema.get("properties", {}).items()
    ]


def _header_parameters(route: Route) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "in": "header",
            "required": False,
            "description": HEADERS[name],
            "schema": {"type": "string"},
        }
        for name in route.headers
    ]


def main(arguments: list[str]) -> int:
    """Write the file, or compare it; the exit code says whether it was up to date."""
    from agentflow.wire.place import contracts_path

    path = contracts_path() / "schemas" / "openapi.json"
    if "--check" not in arguments:
        path.write_bytes(document_bytes())
        return 0
    if path.exists() and path.read_bytes() == document_bytes():
        return 0
    print("schemas/openapi.json has drifted: run python -m agentflow.control.openapi", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
