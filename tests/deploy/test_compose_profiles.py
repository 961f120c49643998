"""Profiles cluster and aws of local/compose.yaml: any of three NATS servers may be lost, and what is Amazon's elsewhere
is there without Amazon."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator

import pytest

from .conftest import MOTO, SERVERS, Stack, can_be_up, up
from .test_compose import FUNCTIONS, healthy, until

pytestmark = [pytest.mark.docker("runsc"), pytest.mark.xdist_group("deploy")]
NATS = ("nats", "nats-2", "nats-3")
CLUSTER = {"NATS_CONF": "nats-cluster.conf", "NATS_REPLICAS": "3", "NATS_SERVERS": ",".join(f"{n}:4222" for n in NATS)}
ARCHIVED = """
import io, hashlib
from agentflow.archive import open_archive
from agentflow.config import Settings
settings = Settings.from_env()
archive = open_archive(settings.archive, endpoint=settings.archive_endpoint)
archive.put("a", io.BytesIO(b"kept"), hashlib.sha256(b"kept").digest())
print(archive.get("a").read().decode())
"""


@pytest.fixture(scope="module")
def stack(
    images: dict[str, str], require: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """All functions, three servers, and moto with a bucket and a secret."""
    can_be_up(require, *SERVERS, MOTO)
    aws = {
        "AWS_ENDPOINT_URL": "http://moto:5000", "ARCHIVE": "s3://cold/runs",
        "AWS_SECRETS": '{"agentflow/llm": "a word"}', "LLM_API_KEY": "secret://aws/agentflow/llm",
    }  # fmt: skip
    file = tmp_path_factory.mktemp("profiles") / "env"
    with up(f"agentflow-profiles-{os.getpid()}", file, "cluster", "aws", **CLUSTER, **aws) as made:
        yield made


def works(stack: Stack) -> bool:
    printed = stack.compose("--profile", "demo", "run", "--rm", "--no-deps", "demo", check=False)
    return printed.count("succeeded") == 2


def test_an_archive_is_a_bucket_of_moto(stack: Stack) -> None:
    assert stack.compose("exec", "-T", "relay", "python3", "-c", ARCHIVED).strip() == "kept"


def test_a_setting_is_a_secret_of_moto(stack: Stack) -> None:
    """invoke_llm has started with it, after it was there."""
    look = "from agentflow.config import Settings; print(Settings.from_env().llm_api_key)"
    assert stack.compose("exec", "-T", "invoke_llm", "python3", "-c", look).strip() == "a word"
    (invoke_llm,) = stack.containers("invoke_llm")
    assert invoke_llm["RestartCount"] == 0


@pytest.mark.parametrize("lost", NATS)
def test_any_of_three_servers_may_be_lost(stack: Stack, lost: str) -> None:
    """No function is one that has to be started again, and runs go on: what they are told still comes."""
    assert works(stack)
    stack.compose("kill", lost)
    until(lambda: all('"ready"' in stack.readiness(name) for name in FUNCTIONS), 60)
    until(lambda: works(stack), 90)
    said = stack.compose("logs", "--no-log-prefix", *FUNCTIONS)
    assert not re.search("Authorization Violation", said)
    stack.compose("up", "--detach", "--wait", lost)
    for name in FUNCTIONS:
        (function,) = stack.containers(name)
        assert healthy(function) and function["RestartCount"] == 0, name
