"""infra/knative/data: Postgres and NATS as a cluster takes them, where the functions look for them; and three servers
with infra/nats/cluster.conf, of which one may be lost."""

from __future__ import annotations

import asyncio
import copy
import os
import re
import signal
import socket
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import nats.errors
import nats.js.errors
import pytest
from house import bus_of, eventually

from agentflow.errors import RetryLater
from agentflow.wire.event import Event

from .manifests import CRDS, INFRA, KNATIVE, Manifest, faults, manifests, of_kind, pods, rendered
from .test_nats import WORDS, certificates

GOLDEN = Path(__file__).parent / "golden" / "data.yaml"
NATS = INFRA / "nats"
SERVERS = 3


@pytest.fixture
def data(programs: None) -> list[Manifest]:
    return manifests(rendered(KNATIVE / "data"))


@pytest.mark.usefixtures("programs")
def test_what_is_rendered_is_what_was_looked_at() -> None:
    """After a change on purpose: kustomize build infra/knative/data > tests/infra/golden/data.yaml"""
    assert rendered(KNATIVE / "data") == GOLDEN.read_text()


def test_every_manifest_is_one_that_a_cluster_takes(data: list[Manifest]) -> None:
    assert [fault for each in data for fault in faults(each, CRDS)] == []
    broken = copy.deepcopy(data)
    (cluster,) = of_kind(broken, "Cluster")
    cluster["spec"]["managed"]["roles"][0]["inherits"] = True
    (servers,) = of_kind(broken, "StatefulSet")
    servers["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    found = [fault for each in broken for fault in faults(each, CRDS)]
    assert [fault.split(" ")[1] for fault in found] == [
        "spec.template.spec.containers.0.livenesProbe", "spec.managed.roles.0.inherits"
    ]  # fmt: skip


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("name", ["data-small", "data-restored"])
def test_what_is_made_of_it_is_what_a_cluster_takes(name: str) -> None:
    assert [fault for each in manifests(rendered(KNATIVE / name)) for fault in faults(each, CRDS)] == []


@pytest.mark.usefixtures("programs")
def test_a_small_one_fits_on_one_node_and_needs_two_operators() -> None:
    small = manifests(rendered(KNATIVE / "data-small"))
    operators = {each["apiVersion"].partition("/")[0] for each in small if each["apiVersion"].count(".") > 0}
    assert operators - {"networking.k8s.io"} == {"postgresql.cnpg.io", "cert-manager.io"}
    (cluster,), (servers,) = of_kind(small, "Cluster"), of_kind(small, "StatefulSet")
    assert (cluster["spec"]["instances"], servers["spec"]["replicas"]) == (1, 1)
    assert "synchronous" not in cluster["spec"]["postgresql"] and "plugins" not in cluster["spec"]
    assert cluster["spec"]["affinity"]["podAntiAffinityType"] == "preferred"
    (config,) = (arg for arg in servers["spec"]["template"]["spec"]["containers"][0]["args"] if arg.endswith(".conf"))
    assert "cluster {" not in (NATS / Path(config).name).read_text()  # it would wait for two others
    told = rendered(KNATIVE / "overlays" / "dev")
    assert set(re.findall(r'AGENTFLOW_NATS_REPLICAS: "(\d)"', told)) <= {"1"}
    asked = [cluster["spec"]["resources"]["requests"]]
    asked += [each["resources"]["requests"] for each in servers["spec"]["template"]["spec"]["containers"]]
    assert sum(int(each["cpu"].removesuffix("m")) for each in asked) <= 500
    assert sum(int(each["memory"].removesuffix("Mi")) for each in asked) <= 1024


@pytest.mark.usefixtures("programs")
def test_what_is_restored_is_the_former_one_under_its_functions_name(data: list[Manifest]) -> None:
    """Made of what the former one has archived, archived elsewhere, found and let in as that one was."""
    restored = manifests(rendered(KNATIVE / "data-restored"))
    (former,), (cluster,) = of_kind(data, "Cluster"), of_kind(restored, "Cluster")
    (store,) = of_kind(restored, "ObjectStore")
    (source,) = cluster["spec"]["externalClusters"]
    ours = [each["parameters"] for each in cluster["spec"]["plugins"]]
    archive = {"barmanObjectName": store["metadata"]["name"], "serverName": former["metadata"]["name"]}
    assert cluster["spec"]["bootstrap"]["recovery"]["source"] == source["name"]
    assert source["plugin"] == {"name": former["spec"]["plugins"][0]["name"], "parameters": archive}
    assert ours == [{**archive, "serverName": cluster["metadata"]["name"]}]
    assert cluster["metadata"]["name"] != former["metadata"]["name"]
    made = cluster["spec"]["bootstrap"]["recovery"]["database"]
    assert made == former["spec"]["bootstrap"]["initdb"]["database"]
    for same in ("managed", "certificates", "postgresql", "instances", "storage", "walStorage"):
        assert cluster["spec"][same] == former["spec"][same]
    named = re.findall(r"cnpg\.io/cluster: (\S+)", rendered(KNATIVE / "data-restored"))
    assert set(named) == {cluster["metadata"]["name"]}
    assert len(named) == len(re.findall(r"cnpg\.io/cluster: ", rendered(KNATIVE / "data")))
    (backup,) = of_kind(restored, "ScheduledBackup")
    assert (backup["spec"]["cluster"]["name"], backup["spec"]["immediate"]) == (cluster["metadata"]["name"], True)
    page = (INFRA / "operations" / "backup.md").read_text()
    for said in (f"cluster/{cluster['metadata']['name']}", f"{cluster['metadata']['name']}-superuser",
                 f"{cluster['metadata']['name']}-ca", "infra/knative/data-restored"):  # fmt: skip
        assert said in page


def most_connections(found: list[Manifest]) -> int:
    """What an overlay's pods hold of Postgres's connections at the most, by the sum of capacity.md."""
    page = (INFRA / "operations" / "capacity.md").read_text()
    (told,) = re.findall(r"`max_connections ≥ (.+?)`", page)
    assert re.sub(r"\d+", "N", told) == "N × functions' pods + N × api's + N × relays + N × bridges + N"
    function, api, relay, bridge, besides = map(int, re.findall(r"\d+", told))
    held = {"api": api, "relay": relay, "bridge": bridge}
    scaled = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in of_kind(found, "ScaledObject")}
    total = besides
    for each in found:
        name = each["metadata"]["name"]
        if each["kind"] == "Deployment":
            total += held.get(name, function) * (
                scaled[name]["maxReplicaCount"] if name in scaled else each["spec"]["replicas"]
            )
        elif each["apiVersion"] == "serving.knative.dev/v1":
            most = each["spec"]["template"]["metadata"]["annotations"]["autoscaling.knative.dev/max-scale"]
            total += held.get(name, function) * int(most)
    return total


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(("overlay", "folder"), [("production", "data"), ("dev", "data-small")])
def test_all_pods_that_there_may_be_find_a_connection_and_memory_for_it(overlay: str, folder: str) -> None:
    (cluster,) = of_kind(manifests(rendered(KNATIVE / folder)), "Cluster")
    parameters = cluster["spec"]["postgresql"]["parameters"]
    most = most_connections(manifests(rendered(KNATIVE / "overlays" / overlay)))
    assert most <= int(parameters["max_connections"])
    page = (INFRA / "operations" / "capacity.md").read_text()
    assert f"| {overlay} | {most} | {parameters['max_connections']} |" in page
    (each_mib,) = re.findall(r"(\d+) MiB for each connection in use", page)
    units = {"GB": 1024, "MB": 1, "Gi": 1024}
    shared, memory = parameters["shared_buffers"], cluster["spec"]["resources"]["limits"]["memory"]
    used = int(shared[:-2]) * units[shared[-2:]] + most * int(each_mib)
    assert used <= int(memory[:-2]) * units[memory[-2:]]


def test_functions_find_their_servers_and_are_let_in(data: list[Manifest]) -> None:
    """The names in their settings are names in the certificates, and the ports are open to their namespace."""
    functions = manifests(rendered(KNATIVE / "overlays" / "production"))
    (settings,) = (each for each in of_kind(functions, "ConfigMap") if "settings" in each["metadata"]["name"])
    (cluster,) = of_kind(data, "Cluster")
    database = urlsplit(settings["data"]["AGENTFLOW_DATABASE_URL"])
    assert database.hostname in cluster["spec"]["certificates"]["serverAltDNSNames"]
    (service,) = cluster["spec"]["managed"]["services"]["additional"]
    assert database.hostname == f"{service['serviceTemplate']['metadata']['name']}.agentflow-data.svc.cluster.local"
    assert database.path.strip("/") == cluster["spec"]["bootstrap"]["initdb"]["database"]
    certificate = next(each for each in of_kind(data, "Certificate") if each["metadata"]["name"] == "nats")
    (named,) = set(re.findall(r"@([\w.-]+):4222", (KNATIVE / "README.md").read_text()))
    assert named in certificate["spec"]["dnsNames"]
    assert settings["data"]["AGENTFLOW_NATS_REPLICAS"] == str(SERVERS)
    opened = {
        port["port"]
        for each in of_kind(data, "NetworkPolicy")
        for rule in each["spec"].get("ingress", [])
        for port in rule["ports"]
        if {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "agentflow"}}} in rule["from"]
    }
    assert opened == {4222, 5432}
    assert [each["spec"] for each in of_kind(data, "NetworkPolicy") if each["metadata"]["name"] == "default-deny"] == [
        {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    ]


def test_the_roles_are_those_that_log_in(data: list[Manifest]) -> None:
    from agentflow.runtime.preparation import ROLES

    (cluster,) = of_kind(data, "Cluster")
    managed = {each["name"]: each["passwordSecret"]["name"] for each in cluster["spec"]["managed"]["roles"]}
    assert managed == {role: role.replace("_", "-") for role in ROLES}
    (first, second) = cluster["spec"]["postgresql"]["pg_hba"]
    assert set(first.split()[2].split(",")) == set(ROLES)
    assert second == "hostnossl all all all reject"


def test_a_renewed_certificate_of_nats_is_served(data: list[Manifest]) -> None:
    """What reload.sh asks for is there: the server's process, the file with its number, the certificate, itself."""
    ((_, pod),) = pods(data)
    server, reload = pod["spec"]["containers"]
    script = (NATS / "reload.sh").read_text()
    places = dict(re.findall(r"(TLS|PID_FILE)=\$\{\w+:-([^}]+)\}", script))
    assert pod["spec"]["shareProcessNamespace"] is True
    assert reload["image"] == server["image"]
    assert server["args"][server["args"].index("--pid") + 1] == places["PID_FILE"]
    assert server["lifecycle"]["preStop"]["exec"]["command"][-1] == f"ldm={places['PID_FILE']}"
    mounted = {each["mountPath"]: each["name"] for each in server["volumeMounts"]}
    for each in reload["volumeMounts"]:
        assert mounted.get(each["mountPath"], each["name"]) == each["name"]
    seen = {each["mountPath"] for each in reload["volumeMounts"]}
    assert {places["TLS"], os.path.dirname(places["PID_FILE"]), reload["command"][1]} == seen
    (settings,) = of_kind(data, "ConfigMap")
    assert settings["data"]["reload.sh"] == script


def test_nats_may_do_no_more_than_it_has_to(data: list[Manifest]) -> None:
    ((name, pod),) = pods(data)
    spec = pod["spec"]
    assert (name, [each["name"] for each in spec["containers"]]) == ("nats", ["nats", "reload"])
    for container in spec["containers"]:
        context = {**spec["securityContext"], **container["securityContext"]}
        assert (context["runAsNonRoot"], context["readOnlyRootFilesystem"]) == (True, True)
        assert (context["allowPrivilegeEscalation"], context["capabilities"]) == (False, {"drop": ["ALL"]})
    (ending_s,) = re.findall(r"lame_duck_duration: (\d+)s", (NATS / "nats.conf").read_text())
    assert spec["terminationGracePeriodSeconds"] > int(ending_s)
    (budget,) = of_kind(data, "PodDisruptionBudget")
    (servers,) = of_kind(data, "StatefulSet")
    assert budget["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    assert budget["spec"]["minAvailable"] == servers["spec"]["replicas"] - 1
    assert len(re.findall(r'"tls://nats-\d', (NATS / "cluster.conf").read_text())) == servers["spec"]["replicas"]


# -- three servers ---------------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path, require: Any) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Three servers with our files, of which only the places are changed; their client ports."""
    certificates(tmp_path, require)
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(3 * SERVERS)]
    ports = [each.getsockname()[1] for each in listening]
    for each in listening:
        each.close()
    clients, monitors, peers = ports[:SERVERS], ports[SERVERS : 2 * SERVERS], ports[2 * SERVERS :]
    names = [f"nats-{n}.nats-peers.agentflow-data.svc.cluster.local:6222" for n in range(SERVERS)]
    routes = {name: f"localhost:{port}" for name, port in zip(names, peers, strict=True)}
    started = []
    for n in range(SERVERS):
        home = tmp_path / f"nats-{n}"
        home.mkdir()
        places = routes | {
            "0.0.0.0:4222": f"127.0.0.1:{clients[n]}", "0.0.0.0:8222": f"127.0.0.1:{monitors[n]}",
            "0.0.0.0:6222": f"127.0.0.1:{peers[n]}", "/etc/nats/tls": str(tmp_path), "/data": str(home / "data"),
        }  # fmt: skip
        for name in ("nats.conf", "cluster.conf"):
            text = (NATS / name).read_text()
            for was, now in places.items():
                text = text.replace(was, now)
            (home / name).write_text(text)
        command = [Path(sysconfig.get_path("scripts")) / "nats-server", "-c", home / "cluster.conf"]
        with (home / "log").open("wb") as log:
            environment = {**os.environ, **WORDS, "POD_NAME": f"nats-{n}"}
            started.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
    yield started, clients
    for process in started:
        process.terminate()
    for process in started:
        process.wait(15)


async def test_one_of_three_servers_may_be_lost(
    three: tuple[list[subprocess.Popen[bytes]], list[int]], tmp_path: Path
) -> None:
    """The one that our bus is connected to: it goes to another one, with what it knows, and its streams are there."""
    servers, clients = three
    ca = str(tmp_path / "ca.crt")
    url = f"tls://engine:word-of-engine@localhost:{clients[0]}"
    bus = await bus_of(url, within_s=30, ca=ca, replicas=SERVERS)
    servers[0].send_signal(signal.SIGHUP)  # a renewed certificate is taken, of clients' door and of the peers'
    log = tmp_path / "nats-0" / "log"
    await eventually(lambda: "Reloaded server configuration" in log.read_text(), within_s=10)
    assert "Reloaded: cluster" in log.read_text()
    subject = "agentflow.7c9e6679-7425-40de-944b-e07fc1f90ae7.in.order"
    event = Event(id="1", source="/tests", type="com.example.order")
    servers[0].kill()

    async def taken() -> int | None:
        try:
            return int((await asyncio.wait_for(await bus.send([event], subject), 5)).seq)
        except (RetryLater, nats.errors.Error, nats.js.errors.Error, TimeoutError):
            return None

    assert await eventually(taken, within_s=60)
    assert bus.trouble == ""
    info = await bus._js.stream_info("AGENTFLOW_IN")
    assert info.config.num_replicas == SERVERS
    await bus.close()
