"""The edge: every error is a problem document, nothing internal gets out, every request is seen."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import psycopg
import pytest
import structlog

from agentflow.config import Settings
from agentflow.control.app import create_app
from agentflow.control.routes import ROUTES
from agentflow.observe import logs, metrics, traces
from agentflow.store.control import ControlStore

from .world import PEPPER, KnownModels, World, problem


@pytest.mark.parametrize(
    "path", ["/index.html", "/v1", "/v1/runs/", "/v1/nothing", "/openapi.yaml", "/v2/runs", "/%2e%2e/etc"]
)
async def test_unknown_paths_are_problems_too(world: World, path: str) -> None:
    problem(await world.a.http.get(path), 404, "not_found")


async def test_a_method_the_path_has_not_is_refused_with_those_it_has(world: World) -> None:
    for method, path, allowed in (
        ("PUT", "/v1/runs", {"GET", "POST"}),
        ("DELETE", "/v1/workflows/echo", {"GET"}),
        ("GET", "/v1/events", {"POST"}),
        ("HEAD", "/v1/runs/x/events", {"GET"}),
    ):
        answer = await world.a.http.request(method, path)
        assert answer.status_code == 405
        assert {name.strip() for name in answer.headers["allow"].split(",")} <= allowed
        if method != "HEAD":
            problem(answer, 405, "method_not_allowed")


async def test_what_breaks_inside_says_nothing_outside_and_everything_in_the_log(
    world: World, monkeypatch: pytest.MonkeyPatch, log: io.StringIO
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the secret ingredient is nutmeg")

    monkeypatch.setattr(world.engine, "submit", broken)
    await world.register()
    answer = await world.a.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "x"}})
    document = problem(answer, 500, "internal")
    assert "nutmeg" not in answer.text
    assert "RuntimeError" not in answer.text
    (line,) = [line for line in lines(log) if line["message"] == "request failed"]
    assert line["trace_id"] == document["trace_id"]
    assert line["tenant"] == str(world.a.id)
    assert line["fault"]["message"] == "the secret ingredient is nutmeg"
    assert any("broken" in place for place in line["fault"]["where"])


async def test_a_database_that_is_away_is_a_passing_fault(world: World) -> None:
    dsn = world.database.dsn("agentflow_api")
    store = ControlStore(dsn, connections=1, patience_s=0.1)
    await store.open()
    app = create_app(world.engine, store, Settings(key_pepper=PEPPER), KnownModels())
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://api", headers=world.a.http.headers
    ) as client:
        async with store._pool.connection():  # the only one
            answer = await client.get("/v1/runs")
            problem(answer, 503, "database_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await client.get("/v1/runs")).status_code == 200
    await store.close()


async def test_a_database_that_was_restarted_meanwhile_is_no_fault_at_all(world: World) -> None:
    assert (await world.a.http.get("/v1/runs")).status_code == 200
    with psycopg.connect(world.database.admin, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where usename = 'agentflow_api'")
    assert (await world.a.http.get("/v1/runs")).status_code == 200


async def test_the_callers_trace_is_kept_and_named_in_problems(world: World) -> None:
    headers = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
    document = problem(await world.a.http.get("/v1/runs/x", headers=headers), 404, "not_found")
    assert document["trace_id"] == "ab" * 16
    await world.register()
    request = {"workflow": "echo", "input": {"text": "x"}}
    await world.a.http.post("/v1/runs", json=request, headers=headers)
    trace = world.engine.submitted[-1].trace
    assert trace is not None
    assert trace.startswith(f"00-{'ab' * 16}-")
    assert "cd" * 8 not in trace


async def test_one_trace_per_run_across_the_events(world: World) -> None:
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    traces.configure(Settings(), exporter)
    try:
        await world.register()
        exporter.clear()
        await world.start("echo", text="x")
    finally:
        traces.shutdown()
    (span,) = [span for span in exporter.get_finished_spans() if span.name == "api POST"]
    assert span.attributes is not None
    assert span.attributes["http.route"] == "/v1/runs"
    assert span.attributes["http.response.status_code"] == 202
    assert span.context is not None
    trace = world.engine.submitted[-1].trace
    assert trace is not None
    assert trace[3:52] == f"{span.context.trace_id:032x}-{span.context.span_id:016x}"


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("info", stream)
    yield stream
    structlog.reset_defaults()
    root.handlers[:], root.level = before[0], before[1]


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


async def test_a_request_leaves_one_line_without_its_payload_or_key(world: World, log: io.StringIO) -> None:
    await world.register()
    await world.a.http.post("/v1/runs", json={"workflow": "echo", "input": {"text": "private matter"}})
    found = [line for line in lines(log) if line["message"] == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in found] == [
        ("POST", "/v1/workflows", 201),
        ("POST", "/v1/runs", 202),
    ]
    assert (found[1]["function"], found[1]["tenant"]) == ("api", str(world.a.id))
    assert len(found[1]["trace_id"]) == 32
    assert "private matter" not in log.getvalue()
    assert world.a.key[-43:] not in log.getvalue()


async def test_requests_are_counted_by_route_never_by_path(world: World) -> None:
    run = "00000000-0000-7000-8000-00000000abcd"
    await world.a.http.get(f"/v1/runs/{run}")
    await world.a.http.get(f"/made/up/{run}")
    text = metrics.render().decode()
    assert 'agentflow_http_requests_total{code="404",method="GET",route="/v1/runs/{run}"}' in text
    assert 'route="unmatched"' in text
    assert "abcd" not in text


async def test_the_document_is_served_to_everybody(world: World) -> None:
    answer = await world.a.http.get("/openapi.json", headers={"authorization": ""})
    assert answer.status_code == 200
    assert {route.path.replace(":path", "") for route in ROUTES} == set(answer.json()["paths"])


async def test_answers_are_not_sniffed(world: World) -> None:
    for path in ("/v1/runs", "/nothing"):
        assert (await world.a.http.get(path)).headers["x-content-type-options"] == "nosniff"


async def test_a_transaction_that_names_a_tenant_sees_that_tenant_only(world: World) -> None:
    """The store's statements name no tenant: row-level security is what confines them."""
    await world.register()
    await world.register(tenant=world.b)
    async with await psycopg.AsyncConnection.connect(world.database.dsn("agentflow_api")) as conn:
        await conn.execute("select set_config('app.tenant_id', %s, true)", (str(world.a.id),))
        cursor = await conn.execute("select tenant_id from agentflow.workflows")
        assert await cursor.fetchall() == [(world.a.id,)]
