"""Docker engines for the tests of the container drivers."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from agentflow.config import Settings
from agentflow.sandbox.engine import Engine

SETTINGS = Settings.from_env()
IMAGE = SETTINGS.sandbox_image


@pytest.fixture
def engine(require: Callable[[object, str], None]) -> Iterator[Engine]:
    """The machine's engine, with the image for tools."""
    engine = Engine(SETTINGS.docker_host, connections=12)
    require(engine.has_image(IMAGE), f"no Docker image {IMAGE}: infra/docker/tool-image.sh")
    yield engine
    engine.close()
