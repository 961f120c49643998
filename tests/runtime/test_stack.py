"""The embedded stack: real servers that survive what happens to the host, and leave nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import nats as nats_client
import psycopg
import pytest

import agentflow
from agentflow.errors import Conflict, Rejected
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import EmbeddedPostgres
from agentflow.runtime.server_process import command_line, running, wait_until

T = TypeVar("T", EmbeddedPostgres, EmbeddedNats)
Require = Callable[[object, str], None]

# A host in another process: starts both servers, prints their pids, and does what `end` says.
HOST = """
import sys, time
from pathlib import Path
from agentflow.runtime import embedded_postgres as p, embedded_nats as n
{before}
postgres, nats = p.EmbeddedPostgres(Path(sys.argv[1])), n.EmbeddedNats(Path(sys.argv[1]))
postgres.up(), nats.up()
print(postgres.pid, nats.pid, nats.address, flush=True)
{end}
"""
SOURCE = str(Path(agentflow.__file__).parents[1])
BARE_ENVIRONMENT = {"HOME": "/nonexistent", "PATH": "/usr/bin:/bin", "PYTHONPATH": SOURCE}


@pytest.fixture(scope="session")
def first_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose servers have run and stopped: what most tests start from, as making one takes longest."""
    home = tmp_path_factory.mktemp("stack") / "home"
    with started(EmbeddedPostgres(home)):
        pass
    return home


@pytest.fixture
def new_home(tmp_path: Path) -> Iterator[Path]:
    """A home that does not exist yet; and after the test, no server of it is left, not even by accident."""
    yield tmp_path / "home"
    left = [pid for pid in pids() if serves(pid, tmp_path)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


@pytest.fixture
def home(new_home: Path, first_home: Path) -> Path:
    """A home that was used before."""
    subprocess.run(["cp", "-a", str(first_home), str(new_home)], check=True)
    return new_home


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def serves(pid: int, folder: Path) -> bool:
    words = command_line(pid) or [""]
    return Path(words[0]).name in {"postgres", "nats-server"} and any(str(folder) in word for word in words)


def gone(pid: int) -> bool:
    return command_line(pid) is None


@contextmanager
def host(
    home: Path, end: str = "time.sleep(60)", before: str = ""
) -> Iterator[tuple[subprocess.Popen[str], int, int]]:
    script = HOST.format(end=end, before=before)
    command = [sys.executable, "-c", script, str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=BARE_ENVIRONMENT) as process:
        assert process.stdout
        try:
            postgres, nats, _ = process.stdout.readline().split()
            yield process, int(postgres), int(nats)
        finally:
            process.kill()


@contextmanager
def started(server: T) -> Iterator[T]:
    server.up()
    try:
        yield server
    finally:
        server.down()
    assert not server.alive


def ask(server: EmbeddedPostgres, statement: str) -> object:
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        cursor = connection.execute(statement)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


async def test_start_and_stop(new_home: Path) -> None:
    postgres, nats = EmbeddedPostgres(new_home), EmbeddedNats(new_home)
    await asyncio.gather(postgres.start(), nats.start())
    try:
        assert postgres.alive and nats.alive
        first = postgres.pid, nats.pid
        await asyncio.gather(postgres.start(), nats.start())  # again: the same servers
        assert (postgres.pid, nats.pid) == first

        assert ask(postgres, "select current_database()") == "agentflow"
        assert ask(postgres, "show fsync") == ask(postgres, "show synchronous_commit") == "on"
        assert ask(postgres, "show listen_addresses") == ""
        assert ask(postgres, "show timezone") == "UTC"
        ask(postgres, "create table kept as select 1 as n")
        address = nats.address
        client = await nats_client.connect(nats.url)
        await client.jetstream().add_stream(name="KEPT", subjects=["kept"])
        await client.jetstream().publish("kept", b"x" * 1024 * 1024)
        await client.close()
    finally:
        await asyncio.gather(postgres.stop(), nats.stop())
        await asyncio.gather(postgres.stop(), nats.stop())  # twice is fine
    assert not postgres.alive and not nats.alive
    assert all(pid and gone(pid) for pid in first)
    with pytest.raises(Rejected, match="start it first"):
        postgres.dsn()
    with pytest.raises(Rejected, match="start it first"):
        _ = nats.url

    began = time.monotonic()
    with started(postgres), started(nats):
        assert time.monotonic() - began < 5  # 0.1 s on an idle machine
        assert ask(postgres, "select n from kept") == 1
        assert nats.address == address  # clients find it where it was
        client = await nats_client.connect(nats.url)
        assert (await client.jetstream().stream_info("KEPT")).state.messages == 1
        await client.close()


def test_a_killed_host_leaves_servers_that_the_next_one_adopts(home: Path) -> None:
    with host(home) as (process, postgres_pid, nats_pid):
        process.kill()
    assert not gone(postgres_pid) and not gone(nats_pid)
    with started(EmbeddedPostgres(home)) as postgres, started(EmbeddedNats(home)) as nats:
        assert (postgres.pid, nats.pid) == (postgres_pid, nats_pid)
        assert ask(postgres, "select 1") == 1
        assert postgres.alive and nats.alive
    assert gone(postgres_pid) and gone(nats_pid)


def test_a_child_that_was_forked_this_moment_is_not_taken_for_a_server(tmp_path: Path) -> None:
    forks = "import os, time; os.fork(); os.write(1, b'%d\\n' % os.getpid()); time.sleep(60)"
    command = [sys.executable, "-c", forks, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as parent:
        assert parent.stdout
        both = {int(parent.stdout.readline()), int(parent.stdout.readline())}
        try:
            found = running(Path(sys.executable).name, tmp_path, str(tmp_path))
            assert [server.pid for server in found] == [parent.pid]
        finally:
            for pid in both:
                os.kill(pid, signal.SIGKILL)


def test_servers_with_other_settings_are_replaced(home: Path) -> None:
    with host(home, before="p.SETTINGS['work_mem'] = '5MB'; n.MAX_PAYLOAD += 1") as (
        process,
        old_postgres,
        old_nats,
    ):
        process.kill()
    with started(EmbeddedPostgres(home)) as postgres, started(EmbeddedNats(home)) as nats:
        assert ask(postgres, "show work_mem") == "4MB"
        assert gone(old_postgres) and gone(old_nats)
        assert nats.pid != old_nats


def test_servers_end_with_a_host_that_exits_without_stopping_them(home: Path) -> None:
    with host(home, end="sys.exit(3)") as (process, postgres_pid, nats_pid):
        assert process.wait(20) == 3
    assert gone(postgres_pid) and gone(nats_pid)


def test_a_second_host_is_told_who_uses_the_home(home: Path) -> None:
    with host(home) as (process, postgres_pid, nats_pid):
        for server in (EmbeddedPostgres(home), EmbeddedNats(home)):
            with pytest.raises(Conflict, match=rf"in use by process {process.pid}\b.*AGENTFLOW_HOME"):
                server.up()
            assert not server.alive
        process.terminate()
        process.wait(20)
        assert not gone(postgres_pid) and not gone(nats_pid)
    for server in (EmbeddedPostgres(home), EmbeddedNats(home)):
        server.up()
        server.down()


async def test_of_two_starts_at_once_one_wins(home: Path) -> None:
    first, second = EmbeddedPostgres(home), EmbeddedPostgres(home)
    outcomes = await asyncio.gather(first.start(), second.start(), return_exceptions=True)
    try:
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "NoneType"]
        assert first.alive != second.alive
    finally:
        await first.stop()
        await second.stop()


def test_a_killed_postgres_recovers_what_was_committed(home: Path) -> None:
    with started(EmbeddedPostgres(home)) as postgres:
        ask(postgres, "create table kept as select 41 as n")
        # A backend that is slow to notice the end of its postmaster holds on to its memory.
        busy = psycopg.connect(postgres.dsn())
        assert postgres.pid
        os.kill(busy.info.backend_pid, signal.SIGSTOP)
        threading.Timer(0.5, os.kill, (busy.info.backend_pid, signal.SIGCONT)).start()
        os.kill(postgres.pid, signal.SIGKILL)
        assert wait_until(lambda: not postgres.alive, 5)
        postgres.up()
        busy.close()
        assert ask(postgres, "select n from kept") == 41


def test_strangers_named_by_stale_pid_files_are_left_alone(home: Path) -> None:
    postgres = EmbeddedPostgres(home)
    with started(postgres):
        lines = (postgres.data / "postmaster.pid").read_text().splitlines()
    # PostgreSQL itself would wait for a process of its own user.
    user = postgres.data.stat().st_uid if os.geteuid() == 0 else None
    with subprocess.Popen(["sleep", "60"], user=user) as stranger:
        try:
            lines[0] = str(stranger.pid)
            (postgres.data / "postmaster.pid").write_text("\n".join(lines))
            with started(postgres):
                assert ask(postgres, "select 1") == 1
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_an_interrupted_first_start_is_redone(new_home: Path) -> None:
    half = new_home / "postgres" / "data.new-1"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    with started(EmbeddedPostgres(new_home)) as postgres:
        assert ask(postgres, "select 1") == 1
    assert not half.exists()


@pytest.mark.parametrize(
    "name", ["a,b", "with space, 'quotes\" and ünïcode/" + "long" * 30 + "/" + "path" * 30]
)
def test_homes_with_difficult_names(new_home: Path, name: str) -> None:
    awkward = new_home.parent / name
    with started(EmbeddedPostgres(awkward)) as postgres, started(EmbeddedNats(awkward)):
        assert ask(postgres, "select 1") == 1
        sockets = Path(str(ask(postgres, "show unix_socket_directories")).strip('"'))
        assert sockets.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()  # neither path can hold a socket: it was elsewhere, and is gone


@pytest.mark.parametrize("kind", [EmbeddedPostgres, EmbeddedNats])
@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (Path("/sys/agentflow"), "Operation not permitted|Permission denied|Read-only"),
        (Path("/proc/version/agentflow"), "Not a directory"),
        (Path("/tmp/line\nbreak"), "control characters"),
        (Path("/tmp", *["long" * 20] * 20), "too long"),
    ],
    ids=["read-only", "a file", "line break", "too long"],
)
def test_an_unusable_home_is_named_with_the_mend(
    kind: type[EmbeddedPostgres | EmbeddedNats], bad: Path, fault: str
) -> None:
    server = kind(bad)
    with pytest.raises(Rejected, match=fault) as caught:
        server.up()
    assert "AGENTFLOW_HOME" in caught.value.problem.mend
    assert str(bad)[:20] in caught.value.problem.path
    assert not server.alive


def test_a_full_disk_is_called_so(new_home: Path, require: Require) -> None:
    require(os.geteuid() == 0, "only root can mount a small disk")
    new_home.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(new_home)], capture_output=True
    )
    require(mounted.returncode == 0, "cannot mount a tmpfs here")
    try:
        with pytest.raises(Rejected, match=r"the disk is full.*free some space"):
            EmbeddedPostgres(new_home).up()
    finally:
        subprocess.run(["umount", str(new_home)], check=True)


def test_postgres_is_never_root_and_never_a_tools_user(home: Path, require: Require) -> None:
    from agentflow.sandbox.identity import UIDS

    require(os.geteuid() == 0, "only root changes users")
    for parent_mode in (0o700, 0o711):  # closed to others, and open: two ways to change the user
        home.parent.chmod(parent_mode)
        with started(EmbeddedPostgres(home)) as postgres:
            uid = os.stat(f"/proc/{postgres.pid}").st_uid
            assert uid not in (0, 65534, *UIDS)
            socket_file = home / "postgres" / "run" / ".s.PGSQL.5432"
            assert not socket_file.exists() or socket_file.parent.stat().st_mode & 0o077 == 0


def test_an_ordinary_user_can_run_it(new_home: Path, require: Require) -> None:
    require(os.geteuid() == 0 and shutil.which("setpriv"), "the other tests run as an ordinary user already")
    new_home.mkdir()
    os.chown(new_home, 65534, 65534)
    script = HOST.format(before="import os; assert os.geteuid() == 65534", end="")
    # It may look into the folders on the way to the interpreter, nothing more.
    look = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=-all,+dac_read_search"]
    user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *look, "--"]
    done = subprocess.run(
        [*user, sys.executable, "-B", "-c", script, str(new_home)], env=BARE_ENVIRONMENT, timeout=60
    )
    assert done.returncode == 0
    assert (new_home / "postgres" / "data").stat().st_uid == 65534


def test_nats_takes_only_clients_with_the_password(new_home: Path) -> None:
    with started(EmbeddedNats(new_home)) as nats:
        password = nats.url.split(":")[2].split("@")[0]
        assert "PONG" in nats_says(nats, password)
        assert "Authorization Violation" in nats_says(nats, "guess")
        for name in ("password", "server.conf", "log"):
            assert (nats.folder / name).stat().st_mode & 0o077 == 0
        assert nats.pid and password not in " ".join(command_line(nats.pid) or [])


def nats_says(nats: EmbeddedNats, password: str) -> str:
    hello = {"user": "agentflow", "pass": password, "verbose": False}
    name, _, port = nats.address.rpartition(":")
    with socket.create_connection((name, int(port)), timeout=5) as connection:
        connection.sendall(f"CONNECT {json.dumps(hello)}\r\nPING\r\n".encode())
        said = ""
        while "PONG" not in said and "-ERR" not in said:
            said += connection.recv(4096).decode()
    return said


async def test_wiped_jetstream_comes_back_empty_where_it_was(new_home: Path) -> None:
    with started(EmbeddedNats(new_home)) as nats:
        again = asyncio.Event()

        async def reconnected() -> None:
            again.set()

        client = await nats_client.connect(
            nats.url,
            error_cb=quiet,
            reconnected_cb=reconnected,
            reconnect_time_wait=0.05,
            max_reconnect_attempts=-1,
        )
        await client.jetstream().add_stream(name="ROAD", subjects=["road"])
        address, pid = nats.address, nats.pid
        await nats.wipe_jetstream()
        assert nats.address == address and nats.pid != pid
        await asyncio.wait_for(again.wait(), 10)
        assert await client.jetstream().streams_info() == []
        await client.close()


def test_nats_moves_when_its_port_was_taken(new_home: Path) -> None:
    nats = EmbeddedNats(new_home)
    with started(nats):
        port = int(nats.address.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", port)), started(nats):
        assert nats.address != f"127.0.0.1:{port}"
        assert nats.alive


async def quiet(_: Exception) -> None:
    """Refused and lost connections are expected here: no log lines about them."""
