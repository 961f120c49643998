"""The gvisor driver: the same, with a kernel of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.sandbox.docker import DockerSandbox
from agentflow.sandbox.engine import Engine

from .containers import Containers, guarded
from .hostile import call, result

pytestmark = pytest.mark.docker("runsc")

HOST_KERNEL = Path("/proc/version").read_text()


class TestGvisor(Containers):
    @pytest.fixture
    async def sandbox(self, engine: Engine) -> AsyncIterator[DockerSandbox]:
        async for sandbox in guarded(engine, gvisor=True):
            yield sandbox

    async def test_the_kernel_is_not_the_hosts(self, sandbox: DockerSandbox) -> None:
        code = "def run(): return {'version': open('/proc/version').read()}"
        told = result(await call(sandbox, code))
        assert told["version"] != HOST_KERNEL
        assert sandbox.missing == ""
