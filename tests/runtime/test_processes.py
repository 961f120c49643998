"""Several processes of the embedded stack: one port, one system, and nothing left whatever ends them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

import agentflow
from agentflow.errors import Rejected
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.runtime.processes import check, free_port
from agentflow.runtime.server_process import command_line, wait_until

PATIENCE_S = 40.0
RUNS = 4
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "PYTHONPATH": str(Path(agentflow.__file__).parents[1]),
    "AGENTFLOW_SANDBOX": "process",
}
STEP = {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}}
COUNT = {
    "agentflow": "plan/v1",
    "kind": "bt",
    "name": "count",
    "limits": {"steps": 2, "usd": 0.01},
    "vars": {"n": "int"},
    "tasks": {"step": STEP},
    "root": {"sequence": [{"task": "step", "set": {"n": "result.n"}}] * 2},
}


def dev(home: Path, *options: str, **settings: str) -> subprocess.Popen[str]:
    """``agentflow dev`` as anybody would start it."""
    return subprocess.Popen(
        [sys.executable, "-m", "agentflow", "dev", *options],
        env={**ENVIRONMENT, "AGENTFLOW_HOME": str(home), **settings},
        cwd=home.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Running:
    """A stack of two processes that is up: the first one, and whatever it has started."""

    def __init__(self, home: Path, first: subprocess.Popen[str]) -> None:
        self.home = home
        self.first = first
        assert first.stdout
        line = next((line for line in first.stdout if line.startswith("API ")), "")
        assert line, first.stderr and first.stderr.read()
        self.url = line.split()[1]
        self.key = (home / "api_key").read_text().strip()

    @property
    def others(self) -> list[int]:
        """The processes that the first one has started and that are not servers."""
        return [pid for pid in pids() if parent(pid) == self.first.pid and "--replica" in words(pid)]

    def log(self) -> str:
        return (self.home / "agentflow.log").read_text()

    def connections(self, stack: ExitStack) -> dict[str, httpx.Client]:
        """A connection to each of the two processes, by when that process has started."""
        found: dict[str, httpx.Client] = {}

        def another() -> bool:
            headers = {"authorization": f"Bearer {self.key}"}
            one = stack.enter_context(httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE_S))
            with suppress(httpx.TransportError):  # it came to a process that has died with it
                found.setdefault(metric(one, "process_start_time_seconds"), one)
            return len(found) == 2

        assert wait_until(another, PATIENCE_S), self.log()
        return found


def metric(connection: httpx.Client, name: str) -> str:
    """The value that the process at the other end of a connection counts under a name."""
    lines = connection.get("/metrics").raise_for_status().text.splitlines()
    return next((line.split()[-1] for line in lines if line.startswith(name)), "0")


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def words(pid: int) -> list[str]:
    return command_line(pid) or []


def parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text()
    except OSError:
        return ""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """Two processes; and after the test none of them nor of their servers is left, not even by accident."""
    home = tmp_path / "home"
    with dev(home, "--processes", "2", "--port", "0") as first:
        try:
            yield Running(home, first)
        finally:
            first.terminate()
            try:
                first.wait(PATIENCE_S)
            finally:
                first.kill()
    for server in (EmbeddedPostgres(home), EmbeddedNats(home)):  # they outlive a first process that is killed
        server.up()
        server.down()
    left = [pid for pid in pids() if f"AGENTFLOW_HOME={home}\0" in environment_of(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_two_processes_answer_on_one_port_and_both_complete_runs(running: Running) -> None:
    (other,) = running.others
    with ExitStack() as stack:
        connections = list(running.connections(stack).values())
        connections[0].post("/v1/workflows", json=COUNT).raise_for_status()
        for connection, its_neighbour in zip(connections, reversed(connections), strict=True):
            for _ in range(RUNS):
                accepted = connection.post("/v1/runs", json={"workflow": "count"}).raise_for_status().json()
                # Whoever is asked knows of every run, and is told of its end.
                run = f"/v1/runs/{accepted['id']}"
                its_neighbour.get(f"{run}/events").raise_for_status()  # a stream until the run's end
                ended = its_neighbour.get(run).json()
                assert (ended["status"], ended["output"]) == ("succeeded", {"n": 2}), ended
        succeeded = 'agentflow_runs_total{status="succeeded"}'
        assert [float(metric(each, succeeded)) for each in connections] == [RUNS, RUNS]
    for secret in ("postgresql:", "nats:"):
        assert secret not in " ".join(words(other))

    running.first.send_signal(signal.SIGTERM)
    assert running.first.wait(PATIENCE_S) == 0
    assert not words(other)
    assert "another takes its place" not in running.log()


def test_another_process_takes_the_place_of_one_that_died(running: Running) -> None:
    (other,) = running.others
    with ExitStack() as stack:
        before = running.connections(stack).keys()
        os.kill(other, signal.SIGKILL)
        assert wait_until(lambda: bool(running.others) and other not in running.others, PATIENCE_S)
        after = running.connections(stack).keys()
    assert len(before & after) == 1  # the first process, and one that was not there
    (line,) = [line for line in running.log().splitlines() if "another takes its place" in line]
    assert '"level":"warning"' in line and f'"pid":{other}' in line


def test_nothing_is_left_of_a_first_process_that_was_killed(running: Running) -> None:
    (other,) = running.others
    with ExitStack() as stack:
        running.connections(stack)
    running.first.kill()
    assert wait_until(lambda: not words(other), PATIENCE_S)


def test_a_process_that_is_not_ready_takes_no_connections_and_ends_with_its_input(tmp_path: Path) -> None:
    port = free_port("127.0.0.1", 0)
    nobody = {
        "AGENTFLOW_DATABASE_URL": "postgresql://127.0.0.1:9/none",
        "AGENTFLOW_NATS_URL": "nats://127.0.0.1:9",
    }
    with subprocess.Popen(
        [sys.executable, "-m", "agentflow", "serve", "all", "--replica"],
        env={**ENVIRONMENT, **nobody, "AGENTFLOW_HTTP_PORT": str(port)},
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as waiting:
        try:
            assert waiting.stderr and waiting.stdin
            assert any("not ready yet" in line for line in waiting.stderr)
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port)).close()
            waiting.stdin.close()
            assert waiting.wait(PATIENCE_S) == 0
        finally:
            waiting.kill()


@pytest.mark.parametrize("processes", ["0", "17"])
def test_too_few_and_too_many_are_refused(tmp_path: Path, processes: str) -> None:
    code, said = refused(dev(tmp_path / "home", "--processes", processes))
    assert code == 2
    assert "--processes" in said and "or equal to" in said
    code, said = refused(dev(tmp_path / "home", AGENTFLOW_PROCESSES=processes))
    assert code == 1
    assert "AGENTFLOW_PROCESSES" in said and "1 to 16" in said


def refused(asked: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a command that is to end by itself, and what it said."""
    with asked:
        try:
            return asked.wait(PATIENCE_S), asked.stderr.read() if asked.stderr else ""
        finally:
            asked.terminate()  # in order: if it has started after all, its servers end with it


def test_a_system_without_shared_ports_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    check(2)
    monkeypatch.delattr(socket, "SO_REUSEPORT")
    check(1)
    with pytest.raises(Rejected, match=r"SO_REUSEPORT.*--processes 1"):
        check(2)


def test_the_port_of_another_system_is_not_shared_with_it() -> None:
    with (
        socket.create_server(("127.0.0.1", 0), reuse_port=True) as stranger,
        pytest.raises(OSError, match="in use"),
    ):
        free_port("127.0.0.1", stranger.getsockname()[1])
    assert free_port("127.0.0.1", 0) > 0
