"""The observability profile, whose images no test can pull: its files are well formed, fit together, and ask for
metrics that functions really serve."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.observe import metrics, retention

LOCAL = Path(__file__).parents[2] / "local"
FOLDER = LOCAL / "observability"
COMPOSE = yaml.safe_load((LOCAL / "compose.yaml").read_text())
DASHBOARDS = sorted((FOLDER / "grafana/dashboards").glob("*.json"))
CALLS = {"sum", "max", "by", "rate", "increase", "histogram_quantile", "le"}
OUTSIDE = {"up"}  # of Prometheus itself


def load(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


def served() -> dict[str, set[str]]:
    """Every series a function serves, with its labels."""
    found: dict[str, set[str]] = {}
    for family in metrics.registry.collect():
        names = {
            "counter": ["_total"], "histogram": ["_bucket", "_count", "_sum"], "gauge": [""], "info": ["_info"]
        }.get(family.type, [""])  # fmt: skip
        collector = metrics.registry._names_to_collectors.get(family.name)
        labels = set(getattr(collector, "_labelnames", ()))
        for suffix in names:
            found[family.name + suffix] = labels | ({"le"} if suffix == "_bucket" else set())
    return found


def metrics_in(expression: str) -> set[str]:
    plain = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"", "", expression)
    plain = re.sub(r"by \([^)]*\)", "", plain)
    return {word for word in re.findall(r"\b[a-z_:][a-z0-9_:]*", plain) if word not in CALLS}


def expressions() -> list[tuple[str, str]]:
    found = [
        (f"{path.name}: {panel['title']}", target["expr"])
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
        for target in panel["targets"]
    ]
    rules = [rule for group in load("alerts.yaml")["groups"] for rule in group["rules"]]
    return found + [(rule["alert"], rule["expr"]) for rule in rules]


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_what_is_asked_for_is_served(where: str, expression: str) -> None:
    assert retention  # registers its metrics
    known = served()
    asked = metrics_in(expression) - OUTSIDE
    assert asked <= set(known), f"{where} asks for {asked - set(known)}"
    for labels in re.findall(r"by \(([^)]*)\)", expression):
        for label in {label.strip() for label in labels.split(",")} - {"instance"}:
            in_target = label == "function"  # prometheus.yaml names each target's
            assert in_target or any(label in known[name] for name in asked), f"{where}: nothing has {label}"
    assert expression.count("(") == expression.count(")")


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.name)
def test_a_dashboard_is_whole(path: Path) -> None:
    board = json.loads(path.read_text())
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) >= 6
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == {source["uid"]}
    assert board["uid"] and board["title"].startswith("AgentFlow")


def test_every_service_is_scraped_under_its_own_name() -> None:
    (job, spans) = load("prometheus.yaml")["scrape_configs"]
    (sd,) = job["dns_sd_configs"]
    images = {n: s["image"] for n, s in COMPOSE["services"].items() if s.get("restart") != "no"}
    ours = {name for name, image in images.items() if image.startswith("agentflow/")}
    assert set(sd["names"]) == ours
    assert sd["port"] == 8080
    assert spans["static_configs"][0]["targets"] == ["collector:9464"]


def test_the_collector_has_every_part_that_its_pipelines_name() -> None:
    config = load("collector.yaml")
    connectors = set(config["connectors"])
    for pipeline in config["service"]["pipelines"].values():
        assert set(pipeline["receivers"]) <= set(config["receivers"]) | connectors
        assert set(pipeline["processors"]) <= set(config["processors"])
        assert set(pipeline["exporters"]) <= set(config["exporters"]) | connectors
    assert set(config["service"]["extensions"]) == set(config["extensions"])
    assert config["receivers"]["otlp"]["protocols"]["http"]["endpoint"].endswith(":4318")
    assert config["exporters"]["prometheus"]["endpoint"].endswith(":9464")


def test_files_that_are_mounted_are_there_and_only_read() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                source, _, mode = volume.split(":")
                assert (LOCAL / source).exists(), volume
                assert mode == "ro", volume


def test_the_example_names_every_setting_and_no_secret() -> None:
    example = (LOCAL / ".env.example").read_text()
    named = dict(line.split("=", 1) for line in example.splitlines() if re.match(r"[A-Z_]+=", line))
    asked = set(re.findall(r"\$\{([A-Z_]+)", (LOCAL / "compose.yaml").read_text()))
    assert asked - set(named) <= {"AWS_DEFAULT_REGION", "RETENTION", "TRACE_SAMPLE"}
    assert set(named) <= asked
    assert {name for name in named if re.search("PASSWORD|PEPPER|KEY", name) and named[name]} == set()
