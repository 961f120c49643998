"""Certificates whose time is over, and ones that are changed while functions run: each side is told in one line, waits,
and goes on by itself when there is another certificate."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tls_door
from certificates import Authority
from house import eventually
from test_unready import Process, Start, free_port, start

__all__ = ["start"]
NATS_CONF = """
listen: "127.0.0.1:{port}"
jetstream {{store_dir: "{folder}/data"}}
tls {{cert_file: "{folder}/tls.crt", key_file: "{folder}/tls.key"}}
"""


@dataclass
class Server:
    """A server with TLS, and the folder of its certificate."""

    folder: Path
    port: int
    command: list[str]
    process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)

    def tell(self, sign: signal.Signals) -> None:
        assert self.process
        self.process.send_signal(sign)
        if sign == signal.SIGKILL:
            self.process.wait()

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    def answers(self) -> bool:
        assert self.process and self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server with TLS: a command that is told its port and the folder of its certificate."""
    made: list[Server] = []

    def begin(name: str, *command: str) -> Server:
        folder, port = tmp_path / name, free_port()
        (folder / "conf").write_text(NATS_CONF.format(folder=folder, port=port))
        made.append(Server(folder, port, [word.format(folder=folder, port=port) for word in command]))
        made[-1].begin()
        return made[-1]

    yield begin
    for each in made:
        each.tell(signal.SIGKILL)


async def test_postgres_with_a_certificate_whose_time_is_over(
    start: Start, server: Callable[..., Server], database: Any, tmp_path: Path
) -> None:
    authority = Authority()
    authority.write(tmp_path / "db", "localhost", expired=True)
    (sockets,) = re.findall(r"host=([^&]+)", database.admin)
    door = server("db", sys.executable, tls_door.__file__, "{port}", sockets.replace("%2F", "/"), "5432", "{folder}")
    await eventually(door.answers)
    query = f"sslmode=verify-full&sslrootcert={door.ca}"
    process = start(AGENTFLOW_DATABASE_URL=f"postgresql://localhost:{door.port}/{database.name}?{query}")
    await process.waits_for(r"PostgreSQL: .*certificate verify failed \(renew it where its time is over")
    Authority().write(tmp_path / "db", "localhost")  # by somebody else, whom the file that is read each time names
    await process.becomes_ready()


async def test_nats_with_a_certificate_whose_time_is_over_at_the_start_and_later(
    start: Start, server: Callable[..., Server], tmp_path: Path
) -> None:
    authority = Authority()
    authority.write(tmp_path / "nats", "localhost", expired=True)
    program = str(Path(sysconfig.get_path("scripts")) / "nats-server")
    nats = server("nats", program, "-c", "{folder}/conf")
    await eventually(nats.answers)
    url = f"tls://localhost:{nats.port}"
    process = start(AGENTFLOW_NATS_URL=url, AGENTFLOW_NATS_CA=str(nats.ca))
    await process.waits_for(r"NATS: .*certificate has expired.* \(renew it, or name who has signed it")
    authority.write(nats.folder, "localhost")
    nats.tell(signal.SIGHUP)  # it reads its certificate anew
    await process.becomes_ready()
    # It runs on; then the server comes back with one that is over, and then with one of another authority.
    authority.write(nats.folder, "localhost", expired=True)
    nats.tell(signal.SIGKILL)
    nats.begin()
    await _unready(process, r"^NATS: .*certificate has expired.* \(renew it")
    Authority("another authority").write(nats.folder, "localhost")
    nats.tell(signal.SIGHUP)
    await process.becomes_ready()
    # Who waits for a certificate can be ended, too.
    Authority("a third one").write(nats.folder, "localhost", expired=True)
    nats.tell(signal.SIGKILL)
    nats.begin()
    await _unready(process, r"NATS: .*certificate has expired")
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(15) == 0


async def _unready(process: Process, pattern: str) -> None:
    async def told() -> bool:
        status, reason = await process.readiness()
        return status == 503 and re.search(pattern, reason) is not None

    await eventually(told)
    lines = [line for line in process.log.read_text().splitlines() if "nats stays away" in line]
    assert 1 <= len(lines) <= 8, lines  # it tries ten times a second
