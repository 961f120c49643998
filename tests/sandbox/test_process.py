"""The process driver, as this user and, under root, with a user id per job."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from agentflow.errors import Rejected
from agentflow.sandbox import Sandbox
from agentflow.sandbox.identity import Identities
from agentflow.sandbox.process import ProcessSandbox
from agentflow.sandbox.scratch import PREFIX, remove_abandoned

from .hostile import HostileTools, call, eventually, nothing_left, result


def guests(root: Path, uids: Collection[int] = ()) -> list[str]:
    """Processes that live below ``root`` or run as one of the jobs' users."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            uid = os.stat(f"/proc/{pid}").st_uid
            here = os.readlink(f"/proc/{pid}/cwd")
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if state != "Z" and (uid in uids or here.startswith(str(root))):
            found.append(f"process {pid} (uid {uid}, {here})")
    return found


async def guarded(sandbox: ProcessSandbox) -> AsyncIterator[ProcessSandbox]:
    """The sandbox, and after the test: no process, folder, file descriptor or stray file of a job is left."""
    result(await call(sandbox, "def run(): return {}"))  # what is made once is not a leak
    assert sandbox._scratch is not None
    root = sandbox._scratch.root

    def descriptors() -> int:
        # A user id that has been lent stays claimed, by a socket each.
        return len(os.listdir("/proc/self/fd")) - len(sandbox._identities._claims)

    before = descriptors()

    def leftovers() -> list[str]:
        found = [str(path) for path in root.iterdir() if path.name != ".lock"]
        uids = sandbox._identities._claims
        for entry in os.scandir("/tmp"):
            with contextlib.suppress(FileNotFoundError):  # gone meanwhile: another worker's
                if entry.stat(follow_symlinks=False).st_uid in uids:
                    found.append(entry.path)
        if descriptors() > before:
            found.append(f"{descriptors() - before} file descriptors")
        return found + guests(root, uids)

    yield sandbox
    await nothing_left(leftovers)
    await sandbox.close()
    assert not root.exists()


class TestProcess(HostileTools):
    @pytest.fixture
    async def sandbox(self) -> AsyncIterator[ProcessSandbox]:
        async for sandbox in guarded(ProcessSandbox()):
            yield sandbox


class TestProcessAsWeAre:
    """How tools of an ordinary user are ended, who share their user id with the host; here run by root."""

    __test__ = os.getuid() == 0  # TestProcess is that already for everybody else

    @pytest.fixture
    async def sandbox(self, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessSandbox]:
        monkeypatch.setattr(Identities, "take", lambda self: 0)
        async for sandbox in guarded(ProcessSandbox()):
            yield sandbox

    test_result = HostileTools.test_the_result_is_what_run_returns
    test_files = HostileTools.test_a_reference_becomes_the_path_of_a_file_with_that_content
    test_time = HostileTools.test_a_tool_that_ignores_signals_ends_with_its_time
    test_memory = HostileTools.test_a_memory_bomb_ends_at_its_limit
    test_flood = HostileTools.test_printing_without_end_is_stopped
    test_folder = HostileTools.test_it_can_use_its_own_folder_and_what_it_leaves_is_removed
    test_daemons = HostileTools.test_what_it_leaves_running_is_ended
    test_parent = HostileTools.test_killing_the_parent_frees_nobody
    test_cancel = HostileTools.test_a_cancelled_call_leaves_nothing


@pytest.fixture
async def sandbox() -> AsyncIterator[ProcessSandbox]:
    sandbox = ProcessSandbox(slots=2)
    await sandbox.start()
    yield sandbox
    await sandbox.close()


async def test_what_it_does_not_keep_apart_is_said(sandbox: Sandbox) -> None:
    assert "network" in sandbox.missing
    assert "files" in sandbox.missing
    with socket.create_server(("127.0.0.1", 0)) as server:
        code = "import socket\ndef run(port):\n socket.create_connection(('127.0.0.1', port))\n return {}"
        result(await call(sandbox, code, port=server.getsockname()[1]))


async def test_a_trivial_call_is_cheap(sandbox: Sandbox) -> None:
    """Below 60 ms of processor time, start of Python included; a clock would measure how busy the machine is."""
    took = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result(await call(sandbox, "def run(): return {}"))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert 0 < min(took) < 0.060


async def test_no_more_run_at_once_than_there_are_slots(sandbox: Sandbox) -> None:
    code = "import time\ndef run():\n began = time.time()\n time.sleep(0.1)\n return {'from': began, 'to': time.time()}"
    spans = [result(outcome) for outcome in await asyncio.gather(*(call(sandbox, code) for _ in range(5)))]
    for moment in (span["from"] for span in spans):
        assert sum(span["from"] <= moment < span["to"] for span in spans) <= 2


async def test_a_tool_cannot_gain_privileges(sandbox: Sandbox) -> None:
    code = """
import os
def run():
    status = dict(line.split(':', 1) for line in open('/proc/self/status') if ':' in line)
    return {'no new': status['NoNewPrivs'].strip(), 'caps': int(status['CapEff'], 16), 'uid': os.getuid()}
"""
    told = result(await call(sandbox, code))
    assert told["no new"] == "1"
    assert told["caps"] == 0
    assert told["uid"] != 0


class TestOwnUserId:
    """What only root can do: give each tool a user id of its own."""

    __test__ = os.getuid() == 0

    async def test_two_tools_at_once_cannot_reach_each_other(self, sandbox: Sandbox) -> None:
        victim = """
import os, time
def run(mark):
    open('secret', 'w').write('top secret'); os.chmod('secret', 0o644)
    with open(mark, 'w') as file: file.write(f'{os.getpid()} {os.getcwd()}')
    os.chmod(mark, 0o644)
    time.sleep(0.5)
    return {'uid': os.getuid()}
"""
        thief = """
import os, time
def run(mark):
    while not os.path.exists(mark) or not open(mark).read(): time.sleep(0.01)
    pid, folder = open(mark).read().split()
    got = []
    for path in (f'{folder}/secret', f'/proc/{pid}/cwd/secret', f'/proc/{pid}/root{folder}/secret'):
        try: got.append(open(path).read())
        except OSError: pass
    try: os.kill(int(pid), 9); got.append('killed')
    except OSError: pass
    return {'uid': os.getuid(), 'got': got}
"""
        mark = f"/tmp/agentflow-mark-{os.getpid()}"
        one, two = await asyncio.gather(call(sandbox, victim, mark=mark), call(sandbox, thief, mark=mark))
        assert result(two)["got"] == []
        assert result(one)["uid"] != result(two)["uid"]

    async def test_what_a_tool_leaves_where_everyone_may_write_is_removed(self, sandbox: Sandbox) -> None:
        code = """
import os
def run():
    for place in ('/tmp', '/var/tmp', '/dev/shm'):
        os.makedirs(f'{place}/agentflow-stray/deep')
        open(f'{place}/agentflow-stray.txt', 'w').write('x')
    return {}
"""
        result(await call(sandbox, code))
        left = [n for d in ("/tmp", "/var/tmp", "/dev/shm") for n in os.listdir(d) if n.startswith("agentflow-stray")]
        assert left == []

    async def test_without_a_free_user_id_the_call_is_to_be_tried_later(
        self, sandbox: ProcessSandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("agentflow.sandbox.identity.UIDS", range(0))
        fresh = ProcessSandbox()
        outcome = await call(fresh, "def run(): return {}")
        assert outcome.error_code == "sandbox_unavailable"
        await fresh.close()

    def test_no_two_hosts_lend_the_same_user_id(self) -> None:
        one, two = Identities(), Identities()
        lent = [one.take(), two.take(), one.take(), two.take()]
        assert len(set(lent)) == 4
        one.close()
        two.close()


async def test_without_python_it_says_so_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python3")
    sandbox = ProcessSandbox()
    with pytest.raises(Rejected, match="/nonexistent/python3") as caught:
        await sandbox.start()
    assert caught.value.code == "sandbox_unavailable"
    await sandbox.close()


HOST = """
import asyncio, sys
from agentflow.sandbox import Job
from agentflow.sandbox.process import ProcessSandbox

async def main():
    sandbox = ProcessSandbox()
    await sandbox.start()
    print(sandbox._scratch.root, flush=True)
    code = "import os, time\\ndef run():\\n os.fork(); os.fork() or os.setsid(); time.sleep(60)"
    await sandbox.run(Job(code, b"{}"))

asyncio.run(main())
"""


async def test_when_the_host_is_killed_its_tools_die_and_its_folder_is_found(sandbox: ProcessSandbox) -> None:
    host = await asyncio.create_subprocess_exec(sys.executable, "-c", HOST, stdout=asyncio.subprocess.PIPE)
    assert host.stdout is not None
    root = Path((await host.stdout.readline()).decode().strip())
    assert sandbox._scratch is not None
    await eventually(lambda: len(guests(root)) >= 5)  # the keeper, the tool and what it forks
    host.kill()
    await host.wait()
    await nothing_left(lambda: guests(root))
    remove_abandoned()
    folders = os.listdir(root.parent)
    assert root.name not in folders
    assert sandbox._scratch.root.name in folders  # whose host is alive


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / ".lock").touch()
    (tmp_path / f"{PREFIX}link").symlink_to(elsewhere)
    (tmp_path / f"{PREFIX}unlocked").mkdir()
    dead = tmp_path / f"{PREFIX}dead"
    dead.mkdir()
    (dead / ".lock").touch()
    assert remove_abandoned() == [dead]
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{PREFIX}link", f"{PREFIX}unlocked", "elsewhere"]
    assert (elsewhere / ".lock").exists()
