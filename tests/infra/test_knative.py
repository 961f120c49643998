"""infra/knative: what kustomize makes of it is what a cluster takes, and says the same as the code."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from agentflow.config import Settings
from agentflow.observe import metrics
from agentflow.runtime.bridge import function_urls
from agentflow.runtime.function import NAMES
from agentflow.runtime.serve import STARTING, not_found, with_probes
from agentflow.wire.streams import CONSUMERS

from .manifests import (
    CRDS,
    INFRA,
    KNATIVE,
    Manifest,
    built,
    faults,
    manifests,
    of_kind,
    pods,
    rendered,
    services,
)

pytestmark = pytest.mark.usefixtures("programs")

GOLDEN = Path(__file__).parent / "golden"
OVERLAYS = ("dev", "production")
MEASURED_BY_OTHERS = {  # Kubernetes, cert-manager, CloudNativePG and its plugin for backups
    "kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes",
    "certmanager_certificate_expiration_timestamp_seconds", "cnpg_pg_stat_archiver_seconds_since_last_archival",
    "barman_cloud_cloudnative_pg_io_last_available_backup_timestamp",
}  # fmt: skip
OURS = {f"agentflow/{name}" for name in ("plan", "dispatch", "invoke-llm", "run-tool", "account-cost", "api")}
OURS |= {"agentflow/bridge", "agentflow/relay"}


def patch_of(component: str, name: str) -> Manifest:
    """What a component would have merged into a ConfigMap of Knative's."""
    found: Manifest = yaml.safe_load((KNATIVE / "components" / component / f"{name}.patch.yaml").read_text())
    return found


def annotations(service: Manifest) -> dict[str, str]:
    found: dict[str, str] = service["spec"]["template"]["metadata"]["annotations"]
    return found


@pytest.mark.parametrize("name", OVERLAYS)
def test_what_is_rendered_is_what_was_looked_at(name: str) -> None:
    """After a change on purpose: kustomize build infra/knative/overlays/NAME > tests/infra/golden/NAME.yaml"""
    assert rendered(KNATIVE / "overlays" / name) == (GOLDEN / f"{name}.yaml").read_text()


def test_every_manifest_is_one_that_a_cluster_takes(flavours: dict[str, list[Manifest]]) -> None:
    assert [fault for found in flavours.values() for each in found for fault in faults(each, CRDS)] == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: annotations(s).update({"autoscaling.knative.dev/minScale": "1"}), "minScale"),
        (lambda s: annotations(s).update({"autoscaling.knative.dev/min-scale": "one"}), "'one'"),
        (lambda s: s["spec"]["template"]["spec"].update({"containerConcurency": 4}), "containerConcurency"),
        (lambda s: s["spec"]["template"]["spec"].update({"timeoutSeconds": "60"}), "'60' is not of type"),
        (lambda s: s["spec"]["template"]["spec"]["containers"][0].update({"arg": []}), "arg"),
    ],
)  # fmt: skip
def test_a_slip_in_a_service_is_found(change: Callable[[Manifest], None], said: str) -> None:
    service = copy.deepcopy(services(manifests(rendered(KNATIVE / "overlays" / "dev")))["dispatch"])
    assert faults(service, CRDS) == []
    change(service)
    assert any(said in fault for fault in faults(service, CRDS))


def test_a_slip_in_a_trigger_or_a_deployment_is_found(flavours: dict[str, list[Manifest]]) -> None:
    (trigger,) = of_kind(flavours["other"], "Trigger")
    del trigger["spec"]["delivery"]["deadLetterSink"]
    assert faults(trigger, CRDS) == ["Trigger/plan: its delivery lacks ['deadLetterSink']"]
    bridge = of_kind(flavours["dev"], "Deployment")[0]
    bridge["spec"]["template"]["spec"]["nodeselector"] = {}
    assert any("nodeselector" in fault for fault in faults(bridge, CRDS))


def test_every_function_has_a_service_where_the_bridge_looks_for_it(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        known = services(found)
        assert known.keys() == {name.replace("_", "-") for name in NAMES}
        (settings,) = (each for each in of_kind(found, "ConfigMap") if "settings" in each["metadata"]["name"])
        for name, url in function_urls(settings["data"]["AGENTFLOW_FUNCTION_URLS"]).items():
            service = known[name.replace("_", "-")]
            assert url == f"http://{service['metadata']['name']}.{service['metadata']['namespace']}.svc.cluster.local"
            assert service["metadata"]["labels"]["networking.knative.dev/visibility"] == "cluster-local"
        assert "networking.knative.dev/visibility" not in known["api"]["metadata"]["labels"]


def test_keda_watches_every_consumer_there_is(flavours: dict[str, list[Manifest]]) -> None:
    (scaled,) = of_kind(flavours["production"], "ScaledObject")
    watched = [(each["metadata"]["stream"], each["metadata"]["consumer"]) for each in scaled["spec"]["triggers"]]
    assert sorted(watched) == sorted((each.stream, each.function) for each in CONSUMERS)
    limits = {(each.stream, each.function): each.max_ack_pending for each in CONSUMERS}
    for each in scaled["spec"]["triggers"]:
        place = each["metadata"]["stream"], each["metadata"]["consumer"]
        assert int(each["metadata"]["lagThreshold"]) <= limits[place]
    (bridge,) = (each for each in of_kind(flavours["production"], "Deployment") if each["metadata"]["name"] == "bridge")
    assert "replicas" not in bridge["spec"]  # two that scale one deployment work against each other


def test_the_settings_are_settings(tmp_path: Path, flavours: dict[str, list[Manifest]]) -> None:
    """Every variable that a container gets is known, and every file it names is mounted from a Secret."""
    for found in flavours.values():
        maps = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
        for name, pod in pods(found):
            (container,) = pod["spec"]["containers"]
            environment = dict(maps[container["envFrom"][0]["configMapRef"]["name"]])
            environment |= {each["name"]: each.get("value", "of a Secret") for each in container.get("env", [])}
            mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
            for variable, value in environment.items():
                for path in re.findall(r"(/etc/agentflow/[^&#]+)", value):
                    assert os.path.dirname(path) in mounts, f"{name}: {variable} names {path}"
                if value.startswith("secret://file/"):
                    (tmp_path / "secret").write_text("0123456789abcdef")
                    environment[variable] = f"secret://file{tmp_path}/secret"
            Settings.from_env(environment)


def test_no_container_may_do_more_than_it_has_to(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        for name, pod in pods(found):
            spec = pod["spec"]
            assert spec["automountServiceAccountToken"] is False, name
            assert spec["serviceAccountName"] == re.sub(r"-\d.*", "", name)
            (container,) = spec["containers"]
            context = {**spec.get("securityContext", {}), **container["securityContext"]}
            assert context["runAsNonRoot"] is True, name
            assert context["runAsUser"] == 65532, name
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert container["image"].partition(":")[0] in OURS, name
            assert {"cpu", "memory"} == container["resources"]["requests"].keys(), name
            assert "memory" in container["resources"]["limits"], name
            assert all("emptyDir" not in volume or volume["emptyDir"]["sizeLimit"] for volume in spec["volumes"]), name


def test_who_may_administer_the_database_is_the_migration_alone(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        holders = {
            name
            for name, pod in pods(found)
            for volume in pod["spec"]["volumes"]
            if volume.get("secret", {}).get("secretName") == "agentflow-administrator"
        }
        assert [name.partition("-")[0] for name in holders] == ["migrate"]


def test_the_key_to_the_push_doors_is_with_who_pushes_and_who_is_pushed_to(
    flavours: dict[str, list[Manifest]],
) -> None:
    reference = {"secretKeyRef": {"name": "agentflow-push", "key": "AGENTFLOW_PUSH_KEY"}}
    for flavour, found in flavours.items():
        variables = {
            name: {each["name"]: each for each in pod["spec"]["containers"][0].get("env", [])}
            for name, pod in pods(found)
        }
        holders = {name for name, each in variables.items() if "AGENTFLOW_PUSH_KEY" in each}
        assert holders == {"bridge", *services(found)} - {"api"}  # whose callers have keys of their own
        assert all(variables[name]["AGENTFLOW_PUSH_KEY"]["valueFrom"] == reference for name in holders)
        # Triggers have no key: where there are some, the function that they lead to lets clients' events in without.
        stand_open = {name for name, each in variables.items() if "AGENTFLOW_PUSH_OPEN" in each}
        assert stand_open == ({"plan"} if flavour == "other" else set())
    stored = {each["spec"]["target"]["name"] for each in of_kind(flavours["production"], "ExternalSecret")}
    assert "agentflow-push" in stored


def test_tools_run_on_gvisors_nodes_by_either_way(flavours: dict[str, list[Manifest]]) -> None:
    operator, flags = flavours["production"], flavours["other"]
    config = patch_of("gvisor-operator", "config-deployment")
    chosen = yaml.safe_load(config["data"]["runtime-class-name"])
    (runtime,) = of_kind(operator, "RuntimeClass")
    labels = services(operator)["run-tool"]["spec"]["template"]["metadata"]["labels"]
    assert chosen[runtime["metadata"]["name"]]["selector"].items() <= labels.items()
    assert runtime["handler"] == "runsc"
    assert runtime["scheduling"]["nodeSelector"] == {"agentflow.dev/sandbox": "gvisor"}
    pod = services(flags)["run-tool"]["spec"]["template"]["spec"]
    assert (pod["runtimeClassName"], pod["nodeSelector"]) == ("gvisor", {"agentflow.dev/sandbox": "gvisor"})
    features = patch_of("gvisor-podspec", "config-features")
    fields = {"runtimeClassName", "nodeSelector", "tolerations"}
    assert features["data"] == {f"kubernetes.podspec-{name.lower()}": "enabled" for name in fields & pod.keys()}
    assert fields <= pod.keys()
    for found in flavours.values():
        others = [s for name, s in services(found).items() if name != "run-tool"]
        assert not any("use-gvisor" in s["spec"]["template"]["metadata"]["labels"] for s in others)


@pytest.mark.parametrize(
    ("component", "name"), [("gvisor-operator", "config-deployment"), ("gvisor-podspec", "config-features")]
)
def test_knatives_own_configuration_is_added_to_and_never_put_in_its_place(component: str, name: str) -> None:
    """`kubectl apply` of a ConfigMap with one key takes the others away, and Knative refuses to be without some."""
    said = re.sub(r"\\?\n# *", " ", (KNATIVE / "components" / component / "kustomization.yaml").read_text())
    place = f"infra/knative/components/{component}/{name}.patch.yaml"
    command = f"kubectl patch configmap {name} --namespace knative-serving --type merge --patch-file {place}"
    assert re.sub(" +", " ", said).count(command) == 1
    assert patch_of(component, name).keys() == {"data"}


def test_what_is_applied_is_in_our_namespace_or_in_none(flavours: dict[str, list[Manifest]]) -> None:
    for found in flavours.values():
        assert {each["metadata"].get("namespace", "agentflow") for each in found} == {"agentflow"}


def test_tools_run_in_namespaces_of_their_own_where_the_kernel_is_gvisors(flavours: dict[str, list[Manifest]]) -> None:
    """A node's own kernel refuses them to a pod with the default seccomp profile: dev does without, and says so."""
    drivers = {}
    for name, found in flavours.items():
        (container,) = services(found)["run-tool"]["spec"]["template"]["spec"]["containers"]
        drivers[name] = next(each["value"] for each in container["env"] if each["name"] == "AGENTFLOW_SANDBOX")
        assert bool(of_kind(found, "RuntimeClass")) == (drivers[name] == "nested")
    assert drivers == {"dev": "process", "production": "nested", "other": "nested"}
    assert "AGENTFLOW_SANDBOX=process" in (KNATIVE / "overlays" / "dev" / "kustomization.yaml").read_text()


async def test_a_pod_that_waits_is_started_and_alive_and_gets_no_requests(flavours: dict[str, list[Manifest]]) -> None:
    """Postgres or NATS may be away for longer than any probe is patient."""
    waits: Any = SimpleNamespace(ready=lambda: (False, f"{STARTING}: PostgreSQL can't be reached"))
    transport = httpx.ASGITransport(with_probes(not_found, waits, Settings()))
    async with httpx.AsyncClient(transport=transport, base_url="http://pod") as client:
        for found in flavours.values():
            containers = [pod["spec"]["containers"][0] for _, pod in pods(found)]
            serving = [container for container in containers if "ports" in container]
            assert len(serving) == len(NAMES) + len(("bridge", "relay"))
            for container in serving:
                probes = [container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "liveness", "readiness")]
                said = [(await client.get(path)).status_code for path in probes]
                assert said == [200, 200, 503], container["image"]


def test_a_change_of_the_settings_leaves_the_migration_as_it_is() -> None:
    """What a Job starts from cannot be changed while it is there, and it is there for a day."""
    merged = "configMapGenerator: [{name: agentflow-settings, behavior: merge, literals: [AGENTFLOW_LOG_LEVEL=debug]}]"
    before, after = (manifests(built(f"resources: [../dev]\n{more}\n")) for more in ("", merged))
    assert of_kind(before, "Job") == of_kind(after, "Job")
    assert services(before)["plan"] != services(after)["plan"]  # while functions get a new revision


def test_the_migration_goes_to_the_database_that_functions_use(flavours: dict[str, list[Manifest]]) -> None:
    text = (KNATIVE / "overlays" / "production" / "kustomization.yaml").read_text()
    said = " ".join(text.replace("# ", "").split())
    assert "agentflow-migration with `options: {disableNameSuffixHash: true}`" in said
    literals = "behavior: merge, literals: [AGENTFLOW_DATABASE_URL=postgresql://elsewhere/agentflow]"
    moved = built(
        "resources: [../dev]\nconfigMapGenerator:\n"
        f"  - {{name: agentflow-settings, {literals}}}\n"
        f"  - {{name: agentflow-migration, {literals}, options: {{disableNameSuffixHash: true}}}}\n"
    )
    for found in (*flavours.values(), manifests(moved)):
        maps = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
        (job,) = of_kind(found, "Job")
        (container,) = job["spec"]["template"]["spec"]["containers"]
        told = maps[container["envFrom"][0]["configMapRef"]["name"]]
        assert {each["AGENTFLOW_DATABASE_URL"] for each in maps.values()} == {told["AGENTFLOW_DATABASE_URL"]}


def test_a_domain_is_claimed_for_whom_it_leads_to(flavours: dict[str, list[Manifest]]) -> None:
    """Knative makes no claims by itself, unless it is told to, and does nothing for a domain without one."""
    (domain,) = of_kind(flavours["production"], "DomainMapping")
    (claim,) = of_kind(flavours["production"], "ClusterDomainClaim")
    assert claim["metadata"]["name"] == domain["metadata"]["name"]
    assert claim["spec"]["namespace"] == domain["metadata"]["namespace"]
    assert "namespace" not in claim["metadata"]


def test_every_alert_asks_for_what_is_measured_and_has_its_runbook(flavours: dict[str, list[Manifest]]) -> None:
    from agentflow.observe import retention  # noqa: F401  # its metrics are registered with it

    (rules,) = of_kind(flavours["production"], "PrometheusRule")
    alerts = [rule for group in rules["spec"]["groups"] for rule in group["rules"]]
    text = metrics.render().decode()
    families = list(text_string_to_metric_families(text))
    measured = {f"{each.name}{end}" for each in families for end in ("", "_total", "_bucket", "_count", "_sum")}
    books = (INFRA / "operations" / "runbooks.md").read_text()
    sections = {title.lower().replace(" ", "-") for title in re.findall(r"^## ([A-Za-z -]+)$", books, re.MULTILINE)}
    assert len(alerts) == 15
    for alert in alerts:
        asked = set(re.findall(r"\b[a-z]+_\w+(?=[{\[)]| [-/])", alert["expr"])) - {"histogram_quantile"}
        assert asked <= measured | MEASURED_BY_OTHERS, alert["alert"]
        assert asked or "up{" in alert["expr"], alert["alert"]
        place, _, section = alert["annotations"]["runbook"].partition("#")
        assert place == "infra/operations/runbooks.md"
        assert section in sections, alert["alert"]


def test_a_broker_brings_everything_but_our_own_to_plan(flavours: dict[str, list[Manifest]]) -> None:
    (trigger,) = of_kind(flavours["other"], "Trigger")
    assert trigger["spec"]["filters"] == [{"not": {"prefix": {"type": "agentflow."}}}]
    assert trigger["spec"]["subscriber"]["ref"]["name"] == "plan"
    (binding,) = of_kind(flavours["other"], "SinkBinding")
    assert binding["spec"]["subject"]["name"] == "bridge"


def sizes(found: list[Manifest]) -> tuple[int, int, int]:
    """What an overlay asks for while nothing happens: pods, thousandths of a core, MiB."""
    count = cores = memory = 0
    for each in found:
        if each["kind"] == "Deployment":
            often = each["spec"].get("replicas") or of_kind(found, "ScaledObject")[0]["spec"]["minReplicaCount"]
        elif each["apiVersion"] == "serving.knative.dev/v1":
            often = int(annotations(each)["autoscaling.knative.dev/min-scale"])
        else:
            continue
        asked = each["spec"]["template"]["spec"]["containers"][0]["resources"]["requests"]
        count += often
        cores += often * int(asked["cpu"].removesuffix("m"))
        memory += often * int(asked["memory"].removesuffix("Mi"))
    return count, cores, memory


def test_what_being_warm_costs_is_what_the_walk_through_says(flavours: dict[str, list[Manifest]]) -> None:
    text = (KNATIVE / "README.md").read_text()
    for name in OVERLAYS:
        count, cores, memory = sizes(flavours[name])
        assert f"| {name} | {count} | {cores / 1000:.2f} | {memory / 1024:.2f} GiB |" in text


def matches(glob: str, image: str) -> bool:
    """As policy-controller has it: `*` stays within a part of the name, `**` does not, and all of it has to match."""
    parts = [".*".join(map(re.escape, each.split("**"))) for each in [glob]]
    return re.fullmatch(parts[0].replace(r"\*", "[^/]*"), image) is not None


def test_no_image_of_ours_starts_unless_it_is_signed_and_says_what_it_is(flavours: dict[str, list[Manifest]]) -> None:
    found = flavours["production"]
    (namespace,) = of_kind(found, "Namespace")
    assert namespace["metadata"]["labels"]["policy.sigstore.dev/include"] == "true"
    policies = {each["metadata"]["name"]: each["spec"] for each in of_kind(found, "ClusterImagePolicy")}
    digest = f"@sha256:{'0' * 64}"
    queue = f"registry.internal/knative-releases/knative.dev/serving/cmd/queue{digest}"
    for image in {pod["spec"]["containers"][0]["image"] for _, pod in pods(found)} | {queue}:
        name = image if image == queue else f"registry.internal:5000/team/{image.partition(':')[0]}{digest}"
        asked = {each for each, spec in policies.items() if any(matches(i["glob"], name) for i in spec["images"])}
        assert asked == ({"agentflow-knative-queue"} if image == queue else {"agentflow-signed", "agentflow-attested"})
    for stranger in ("registry.internal/other/plan", "registry.internal/agentflow-x/plan"):
        assert not any(matches(i["glob"], f"{stranger}{digest}") for s in policies.values() for i in s["images"])
    assert {spec["mode"] for spec in policies.values()} == {"enforce"}
    # Of several authorities one is enough: each policy has one, which names what it trusts.
    signed, attested, knative = (
        policies[name]["authorities"][0]
        for name in ("agentflow-signed", "agentflow-attested", "agentflow-knative-queue")
    )
    assert all(len(spec["authorities"]) == 1 for spec in policies.values())
    assert signed["key"] == attested["key"] == {"secretRef": {"name": "agentflow-signing"}}
    assert "attestations" not in signed
    types = {each["name"]: each["predicateType"] for each in attested["attestations"]}
    assert types == {"sbom": "https://cyclonedx.org/bom", "provenance": "https://slsa.dev/provenance/v1"}
    assert [each.keys() for each in knative["keyless"]["identities"]] == [{"issuer", "subject"}]
    assert "agentflow-signing --from-file=cosign.pub" in (KNATIVE / "README.md").read_text()


def test_the_provenance_that_is_asked_for_is_the_one_that_is_written(flavours: dict[str, list[Manifest]]) -> None:
    script = (INFRA / "supply-chain" / "provenance.py").read_text()
    (build_type,) = re.findall(r'BUILD_TYPE = "(.+)"', script)
    policies = {each["metadata"]["name"]: each for each in of_kind(flavours["production"], "ClusterImagePolicy")}
    asked = policies["agentflow-attested"]["spec"]["authorities"][0]["attestations"]
    (policy,) = [each["policy"] for each in asked if "policy" in each]
    assert policy["type"] == "cue"
    assert f'buildType: "{build_type}"' in policy["data"]
    assert 'internalParameters: standIn: ""' in policy["data"]
    assert '"standIn":' in script
