"""run_tool's pod as each overlay has it: with what the manifest gives it, and no more, its tools run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from infra.manifests import KNATIVE, kustomize, manifests, rendered, services

from .conftest import TAG
from .pods import Spec, docker, spec_of

pytestmark = [pytest.mark.docker("runsc"), pytest.mark.xdist_group("deploy")]
RUNSC = "--runtime=runsc"
# What run_tool does when it starts, and with its first call.
TOOL = """
import asyncio
from agentflow.config import Settings
from agentflow.sandbox.choice import open_sandbox
from agentflow.sandbox.job import Job

async def main():
    sandbox = open_sandbox(Settings.from_env())
    await sandbox.start()
    outcome = await sandbox.run(Job("def run(who): return {'n': len(who)}", b'{"who": "Ada"}'))
    print(sandbox.name, outcome.output.decode(), outcome.error_code)

asyncio.run(main())
"""


def pod(overlay: str, secrets: Path) -> Spec:
    found = manifests(rendered(KNATIVE / "overlays" / overlay))
    service = services(found)["run-tool"]
    (container,) = service["spec"]["template"]["spec"]["containers"]
    for place in (each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each):
        (secrets / place["name"]).mkdir(exist_ok=True)
        (secrets / place["name"] / place["key"]).write_text("a secret")
    return spec_of(service, found, secrets, TAG)


async def said(spec: Spec, options: tuple[str, ...]) -> str:
    """What a tool comes to in a pod, without a network."""
    env = [f"--env={name}={value}" for name, value in spec.env.items() if name.startswith("AGENTFLOW_SANDBOX")]
    words = ["run", "--rm", "--network=none", *options, *env, "--entrypoint=python", spec.image, "-c", TOOL]
    return await docker(*words, check=False)


@pytest.mark.parametrize(("overlay", "driver"), [("dev", "process"), ("production", "nested")])
async def test_tools_run_with_what_the_manifest_gives(
    images: dict[str, str], require: Callable[[object, str], None], tmp_path: Path, overlay: str, driver: str
) -> None:
    require(kustomize(), "kustomize: infra/from-trixie.sh kustomize")
    spec = pod(overlay, tmp_path)
    assert (RUNSC in spec.options) == (driver == "nested")
    assert not any("unconfined" in option for option in spec.options)
    assert (await said(spec, spec.options)).split() == [driver, '{"n":3}', "None"]


async def test_without_gvisors_kernel_namespaces_are_refused_and_it_says_so(
    images: dict[str, str], require: Callable[[object, str], None], tmp_path: Path
) -> None:
    """So it is on a node: else what is tried here would be less confined than there."""
    require(kustomize(), "kustomize: infra/from-trixie.sh kustomize")
    spec = pod("production", tmp_path)
    assert "run it on a node with gVisor" in await said(spec, tuple(each for each in spec.options if each != RUNSC))
