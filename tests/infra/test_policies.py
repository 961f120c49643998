"""infra/knative's network policies: whom the pods of every rendered overlay can reach, and who can reach them."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.runtime.function import NAMES

from .manifests import Manifest, of_kind
from .policies import Peer, may_connect, pod_labels, selects

FUNCTIONS = {name.replace("_", "-") for name in NAMES}
HOSTS = {"bridge", "relay"}
EVERYONE = FUNCTIONS | HOSTS | {"migrate"}
DNS, NODE_DNS = Peer("kube-system"), Peer(address="169.254.20.10")
PUBLIC = Peer(address="203.0.113.7")

# Whom somebody might want to speak to, and at which port.
OUT: dict[str, tuple[Peer, int]] = {
    "names": (DNS, 53),
    "names on the node": (NODE_DNS, 53),
    "postgres": (Peer("agentflow-data"), 5432),
    "nats": (Peer("agentflow-data"), 4222),
    "nats' monitor": (Peer("agentflow-data"), 8222),
    "ingress": (Peer("kourier-system"), 8081),
    "eventing": (Peer("knative-eventing"), 8080),
    "the public": (PUBLIC, 443),
    "the public, in the clear": (PUBLIC, 80),
    "models here": (Peer("models", {"agentflow.dev/serves-models": "true"}), 8000),
    "archives here": (Peer("stores", {"agentflow.dev/keeps-archives": "true"}), 9000),
    "collector": (Peer("observability"), 4318),
    "a neighbour": (Peer("agentflow"), 8080),
    "the cloud's metadata": (Peer(address="169.254.169.254"), 80),
    "a private address": (Peer(address="10.1.2.3"), 443),
    "somebody": (Peer("default"), 443),
}
IN: dict[str, tuple[Peer, int]] = {
    "activator": (Peer("knative-serving"), 8012),
    "autoscaler": (Peer("knative-serving"), 9090),
    "ingress": (Peer("kourier-system"), 8012),
    "ingress, TLS": (Peer("kourier-system"), 8112),
    "the function itself": (Peer("kourier-system"), 8080),
    "prometheus": (Peer("monitoring"), 8080),
    "a neighbour": (Peer("agentflow"), 8012),
    "somebody": (Peer("default"), 8080),
    "the public": (PUBLIC, 8012),
}
ALWAYS = {"names", "names on the node", "postgres", "nats"}
CALLED = {"activator", "autoscaler", "ingress", "ingress, TLS"}
# By pod: whom it must reach beside ALWAYS, in every overlay, and with all components.
MORE = {"bridge": {"ingress"}, "invoke-llm": {"the public", "models here"}}
WITH_COMPONENTS = {name: {"the public", "collector"} for name in EVERYONE}
WITH_COMPONENTS["bridge"] = WITH_COMPONENTS["bridge"] | {"eventing"}
WITH_COMPONENTS["relay"] = WITH_COMPONENTS["relay"] | {"archives here"}


def all_pods(found: list[Manifest]) -> dict[str, dict[str, str]]:
    """The labels of every pod, by component."""
    made = [each for each in found if "template" in each.get("spec", {})]
    labels = [pod_labels(each) for each in made]
    return {each["app.kubernetes.io/component"]: each for each in labels}


@pytest.mark.parametrize("flavour", ["dev", "production", "other"])
def test_every_pod_reaches_whom_it_must_and_nobody_else(flavours: dict[str, list[Manifest]], flavour: str) -> None:
    found = flavours[flavour]
    pods = all_pods(found)
    assert pods.keys() == EVERYONE
    for name, labels in pods.items():
        reached = {who for who, (peer, port) in OUT.items() if may_connect(found, labels, peer, port, to=True)}
        more = WITH_COMPONENTS[name] if flavour == "other" else set()
        assert reached == ALWAYS | MORE.get(name, set()) | more, name
        for peer in (DNS, NODE_DNS):
            assert may_connect(found, labels, peer, 53, to=True, protocol="UDP"), name


@pytest.mark.parametrize("flavour", ["dev", "production", "other"])
def test_every_pod_is_reached_by_whom_it_must_and_nobody_else(
    flavours: dict[str, list[Manifest]], flavour: str
) -> None:
    found = flavours[flavour]
    watched = bool(of_kind(found, "PodMonitor"))
    for name, labels in all_pods(found).items():
        reach = {who for who, (peer, port) in IN.items() if may_connect(found, labels, peer, port, to=False)}
        assert reach == (CALLED if name in FUNCTIONS else set()) | ({"prometheus"} if watched else set()), name


def selectors(found: list[Manifest]) -> list[tuple[str, Any]]:
    """Every selector of pods, with whose it is."""
    chosen = []
    for each in found:
        spec, name = each.get("spec", {}), f"{each['kind']}/{each['metadata']['name']}"
        if each["kind"] == "NetworkPolicy":
            chosen.append((name, spec["podSelector"]))
        elif each["kind"] in ("PodDisruptionBudget", "PodMonitor", "Deployment"):
            chosen.append((name, spec["selector"]))
        spread = spec.get("template", {}).get("spec", {}).get("topologySpreadConstraints", ())
        chosen += [(f"{name} spreads", each["labelSelector"]) for each in spread]
    return chosen


def test_every_selector_finds_a_pod(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        pods = all_pods(found).values()
        assert [name for name, each in selectors(found) if not any(selects(each, labels) for labels in pods)] == []
    assert len(selectors(flavours["dev"])) >= 13


def test_the_monitor_finds_every_pod_that_measures_and_its_port(flavours: dict[str, list[Manifest]]) -> None:
    (monitor,) = of_kind(flavours["production"], "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    found = set()
    for each in flavours["production"]:
        if "template" in each.get("spec", {}):
            (container,) = each["spec"]["template"]["spec"]["containers"]
            ports = {port["containerPort"] for port in container.get("ports", ())}
            if selects(monitor["spec"]["selector"], pod_labels(each)) and endpoint["targetPort"] in ports:
                found.add(each["metadata"]["name"])
    assert found == FUNCTIONS | HOSTS


def test_all_is_closed_but_for_what_is_said(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        (closed,) = (each for each in of_kind(found, "NetworkPolicy") if each["metadata"]["name"] == "default-deny")
        assert closed["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
