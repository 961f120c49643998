"""Tools as plain processes: for development, where neither Docker nor gVisor is at hand.

Bounded by rlimits, with an empty environment, a private folder and no privileges, and killed with everything
they have started. What this does not keep apart is said in ``missing``.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from agentflow.errors import Rejected, RetryLater
from agentflow.sandbox import guest
from agentflow.sandbox.dialogue import Dialogue, request
from agentflow.sandbox.identity import Identities
from agentflow.sandbox.job import Job, Outcome, Profile
from agentflow.sandbox.scratch import Scratch, remove, remove_abandoned, remove_strays

GRACE_S = 5.0
"""Longest time the keeper gets to kill what is below it."""


class ProcessSandbox:
    """Runs each job in a process of its own; at most ``slots`` at once, the others wait."""

    name = "process"
    isolates = "Tools run as plain processes: time, memory, processes and output are limited."

    def __init__(self, slots: int = 8, *, instead: str = "") -> None:
        """``instead`` says why it is this driver although a better one was wanted."""
        self._slots = asyncio.Semaphore(slots)
        self._identities = Identities()
        self._scratch: Scratch | None = None
        self._instead = instead

    @property
    def missing(self) -> str:
        who = "an unprivileged user" if os.getuid() == 0 else "you"
        why = f" ({self._instead})" if self._instead else ""
        return (
            f"Tools run as plain processes, for development only: they can reach the network and the files {who}"
            f" can, and memory and disk are limited per process, not in all{why}."
        )

    def _guest(self, uid: int) -> list[str]:
        """The command that a job is run by."""
        return [sys.executable, "-I", "-S", "-X", "utf8", guest.__file__, "keep", str(uid)]

    async def start(self) -> None:
        await asyncio.to_thread(remove_abandoned)
        probe = await self.run(Job("def run(): return {}", b"{}", profile=Profile(wall_s=20.0)))
        if not probe.ok:
            raise Rejected(probe.message, code="sandbox_unavailable", mend="or set AGENTFLOW_SANDBOX=docker")

    async def run(self, job: Job) -> Outcome:
        async with self._slots:
            job.begins()
            try:
                uid = self._identities.take()
            except RetryLater as fault:
                return Outcome(False, error_code="sandbox_unavailable", message=str(fault))
            if self._scratch is None:
                self._scratch = Scratch()
            folder = self._scratch.make()
            try:
                return await self._run(job, uid, folder)
            except OSError as fault:
                message = f"the tool's process was lost: {fault}"
                return Outcome(False, error_code="sandbox_crashed", message=message, known=False)
            finally:
                await asyncio.shield(asyncio.to_thread(_clean, folder, uid))
                self._identities.give_back(uid)

    async def _run(self, job: Job, uid: int, folder: Path) -> Outcome:
        # Under an id of its own the job's processes are counted alone; else with all others of the user.
        pids = job.profile.pids if uid else job.profile.pids + await asyncio.to_thread(_tasks_of_user)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._guest(uid),
                stdin=PIPE, stdout=PIPE, stderr=PIPE, env={}, cwd=folder, start_new_session=True,
            )  # fmt: skip
        except OSError as fault:
            return Outcome(False, error_code="sandbox_unavailable", message=f"no process for the tool: {fault}")
        dialogue = Dialogue(job.profile)
        told = _converse(process, dialogue, request(job, pids=pids))
        try:
            timed_out, wall_s = await dialogue.wait(told)
        finally:
            await asyncio.shield(_end(process, told, str(folder)))
        code = process.returncode or 0
        signal_no = -code if code < 0 else max(0, code - 128)
        return dialogue.outcome(wall_s, signal_no=signal_no, timed_out=timed_out)

    async def close(self) -> None:
        """Free what the driver holds. Jobs still running belong to their callers, who cancel them first."""
        self._identities.close()
        if self._scratch is not None:
            await asyncio.to_thread(self._scratch.close)
            self._scratch = None


def _converse(process: Process, dialogue: Dialogue, request: bytes) -> asyncio.Future[Any]:
    """Feed a keeper its job and listen to it; done when its streams have ended."""
    stdin, stdout, stderr = process.stdin, process.stdout, process.stderr
    assert stdin is not None
    assert stdout is not None
    assert stderr is not None

    async def send() -> None:
        with suppress(BrokenPipeError, ConnectionResetError):
            stdin.write(request)
            await stdin.drain()

    async def listen(stream: asyncio.StreamReader, tell: Callable[[bytes], None]) -> None:
        while data := await stream.read(65536):
            tell(data)

    return asyncio.gather(send(), listen(stdout, dialogue.heard), listen(stderr, dialogue.printed))


async def _end(process: Process, told: asyncio.Future[Any], folder: str) -> None:
    """Have the keeper kill everything below it, and make sure that it did."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), GRACE_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
    if process.returncode is None or process.returncode < 0:
        # Killed, by us or by a tool that runs as the same user: what was below it has no keeper.
        await asyncio.to_thread(_kill_by_folder, folder)
    await asyncio.wait({told}, timeout=1.0)
    told.cancel()
    with suppress(asyncio.CancelledError):
        await told
    process._transport.close()  # type: ignore[attr-defined]  # the pipes, should a stranger still hold them


def _clean(folder: Path, uid: int) -> None:
    remove(folder)
    if uid:
        remove_strays(uid)


def _tasks_of_user() -> int:
    """Processes and threads of our user: what the kernel counts against the limit of a process of ours."""
    count, me = 0, os.getuid()
    for pid in _processes():
        with suppress(OSError):
            stat = os.stat(f"/proc/{pid}/task")
            count += stat.st_nlink - 2 if stat.st_uid == me else 0
    return count


def _kill_by_folder(folder: str) -> None:
    """Kill processes that live in a job's folder, or were started with it in their environment."""
    for pid in _processes():
        with suppress(OSError):
            here = os.readlink(f"/proc/{pid}/cwd").startswith(folder)
            if here or folder.encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(int(pid), signal.SIGKILL)


def _processes() -> list[str]:
    try:
        return [name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    except OSError:
        return []  # no /proc: not Linux
