"""The engines that are measured: ours and its peers, each started afresh in a new folder for every measurement."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import install
import psycopg
import work

from agentflow.runtime.embedded_postgres import EmbeddedPostgres

HERE = Path(__file__).parent
PATIENCE_S, STOP_S = 240.0, 30.0


class Failed(Exception):
    """A measurement that did not come to its end, and why."""


def command(argv: list[str]) -> dict[str, Any]:
    """The JSON object that a script prints last. Nothing that it started is left when this returns or raises."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(argv, cwd=HERE, stdout=out, stderr=said, start_new_session=True)
        try:
            status = process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            raise Failed(f"not done after {PATIENCE_S:g} s") from None
        finally:
            _end(process)
        lines, last = _lines(out), _lines(said)[-1:] or ["it said nothing"]
    if status != 0 or not lines:
        raise Failed(f"exit status {status}: {last[0].strip()}")
    answer: dict[str, Any] = json.loads(lines[-1])
    return answer


def _end(process: subprocess.Popen[bytes]) -> None:
    """First so that it can stop its servers, which may be in sessions of their own; then whatever is left."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _lines(file: IO[str]) -> list[str]:
    file.seek(0)
    return [line for line in file.read().splitlines() if line.strip()]


def measured(answer: Mapping[str, Any], steps: int) -> work.Measured:
    """A script's answer, once the far side's count of steps is what was asked for."""
    given = work.Measured(**{field.name: answer[field.name] for field in fields(work.Measured)})
    if given.steps_counted != steps:
        raise Failed(f"{given.steps_counted} steps ran instead of {steps}")
    return given


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The DSN of a fresh PostgreSQL with the settings of ours."""
    with tempfile.TemporaryDirectory(prefix="agentflow-peers-", ignore_cleanup_errors=True) as home:
        server = EmbeddedPostgres(Path(home))
        server.up()
        try:
            with psycopg.connect(server.dsn()) as conn:
                for setting in ("fsync", "synchronous_commit"):
                    (value,) = conn.execute(f"show {setting}").fetchone() or ("",)
                    assert value == "on", f"{setting} is {value}"
            yield server.dsn()
        finally:
            server.down()


class AgentFlow:
    """Ours, by its own benchmarks; they count the steps in the database themselves."""

    name = "agentflow"

    def prepare(self, cache: Path) -> None:
        """Nothing: this process runs in its environment."""

    def measure(self, runs: int) -> work.Measured:
        bench = HERE.parent
        singles, fans = str(work.SINGLES), str(work.FANS)
        shared = ["--runs", str(runs), "--single", singles, "--processes", "2"]
        steps = command([sys.executable, str(bench / "steps.py"), *shared])
        fan = command([sys.executable, str(bench / "fanout.py"), "--widths", str(work.WIDTH), "--runs", fans])
        return work.Measured(
            steps_per_s=steps["steps_per_s"],
            step_p50_ms=steps["step_p50_ms"],
            step_p99_ms=steps["step_p99_ms"],
            fan100_ms=fan["fan100_ms"],
            steps_counted=steps["runs"] * work.STEPS,
            version=_revision(),
            durability="PostgreSQL: a commit per step or batch of steps, fsync on",
            settings="embedded stack, 2 processes, everything on",
        )


class OnPostgres:
    """A peer that is a library over PostgreSQL."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._python = Path()

    def prepare(self, cache: Path) -> None:
        self._python = install.python(cache, self.name)

    def measure(self, runs: int) -> work.Measured:
        script = [str(self._python), str(HERE / f"{self.name}_bench.py"), "--runs", str(runs)]
        with postgres() as dsn:
            return measured(command([*script, "--dsn", dsn]), work.steps_of(runs))


class Restate:
    """Restate's server beside a Python service; ``options`` are those of its script."""

    name = "restate"

    def __init__(self, options: list[str]) -> None:
        self._options = options
        self._python = self._server = Path()

    def prepare(self, cache: Path) -> None:
        self._server = install.restate_server(cache)
        self._python = install.python(cache, self.name)

    def measure(self, runs: int) -> work.Measured:
        script = [str(self._python), str(HERE / "restate_bench.py"), "--runs", str(runs)]
        with tempfile.TemporaryDirectory(prefix="agentflow-peers-", ignore_cleanup_errors=True) as folder:
            where = ["--server", str(self._server), "--folder", folder]
            return measured(command([*script, *where, *self._options]), work.steps_of(runs))


Engine = AgentFlow | OnPostgres | Restate


def engines() -> list[Engine]:
    """All of them, in the order in which a round measures them.

    Restate comes twice: which of the two settings is faster changes from machine to machine and from day to day.
    """
    narrow = Restate(["--workers", "1", "--in-flight", "200"])
    wide = Restate(["--workers", "2", "--in-flight", "400"])
    return [AgentFlow(), narrow, OnPostgres("dbos"), wide, OnPostgres("langgraph")]


def _revision() -> str:
    git = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return git.stdout.strip() or "not in git"
