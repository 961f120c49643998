"""What a person sees from outside: one trace per run across all functions, metrics, log lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from uuid import uuid4

import pytest
from house import House
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from test_flow import COUNT, plan

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.observe import logs, metrics, traces


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    traces.configure(Settings(), exporter)
    yield exporter
    traces.configure(replace(Settings(), trace_sample=0.0))


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_a_run_is_one_trace_from_request_to_end(
    house: House, spans: InMemorySpanExporter, handoff: bool
) -> None:
    (house.settings.script_dir / "x.model.yaml").write_text("rules: [{prompt: hello, reply: there}]")
    tasks = {
        "tool": {"kind": "tool", "use": "double"},
        "ask": {"kind": "llm", "use": "small", "prompt": "hello"},
    }
    tools = {"double": {"kind": "python", "code": "def run():\n    return {}\n"}}
    await house.register(plan("traced", tasks, "tool", "ask", tools=tools, limits={"steps": 5, "usd": 0.1}))
    with traces.start_span("request") as root:
        trace = root.traceparent
    async with house.host(handoff=handoff) as host:
        run = uuid4()
        data = {"run": str(run), "workflow": "traced", "version": 1, "input": {}, "budget_micro": None}
        await host.submit(Message("run.requested", house.tenant, run, "requested", data, trace))
        row = await house.ended(run)
    assert row["status"] == "succeeded", row["error"]
    seen = {span.context.span_id: span for span in spans.get_finished_spans()}
    assert {f"{span.context.trace_id:032x}" for span in seen.values()} == {trace[3:35]}
    names = [span.name for span in seen.values()]
    for expected in (
        "plan run.requested",
        "dispatch run.planned",
        "execute_tool double",
        "account_cost step.completed",
    ):
        assert expected in names
    (chat,) = [span for span in seen.values() if span.name.startswith("chat ")]
    assert chat.attributes["gen_ai.provider.name"] == "scripted"
    # Every span hangs under the request: nothing is an orphan.
    top = int(trace[36:52], 16)
    for span in seen.values():
        above = span
        while above.parent is not None and above.parent.span_id != top:
            above = seen[above.parent.span_id]
        assert above.parent is not None or span.context.span_id == top


async def test_metrics_and_log_lines_tell_what_happened(house: House) -> None:
    lines = StringIO()
    logs.configure("info", lines)
    before = sample("agentflow_runs_total", status="succeeded")
    await house.register(COUNT)
    async with house.host() as host:
        run = await house.submit(host, "count")
        await house.ended(run)
    assert sample("agentflow_runs_total", status="succeeded") == before + 1
    assert sample("agentflow_steps_total", kind="tool", status="succeeded") >= 3
    ended = [
        line for line in map(json.loads, lines.getvalue().splitlines()) if line["message"] == "run ended"
    ]
    assert [(line["run"], line["tenant"], line["status"]) for line in ended] == [
        (str(run), str(house.tenant), "succeeded")
    ]


def sample(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0
