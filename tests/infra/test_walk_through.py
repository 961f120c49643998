"""The walk-throughs of infra, as they stand there, against a stand-in for the cluster: each step has what it needs."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.runtime.preparation import ROLES
from agentflow.store.passfile import passwords

from . import stand_in_cluster
from .manifests import INFRA, KNATIVE, manifests, of_kind, rendered
from .test_openfaas import STACK

pytestmark = [pytest.mark.usefixtures("programs"), pytest.mark.xdist_group("walk-through")]

PAGES = [KNATIVE / "README.md", KNATIVE / "data" / "README.md", INFRA / "openfaas" / "README.md",
         INFRA / "operations" / "backup.md"]  # fmt: skip
DATA = ["data secrets", "data apply"]
INSTALLED = ["overlay", "files", "plain", "secrets", "apply", "administration", "tenant"]
RESTORED = ["functions off", "former off", "new cluster", "new secrets", "administration", "restored", "functions on"]


def blocks() -> dict[str, str]:
    """The pages' commands, by the names of their blocks."""
    text = "\n".join(page.read_text() for page in PAGES)
    found = re.findall(r"<!-- tested: ([a-z ]+) -->\n```sh\n(.*?)```", text, re.DOTALL)
    assert len(dict(found)) == len(found)
    return dict(found)


class Shell:
    """One shell after the other, each with what the former ones have said, in a folder with this repository in it."""

    def __init__(self, folder: Path, former: Shell | None = None) -> None:
        """``former``: with the cluster, and the files, that it has left."""
        self.folder, self.state = folder, folder / "cluster.json"
        self.said = former.said if former else "set -eu\n"
        if former and former.state.exists():
            shutil.copy(former.state, self.state)
        if former and (former.folder / "secrets").exists():
            shutil.copytree(former.folder / "secrets", folder / "secrets")
        (folder / "infra").symlink_to(INFRA)
        (folder / "bin").mkdir()
        for name in ("kubectl", "aws", "faas-cli"):
            command = f"exec {shlex.join([sys.executable, stand_in_cluster.__file__, str(self.state), name])} \"$@\"\n"
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{command}")
            (folder / "bin" / name).chmod(0o755)

    def run(self, names: list[str], **changed: tuple[str, str]) -> str:
        """What was printed last on stderr; the empty text when all went well. ``changed``: words put in for others."""
        for name in names:
            text = blocks()[name]
            for was, now in changed.values():
                text = text.replace(was, now)
            path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
            words = {"PATH": path, "DATA": "infra/knative/data-small"}
            words |= {"ACCESS_KEY_ID": "id", "SECRET_ACCESS_KEY": "key"}
            done = subprocess.run(["sh", "-c", self.said + text], env=words, cwd=self.folder, capture_output=True,
                                  text=True, timeout=120, check=False)  # fmt: skip
            if done.returncode != 0:
                return f"{name}: {done.stderr.strip()}"
            # Functions and variables of a block are there in those that follow it; what it has done is not done again.
            self.said += "".join(f"{line}\n" for line in kept(text))
        return ""

    def cluster(self) -> Any:
        return stand_in_cluster.Cluster(self.state)


def kept(text: str) -> list[str]:
    """The lines of a block that only say what something is called."""
    functions = re.findall(r"^\w+\(\) \{.*?^\}$|^\w+\(\) \{[^\n]*\}$", text, re.DOTALL | re.MULTILINE)
    return [*functions, *re.findall(r"^(?:OVERLAY|at)=[^\n]*$", text, re.MULTILINE)]


@pytest.fixture
def shell(tmp_path: Path, require: Any) -> Shell:
    require(shutil.which("openssl") and shutil.which("jq"), "openssl and jq")
    return Shell(tmp_path)


@pytest.fixture(scope="module")
def secrets_made(tmp_path_factory: pytest.TempPathFactory, require: Any) -> Shell:
    """Servers, and plain Secrets; nothing of ours is there yet."""
    require(shutil.which("openssl") and shutil.which("jq"), "openssl and jq")
    made = Shell(tmp_path_factory.mktemp("secrets-made"))
    assert made.run([*DATA, "data store", *INSTALLED[:4]]) == ""
    return made


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory, secrets_made: Shell) -> Shell:
    """The walk-through to its end."""
    made = Shell(tmp_path_factory.mktemp("installed"), secrets_made)
    assert made.run(INSTALLED[4:]) == ""
    return made


def test_a_laptops_cluster_comes_up_from_nothing(installed: Shell) -> None:
    found = installed.cluster()
    assert found.done == ["tenant create acme", f"key create --tenant {stand_in_cluster.TENANT}"]
    assert "Pod/agentflow/administration" not in found.objects
    secrets = installed.folder / "secrets"
    assert secrets.stat().st_mode & 0o077 == 0
    assert passwords(secrets / "roles.pgpass").keys() == set(ROLES)
    assert passwords(secrets / "admin.pgpass").keys() == {"postgres", *ROLES}  # `audit verify` logs in as them
    assert len((secrets / "push-key").read_text().strip()) >= 32


def test_for_production_secrets_come_from_a_store_and_from_nowhere_else(shell: Shell) -> None:
    overlay = ("overlays/dev", "overlays/production")
    assert shell.run(["data secrets"]) == ""
    assert "backup-store" in shell.run(["data apply"], full=('"$DATA"', "infra/knative/data"))
    assert shell.run(["data store"]) == ""
    assert shell.run(["data apply"], full=('"$DATA"', "infra/knative/data")) == ""
    both = [*INSTALLED[:2], "store", *INSTALLED[3:]]
    assert shell.run(both, overlay=overlay) == ""
    found = shell.cluster()
    asked = {each["metadata"]["name"] for each in of_kind(manifests(rendered(KNATIVE / "overlays" / "production")),
                                                          "ExternalSecret")}  # fmt: skip
    assert asked <= found.store.keys()
    assert found.done[-1].startswith("key create")


def test_secrets_that_are_made_by_hand_too_are_in_the_operators_way(tmp_path: Path, secrets_made: Shell) -> None:
    shell = Shell(tmp_path, secrets_made)
    shell.said += "OVERLAY=infra/knative/overlays/production\n"
    assert shell.run(["store"]) == ""
    assert "not the operator's" in shell.run(["apply"])


def test_a_step_that_is_left_out_is_missed(tmp_path: Path, secrets_made: Shell, installed: Shell) -> None:
    without = ("kubectl apply -f infra/knative/hosts/namespace.yaml\n", "")
    for number, (former, steps, said) in enumerate((
        (None, ["data apply"], "Secret agentflow-engine is not in"),
        (None, ["files"], "no namespace agentflow-data"),
        (None, ["plain", "secrets"], "No such file"),
        (secrets_made, ["administration"], "Deployment relay is not in agentflow"),
        (installed, ["tenant"], "Pod administration is not in agentflow"),
    )):  # fmt: skip
        (tmp_path / str(number)).mkdir()
        assert said in Shell(tmp_path / str(number), former).run(steps), steps
    (tmp_path / "last").mkdir()
    shell = Shell(tmp_path / "last")
    assert shell.run([*DATA, "overlay", "files"]) == ""
    assert "there is no namespace agentflow" in shell.run(["plain", "secrets"], without=without)


def test_on_openfaas_every_function_has_its_secrets(tmp_path: Path, secrets_made: Shell) -> None:
    shell = Shell(tmp_path, secrets_made)
    shell.said += "OVERLAY=infra/openfaas\n"
    assert shell.run(["openfaas"]) == ""
    assert shell.run(["apply"], of_knative=("kubectl -n agentflow wait --for=condition=Ready ksvc", ":")) == ""
    assert shell.run(["administration", "tenant"]) == ""
    found = shell.cluster()
    made = {key.rpartition("/")[2] for key in found.named("Secret", "openfaas-fn")}
    assert {secret for each in STACK["functions"].values() for secret in each["secrets"]} <= made


def test_what_was_archived_is_put_back_before_functions_are(tmp_path: Path, installed: Shell) -> None:
    """The whole of backup.md's order; `restored` where a function is still there, or the former database is, fails."""
    (tmp_path / "all").mkdir()
    shell = Shell(tmp_path / "all", installed)
    assert shell.run(RESTORED) == ""
    found = shell.cluster()
    assert found.done[-2:] == ["restored", "audit verify"]
    assert any(found.objects[key]["apiVersion"].startswith("serving") for key in found.named("Service", "agentflow"))
    assert found.of("Deployment", "agentflow", "bridge")["spec"]["replicas"] > 0
    for without, said in (("functions off", "functions are there still"), ("former off", "its Service belongs to"),
                          ("new secrets", "authentication failed")):  # fmt: skip
        (tmp_path / without).mkdir()
        shell = Shell(tmp_path / without, installed)
        assert said in shell.run([each for each in RESTORED if each != without]), without


def test_the_pod_for_administration_is_what_the_migration_is() -> None:
    """It logs in as that does, where the data's policies let it in, and may do no more than any of ours."""
    found = manifests(rendered(KNATIVE / "overlays" / "dev"))
    (job,) = of_kind(found, "Job")
    migration = job["spec"]["template"]["spec"]
    pod = yaml.safe_load((KNATIVE / "administration.yaml").read_text())
    spec = pod["spec"]
    assert spec["securityContext"] == migration["securityContext"]
    assert spec["serviceAccountName"] == migration["serviceAccountName"]
    (ours,), (theirs,) = spec["containers"], migration["containers"]
    assert ours["securityContext"] == theirs["securityContext"]
    names = {each["secret"]["secretName"] for each in spec["volumes"] if "secret" in each}
    assert names == {"agentflow-administrator", "agentflow-database", "agentflow-keys"}
    assert {"name": "AGENTFLOW_PASSFILE", "value": "/etc/agentflow/administrator/pgpass"} in ours["env"]
    assert {"name": "AGENTFLOW_PASSFILE", "value": "/etc/agentflow/administrator/pgpass"} in theirs["env"]
    (policy,) = (each for each in of_kind(found, "NetworkPolicy") if each["metadata"]["name"] == "data")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
