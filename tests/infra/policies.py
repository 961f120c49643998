"""Network policies as a CNI that enforces them reads them: who may connect to whom, computed from manifests."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any

from .manifests import Manifest, of_kind

OURS = "agentflow"
NAME = "kubernetes.io/metadata.name"  # Kubernetes' own label of each namespace
OF_KNATIVE = "serving.knative.dev/service"  # Knative's label of each of its pods


@dataclass(frozen=True)
class Peer:
    """Who is spoken to, or speaks: a pod in a namespace, or an address outside of the cluster."""

    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # of the namespace, beside its name
    address: str = ""


def pod_labels(each: Manifest) -> dict[str, str]:
    """The labels of the pods that a manifest leads to, Knative's own among them."""
    given = dict(each["spec"]["template"]["metadata"]["labels"])
    knative = each["apiVersion"] == "serving.knative.dev/v1"
    return given | ({OF_KNATIVE: each["metadata"]["name"]} if knative else {})


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}, selector
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        (each["key"] in labels) == {"Exists": True, "DoesNotExist": False}[each["operator"]]
        for each in selector.get("matchExpressions", ())
    )


def may_connect(
    found: list[Manifest], pod: Mapping[str, str], peer: Peer, port: int, *, to: bool, protocol: str = "TCP"
) -> bool:
    """Whether a pod of ours may connect to a peer's port (``to``), or a peer to a port of the pod."""
    kind, rules, side = ("Egress", "egress", "to") if to else ("Ingress", "ingress", "from")
    policies = [
        each["spec"]
        for each in of_kind(found, "NetworkPolicy")
        if each["metadata"]["namespace"] == OURS
        and kind in each["spec"]["policyTypes"]
        and selects(each["spec"]["podSelector"], pod)
    ]
    return not policies or any(
        _port(rule.get("ports"), port, protocol) and _peer(rule.get(side), peer)
        for policy in policies
        for rule in policy.get(rules, ())
    )


def _port(ports: Iterable[Mapping[str, Any]] | None, port: int, protocol: str) -> bool:
    """No ports: any."""
    return ports is None or any(
        each.get("port", port) == port and each.get("protocol", "TCP") == protocol for each in ports
    )


def _peer(among: Iterable[Mapping[str, Any]] | None, peer: Peer) -> bool:
    """No peers: any."""
    if among is None:
        return True
    for each in among:
        assert each.keys() <= {"ipBlock", "namespaceSelector"}, f"{each}: not understood here"
        if "ipBlock" in each:
            block = each["ipBlock"]
            but = block.get("except", ())
            if peer.address and _within(peer.address, block["cidr"]) and not any(_within(peer.address, b) for b in but):
                return True
        elif peer.namespace and selects(each["namespaceSelector"], {NAME: peer.namespace, **peer.labels}):
            return True
    return False


def _within(address: str, block: str) -> bool:
    return ip_address(address) in ip_network(block)
