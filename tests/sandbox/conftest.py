"""Docker engines for the tests of the container drivers."""

from __future__ import annotations

import os

import pytest

from agentflow.config import Settings
from agentflow.sandbox.engine import Engine

IMAGE = Settings.from_env().sandbox_image


def engine_with(runtime: str) -> Engine:
    """An engine with the runtime and the image; else the test is skipped, or fails where all is required."""
    engine = Engine("unix:///var/run/docker.sock", connections=12)
    lack = engine.problem()
    if not lack and not engine.has_runtime(runtime):
        lack = f"the Docker engine has no runtime {runtime} (infra/gvisor/install.sh adds runsc)"
    if not lack and not engine.has_image(IMAGE):
        lack = f"the Docker engine has no image {IMAGE} (infra/docker/tool-image.sh makes it)"
    if lack:
        engine.close()
        if os.environ.get("AGENTFLOW_REQUIRE_ALL") == "1":
            pytest.fail(lack)
        pytest.skip(lack)
    return engine
