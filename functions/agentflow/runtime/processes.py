"""Further processes of the embedded stack, so that it uses all cores of a machine.

Each is a replica, as behind a Service: it carries every function and the API on the same servers, without a relay
of its own, and listens on the same port (SO_REUSEPORT: the kernel deals connections out). The first process starts
them, starts another where one has died, and ends them. However it ends itself, they end with it: they read a pipe
whose other end only it holds.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import IO

import structlog

from agentflow.config import Settings
from agentflow.errors import Rejected

log = structlog.get_logger(__name__)
MOST = 16
PAUSE_S = 1.0  # before another process is started where one has died
STOP_S = 40.0  # a drain takes at most 25 s, and the functions finish what is at hand after it
COMMAND = (sys.executable, "-m", "agentflow", "serve", "all", "--replica")


def check(processes: int) -> None:
    """Whether so many processes can share a port here; ``Rejected`` says why not."""
    if not 1 <= processes <= MOST:
        mend = f"set AGENTFLOW_PROCESSES, or --processes, to 1 to {MOST}"
        text = f"{processes} processes cannot be started"
        raise Rejected(text, code="bad_setting", path="AGENTFLOW_PROCESSES", mend=mend)
    if processes > 1 and not hasattr(socket, "SO_REUSEPORT"):
        text = "this system has no SO_REUSEPORT: processes cannot share a port"
        mend = "start one process: --processes 1"
        raise Rejected(text, code="no_shared_port", path="AGENTFLOW_PROCESSES", mend=mend)


def free_port(host: str, port: int) -> int:
    """The port that processes are going to share: a free one for 0. ``OSError`` when somebody listens there.

    Asked without SO_REUSEPORT, with which another system's port would be shared without a word.
    """
    with socket.create_server((host, port)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def replicas(
    count: int, *, database_url: str, nats_url: str, port: int, output: IO[str] | None = None
) -> AsyncIterator[None]:
    """Have ``count`` further processes run on these servers and this port; all have ended when this is left.

    What they write goes to ``output``, by default to where this process's own lines go.
    """
    # URLs may hold passwords: every user of the machine can read a command line, an environment only we can.
    changes = {"database_url": database_url, "nats_url": nats_url, "http_port": port}
    environment = Settings.environment(**changes)
    kept = [asyncio.create_task(_keep(environment, output), name="replica") for _ in range(count)]
    try:
        yield
    finally:
        for task in kept:
            task.cancel()
        await asyncio.gather(*kept, return_exceptions=True)


async def _keep(environment: dict[str, str], output: IO[str] | None) -> None:
    """Have one process run until this is cancelled: another one takes its place when it ends."""
    while True:
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND,
                env=environment,
                stdin=PIPE,
                stdout=output or sys.stderr,
                stderr=output,
                start_new_session=True,  # the terminal's Ctrl-C is for the first process, which ends the others
            )
        except OSError as fault:
            log.warning("a process cannot be started", reason=str(fault))
        else:
            try:
                status = await process.wait()
            finally:
                await _end(process)
            log.warning("a process has died, another takes its place", pid=process.pid, status=status)
        await asyncio.sleep(PAUSE_S)


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), STOP_S)
    except TimeoutError:
        log.warning("a process does not end, it is killed", pid=process.pid)
        process.kill()
        await process.wait()


def end_with_parent() -> None:
    """Have this process end when its standard input does; by force when it takes too long over it."""
    threading.Thread(target=_wait_for_the_end, name="parent", daemon=True).start()


def _wait_for_the_end() -> None:
    # A thread, not the event loop: that one may not run yet, or be stuck.
    with suppress(OSError):
        while os.read(0, 1024):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_S)
    os._exit(1)
