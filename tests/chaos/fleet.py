"""The fleet: the workers of one round, the links between them and the servers, and what can befall a worker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from chaos.control import Control
from chaos.failpoints import COMMIT
from chaos.link import Link
from chaos.servers import Servers, passable

APART = ("api", "plan", "dispatch", "invoke_llm", "run_tool", "account_cost", "relay")
FORMS: dict[str, dict[str, tuple[str, ...]]] = {
    "apart": {name: ("relay",) if name == "relay" else ("serve", name) for name in APART},
    "together": {"all-1": ("serve", "all", "--relay"), "all-2": ("serve", "all", "--relay")},
    "one": {"all-1": ("serve", "all", "--relay")},
}
"""Which workers a form has, and the command line of each."""

PRICES = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
START_S, STOP_S = 60.0, 40.0
PORTS = (12_000, 30_000)
HOPELESS = 5  # ends of its own accord after which a worker is given up
OURS = Path(__file__).parents[2]  # the code that workers run, unless they are told to run another version's


@dataclass(slots=True)
class Worker:
    """One process and its links. ``down``: it is not to be started again for now."""

    name: str
    command: tuple[str, ...]
    folder: Path
    port: int
    control: Control
    postgres: Link
    nats: Link
    environment: dict[str, str]
    process: asyncio.subprocess.Process | None = None
    stopped: bool = False  # SIGSTOPped
    ended: bool = False  # it is to end and to stay ended
    expected: bool = False  # whatever ends it now was our doing
    exits: list[int] = field(default_factory=list)  # codes after SIGTERM
    surprises: list[int] = field(default_factory=list)  # codes of ends that were not our doing
    watcher: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def has_api(self) -> bool:
        return "api" in self.command or "all" in self.command

    def commits(self) -> list[float]:
        """When it has committed, by the monotonic clock."""
        path = self.folder / f"{self.name}.commits"
        data = path.read_bytes() if path.exists() else b""
        return [stamp for (stamp,) in COMMIT.iter_unpack(data[: len(data) // 8 * 8])]

    def signal(self, sign: signal.Signals) -> bool:
        """Send it a signal; False when it does not run."""
        if self.process is None or self.process.returncode is not None:
            return False
        if sign in (signal.SIGKILL, signal.SIGTERM):
            self.expected = True
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(sign)
        if sign in (signal.SIGSTOP, signal.SIGCONT):
            self.stopped = sign == signal.SIGSTOP
        return True

    async def ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/readyz", timeout=2)).status_code == 200
        except httpx.HTTPError:
            return False


class Fleet:
    """Workers in one form. A worker that ends is started again at once, as a supervisor would."""

    def __init__(self, form: str, servers: Servers, database: str, folder: Path, far_port: int, *, seed: int = 0,
                 bug: str = "") -> None:  # fmt: skip
        self.form = form
        self.folder = folder
        self.temp = folder / "tmp"  # where workers put temporary files: empty when they have ended
        self._servers = servers
        self._database = database
        self._chance = random.Random(seed)
        self._bug = bug
        provider = {"base_url": f"http://127.0.0.1:{far_port}/v1", "api_key": "none"}
        models = {
            "small": {"model": "chaos", "provider": "far", **PRICES},
            "dear": {"model": "unpriced", "provider": "far"},
        }
        self._shared = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.temp),
            "AGENTFLOW_HOME": str(folder / "home"),
            "AGENTFLOW_SANDBOX": "process",
            "AGENTFLOW_MODELS": json.dumps({"providers": {"far": provider}, "models": models}),
            "AGENTFLOW_TRACE_SAMPLE": "0",
            "CHAOS_BUG": bug,
        }
        self.workers: dict[str, Worker] = {}

    async def start(self) -> None:
        """Start every worker and return when all are ready."""
        passable(self.temp)
        passable(self.folder / "home")
        for name, command in FORMS[self.form].items():
            await self.add(name, command)
        await self.ready()

    async def add(self, name: str, command: tuple[str, ...], code: Path = OURS) -> Worker:
        """Start one more worker, with the code of the checkout at ``code``."""
        self.workers[name] = await self._worker(name, command, code)
        return self.workers[name]

    async def retire(self, *names: str) -> None:
        """SIGTERM to some, for good; returns when they have ended."""
        leaving = [self.workers[name] for name in names]
        for worker in leaving:
            worker.ended = True
            worker.signal(signal.SIGTERM)
        await asyncio.wait([w.watcher for w in leaving if w.watcher is not None], timeout=STOP_S)

    async def _worker(self, name: str, command: tuple[str, ...], code: Path) -> Worker:
        loop = asyncio.get_running_loop()
        servers = self._servers
        # The servers' addresses are looked up for each connection: a restart may move them.
        postgres = Link(lambda made: loop.create_unix_connection(made, str(servers.socket)))
        nats = Link(lambda made: loop.create_connection(made, "127.0.0.1", servers.nats_port))
        sockets = self.folder / name
        sockets.mkdir()
        await postgres.unix(sockets / servers.socket.name)
        nats_port = await nats.tcp()
        _, _, password = servers.nats.url.rpartition("@")[0].rpartition(":")
        port = _free_port()
        environment = self._shared | {
            "PYTHONPATH": os.pathsep.join((str(code / "tests"), str(code / "functions"))),
            "AGENTFLOW_DATABASE_URL": f"postgresql://@/{self._database}?host={sockets}",
            "AGENTFLOW_NATS_URL": f"nats://agentflow:{password}@127.0.0.1:{nats_port}",
            "AGENTFLOW_HTTP_PORT": str(port),
            "CHAOS_CONTROL": str(self.folder / f"{name}.control"),
            "CHAOS_COMMITS": str(self.folder / f"{name}.commits"),
            "PYTHONHASHSEED": str(self._chance.randrange(2**32)),
        }
        control = Control(self.folder / f"{name}.control")
        worker = Worker(name, command, self.folder, port, control, postgres, nats, environment)
        postgres.on_killed = lambda: worker.signal(signal.SIGKILL)
        await self._spawn(worker)
        worker.watcher = asyncio.create_task(self._keep(worker), name=f"keep-{name}")
        return worker

    async def _spawn(self, worker: Worker) -> None:
        worker.expected = worker.stopped = False
        argv = [sys.executable, "-m", "chaos.worker", *worker.command]
        with worker.log.open("ab") as log:
            worker.process = await asyncio.create_subprocess_exec(
                *argv,
                env=worker.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=asyncio.subprocess.DEVNULL,
            )

    async def _keep(self, worker: Worker) -> None:
        while True:
            assert worker.process is not None
            fired = worker.control.fired
            code = await worker.process.wait()
            if code >= 0 and worker.expected:
                worker.exits.append(code)
            elif not worker.expected and worker.control.fired == fired:
                worker.surprises.append(code)
            if worker.ended:
                return
            await self._spawn(worker)

    async def ready(self, *, within_s: float = START_S) -> None:
        """Wait until every worker says that it is."""
        until = time.monotonic() + within_s
        async with httpx.AsyncClient() as client:
            for worker in self.carrying():
                while not await worker.ready(client):
                    if time.monotonic() > until or len(worker.surprises) >= HOPELESS:
                        raise TimeoutError(f"{worker.name} is not ready: {worker.log.read_text()[-2000:]}")
                    await asyncio.sleep(0.05)

    def carrying(self) -> list[Worker]:
        """The workers that have not been retired."""
        return [worker for worker in self.workers.values() if not worker.ended]

    def heal(self) -> None:
        """Undo what was done to workers and links; what was killed is being started anyway."""
        for worker in self.workers.values():
            worker.control.disarm()
            worker.postgres.release()
            worker.nats.release()
            worker.postgres.at_commit = None
            if worker.stopped:
                worker.signal(signal.SIGCONT)

    async def stop(self) -> None:
        """SIGTERM to all; whoever does not end in time is killed and counted as a surprise."""
        self.heal()
        for worker in self.workers.values():
            worker.ended = True
            worker.signal(signal.SIGTERM)
        watchers = [worker.watcher for worker in self.workers.values() if worker.watcher is not None]
        if watchers:
            await asyncio.wait(watchers, timeout=STOP_S)
        for worker in self.workers.values():
            if worker.watcher is not None and not worker.watcher.done():
                worker.surprises.append(-int(signal.SIGTERM))  # it did not obey
                worker.signal(signal.SIGKILL)
                await worker.watcher

    async def close(self) -> None:
        """Whatever has happened: nothing of the fleet is left."""
        for worker in self.workers.values():
            worker.ended = True
            worker.signal(signal.SIGKILL)
        await asyncio.gather(*(w.watcher for w in self.workers.values() if w.watcher), return_exceptions=True)
        for worker in self.workers.values():
            await worker.postgres.close()
            await worker.nats.close()


def _free_port() -> int:
    """A port that nobody listens on, and that the system will not give to an outgoing connection meanwhile."""
    while True:
        port = random.SystemRandom().randrange(*PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
