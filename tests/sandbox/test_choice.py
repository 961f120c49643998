"""Which driver a host gets."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.sandbox import open_sandbox

from .conftest import SETTINGS


def no_engine(tmp_path: Path) -> str:
    return f"unix://{tmp_path}/no.sock"


def test_without_an_engine_it_is_the_process_driver_which_says_why_and_what_is_missing(tmp_path: Path) -> None:
    sandbox = open_sandbox(Settings(docker_host=no_engine(tmp_path)))
    assert sandbox.name == "process"
    for part in ("network", "development", "no Docker engine", "infra/gvisor/install.sh"):
        assert part in sandbox.missing


def test_an_engine_that_does_not_answer_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "no.sock").touch()
    sandbox = open_sandbox(Settings(docker_host=no_engine(tmp_path)))
    assert sandbox.name == "process"
    assert "does not answer" in sandbox.missing


@pytest.mark.parametrize("driver", ["docker", "gvisor"])
def test_a_driver_that_was_asked_for_is_never_replaced_by_a_weaker_one(driver: str, tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="no Docker engine") as caught:
        open_sandbox(Settings(sandbox=driver, docker_host=no_engine(tmp_path)))
    assert caught.value.code == "sandbox_unavailable"
    assert "AGENTFLOW_SANDBOX=process" in str(caught.value)


@pytest.mark.parametrize("driver", ["auto", "docker", "gvisor"])
def test_where_a_sandbox_is_required_a_process_is_none(driver: str, tmp_path: Path) -> None:
    """Beside the process would lie the container's secrets, and the engine's socket."""
    settings = Settings(sandbox=driver, sandbox_required=True, docker_host=no_engine(tmp_path))
    with pytest.raises(Rejected, match=r"no Docker engine at .*\(a container needs .*DOCKER_GID") as caught:
        open_sandbox(settings)
    assert caught.value.code == "sandbox_unavailable"
    assert "AGENTFLOW_SANDBOX=process" not in str(caught.value)


def test_a_socket_that_lets_nobody_in_is_no_reason_for_a_process(tmp_path: Path) -> None:
    (tmp_path / "no.sock").touch()
    settings = Settings(sandbox_required=True, docker_host=no_engine(tmp_path))
    with pytest.raises(Rejected, match=r"does not answer: .*\(a container needs .*DOCKER_GID"):
        open_sandbox(settings)


def test_a_process_that_is_asked_for_by_name_is_taken_where_a_sandbox_is_required() -> None:
    settings = Settings(sandbox="process", sandbox_required=True, docker_host="unix:///nowhere")
    assert open_sandbox(settings).name == "process"


def test_an_unknown_driver_is_named_with_those_there_are() -> None:
    match = r"AGENTFLOW_SANDBOX: unknown driver 'vm' .*auto, gvisor, docker, nested or process"
    with pytest.raises(Rejected, match=match):
        open_sandbox(Settings(sandbox="vm"))


def test_the_process_driver_can_be_asked_for() -> None:
    assert open_sandbox(Settings(sandbox="process", docker_host="unix:///nowhere")).name == "process"


def test_a_pod_that_is_a_sandbox_needs_no_engine() -> None:
    assert open_sandbox(Settings(sandbox="nested", docker_host="unix:///nowhere")).name == "nested"


def test_the_address_of_the_engine_is_dockers_own_variable() -> None:
    assert Settings.from_env({"DOCKER_HOST": "tcp://192.0.2.1:2375"}).docker_host == "tcp://192.0.2.1:2375"


@pytest.mark.docker
async def test_an_engine_gives_containers() -> None:
    sandbox = open_sandbox(Settings(sandbox="docker", docker_host=SETTINGS.docker_host))
    assert sandbox.name == "docker"
    await sandbox.close()


@pytest.mark.docker("runsc")
async def test_gvisor_is_preferred() -> None:
    sandbox = open_sandbox(Settings(docker_host=SETTINGS.docker_host))
    assert (sandbox.name, sandbox.missing) == ("gvisor", "")
    await sandbox.close()


@pytest.mark.docker
def test_an_image_that_is_not_there_is_named_with_the_mend() -> None:
    image = "agentflow.invalid/none:0"
    with pytest.raises(Rejected, match=f"docker pull {image}"):
        open_sandbox(Settings(sandbox="docker", docker_host=SETTINGS.docker_host, sandbox_image=image))
    sandbox = open_sandbox(Settings(docker_host=SETTINGS.docker_host, sandbox_image=image))
    assert sandbox.name == "process"
    assert image in sandbox.missing
    with pytest.raises(Rejected, match=f"docker pull {image}"):
        open_sandbox(Settings(docker_host=SETTINGS.docker_host, sandbox_image=image, sandbox_required=True))
