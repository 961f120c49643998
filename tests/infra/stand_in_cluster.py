"""As much of a cluster as the walk-throughs need: ``kubectl``, ``aws`` and ``faas-cli`` on objects in one file.

It refuses what a cluster would refuse, or would wait for without an end: a namespace that is not there; a Secret (or a
key of it) that a pod asks for and nobody has made; an ExternalSecret without its store, or beside a plain Secret of its
name; a Job that changes; a Service that belongs to another Cluster. Operators have done their work when they are asked.

    python stand_in_cluster.py STATE kubectl apply -k FOLDER
"""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

Object = dict[str, Any]
OF_THE_CLUSTER = {"Namespace", "RuntimeClass", "ClusterImagePolicy", "ClusterSecretStore", "ClusterDomainClaim"}
KINDS = {"deploy": "Deployment", "deployment": "Deployment", "ksvc": "Service", "pod": "Pod", "job": "Job",
         "secret": "Secret", "cluster": "Cluster", "scaledobject": "ScaledObject", "statefulset": "StatefulSet",
         "scheduledbackup": "ScheduledBackup", "namespace": "Namespace"}  # fmt: skip
THERE = ("default", "kube-system", "knative-serving", "cosign-system", "openfaas", "openfaas-fn")
TENANT = "6f1c9a52-5f7e-4b60-9c2b-6f4f6f0a0003"


class Cluster:
    """Objects by kind, namespace and name."""

    def __init__(self, state: Path) -> None:
        self.state, self.was = state, state.read_text() if state.exists() else "{}"
        kept: dict[str, Any] = json.loads(self.was)
        self.objects: dict[str, Object] = kept.get("objects", {f"Namespace//{name}": {} for name in THERE})
        self.store: dict[str, dict[str, str]] = kept.get("store", {})
        self.done: list[str] = kept.get("done", [])

    def save(self) -> None:
        """At once, and only what has changed: the commands of a pipe run side by side."""
        text = json.dumps({"objects": self.objects, "store": self.store, "done": self.done})
        if text != self.was:
            fresh = self.state.with_suffix(f".{os.getpid()}")
            fresh.write_text(text)
            fresh.replace(self.state)

    def of(self, kind: str, namespace: str, name: str) -> Object:
        found = self.objects.get(f"{kind}/{namespace}/{name}")
        if found is None:
            sys.exit(f"{kind} {name} is not in {namespace}")
        return found

    def named(self, kind: str, namespace: str) -> list[str]:
        return [key for key in self.objects if key.startswith(f"{kind}/{namespace}/")]

    def secret(self, namespace: str, name: str, keys: dict[str, str]) -> None:
        data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
        self.objects[f"Secret/{namespace}/{name}"] = {"data": data}

    # -- applying --------------------------------------------------------------------------------------------------

    def apply(self, found: list[Object], namespace: str) -> None:
        brought = {each["metadata"]["name"] for each in found if each["kind"] == "Namespace"}
        for each in found:
            place = "" if each["kind"] in OF_THE_CLUSTER else each["metadata"].get("namespace", namespace)
            if place and not (f"Namespace//{place}" in self.objects or place in brought):
                sys.exit(f"{each['kind']} {each['metadata']['name']}: there is no namespace {place}")
            key = f"{each['kind']}/{place}/{each['metadata']['name']}"
            if each["kind"] == "Job" and key in self.objects and self.objects[key]["spec"] != each["spec"]:
                sys.exit(f"{key} cannot be changed")
            self.objects[key] = each
            getattr(self, f"_made_{each['kind'].lower()}", lambda *_: None)(each, place)
        for each in found:
            template = each if each["kind"] == "Pod" else each.get("spec", {}).get("template")
            if each["kind"] == "Pod" or (isinstance(template, dict) and "containers" in template.get("spec", {})):
                self._starts(each["metadata"]["namespace"], template["spec"])

    def _made_cluster(self, each: Object, place: str) -> None:
        name = each["metadata"]["name"]
        for key in self.named("Cluster", place):
            other = self.objects[key]
            if other is not each and other["spec"]["managed"].get("services"):
                sys.exit(f"Cluster {name}: its Service belongs to {key}")
        self.secret(place, f"{name}-ca", {"ca.crt": f"authority of {name}"})
        self.secret(place, f"{name}-superuser", {"username": "postgres", "password": f"word-of-{name}"})
        for role in each["spec"]["managed"]["roles"]:
            self._keys(place, role["passwordSecret"]["name"], {"username", "password"})
        for plugin in each["spec"].get("plugins", []):
            store = self.of("ObjectStore", place, plugin["parameters"]["barmanObjectName"])
            for named in store["spec"]["configuration"]["s3Credentials"].values():
                self._keys(place, named["name"], {named["key"]})

    def _made_certificate(self, each: Object, place: str) -> None:
        self.secret(place, each["spec"]["secretName"], {"ca.crt": "authority of nats", "tls.crt": "-", "tls.key": "-"})

    def _made_externalsecret(self, each: Object, place: str) -> None:
        spec = each["spec"]
        self.of("ClusterSecretStore", "", spec["secretStoreRef"]["name"])
        key = f"Secret/{place}/{spec['target']['name']}"
        if key in self.objects and "owner" not in self.objects[key]:
            sys.exit(f"{key} is there already, and not the operator's")
        (source,) = spec["dataFrom"]
        self.secret(place, spec["target"]["name"], self.store[source["extract"]["key"]])
        self.objects[key]["owner"] = each["metadata"]["name"]

    def _keys(self, place: str, name: str, asked: set[str]) -> None:
        if lacks := asked - self.of("Secret", place, name)["data"].keys():
            sys.exit(f"Secret {name} in {place} has no {sorted(lacks)}")

    def _starts(self, place: str, spec: Object) -> None:
        """Whatever a pod names is there: Secrets, ConfigMaps, and the files that its settings name."""
        folders = {each["name"]: each["secret"]["secretName"] for each in spec.get("volumes", []) if "secret" in each}
        for container in spec["containers"]:
            environment = {}
            for source in container.get("envFrom", []):
                if "secretRef" in source:
                    self._keys(place, source["secretRef"]["name"], set())
                else:
                    environment |= self.of("ConfigMap", place, source["configMapRef"]["name"])["data"]
            for each in container.get("env", []):
                source = each.get("valueFrom", {})
                if "secretKeyRef" in source:
                    self._keys(place, source["secretKeyRef"]["name"], {source["secretKeyRef"]["key"]})
                elif "configMapKeyRef" in source:
                    named = self.of("ConfigMap", place, source["configMapKeyRef"]["name"])["data"]
                    environment[each["name"]] = named[source["configMapKeyRef"]["key"]]
                else:
                    environment[each["name"]] = each.get("value", "")
            mounts = {each["mountPath"]: each["name"] for each in container.get("volumeMounts", [])}
            for folder in set(mounts.values()) & folders.keys():
                self._keys(place, folders[folder], set())
            for path in re.findall(r"(/etc/agentflow/[\w./-]+)", " ".join(environment.values())):
                folder, _, file = path.rpartition("/")
                if folder not in mounts:
                    sys.exit(f"{container['name']}: nothing is mounted for {path}")
                self._keys(place, folders[mounts[folder]], {file})

    # -- kubectl -----------------------------------------------------------------------------------------------------

    def kubectl(self, words: list[str]) -> None:
        namespace = ""
        if words[0] in ("-n", "--namespace"):
            namespace, words = words[1], words[2:]
            if f"Namespace//{namespace}" not in self.objects:
                sys.exit(f"there is no namespace {namespace}")
        getattr(self, f"_{words[0]}")(namespace, words[1:])

    def _apply(self, namespace: str, words: list[str]) -> None:
        if words[0] == "-k":
            text = subprocess.run(["kustomize", "build", words[1]], check=True, capture_output=True, text=True).stdout
        else:
            text = sys.stdin.read() if words[1] == "-" else Path(words[1]).read_text()
        self.apply([each for each in yaml.load_all(text, Loader=yaml.CSafeLoader) if each], namespace)

    def _create(self, namespace: str, words: list[str]) -> None:
        assert words[:2] == ["secret", "generic"], words
        keys = {}
        for word in words[3:]:
            if word.startswith("--from-file="):
                key, _, path = word.removeprefix("--from-file=").rpartition("=")
                keys[key or Path(path).name] = Path(path).read_text()
            elif word.startswith("--from-literal="):
                key, _, value = word.removeprefix("--from-literal=").partition("=")
                keys[key] = value
        if empty := [key for key, value in keys.items() if not value.strip()]:
            sys.exit(f"Secret {words[2]}: {empty} are empty")
        if "--dry-run=client" in words:
            data = {key: base64.b64encode(value.encode()).decode() for key, value in keys.items()}
            made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": words[2]}, "data": data}
            if namespace:
                made["metadata"]["namespace"] = namespace
            print(json.dumps(made))
        elif f"Secret/{namespace}/{words[2]}" in self.objects:
            sys.exit(f"Secret {words[2]} is there already")
        else:
            self.secret(namespace, words[2], keys)

    def _get(self, namespace: str, words: list[str]) -> None:
        kind, name, _, output = words
        found = self.of(KINDS[kind], namespace, name)
        if secret := re.fullmatch(r'go-template=\{\{index \.data "([^"]+)" \| base64decode\}\}', output):
            self._keys(namespace, name, {secret[1]})
            sys.stdout.write(base64.b64decode(found["data"][secret[1]]).decode())
            return
        (container,) = found["spec"]["template"]["spec"]["containers"]
        asked = output.removeprefix("jsonpath={.spec.template.spec.containers[0].").removesuffix("}")
        maps = [each["configMapRef"]["name"] for each in container["envFrom"] if "configMapRef" in each]
        sys.stdout.write({"image": container["image"], "envFrom[*].configMapRef.name": " ".join(maps)}[asked])

    def _wait(self, namespace: str, words: list[str]) -> None:
        if any(word.startswith("--for=delete") for word in words):
            return  # what was deleted is gone
        kind, _, name = next(word for word in words if not word.startswith("-")).partition("/")
        if not (self.named(KINDS[kind], namespace) if not name else [self.of(KINDS[kind], namespace, name)]):
            sys.exit(f"there is no {kind} to wait for")

    def _rollout(self, namespace: str, words: list[str]) -> None:
        kind, _, name = words[1].partition("/")
        self.of(KINDS[kind], namespace, name)

    def _delete(self, namespace: str, words: list[str]) -> None:
        kind, name = KINDS[words[0]], words[1]
        gone = [f"{kind}/{namespace}/{name}"] if not name.startswith("-") else self.named(kind, namespace)
        for key in gone:
            if self.objects.pop(key, None) is None and "--ignore-not-found" not in words:
                sys.exit(f"there is no {key}")

    def _scale(self, namespace: str, words: list[str]) -> None:
        (count,) = (int(word.partition("=")[2]) for word in words if word.startswith("--replicas="))
        names = [word for word in words[1:] if not word.startswith("-")]
        for key in self.named("Deployment", namespace):
            if not names or key.rpartition("/")[2] in names:
                self.objects[key]["spec"]["replicas"] = count

    def _patch(self, namespace: str, words: list[str]) -> None:
        found = self.of(KINDS[words[0]], namespace, words[1])
        ((change),) = json.loads(words[words.index("--patch") + 1])
        *way, last = change["path"].strip("/").split("/")
        for part in way:
            found = found[part]
        assert change["op"] == "remove"
        del found[last]

    def _annotate(self, namespace: str, words: list[str]) -> None:
        key, _, value = words[-1].partition("=")
        self.of(KINDS[words[0]], namespace, words[1])["metadata"].setdefault("annotations", {})[key] = value

    def _label(self, namespace: str, words: list[str]) -> None:
        self.of(KINDS[words[0]], namespace, words[1])

    def _exec(self, namespace: str, words: list[str]) -> None:
        """`agentflow` in the pod for administration: it can log in, and functions are off for `restored`."""
        self.of("Pod", namespace, words[0])
        assert words[1:3] == ["--", "agentflow"], words
        self.done.append(" ".join(words[3:]))
        held = base64.b64decode(self.of("Secret", namespace, "agentflow-administrator")["data"]["pgpass"]).decode()
        clusters = [self.objects[key] for key in self.named("Cluster", "agentflow-data")]
        living = [each for each in clusters if "cnpg.io/hibernation" not in each["metadata"].get("annotations", {})]
        if [f":postgres:word-of-{each['metadata']['name']}\n" in held for each in living] != [True]:
            sys.exit("password authentication failed")
        if words[3] == "restored" and (
            any(self.objects[key]["apiVersion"].startswith("serving") for key in self.named("Service", namespace))
            or any(self.objects[key]["spec"]["replicas"] for key in self.named("Deployment", namespace))
        ):
            sys.exit("functions are there still")
        print({"tenant create": TENANT, "key create": "af_key"}.get(" ".join(words[3:5]), ""))

    # -- others ------------------------------------------------------------------------------------------------------

    def aws(self, words: list[str]) -> None:
        assert words[:3] == ["secretsmanager", "create-secret", "--name"] and words[-1] == "file:///dev/stdin", words
        self.store[words[3]] = json.load(sys.stdin)

    def faas(self, words: list[str]) -> None:
        assert words[:2] == ["secret", "create"], words
        self.secret("openfaas-fn", words[2], {words[2]: Path(words[3].removeprefix("--from-file=")).read_text()})


if __name__ == "__main__":
    cluster = Cluster(Path(sys.argv[1]))
    {"kubectl": cluster.kubectl, "aws": cluster.aws, "faas-cli": cluster.faas}[sys.argv[2]](sys.argv[3:])
    cluster.save()
