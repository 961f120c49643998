"""Traces: one trace per run however many hops it takes, sampled at its root, exported in OTLP's JSON."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from subprocess import run
from sys import executable

import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentflow.config import Settings
from agentflow.observe import traces

SETTINGS = Settings()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    yield
    traces.shutdown()
    traces.configure(SETTINGS)


@pytest.fixture
def spans() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    traces.configure(SETTINGS, exporter)
    return exporter


def hop(name: str, traceparent: str | None) -> str:
    with traces.start_span(name, traceparent, {"agentflow.run": "r", "left.out": None}) as span:
        return span.traceparent


def test_hops_make_one_trace_each_the_child_of_the_one_before(spans: InMemorySpanExporter) -> None:
    carried = hop("dispatch", hop("plan", hop("api", None)))
    api, plan, dispatch = spans.get_finished_spans()
    assert api.parent is None
    assert plan.parent is not None and api.context is not None and plan.parent.span_id == api.context.span_id
    assert dispatch.parent is not None and plan.context is not None
    assert dispatch.parent.span_id == plan.context.span_id
    assert {f"{span.context.trace_id:032x}" for span in (api, plan, dispatch) if span.context} == {
        carried[3:35]
    }
    assert api.attributes == {"agentflow.run": "r"}


@pytest.mark.parametrize("exported", [True, False])
def test_the_callers_trace_goes_on_and_its_decision_not_to_record_is_kept(exported: bool) -> None:
    exporter = InMemorySpanExporter()
    traces.configure(SETTINGS, exporter if exported else None)
    trace_id = "ab" * 16
    for flags, recorded in (("01", exported), ("00", False)):
        exporter.clear()
        carried = hop("api", f"00-{trace_id}-{'cd' * 8}-{flags}")
        assert carried[3:35] == trace_id
        assert carried[36:52] != "cd" * 8
        assert carried.endswith(flags)
        assert bool(exporter.get_finished_spans()) == recorded


@pytest.mark.parametrize("malformed", ["", "00-xyz", "00-" + "0" * 32 + "-" + "1" * 16 + "-01", "x" * 10_000])
def test_a_malformed_traceparent_starts_a_trace_anew(spans: InMemorySpanExporter, malformed: str) -> None:
    carried = hop("api", malformed)
    assert int(carried[3:35], 16) != 0
    assert spans.get_finished_spans()[0].parent is None


@pytest.mark.parametrize("exported", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_new_traces_is_sampled(share: float, exported: bool) -> None:
    exporter = InMemorySpanExporter()
    traces.configure(replace(SETTINGS, trace_sample=share), exporter if exported else None)
    sampled = sum(hop("api", None).endswith(("1", "3")) for _ in range(400))
    assert abs(sampled - 400 * share) < 80
    if exported:
        assert len(exporter.get_finished_spans()) == sampled


def test_a_fault_marks_the_span_with_its_code_and_not_with_its_message(spans: InMemorySpanExporter) -> None:
    def call() -> None:
        with traces.start_span("tool") as span:
            span.set({"gen_ai.tool.name": "parse", "long": "x" * 5_000})
            raise ValueError("private matter")

    with pytest.raises(ValueError, match="private"):
        call()
    (recorded,) = spans.get_finished_spans()
    assert recorded.status.description == "ValueError"
    assert recorded.attributes is not None
    assert recorded.attributes["error.type"] == "ValueError"
    assert len(str(recorded.attributes["long"])) == traces.MAX_TEXT
    assert "private" not in recorded.to_json()


def test_a_model_call_has_genai_attributes(spans: InMemorySpanExporter) -> None:
    usage = {"input_tokens": 10, "output_tokens": 3, "cached_tokens": 4}
    with traces.start_span(
        "chat small", None, traces.genai("chat", "openai", "gpt-5-mini", usage=usage), "client"
    ):
        pass
    (span,) = spans.get_finished_spans()
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-5-mini",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 4,
    }


class Collector(ThreadingHTTPServer):
    """A collector that keeps what it is sent and answers as told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, object]] = []
        self.paths: list[str] = []
        self.statuses = [503, 200]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if status == 200:
            self.server.bodies.append(json.loads(body))
            self.server.paths.append(self.path)
        self.send_response(status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_spans_reach_an_otlp_endpoint_that_was_busy_at_first(collector: Collector) -> None:
    traces.configure(replace(SETTINGS, otlp_endpoint=f"http://127.0.0.1:{collector.server_port}"))
    with traces.start_span(
        "api POST", None, {"n": 7, "ok": True, "ratio": 0.5, "tags": ["a", "b"]}, "server"
    ) as span:
        carried = span.traceparent
        with pytest.raises(KeyError), traces.start_span("plan", carried):
            raise KeyError("x")
    traces.shutdown()
    assert collector.paths == ["/v1/traces"]
    (resource,) = collector.bodies[0]["resourceSpans"]  # type: ignore[misc]
    assert {"key": "service.name", "value": {"stringValue": "agentflow"}} in resource["resource"][
        "attributes"
    ]
    plan, api = resource["scopeSpans"][0]["spans"]
    assert api["traceId"] == plan["traceId"] == carried[3:35]
    assert plan["parentSpanId"] == api["spanId"] == carried[36:52]
    assert api["kind"] == 2
    assert plan["status"] == {"code": 2, "message": "KeyError"}
    assert int(api["endTimeUnixNano"]) >= int(api["startTimeUnixNano"]) > 1_700_000_000 * 10**9
    assert {attribute["key"]: attribute["value"] for attribute in api["attributes"]} == {
        "n": {"intValue": "7"},
        "ok": {"boolValue": True},
        "ratio": {"doubleValue": 0.5},
        "tags": {"arrayValue": {"values": [{"stringValue": "a"}, {"stringValue": "b"}]}},
    }


def test_an_endpoint_that_is_no_url_is_refused() -> None:
    with pytest.raises(ValueError, match="file:///etc"):
        traces.configure(replace(SETTINGS, otlp_endpoint="file:///etc"))


def test_without_an_exporter_the_sdk_is_not_even_imported() -> None:
    code = (
        "import sys; from agentflow.observe import traces\n"
        "with traces.start_span('x') as s: assert len(s.traceparent) == 55\n"
        "assert not [m for m in sys.modules if m.startswith('opentelemetry')]"
    )
    assert run([executable, "-c", code], check=False).returncode == 0
