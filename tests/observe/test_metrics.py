"""Metrics: what a scraper reads, and that no label can grow without bound."""

import re
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import httpx
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.routing import Mount

from agentflow.core.message import Message
from agentflow.observe import metrics
from agentflow.runtime.batch import Item, Leaving
from agentflow.runtime.observed import committed


def sample(name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


def test_an_ended_step_is_counted_with_time_tokens_and_cost() -> None:
    before = sample("agentflow_steps_total", kind="llm", status="succeeded")
    tokens = sample("agentflow_llm_tokens_total", direction="input")
    cost = sample("agentflow_cost_micro_dollars_total")
    usage = {"input_tokens": 120, "output_tokens": 7, "cached_tokens": 0, "calls": 1}
    metrics.steps_ended("llm", [{"status": "succeeded", "duration_ms": 300, "usage": usage}])
    metrics.COST.inc(450)
    assert sample("agentflow_steps_total", kind="llm", status="succeeded") == before + 1
    assert sample("agentflow_llm_tokens_total", direction="input") == tokens + 120
    assert sample("agentflow_cost_micro_dollars_total") == cost + 450
    assert sample("agentflow_step_seconds_bucket", kind="llm", le="0.5") >= 1


def test_runs_transactions_resends_parked_and_flights_are_counted() -> None:
    metrics.run_reached("succeeded")
    metrics.transaction("dispatch", 17, 0.002)
    metrics.resent(3)
    metrics.parked("plan")
    metrics.in_flight("invoke_llm", 2)
    metrics.in_flight("invoke_llm", -1)
    assert sample("agentflow_runs_total", status="succeeded") >= 1
    assert sample("agentflow_batch_events_bucket", function="dispatch", le="32.0") >= 1
    assert sample("agentflow_transaction_seconds_count", function="dispatch") >= 1
    assert sample("agentflow_outbox_resent_total") >= 3
    assert sample("agentflow_parked_total", function="plan") >= 1
    assert sample("agentflow_calls_in_flight", function="invoke_llm") == 1


def test_a_budget_that_is_frozen_is_counted_where_it_is_committed() -> None:
    """AgentFlowBudgetFrozen asks for it."""
    run = UUID(int=1)
    item = Item("account_cost", Message("step.completed", run, run, "1.1:done", {}))
    before = sample("agentflow_budget_violations_total", frozen="yes")
    for frozen in (True, False):
        fact = Message("budget.violation", run, run, "1.1:violation", {"frozen": frozen})
        batch: Any = SimpleNamespace(decided=[(item, None)], leaving=[Leaving("facts", fact, b"")], reached=set())
        committed(batch, 0.001)
    assert sample("agentflow_budget_violations_total", frozen="yes") == before + 1


def test_values_a_label_may_not_have_are_counted_together() -> None:
    # Names that a label may have add lines only once; this process has counted other things before.
    metrics.steps_ended("other", [{"status": "other", "duration_ms": 100, "usage": {}}])
    metrics.transaction("other", 1, 0.1)
    metrics.request("other", "/v1/runs", 200, 0.1)
    before = len(metrics.render().splitlines())
    for index in range(500):
        metrics.steps_ended(f"kind-{index}", [{"status": f"status-{index}", "duration_ms": 100, "usage": {}}])
        metrics.transaction(f"function-{index}", 1, 0.1)
        metrics.request(f"METHOD{index}", "/v1/runs", 200, 0.1)
    text = metrics.render().decode()
    assert len(text.splitlines()) == before
    assert 'kind="other"' in text
    assert "kind-17" not in text


async def test_the_endpoint_speaks_prometheus() -> None:
    app = Starlette(routes=[Mount("/metrics", metrics.endpoint)])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host") as client:
        answer = await client.get("/metrics/")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(answer.text)}
    assert {"agentflow_runs", "agentflow_steps", "agentflow_step_seconds", "process_cpu_seconds"} <= families
    assert not re.search(r'(tenant|run)="', answer.text)
