"""Tools in containers: with Docker's own runtime, or with gVisor's, which has a kernel of its own.

Everything goes in and out over the container's streams: no mounts, no network, a read-only root, no
capabilities, nobody's user id. The image needs nothing but ``python3``.
"""

from __future__ import annotations

import asyncio
import time
from asyncio import Future, StreamReader, StreamWriter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from agentflow.sandbox.dialogue import START_S, Dialogue, request
from agentflow.sandbox.engine import Engine, unavailable
from agentflow.sandbox.job import Job, Outcome, Profile

T = TypeVar("T")

SPARE_S = 60.0
"""How long after its last possible second a container counts as abandoned; also how often we look."""

STDERR = 2


class DockerSandbox:
    """Runs each job in a new container; at most ``slots`` at once, the others wait."""

    def __init__(self, engine: Engine, *, image: str, gvisor: bool = False, slots: int = 8) -> None:
        self.name = "gvisor" if gvisor else "docker"
        self._runtime = "runsc" if gvisor else "runc"
        self._engine = engine
        self._image = image
        self._slots = asyncio.Semaphore(slots)
        # Each job has one call in flight at most; one more is for the janitor.
        self._threads = ThreadPoolExecutor(slots + 1, thread_name_prefix="agentflow-docker")
        self._swept = float("-inf")

    @property
    def isolates(self) -> str:
        kernel = "with a kernel of their own" if self.name == "gvisor" else "on the host's kernel"
        return f"Tools run in containers {kernel}: no network, no files of the host, limits on everything."

    @property
    def missing(self) -> str:
        if self.name == "gvisor":
            return ""
        return "Tools share the host's kernel: a fault in it is a way out. gVisor's runsc closes it."

    async def start(self) -> None:
        if not await self._call(self._engine.has_image, self._image):
            mend = f"docker pull {self._image}, or set AGENTFLOW_SANDBOX_IMAGE to an image with python3"
            raise unavailable(f"the engine has no image {self._image}", mend)
        await self._sweep()
        probe = await self.run(Job("def run(): return {}", b"{}", profile=Profile(wall_s=20.0)))
        if not probe.ok:
            check = f"docker run --runtime {self._runtime} --network none {self._image} python3 -V"
            raise unavailable(probe.message, f"see what `{check}` says")

    async def run(self, job: Job) -> Outcome:
        async with self._slots:
            job.begins()
            if time.monotonic() - self._swept > SPARE_S:
                await self._sweep()
            lifetime = START_S + job.profile.wall_s + SPARE_S
            making = asyncio.ensure_future(
                self._call(self._engine.create, self._image, self._runtime, job, lifetime)
            )
            try:
                return await self._run(job, await asyncio.shield(making))
            except Exception as fault:  # what the SDK lets through has no common root
                message = f"the Docker engine failed: {type(fault).__name__}: {fault}"[:1000]
                return Outcome(False, error_code="sandbox_unavailable", message=message)
            finally:
                await asyncio.shield(self._discard(making))

    async def _run(self, job: Job, container: str) -> Outcome:
        dialogue = Dialogue(job.profile)
        reader, writer = await self._engine.attach(container)
        told: Future[Any] = asyncio.gather(_send(writer, request(job)), _listen(reader, dialogue))
        try:
            await self._call(self._engine.start, container)
            timed_out, wall_s = await dialogue.wait(told)
            code, oom = 0, False
            if told.done():
                code, oom = await self._call(self._engine.ended, container)
        except Exception as fault:  # it may have been started, and what it did is not known
            message = f"the Docker engine failed: {type(fault).__name__}: {fault}"[:1000]
            return Outcome(False, error_code="sandbox_crashed", message=message, known=False)
        finally:
            ended = told.done()
            told.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await told
            writer.close()
        outcome = dialogue.outcome(wall_s, signal_no=max(0, code - 128), timed_out=timed_out, oom=oom)
        return outcome if ended else replace(outcome, known=False)  # it is still there, and may begin yet

    async def close(self) -> None:
        """Free what the driver holds. Jobs still running belong to their callers, who cancel them first."""
        await self._call(self._engine.close)
        self._threads.shutdown(wait=False)

    async def _discard(self, making: Future[str]) -> None:
        with suppress(Exception):
            container = await making
            await self._call(self._engine.remove, container)

    async def _sweep(self) -> None:
        self._swept = time.monotonic()
        with suppress(Exception):
            await self._call(self._engine.remove_expired)

    async def _call(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


async def _send(writer: StreamWriter, data: bytes) -> None:
    with suppress(BrokenPipeError, ConnectionResetError):
        writer.write(data)
        await writer.drain()


async def _listen(reader: StreamReader, dialogue: Dialogue) -> None:
    """Take the engine's stream apart: frames of kind (1 byte), 3 unused, length (4, big-endian) and data."""
    with suppress(asyncio.IncompleteReadError, ConnectionResetError):
        while True:
            header = await reader.readexactly(8)
            left = int.from_bytes(header[4:])
            tell = dialogue.printed if header[0] == STDERR else dialogue.heard
            while left:
                data = await reader.read(min(left, 65536))
                if not data:
                    return
                left -= len(data)
                tell(data)
