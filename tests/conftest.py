"""Shared fixtures: real servers, a fresh database per test, and the one rule for what a machine lacks.

A test whose needs this machine lacks is skipped with the reason, or fails if AGENTFLOW_REQUIRE_ALL=1 (CI).
Every pytest-xdist worker has servers of its own: a start takes 0.7 s, and they share nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Generator, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
import pytest

from agentflow.errors import Conflict
from agentflow.runtime.embedded_nats import EmbeddedNats
from agentflow.runtime.embedded_postgres import SETTINGS, EmbeddedPostgres
from agentflow.runtime.server_process import PROC, FolderLock, command_line

Require = Callable[[object, str], None]
TEMPLATE = "agentflow_template"
OLD_S = 600  # tests kill hosts on purpose: a server without one is left over only after a while


def _must_run_all() -> bool:
    return os.environ.get("AGENTFLOW_REQUIRE_ALL") == "1"


def _require(condition: object, reason: str) -> None:
    if not condition:
        pytest.skip(reason)


def pytest_sessionstart(session: pytest.Session) -> None:
    """End the servers of earlier sessions that were killed: nobody else will."""
    if hasattr(session.config, "workerinput") or not PROC.is_dir():
        return
    for pid in filter(str.isdigit, os.listdir(PROC)):
        words = command_line(int(pid)) or [""]
        argument = next((word for word in words[1:3] if "/pytest-of-" in word), "")
        if Path(words[0]).name not in {"postgres", "nats-server"} or not argument:
            continue
        lock = FolderLock(Path(argument).parent)  # held as long as the session is alive
        with contextlib.suppress(OSError, Conflict):
            if time.time() - (PROC / pid).stat().st_mtime < OLD_S:
                continue
            if lock.folder.is_dir():
                lock.acquire()
                lock.release()
            os.kill(int(pid), signal.SIGINT)


def pytest_collection_finish() -> None:
    """What there is by now stays: to look through thousands of tests for garbage takes longer than most of them."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _log_lines() -> None:
    """JSON lines, as in production, also after a test that has changed them: structlog's default draws every
    local variable of a traceback, which takes seconds."""
    from agentflow.observe import logs

    logs.configure("info")


@pytest.fixture(scope="session")
def require() -> Require:
    """``require(condition, reason)``: skip the test when the condition is false (in CI: fail it)."""
    return _require


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test, however it was skipped, has failed."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and _must_run_all():
        report.outcome = "failed"
        report.longrepr = f"AGENTFLOW_REQUIRE_ALL=1, and yet: {_reason(report.longrepr)}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for whole modules."""
    report = yield
    if report.outcome == "skipped" and _must_run_all():
        report.outcome = "failed"
        report.longrepr = f"AGENTFLOW_REQUIRE_ALL=1, and yet: {_reason(report.longrepr)}"
    return report


def _reason(longrepr: object) -> str:
    return str(longrepr[2]) if isinstance(longrepr, tuple) else str(longrepr)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """``@pytest.mark.docker`` needs an engine, ``@pytest.mark.docker("runsc")`` that runtime too."""
    for mark in item.iter_markers("docker"):
        runtimes = _docker_runtimes()
        _require(runtimes is not None, "no Docker engine answers: infra/docker/engine.sh start")
        for runtime in mark.args:
            _require(runtime in (runtimes or ()), f"no Docker runtime {runtime}: infra/gvisor/install.sh")


@functools.cache
def _docker_runtimes() -> frozenset[str] | None:
    """The runtimes of the Docker engine, asked once per worker; None where none answers."""
    command = ["docker", "info", "--format", "{{json .Runtimes}}"]
    try:
        answer = subprocess.run(command, capture_output=True, timeout=20, check=True)
        return frozenset(json.loads(answer.stdout) or ())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None


class QuickPostgres(EmbeddedPostgres):
    """Does not wait for the disk: what it wrote survives its processes, though not the machine. Databases are made in
    a fifth of the time, and dropped in a third, as fewer buffers are looked through."""

    settings = MappingProxyType({**SETTINGS, "fsync": "off", "shared_buffers": "64MB"})


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A real PostgreSQL for this worker. Tests that kill or reconfigure a server start their own."""
    server = QuickPostgres(tmp_path_factory.mktemp("postgres"))
    server.up()
    yield server
    server.down()


@dataclass(frozen=True, slots=True)
class Database:
    """A database of its own, migrated and empty."""

    postgres: EmbeddedPostgres
    name: str

    @property
    def admin(self) -> str:
        """The superuser's connection URL."""
        return self.dsn("postgres")

    def dsn(self, user: str) -> str:
        """The connection URL of a role."""
        return self.postgres.dsn(user, self.name)


_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def _template(postgres: EmbeddedPostgres) -> str:
    """The name of a migrated database that the others are copied from: cheaper than migrating each."""
    from agentflow.store.migrate import migrate

    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {TEMPLATE}")
    _run(migrate(postgres.dsn(database=TEMPLATE)))
    return TEMPLATE


def _fresh_database(postgres: EmbeddedPostgres, template: str) -> Iterator[Database]:
    name = f"test_{next(_numbers)}"
    with psycopg.connect(postgres.dsn(), autocommit=True) as admin:
        admin.execute(f"create database {name} template {template} strategy file_copy")  # a quarter of the time
        yield Database(postgres, name)
        admin.execute(f"drop database if exists {name} with (force)")


@pytest.fixture
def database(postgres: EmbeddedPostgres, _template: str) -> Iterator[Database]:
    """A migrated, empty database for this test (0.1 s)."""
    yield from _fresh_database(postgres, _template)


@pytest.fixture(scope="module")
def module_database(postgres: EmbeddedPostgres, _template: str) -> Iterator[Database]:
    """A migrated database that the tests of one module share."""
    yield from _fresh_database(postgres, _template)


@pytest.fixture(scope="session")
def _nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedNats]:
    server = EmbeddedNats(tmp_path_factory.mktemp("nats"))
    server.up()
    yield server
    server.down()


@pytest.fixture
def nats(_nats_server: EmbeddedNats) -> Iterator[EmbeddedNats]:
    """A real nats-server for this worker, without a stream before and after the test."""
    _nats_server.up()  # does nothing unless a test has stopped it
    _run(_delete_streams(_nats_server.url))  # a module's host may have left some
    yield _nats_server
    if _nats_server.alive:
        _run(_delete_streams(_nats_server.url))


async def _delete_streams(url: str) -> None:
    import nats

    connection = await nats.connect(url)
    try:
        jetstream = connection.jetstream()
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
    finally:
        await connection.close()


def _run(work: Coroutine[Any, Any, object]) -> None:
    """Run a coroutine to its end on an event loop of its own, whatever loop this thread has."""
    done: Future[object] = Future()

    def body() -> None:
        try:
            done.set_result(asyncio.run(work))
        except BaseException as fault:
            done.set_exception(fault)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    done.result()
