"""Containers as a cluster would start them from rendered manifests: what a command has, it has from the pod's spec.

What a spec may say and is not understood here fails, so that nothing in a manifest goes untried unnoticed.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from infra.manifests import Manifest, of_kind

from .conftest import inspect

UNDERSTOOD = {
    "args", "env", "envFrom", "image", "livenessProbe", "name", "ports", "readinessProbe", "resources",
    "securityContext", "startupProbe", "volumeMounts",
}  # fmt: skip
SECURITY = {
    "allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsGroup", "runAsNonRoot", "runAsUser",
    "seccompProfile",
}  # fmt: skip
DEFAULT_GRACE_S = 30  # Kubernetes'


@dataclass(frozen=True)
class Spec:
    """A pod of a manifest: what it is started with, and how it is asked whether it is ready."""

    name: str
    image: str
    args: tuple[str, ...]
    env: dict[str, str]
    options: tuple[str, ...]  # of docker run
    port: int
    ready: str  # path
    grace_s: int
    concurrency: int = 0
    timeout_s: int = 0


def spec_of(manifest: Manifest, found: list[Manifest], secrets: Path, tag: str) -> Spec:
    """What a Service, Deployment or Job comes to; ``secrets`` has a folder per Secret."""
    knative = manifest["apiVersion"] == "serving.knative.dev/v1"
    name, template = manifest["metadata"]["name"], manifest["spec"]["template"]
    pod = template["spec"]
    (container,) = pod["containers"]
    assert not container.keys() - UNDERSTOOD, container.keys() - UNDERSTOOD
    port = container["ports"][0]["containerPort"] if "ports" in container else 0
    env = _environment(container, found, secrets)
    if knative:  # the contract with a function's container
        env |= {"PORT": str(port), "K_SERVICE": name, "K_CONFIGURATION": name, "K_REVISION": f"{name}-00001"}
    return Spec(
        name=name,
        image=f"{container['image'].partition(':')[0]}:{tag}",
        args=tuple(container.get("args", ())),
        env=env,
        options=(*_runtime(template), *_confined(pod, container), *_mounts(pod, container, secrets)),
        port=port,
        ready=container.get("readinessProbe", {}).get("httpGet", {}).get("path", ""),
        # Knative gives a revision's pods as long to end as a request may take.
        grace_s=pod["timeoutSeconds"] if knative else pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S),
        concurrency=pod.get("containerConcurrency", 0),
        timeout_s=pod.get("timeoutSeconds", 0),
    )


def _environment(container: Manifest, found: list[Manifest], secrets: Path) -> dict[str, str]:
    settings = {each["metadata"]["name"]: each["data"] for each in of_kind(found, "ConfigMap")}
    env: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        env |= settings[source["configMapRef"]["name"]]
    return env | {each["name"]: _value(each, secrets) for each in container.get("env", ())}


def _value(variable: Manifest, secrets: Path) -> str:
    if "valueFrom" not in variable:
        return str(variable["value"])
    place = variable["valueFrom"]["secretKeyRef"]
    return (secrets / place["name"] / place["key"]).read_text()


def _runtime(template: Manifest) -> list[str]:
    """gVisor where the manifest has it, by its own field or by the label that Knative chooses a RuntimeClass by.

    runsc has no network here: such a pod is tried by itself (test_tool_pods.py)."""
    chosen = {template["spec"].get("runtimeClassName"), template["metadata"]["labels"].get("use-gvisor")}
    return ["--runtime=runsc"] if chosen & {"gvisor", "yes"} else []


def _confined(pod: Manifest, container: Manifest) -> list[str]:
    context = pod.get("securityContext", {}) | container["securityContext"]
    assert not context.keys() - SECURITY, context.keys() - SECURITY
    assert context["runAsNonRoot"] and context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}  # which Docker puts on whoever says nothing
    options = ["--user", f"{context['runAsUser']}:{context['runAsGroup']}"]
    options += [f"--cap-drop={name}" for name in context["capabilities"]["drop"]]
    options += ["--read-only"] * context["readOnlyRootFilesystem"]
    options += ["--security-opt=no-new-privileges:true"] * (not context["allowPrivilegeEscalation"])
    return [*options, f"--memory={_bytes(container['resources']['limits']['memory'])}"]


def _mounts(pod: Manifest, container: Manifest, secrets: Path) -> list[str]:
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    options = []
    for mount in container["volumeMounts"]:
        volume = volumes[mount["name"]]
        if "secret" in volume:
            assert mount["readOnly"]
            options.append(f"--volume={secrets / volume['secret']['secretName']}:{mount['mountPath']}:ro")
        else:
            size = _bytes(volume["emptyDir"]["sizeLimit"])
            options.append(f"--tmpfs={mount['mountPath']}:size={size},mode=1777,exec")
    return options


def _bytes(text: str) -> int:
    return int(text[:-2]) * {"Mi": 1 << 20, "Gi": 1 << 30}[text[-2:]]


@dataclass
class Container:
    """A pod's container, on a network where names are known."""

    spec: Spec
    network: str
    hosts: dict[str, str] = field(default_factory=dict)  # addresses by name, which DNS gives on a cluster
    id: str = ""
    url: str = ""

    async def start(self) -> None:
        words = ["run", "--detach", f"--network={self.network}", f"--label={self.network}", *self.spec.options]
        words += [f"--add-host={name}:{address}" for name, address in self.hosts.items()]
        words += [f"--env={name}={value}" for name, value in self.spec.env.items()]
        self.id = (await docker(*words, self.spec.image, *self.spec.args)).strip()
        address = (await asyncio.to_thread(inspect, self.id))[0]["NetworkSettings"]["Networks"][self.network]
        self.url = f"http://{address['IPAddress']}:{self.spec.port}"

    async def ready(self) -> bool:
        try:
            async with httpx.AsyncClient(timeout=1, trust_env=False) as client:
                return (await client.get(self.url + self.spec.ready)).status_code == 200
        except httpx.HTTPError:
            return False

    async def end(self) -> None:
        await docker("stop", f"--time={self.spec.grace_s}", self.id)

    async def kill(self) -> None:
        await docker("kill", self.id, check=False)

    async def exit_code(self) -> int:
        """What it has ended with; waits for that."""
        return int(await docker("wait", self.id))

    async def log(self) -> str:
        return await docker("logs", "--tail=40", self.id, check=False)


async def docker(*words: Any, check: bool = True) -> str:
    """What a docker command prints."""
    process = await asyncio.create_subprocess_exec(
        "docker", *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=os.environ
    )
    printed, _ = await process.communicate()
    assert process.returncode == 0 or not check, f"docker {' '.join(map(str, words))}\n{printed.decode()}"
    return printed.decode()
