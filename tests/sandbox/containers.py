"""What container drivers must withstand besides: one suite, inherited by Docker's and gVisor's tests."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator

from agentflow.sandbox import Job, Profile
from agentflow.sandbox.docker import DockerSandbox
from agentflow.sandbox.engine import Engine

from .conftest import IMAGE
from .hostile import HostileTools, call, nothing_left, result


async def guarded(engine: Engine, *, gvisor: bool) -> AsyncIterator[DockerSandbox]:
    """The sandbox, and after the test: no container is left, no file descriptor and no process of one."""
    sandbox = DockerSandbox(engine, image=IMAGE, gvisor=gvisor, slots=4)
    await sandbox._sweep()
    descriptors = len(os.listdir("/proc/self/fd"))

    yield sandbox
    await nothing_left(engine.owned)
    await sandbox.close()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


class Containers(HostileTools):
    async def test_there_is_no_network(
        self, sandbox: DockerSandbox, listener: tuple[str, int, list[str]]
    ) -> None:
        address, port, callers = listener
        code = """
import socket
def run(targets):
    reached = []
    for host, port in targets:
        try: socket.create_connection((host, port), timeout=1).close()
        except OSError: continue
        reached.append(host)
    return {'reached': reached, 'interfaces': [name for _, name in socket.if_nameindex()]}
"""
        targets = [[address, port], ["127.0.0.1", port], ["172.17.0.1", port], ["169.254.169.254", 80]]
        told = result(await call(sandbox, code, targets=targets))
        assert told["reached"] == []
        assert callers == []
        assert set(told["interfaces"]) <= {"lo"}

    async def test_it_has_no_powers(self, sandbox: DockerSandbox) -> None:
        code = """
import gc
import os
def run():
    status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
    def refused(act):
        try: act()
        except OSError: return True
        return False
    return {
        'uid': os.getuid(), 'capabilities': int(status['CapEff'], 16),
        'root is read-only': refused(lambda: open('/var/tmp/x', 'w')),
        'setuid is refused': refused(lambda: os.setuid(0)),
        'scratch is bounded': refused(lambda: open('/tmp/x', 'wb').write(b'x' * (80 << 20))),
    }
"""
        told = result(await call(sandbox, code, Profile(memory_bytes=512 << 20, wall_s=20.0)))
        assert told == {
            "uid": 65534, "capabilities": 0, "root is read-only": True, "setuid is refused": True,
            "scratch is bounded": True,
        }  # fmt: skip

    async def test_containers_of_a_killed_host_are_removed_and_living_ones_kept(
        self, sandbox: DockerSandbox, engine: Engine
    ) -> None:
        job = Job("def run(): return {}", b"{}")
        dead = engine.create(IMAGE, "runc", job, -10.0)
        alive = engine.create(IMAGE, "runc", job, 60.0)
        try:
            await sandbox.start()
            assert engine.owned() == [alive]
        finally:
            engine.remove(dead)
            engine.remove(alive)

    async def test_closing_removes_what_is_left(self, engine: Engine) -> None:
        sandbox = DockerSandbox(engine, image=IMAGE, slots=1)
        engine.create(IMAGE, "runc", Job("def run(): return {}", b"{}"), 60.0)
        await sandbox.close()
        assert engine.owned() == []

    async def test_an_engine_that_fails_is_unavailable_and_not_the_tools_fault(self, engine: Engine) -> None:
        sandbox = DockerSandbox(engine, image="agentflow.invalid/none:0", slots=1)
        outcome = await call(sandbox, "def run(): return {}")
        assert outcome.error_code == "sandbox_unavailable"
        assert "agentflow.invalid/none" in outcome.message
