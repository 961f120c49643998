"""The docker driver, with Docker's own runtime."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from agentflow.sandbox.docker import DockerSandbox
from agentflow.sandbox.engine import Engine

from .containers import Containers, guarded

pytestmark = pytest.mark.docker


class TestDocker(Containers):
    @pytest.fixture
    async def sandbox(self, engine: Engine) -> AsyncIterator[DockerSandbox]:
        async for sandbox in guarded(engine, gvisor=False):
            yield sandbox

    async def test_it_says_what_it_does_not_keep_apart(self, sandbox: DockerSandbox) -> None:
        assert "kernel" in sandbox.missing
