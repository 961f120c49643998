"""Worker processes: ``agentflow serve`` as anybody would start it, on the servers of a stack."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType

from stack import Stack

START_S = 30.0
STOP_S = 30.0


class Worker:
    """One process that carries ``functions``; ready when ``async with`` has been entered."""

    def __init__(
        self, on: Stack, functions: Sequence[str], *, relay: bool = False, push: bool = False, **settings: str
    ) -> None:
        self.functions = tuple(functions)
        self.port = 0
        self.sent_again = 0  # messages that its relay took for left behind
        self._ready = asyncio.Event()
        self._said: deque[str] = deque(maxlen=40)
        options = ["--relay"] * relay + ["--push"] * push
        self._command = [sys.executable, "-m", "agentflow", "serve", *functions, *options]
        self._environment = environment(on, **settings)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self) -> None:
        """Start the process; its functions are ready when ``ready`` returns."""
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._environment,
            cwd=self._environment["AGENTFLOW_HOME"],
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        self._reading = asyncio.create_task(self._read())

    async def ready(self) -> None:
        """Return when the process says that it takes in work."""
        waiting = asyncio.ensure_future(self._ready.wait())
        await asyncio.wait({waiting, self._reading}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        assert self._ready.is_set(), "\n".join(self._said)

    async def stop(self) -> None:
        """End the process, in order if it can."""
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        await self._reading

    async def __aenter__(self) -> Worker:
        await self.start()
        try:
            await self.ready()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _read(self) -> None:
        assert self._process.stderr
        async for line in self._process.stderr:
            self._said.append(line.decode(errors="replace").rstrip())
            try:
                said = json.loads(line)
            except ValueError:
                continue
            self.port = said.get("port", self.port)
            if said.get("message") == "sent again":
                self.sent_again += said["events"]
            if said.get("message") == "ready":
                self._ready.set()


def environment(on: Stack, **settings: str) -> dict[str, str]:
    """The environment of a process on these servers: what Python needs, and AgentFlow's variables."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
    ours = {
        "AGENTFLOW_HOME": str(on.settings.home),
        "AGENTFLOW_SCRIPT_DIR": str(on.settings.script_dir),
        "AGENTFLOW_DATABASE_URL": on.running.admin_dsn.replace("postgres@", "", 1),
        "AGENTFLOW_NATS_URL": on.running.nats.url,
        "AGENTFLOW_HTTP_PORT": "0",
        "AGENTFLOW_SANDBOX": "process",
        "AGENTFLOW_TRACE_SAMPLE": str(on.settings.trace_sample),
    }
    return kept | ours | settings


@asynccontextmanager
async def workers(on: Stack, groups: Sequence[Sequence[str]]) -> AsyncIterator[list[Worker]]:
    """A process per group of functions; the first carries the relay, too."""
    started = [Worker(on, group, relay=number == 0) for number, group in enumerate(groups)]
    async with AsyncExitStack() as running:
        for worker in started:
            await running.enter_async_context(worker)
        yield started
