"""Former versions of this program, as the repository's history has them."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

from chaos.fleet import OURS

FORMER = "23fd1af93c20123c4344ebeb61bed8c4930ca10e"
"""The version that this one is rolled out over, and back to. Once a later one is what users have, name that."""
PARTS = ("pyproject.toml", "functions", "events", "schemas", "tests/chaos")


class NoHistory(Exception):
    """The clone lacks the former version, and nothing can be said about an upgrade from it."""


def former(folder: Path, revision: str = FORMER) -> Path:
    """The checkout of a former version below ``folder``; its ``tests/chaos`` knows its own seams."""
    code = folder / revision[:12]
    with tarfile.open(fileobj=io.BytesIO(_said("archive", "--format=tar", revision, *PARTS))) as tar:
        tar.extractall(code, filter="data")
    return code


def text(path: str, revision: str = FORMER) -> str:
    """A file as it was."""
    return _said("show", f"{revision}:{path}").decode()


def names(folder: str, revision: str = FORMER) -> list[str]:
    """The files that a folder had."""
    return _said("ls-tree", "--name-only", f"{revision}:{folder}").decode().split()


def agentflow(code: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line of the version at ``code``, run to its end."""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(code / "functions")}
    command = [sys.executable, "-m", "agentflow", *words]
    return subprocess.run(command, env=environment, cwd=code, capture_output=True, text=True, timeout=120, check=False)


def _said(*words: str) -> bytes:
    """What git says of the history; ``NoHistory`` where it does not reach that far."""
    # A fresh clone in CI may belong to another user than the one that tests.
    command = ["git", "-c", f"safe.directory={OURS}", "-C", str(OURS), *words]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        raise NoHistory(f"{FORMER[:12]} is not in this clone: git fetch --unshallow ({said})")
    return done.stdout
