"""The images of this checkout, and the stack of local/compose.yaml made of them, under a name of its own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BASE = "python:3.12-slim"
TAG = os.environ.get("TAG", "test")
IMAGES = ("plan", "dispatch", "invoke-llm", "run-tool", "account-cost", "api", "relay", "bridge")
MOTO = "motoserver/moto:5.1.12"
SERVERS = ("pgvector/pgvector:pg18", "nats:2.15-alpine")

# In a container: what /readyz says, ready or not.
ASK = (
    "import urllib.request as r\n"
    "try: print(r.urlopen('http://127.0.0.1:8080/readyz', timeout=5).read().decode())\n"
    "except r.HTTPError as fault: print(fault.read().decode())\n"
    "except OSError as fault: print(fault)"
)


def run(*command: str | Path, timeout: float = 120, check: bool = True, **environment: str) -> str:
    """What a command prints; its complaints fail the test."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, cwd=ROOT, env=os.environ | environment
    )
    if check and done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}: {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}")
    return done.stdout


def inspect(*names: str) -> list[Any]:
    return list(json.loads(run("docker", "inspect", *names)))


@functools.cache
def has_image(name: str) -> bool:
    return subprocess.run(["docker", "image", "inspect", name], capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def images(require: Callable[[object, str], None]) -> dict[str, str]:
    """The images of all functions, built from this checkout: image by function's name."""
    require(has_image(BASE), f"no image {BASE}: infra/docker/tool-image.sh makes a stand-in")
    run("infra/docker/images.sh", timeout=170, TAG=TAG)
    return {name: f"agentflow/{name}:{TAG}" for name in IMAGES}


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """An image that is being built once more."""

    image: str
    build: subprocess.Popen[str]


@pytest.fixture(scope="session")
def rebuilt(images: dict[str, str]) -> Iterator[Rebuilt]:
    """The first image, from nothing; it takes a minute or two, while other tests run."""
    tag = f"again-{os.getpid()}"
    build = subprocess.Popen(
        ["infra/docker/images.sh", "plan"], cwd=ROOT, env=os.environ | {"TAG": tag, "NO_CACHE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    yield Rebuilt(f"agentflow/plan:{tag}", build)
    if build.poll() is None:
        os.killpg(build.pid, signal.SIGTERM)
    build.wait()
    assert build.stdout
    build.stdout.close()
    subprocess.run(["docker", "image", "rm", f"agentflow/plan:{tag}"], capture_output=True)


@dataclass(frozen=True, slots=True)
class Stack:
    """A running stack, by its project's name."""

    project: str
    env_file: Path
    profiles: tuple[str, ...] = ()

    def compose(self, *words: str, timeout: float = 150, check: bool = True) -> str:
        files = ("--file", "local/compose.yaml", "--env-file", str(self.env_file))
        files += tuple(word for profile in self.profiles for word in ("--profile", profile))
        return run(
            "docker", "compose", "--project-name", self.project, *files, *words, timeout=timeout, check=check, TAG=TAG
        )

    def containers(self, service: str = "") -> list[Any]:
        """What the engine knows of the stack's containers, or of those of a service."""
        labels = [f"label=com.docker.compose.project={self.project}"]
        if service:
            labels.append(f"label=com.docker.compose.service={service}")
        filters = [word for label in labels for word in ("--filter", label)]
        ids = run("docker", "ps", "--all", "--quiet", *filters).split()
        return inspect(*ids) if ids else []

    def readiness(self, service: str) -> str:
        """What /readyz of a function says, or why it says nothing."""
        return self.compose("exec", "-T", service, "python3", "-c", ASK, check=False).strip()

    @property
    def url(self) -> str:
        return f"http://{self.compose('port', 'api', '8080').strip()}"

    @property
    def key(self) -> str:
        return self.compose("exec", "-T", "api", "cat", "/var/lib/agentflow/api_key").strip()

    def sql(self, text: str) -> list[str]:
        """The rows of a query, as the administrator sees them."""
        words = ("psql", "-h", "127.0.0.1", "-U", "postgres", "-d", "agentflow", "-qtAc", text)
        password = dict(line.split("=", 1) for line in self.env_file.read_text().splitlines() if "=" in line)
        words = ("env", f"PGPASSWORD={password['POSTGRES_PASSWORD']}", *words)
        return self.compose("exec", "-T", "postgres", *words).splitlines()


@pytest.fixture(scope="session")
def stack(
    images: dict[str, str], require: Callable[[object, str], None], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """The stack, up and healthy; afterwards nothing of it is left."""
    can_be_up(require, *SERVERS)
    with up(f"agentflow-test-{os.getpid()}", tmp_path_factory.mktemp("stack") / "env") as made:
        yield made


def can_be_up(require: Callable[[object, str], None], *servers: str) -> None:
    answers = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
    require(answers, "no docker compose: infra/docker/compose.sh")
    for image in servers:
        require(has_image(image), f"no image {image}: infra/docker/stand-ins.sh makes a stand-in")


@contextlib.contextmanager
def up(project: str, env_file: Path, *profiles: str, **settings: str) -> Iterator[Stack]:
    """A stack with ``settings`` of its own in its ``env_file``, up and healthy; afterwards nothing of it is left."""
    run("local/env.sh", env_file)
    # A port of its own, the same after a restart: the engine gives another one each time for 0.
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    text = env_file.read_text()
    for name, value in {"PORT": str(port), "TAG": TAG, **settings}.items():
        text, found = re.subn(rf"(?m)^{name}=.*", lambda _, line=f"{name}={value}": line, text)
        assert found == 1, name
    env_file.write_text(text)
    made = Stack(project, env_file, profiles)
    try:
        made.compose("up", "--detach", "--wait", "--wait-timeout", "150", timeout=170)
        yield made
    finally:
        made.compose("--profile", "demo", "down", "--volumes", "--remove-orphans", "--timeout", "10", check=False)
    assert left_of(made.project) == []


def left_of(project: str) -> list[str]:
    """Containers, networks and volumes of a project."""
    label = f"label=com.docker.compose.project={project}"
    return [
        found
        for kind in (("ps", "--all"), ("network", "ls"), ("volume", "ls"))
        for found in run("docker", *kind, "--quiet", "--filter", label).split()
    ]
