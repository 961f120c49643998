"""Restate's server and a Python service; runs in the environment of requirements-restate.txt. Prints one JSON line.

Ingress and admin API are asked over unix sockets; the server asks the service over HTTP/2, in both directions at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop
import work
from restate_http import Connection

HERE = Path(__file__).parent
NODE = "bench"
START_S = 30.0
# A step is two entries of the journal, a command and its completion.
COUNT = "select count(*) as steps from sys_journal where entry_type = 'Command: Run'"


def configure(folder: Path, given: argparse.Namespace) -> Path:
    """Write the server's configuration: its defaults but for what is named here."""
    lines = [
        f'cluster-name = "{NODE}"',
        f'node-name = "{NODE}"',
        f'base-dir = "{folder / "data"}"',
        'listen-mode = "unix"',
        f"default-num-partitions = {given.partitions}",
        "disable-telemetry = true",
        'log-filter = "error"',
        *given.set,
    ]
    path = folder / "restate.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def asked(server: Path, *options: str) -> str:
    return subprocess.run([server, *options], check=True, capture_output=True, text=True).stdout


def durability(server: Path, config: Path) -> str:
    """What the server itself says about its write-ahead log with this configuration."""
    says = tomllib.loads(asked(server, "--no-logo", "--config-file", str(config), "--dump-config"))
    kind = says["bifrost"]["default-provider"]
    section = says["log-server"] if kind == "replicated" else says["bifrost"][kind]
    synced = not section.get("rocksdb-disable-wal") and not section["rocksdb-disable-wal-fsync"]
    return f"{kind} log, 1 copy, RocksDB WAL fsync {'on' if synced else 'OFF'}"


def serve(port: int, workers: int) -> list[str]:
    options = ["--interface", "asginl", "--http", "2", "--loop", "uvloop", "--no-ws", "--log-level", "error"]
    options += ["--workers-kill-timeout", "1"]  # the SDK takes the SIGTERM that its worker should end by
    where = ["--host", "127.0.0.1", "--port", str(port), "--workers", str(workers)]
    return [sys.executable, "-m", "granian", *options, *where, "restate_app:app"]


@contextlib.contextmanager
def running(*commands: list[str]) -> Iterator[None]:
    """Both processes, ended on the way out; whoever started this script ends what they leave behind."""
    started = [subprocess.Popen(command, cwd=HERE, stdout=sys.stderr) for command in commands]
    try:
        yield
    finally:
        for process in started:  # the server first: it holds connections to the service
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def patiently(socket_path: Path, path: str, content: Any = None) -> Connection:
    """A connection over which ``path`` has been answered; servers take a second to come up."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            connection = await Connection.open(socket_path)
            await connection.post(path, content)
            return connection
        except (OSError, EOFError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.1)


async def one_run(connection: Connection) -> list[float]:
    """When each step started."""
    result = await connection.post("/bench/ten_steps")
    assert result["n"] == work.STEPS, result
    starts: list[float] = result["starts"]
    return starts


async def one_at_a_time(connection: Connection) -> work.Clock:
    clock = work.Clock()
    for _ in range(work.SINGLES_BEFORE + work.SINGLES):
        clock.single(await one_run(connection))
    for _ in range(work.FANS_BEFORE + work.FANS):
        began = time.perf_counter()
        joined = await connection.post("/bench/fan_out")
        clock.fan(began)
        assert joined == work.JOINED, joined
    return clock


async def at_once(ingress: Path, runs: int, in_flight: int) -> float:
    connections = [await Connection.open(ingress) for _ in range(in_flight)]
    left = iter(range(runs))

    async def lane(connection: Connection) -> None:
        for _ in left:
            await one_run(connection)

    began = time.perf_counter()
    await asyncio.gather(*map(lane, connections))
    return time.perf_counter() - began


async def bench(given: argparse.Namespace, port: int, config: Path) -> work.Measured:
    sockets = given.folder / "data" / NODE
    admin = await patiently(sockets / "admin.sock", "/deployments", {"uri": f"http://127.0.0.1:{port}"})
    ingress = await patiently(sockets / "ingress.sock", "/bench/ten_steps")
    clock = await one_at_a_time(ingress)
    seconds = await at_once(sockets / "ingress.sock", given.runs, given.in_flight)
    (row,) = (await admin.post("/query", {"query": COUNT}))["rows"]
    settings = [
        f"partitions {given.partitions}",
        f"{given.in_flight} in flight",
        f"granian, workers {given.workers}",
    ]
    return clock.measured(
        given.runs,
        seconds,
        steps_counted=row["steps"] - work.STEPS,  # the run that showed that all is up
        version=f"{asked(given.server, '--version').split()[-1]}, sdk {version('restate-sdk')}",
        durability=durability(given.server, config),
        settings=", ".join([*settings, *given.set]),
    )


def main() -> None:
    parser = work.arguments(__doc__)
    parser.add_argument("--server", type=Path, required=True, help="the restate-server binary")
    parser.add_argument(
        "--folder", type=Path, required=True, help="an empty folder for its data, by a short path"
    )
    parser.add_argument("--partitions", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=200)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], help="one more line of the server's configuration"
    )
    given = parser.parse_args()
    config = configure(given.folder, given)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = [str(given.server), "--no-logo", "--config-file", str(config)]
    with running(server, serve(port, given.workers)):
        work.emit(uvloop.run(bench(given, port, config)))


if __name__ == "__main__":
    main()
