"""Manifests as a cluster would take them: rendered by kustomize, checked against the definitions of their kinds."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from jsonschema import Draft7Validator

INFRA = Path(__file__).parents[2] / "infra"
KNATIVE = INFRA / "knative"
CRDS = Path(os.environ.get("AGENTFLOW_CRDS", Path(__file__).parents[3] / "shared" / "data" / "crds"))

# What Kubernetes itself defines, and operators whose definitions are not at hand: the fields we use, by path. A field
# that is not here is either a slip or worth a look.
OBJECT = {"apiVersion", "kind", "metadata"}
POD = {
    "serviceAccountName", "automountServiceAccountToken", "enableServiceLinks", "terminationGracePeriodSeconds",
    "securityContext", "topologySpreadConstraints", "containers", "volumes", "restartPolicy", "runtimeClassName",
    "nodeSelector", "tolerations", "shareProcessNamespace",
}
CONTAINER = {
    "name", "image", "args", "env", "envFrom", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle",
    "resources", "securityContext", "volumeMounts",
}  # fmt: skip
FIELDS: dict[str, dict[str, set[str]]] = {
    "Namespace": {},
    "ServiceAccount": {"": OBJECT | {"automountServiceAccountToken"}},
    "ConfigMap": {"": OBJECT | {"data"}},
    "Deployment": {"spec": {"replicas", "selector", "strategy", "template"}, "spec.template.spec": POD},
    "Job": {
        "spec": {"backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "template"},
        "spec.template.spec": POD,
    },
    "PodDisruptionBudget": {"spec": {"minAvailable", "selector"}},
    "NetworkPolicy": {"spec": {"podSelector", "policyTypes", "ingress", "egress"}},
    "ClusterDomainClaim": {"spec": {"namespace"}},
    "RuntimeClass": {"": OBJECT | {"handler", "overhead", "scheduling"}, "scheduling": {"nodeSelector", "tolerations"}},
    "PodMonitor": {"spec": {"selector", "podMetricsEndpoints"}},
    "PrometheusRule": {"spec": {"groups"}},
    "ExternalSecret": {"spec": {"refreshInterval", "secretStoreRef", "target", "dataFrom"}},
    "ClusterImagePolicy": {"spec": {"mode", "images", "authorities"}},
    "Service": {"spec": {"selector", "ports", "clusterIP", "publishNotReadyAddresses"}},
    "StatefulSet": {
        "spec": {"serviceName", "replicas", "podManagementPolicy", "updateStrategy", "selector", "template",
                 "volumeClaimTemplates"},
        "spec.template.spec": POD,
        "spec.template.spec.containers.0": CONTAINER,
        "spec.template.spec.containers.1": CONTAINER | {"command"},
        "spec.volumeClaimTemplates.0.spec": {"accessModes", "resources", "storageClassName"},
    },
    # cert-manager
    "Issuer": {"spec": {"selfSigned", "ca"}},
    "Certificate": {"spec": {"isCA", "commonName", "secretName", "duration", "renewBefore", "privateKey", "issuerRef",
                             "usages", "dnsNames"}},
    # CloudNativePG and its plugin for object stores
    "ImageCatalog": {"spec": {"images"}, "spec.images.0": {"major", "image"}},
    "Cluster": {
        "spec": {"instances", "imageCatalogRef", "postgresUID", "postgresGID", "bootstrap", "enableSuperuserAccess",
                 "managed", "certificates", "postgresql", "resources", "storage", "walStorage", "affinity", "plugins",
                 "externalClusters"},
        "spec.imageCatalogRef": {"apiGroup", "kind", "name", "major"},
        "spec.bootstrap": {"initdb", "recovery"},
        "spec.bootstrap.initdb": {"database", "owner", "dataChecksums"},
        "spec.bootstrap.recovery": {"source", "database", "owner", "recoveryTarget"},
        "spec.externalClusters.0": {"name", "plugin"},
        "spec.externalClusters.0.plugin": {"name", "parameters"},
        "spec.managed": {"roles", "services"},
        "spec.managed.roles.0": {"name", "ensure", "login", "inherit", "passwordSecret"},
        "spec.managed.services": {"additional", "disabledDefaultServices"},
        "spec.managed.services.additional.0": {"selectorType", "serviceTemplate", "updateStrategy"},
        "spec.certificates": {"serverAltDNSNames"},
        "spec.postgresql": {"synchronous", "pg_hba", "parameters"},
        "spec.postgresql.synchronous": {"method", "number", "dataDurability"},
        "spec.affinity": {"enablePodAntiAffinity", "topologyKey", "podAntiAffinityType"},
        "spec.plugins.0": {"name", "isWALArchiver", "parameters"},
    },
    "ObjectStore": {
        "spec": {"retentionPolicy", "configuration"},
        "spec.configuration": {"destinationPath", "s3Credentials", "wal", "data", "endpointURL"},
    },
    "ScheduledBackup": {
        "spec": {"schedule", "immediate", "backupOwnerReference", "cluster", "method", "pluginConfiguration"},
    },
}
ANNOTATIONS: dict[str, Any] = {
    "autoscaling.knative.dev/min-scale": int,
    "autoscaling.knative.dev/max-scale": int,
    "autoscaling.knative.dev/target": float,
    "autoscaling.knative.dev/metric": {"concurrency", "rps"},
    "autoscaling.knative.dev/scale-down-delay": "duration",
    "eventing.knative.dev/broker.class": {"NatsJetStreamBroker"},
}
DELIVERY = {"retry", "backoffPolicy", "backoffDelay", "timeout", "deadLetterSink"}

Manifest = dict[str, Any]


def kustomize() -> str | None:
    """The program; `infra/from-trixie.sh kustomize` installs it."""
    return shutil.which("kustomize")


@cache
def rendered(folder: Path) -> str:
    """What kustomize makes of a folder."""
    made = subprocess.run(["kustomize", "build", str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return made.stdout


def built(kustomization: str) -> str:
    """What kustomize makes of an overlay that a test writes; beside the others, and with production's domain.yaml."""
    with TemporaryDirectory(prefix=".test-", dir=KNATIVE / "overlays") as name:
        folder = Path(name)
        (folder / "kustomization.yaml").write_text(kustomization)
        (folder / "domain.yaml").write_text((KNATIVE / "overlays" / "production" / "domain.yaml").read_text())
        return rendered(folder)


def manifests(text: str) -> list[Manifest]:
    return [each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each]


@cache
def definitions(folder: Path) -> dict[tuple[str, str], Draft7Validator]:
    """A validator for every apiVersion and kind that is defined in a folder of CustomResourceDefinitions."""
    found = {}
    for path in sorted(folder.rglob("*.yaml")):
        for each in yaml.load_all(path.read_text(), Loader=yaml.CSafeLoader):
            if not isinstance(each, dict) or each.get("kind") != "CustomResourceDefinition":
                continue
            spec = each["spec"]
            for version in spec["versions"]:
                shape = _closed(version.get("schema", {}).get("openAPIV3Schema", {}), top=True)
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = Draft7Validator(shape)
    return found


def _closed(shape: Any, *, top: bool = False) -> Any:
    """A definition that takes no field it does not name, as an API server prunes or refuses them."""
    if isinstance(shape, list):
        return [_closed(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    closed = {name: _closed(each) for name, each in shape.items()}
    properties = closed.get("properties")
    if isinstance(properties, dict):
        if top:
            for name in OBJECT:
                properties.setdefault(name, {})
        if not shape.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    if shape.get("x-kubernetes-int-or-string"):
        closed = {"type": ["integer", "string"]}
    return closed


def faults(each: Manifest, crds: Path) -> list[str]:
    """What is wrong with a manifest."""
    name = f"{each['kind']}/{each['metadata']['name']}"
    found = [f"{name}: {fault}" for fault in _annotation_faults(each)]
    validator = definitions(crds).get((each["apiVersion"], each["kind"]))
    if validator is not None:
        found += [
            f"{name}: {'.'.join(map(str, fault.path))}: {fault.message}" for fault in validator.iter_errors(each)
        ]
    elif each["kind"] in FIELDS:
        found += [f"{name}: {fault}" for fault in _field_faults(each)]
    else:
        found.append(f"{name}: no definition of {each['apiVersion']} {each['kind']}")
    if each["kind"] in ("Trigger", "Broker") and (lacks := DELIVERY - each["spec"].get("delivery", {}).keys()):
        found.append(f"{name}: its delivery lacks {sorted(lacks)}")
    return found


def _field_faults(each: Manifest) -> list[str]:
    found = []
    for path, known in FIELDS[each["kind"]].items():
        place: Any = each
        for part in filter(None, path.split(".")):
            place = (place[int(part)] if place else {}) if part.isdigit() else place.get(part, {})
        found += [f"{path}.{field} is not known" for field in place.keys() - known]
    return found


def _annotation_faults(each: Manifest) -> list[str]:
    """Annotations are strings to Kubernetes, whatever is in them: a slip there is silent."""
    template = each.get("spec", {}).get("template", {}).get("metadata", {})
    given = {**each["metadata"].get("annotations", {}), **template.get("annotations", {})}
    found = []
    for name, value in given.items():
        kind = ANNOTATIONS.get(name)
        if kind is None:
            found.append(f"annotation {name} is not known")
        elif not isinstance(value, str) or not _fits(value, kind):
            found.append(f"annotation {name}: {value!r} is not of its kind")
    return found


def _fits(value: str, kind: Any) -> bool:
    if isinstance(kind, set):
        return value in kind
    if kind == "duration":
        return value[:-1].isdigit() and value[-1] in "smh"
    try:
        return bool(kind(value) >= 0)
    except ValueError:
        return False


def services(found: list[Manifest]) -> dict[str, Manifest]:
    return {each["metadata"]["name"]: each for each in found if each["apiVersion"] == "serving.knative.dev/v1"}


def of_kind(found: list[Manifest], kind: str) -> list[Manifest]:
    return [each for each in found if each["kind"] == kind]


def pods(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """The pods that manifests lead to, with their names."""
    for each in found:
        if each["kind"] in ("Deployment", "Job", "StatefulSet") or each["apiVersion"] == "serving.knative.dev/v1":
            yield each["metadata"]["name"], each["spec"]["template"]
