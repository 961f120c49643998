"""infra/openfaas: the same functions, the same settings, the bridge to the gateway."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentflow.config import Settings
from agentflow.runtime.bridge import function_urls
from agentflow.runtime.function import NAMES

from .manifests import CRDS, INFRA, faults, manifests, of_kind, pods, rendered, services

pytestmark = pytest.mark.usefixtures("programs")

OPENFAAS = INFRA / "openfaas"
STACK: dict[str, Any] = yaml.safe_load((OPENFAAS / "stack.yaml").read_text())
LABELS = {f"com.openfaas.scale.{name}" for name in ("min", "max", "type", "target")}
ANNOTATIONS = {"com.openfaas.health.http.path", "com.openfaas.ready.http.path"}
FIELDS = {
    "image", "skip_build", "readonly_root_filesystem", "labels", "annotations", "environment", "secrets", "requests",
    "limits",
}  # fmt: skip


def test_every_function_is_there_once_and_has_what_it_needs(tmp_path: Path) -> None:
    by_pull = {each["metadata"]["name"] for each in of_kind(manifests(rendered(OPENFAAS)), "Deployment")}
    known = {name.replace("_", "-") for name in NAMES}
    assert STACK["functions"].keys() | (by_pull & known) == known
    assert not STACK["functions"].keys() & by_pull
    for name, function in STACK["functions"].items():
        assert function.keys() <= FIELDS, name
        assert function["image"].partition(":")[0] == f"agentflow/{name}"
        assert function["labels"].keys() <= LABELS
        assert all(isinstance(value, str) for value in function["labels"].values())
        assert function["annotations"].keys() == ANNOTATIONS
        environment = dict(function["environment"])
        for variable, value in environment.items():
            for secret in re.findall(r"/var/openfaas/secrets/([a-z-]+)", value):
                assert secret in function["secrets"], f"{name}: {variable}"
            if value.startswith("secret://file/"):
                (tmp_path / "secret").write_text("0123456789abcdef")
                environment[variable] = f"secret://file{tmp_path}/secret"
        assert Settings.from_env(environment).push
        # The gateway leads to every function. All but the API, whose callers have keys of their own, want the bridge's.
        assert ("AGENTFLOW_PUSH_KEY" in environment) == ("agentflow-push" in function["secrets"]) == (name != "api")


def test_functions_are_what_openfaas_takes() -> None:
    """As the operator's own kind, which is checked when it is applied."""
    for name, function in STACK["functions"].items():
        spec = {
            "name": name,
            "image": function["image"],
            "labels": function["labels"],
            "annotations": function["annotations"],
            "environment": function["environment"],
            "secrets": function["secrets"],
            "requests": {part: str(value) for part, value in function["requests"].items()},
            "limits": {part: str(value) for part, value in function["limits"].items()},
            "readOnlyRootFilesystem": function["readonly_root_filesystem"],
        }
        each = {"apiVersion": "openfaas.com/v1", "kind": "Function", "metadata": {"name": name}, "spec": spec}
        assert faults(each, CRDS) == []


def test_the_bridge_calls_the_gateway_for_what_is_not_pulled() -> None:
    found = manifests(rendered(OPENFAAS))
    (settings,) = (each for each in of_kind(found, "ConfigMap") if "settings" in each["metadata"]["name"])
    urls = function_urls(settings["data"]["AGENTFLOW_FUNCTION_URLS"])
    assert urls.keys() == {name.replace("-", "_") for name in STACK["functions"]} - {"api"}
    for name, url in urls.items():
        assert url == f"http://gateway.openfaas.svc.cluster.local:8080/function/{name.replace('_', '-')}"
    assert services(found) == {}
    (bridge,) = dict(pods(found))["bridge"]["spec"]["containers"]
    assert [each["name"] for each in bridge["env"]] == ["AGENTFLOW_PUSH_KEY"]
    assert [fault for each in found for fault in faults(each, CRDS)] == []


def test_tools_run_on_gvisors_nodes() -> None:
    pod = dict(pods(manifests(rendered(OPENFAAS))))["run-tool"]["spec"]
    assert (pod["runtimeClassName"], pod["nodeSelector"]) == ("gvisor", {"agentflow.dev/sandbox": "gvisor"})
    assert {"name": "AGENTFLOW_SANDBOX", "value": "nested"} in pod["containers"][0]["env"]


@pytest.mark.parametrize(
    ("text", "said"),
    [("{}", "names no function"), ('{"plans": "http://x"}', "there is no function plans"), ("{x", "is not JSON"),
     ("http://gateway", r"has no \{function\}")],
)  # fmt: skip
def test_what_is_wrong_with_the_bridges_addresses_is_said(text: str, said: str) -> None:
    with pytest.raises(Exception, match=f"AGENTFLOW_FUNCTION_URLS: {said}"):
        function_urls(text)


def test_a_function_that_is_left_out_is_not_called() -> None:
    assert function_urls(json.dumps({"invoke-llm": "http://x", "api": "http://y"})) == {"invoke_llm": "http://x"}
