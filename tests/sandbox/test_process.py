"""The process driver, as this user and, under root, with a user id per job."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentflow.sandbox import Profile, Sandbox
from agentflow.sandbox.identity import UIDS, Identities
from agentflow.sandbox.process import ProcessSandbox
from agentflow.sandbox.scratch import PREFIX, Scratch, remove_abandoned
from .hostile import QUICK, HostileTools, call, nothing_left, result


def guests(root: Path) -> list[str]:
    """Processes of jobs below ``root``, by folder, and all that run as a job's user."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            here = os.readlink(f"/proc/{pid}/cwd")
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and (uid in UIDS or here.startswith(str(root))):
            found.append(f"process {pid} (uid {uid}, {here})")
    return found


async def guarded(sandbox: ProcessSandbox) -> AsyncIterator[ProcessSandbox]:
    """The sandbox, and after the test: no process, folder, file descriptor or stray file of a job is left."""
    result(await call(sandbox, "def run(): return {}"))  # what is made once is not a leak
    assert sandbox._scratch is not None
    root = sandbox._scratch.root
    descriptors = len(os.listdir("/proc/self/fd"))

    def leftovers() -> list[str]:
        found = [str(path) for path in root.iterdir() if path.name != ".lock"]
        found += [str(p) for p in Path("/tmp").iterdir() if p.lstat().st_uid in UIDS]
        more = len(os.listdir("/proc/self/fd")) - descriptors
        if more > 4:  # a pool of user ids may have grown by a socket each
            found.append(f"{more} file descriptors")
        return found + guests(root)

    yield sandbox
    await nothing_left(leftovers)
    await sandbox.close()
    assert not root.exists()


class TestProcess(HostileTools):
    @pytest.fixture
    async def sandbox(self) -> AsyncIterator[ProcessSandbox]:
        async for sandbox in guarded(ProcessSandbox()):
            yield sandbox


@pytest.mark.skipif(os.getuid() != 0, reason="TestProcess already runs as an ordinary user")
class TestProcessAsWeAre(HostileTools):
    """The way of an ordinary user, where the tool has the user id of the host, run by root."""

    @pytest.fixture
    async def sandbox(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessSandbox]:
        monkeypatch.setattr(Identities, "take", lambda self: 0)
        async for sandbox in guarded(ProcessSandbox()):
            yield sandbox

    # What only the limits of an ordinary user prevent; root has none.
    test_a_fork_bomb_stays_in_its_bounds = None  # type: ignore[assignment]
    test_nothing_can_be_written_where_the_host_lives = None  # type: ignore[assignment]


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    sandbox = ProcessSandbox()
    await sandbox.start()
    yield sandbox
    await sandbox.close()
