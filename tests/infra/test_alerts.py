"""What alerts count is there before anything has happened.

Of a series that begins with its first count Prometheus sees no increase: what happens once would wake nobody.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agentflow.runtime.function import NAMES

ROOT = Path(__file__).parents[2]
RULES = (ROOT / "infra/knative/components/monitoring/alerts.yaml", ROOT / "local/observability/alerts.yaml")
# Hosts as they are when they have just been started: the relay's metrics, and the API's with its routes.
FRESH = """
from agentflow.config import Settings
from agentflow.control.app import create_app
from agentflow.observe import metrics, retention

create_app(None, None, Settings(), None)
print(metrics.render().decode())
"""
# What a selector has to find at zero, where it says less than that.
ALSO = {
    "agentflow_parked_total": ("function", {*NAMES, "relay", "other"}),
    "agentflow_steps_total": ("kind", {"llm", "tool"}),
    "agentflow_budget_violations_total": ("frozen", {"yes"}),
    "agentflow_http_requests_total": ("code", {"500", "503"}),
}


@cache
def fresh() -> list[Any]:
    """Every sample of a process in which nothing has happened."""
    made = subprocess.run([sys.executable, "-c", FRESH], capture_output=True, text=True, check=True)
    return [sample for family in text_string_to_metric_families(made.stdout) for sample in family.samples]


def counted() -> list[tuple[str, str, str]]:
    """Alert, counter and label matchers of every increase and rate. Of histograms a rise is asked about while many are
    measured, not a first."""
    found = []
    for path in RULES:
        document = yaml.safe_load(path.read_text())
        for rule in (rule for group in document.get("spec", document)["groups"] for rule in group["rules"]):
            asked = re.findall(r"(?:increase|rate)\((\w+)(?:\{([^}]*)\})?\[", rule["expr"])
            assert len(asked) == len(re.findall(r"\b(?:increase|rate)\(", rule["expr"])), rule["alert"]
            found += [(rule["alert"], name, given) for name, given in asked if not name.endswith("_bucket")]
    return found


def test_the_alerts_that_count_are_found() -> None:
    names = {alert for alert, *_ in counted()}
    assert {"AgentFlowBudgetFrozen", "AgentFlowParked", "MessagesParked", "AgentFlowApiErrors", "StepsFail"} <= names
    assert ALSO.keys() <= {name for _, name, _ in counted()}


@pytest.mark.parametrize(("alert", "name", "given"), counted())
def test_what_an_alert_counts_begins_at_zero(alert: str, name: str, given: str) -> None:
    matchers = re.findall(r'(\w+)(=~?)"([^"]*)"', given)
    wanted = [(at, text if kind == "=~" else re.escape(text)) for at, kind, text in matchers]
    chosen = [
        sample
        for sample in fresh()
        if sample.name == name and all(re.fullmatch(pattern, sample.labels[at]) for at, pattern in wanted)
    ]
    assert chosen, f"{alert}: there is no {name}{{{given}}} before its first count"
    assert {sample.value for sample in chosen} == {0}
    if name in ALSO and not any(at == ALSO[name][0] for at, *_ in matchers):
        at, values = ALSO[name]
        assert values <= {sample.labels[at] for sample in chosen}, alert
