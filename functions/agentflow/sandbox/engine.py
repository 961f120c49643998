"""The Docker engine: what the container driver asks of it, through the official SDK. Blocking calls."""

from __future__ import annotations

import asyncio
import socket
import time
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

from agentflow.errors import Rejected
from agentflow.sandbox import guest
from agentflow.sandbox.job import Job

LABEL = "agentflow.sandbox.until"
"""On each container: the unix time after which nobody waits for it, whoever made it."""

OWNER = "agentflow.sandbox.owner"
"""On each container: who made it, one value per engine object."""

SCRATCH_BYTES = 64 * 1024 * 1024
USER = "65534:65534"
# gVisor's own threads count against the engine's limit as well; the guest's are limited inside.
SENTRY_PIDS = 512


class Engine:
    """One engine by its address, ``unix:///...`` or ``tcp://host:port``; asked nothing before the first call."""

    def __init__(self, url: str, *, connections: int) -> None:
        self.url = url
        self._connections = connections
        self._owner = uuid4().hex
        self._used = False

    def problem(self) -> str:
        """Why the engine does not answer; '' when it does."""
        scheme, _, path = self.url.partition("://")
        if scheme == "unix":  # asked first ourselves: the SDK takes long to import, and leaves a socket open
            if not Path(path).exists():
                return f"there is no Docker engine at {self.url}"
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(5)
                    probe.connect(path)
            except OSError as fault:
                return f"the Docker engine at {self.url} does not answer: {fault}"
        try:
            self._api.ping()
        except Exception as fault:  # the SDK lets through errors of requests, urllib3 and socket
            return f"the Docker engine at {self.url} does not answer: {fault}"
        return ""

    @cached_property
    def _api(self) -> Any:
        import docker

        return docker.APIClient(self.url, version="auto", timeout=30, max_pool_size=self._connections)

    def has_runtime(self, name: str) -> bool:
        return name in self._api.info().get("Runtimes", {})

    def has_image(self, image: str) -> bool:
        from docker.errors import NotFound

        try:
            self._api.inspect_image(image)
        except NotFound:
            return False
        return True

    def create(self, image: str, runtime: str, job: Job, lifetime_s: float) -> str:
        """Make the container for a job and return its id; nothing runs yet."""
        from docker.types import LogConfig, Ulimit

        profile = job.profile
        files = sum(len(content) for _, content in job.files)
        memory = profile.memory_bytes + files  # what lies in /tmp counts as memory
        gvisor = runtime == "runsc"
        limits = [Ulimit(name="core", soft=0, hard=0), Ulimit(name="nofile", soft=256, hard=256)]
        if gvisor:
            limits.append(Ulimit(name="nproc", soft=profile.pids, hard=profile.pids))
        host_config = self._api.create_host_config(
            runtime=runtime,
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": f"rw,nosuid,nodev,mode=1777,size={SCRATCH_BYTES + files}"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            mem_limit=memory,
            memswap_limit=memory,
            nano_cpus=int(profile.cpu * 1e9),
            pids_limit=SENTRY_PIDS if gvisor else profile.pids,
            ulimits=limits,
            ipc_mode="none",
            log_config=LogConfig(type="none"),
        )
        self._used = True
        container = self._api.create_container(
            image,
            entrypoint=["python3", "-I", "-S", "-X", "utf8", "-c", Path(guest.__file__).read_text()],
            command=["tool"],
            user=USER,
            working_dir="/tmp",
            hostname="tool",
            stdin_open=True,
            network_disabled=True,
            labels={LABEL: str(int(time.time() + lifetime_s)), OWNER: self._owner},
            host_config=host_config,
        )
        return str(container["Id"])

    async def attach(self, container: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """The container's stdin and, multiplexed, its stdout and stderr, on a connection of their own.

        The SDK's own attach takes a connection out of its pool that nobody closes, and blocks a thread.
        """
        scheme, _, rest = self.url.partition("://")
        if scheme == "unix":
            reader, writer = await asyncio.open_unix_connection(rest)
        else:
            host, _, port = rest.rpartition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
        query = "stream=1&stdin=1&stdout=1&stderr=1"
        head = f"POST /containers/{container}/attach?{query} HTTP/1.1\r\nHost: docker\r\n"
        writer.write(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        if not answer.startswith((b"HTTP/1.1 101", b"HTTP/1.1 200")):
            writer.close()
            raise ConnectionError(f"attaching was answered by {answer.splitlines()[0].decode(errors='replace')}")
        return reader, writer

    def start(self, container: str) -> None:
        self._api.start(container)

    def ended(self, container: str) -> tuple[int, bool]:
        """Wait for the container to end: its exit code, and whether it ran out of memory."""
        self._api.wait(container, timeout=10)
        state = self._api.inspect_container(container)["State"]
        return int(state["ExitCode"]), bool(state["OOMKilled"])

    def remove(self, container: str) -> None:
        """Kill and remove; a container that is gone, or going, is fine."""
        from docker.errors import APIError

        with suppress(APIError):
            self._api.remove_container(container, force=True, v=True)

    def remove_expired(self) -> list[str]:
        """Remove containers of hosts that were killed: those past the time their makers gave them."""
        expired = []
        for container in self._api.containers(all=True, filters={"label": LABEL}):
            until = container["Labels"].get(LABEL, "0")
            if not until.isdigit() or int(until) < time.time():
                self.remove(container["Id"])
                expired.append(str(container["Id"]))
        return expired

    def owned(self) -> list[str]:
        """The containers that were made here and are still there."""
        mine = {"label": f"{OWNER}={self._owner}"}
        return [str(container["Id"]) for container in self._api.containers(all=True, filters=mine)]

    def close(self) -> None:
        """Remove what is left of ours, and disconnect."""
        if "_api" not in self.__dict__:
            return
        if self._used:
            with suppress(Exception):  # an engine that is gone keeps them; the next host's start finds them
                for container in self.owned():
                    self.remove(container)
        self._api.close()


def unavailable(message: str, mend: str) -> Rejected:
    return Rejected(message, code="sandbox_unavailable", mend=mend)
