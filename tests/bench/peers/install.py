"""Each peer's own environment under a cache folder, made at first use from PyPI and npm, every hash checked."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PATIENCE_S = 600
NPM_MEND = "npm is not installed; on Debian and Ubuntu: apt-get install npm nodejs"


class Absent(Exception):
    """A peer that cannot be installed, and why."""


def python(cache: Path, peer: str) -> Path:
    """The Python of a peer's virtual environment, with the packages of ``requirements-<peer>.txt``."""
    folder, lock = cache / f"{peer}-python", HERE / f"requirements-{peer}.txt"
    interpreter = folder / "bin" / "python"
    if _installed(folder, lock):
        return interpreter
    _say(f"installing {lock.name}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([sys.executable, "-m", "venv", str(folder)], cache)
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, "--require-hashes", "--only-binary", ":all:", "-r", str(lock)], cache)
    _done(folder, lock)
    return interpreter


def restate_server(cache: Path) -> Path:
    """The restate-server binary out of the npm packages of ``package-lock.json``."""
    folder, lock = cache / "restate-npm", HERE / "package-lock.json"
    if not _installed(folder, lock):
        if shutil.which("npm") is None:
            raise Absent(NPM_MEND)
        _say(f"installing {lock.name}")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"], folder)
        _done(folder, lock)
    found = sorted(folder.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise Absent("npm has no restate-server for this platform")
    return found[0]


def _installed(folder: Path, lock: Path) -> bool:
    kept = folder / "installed"
    return kept.exists() and kept.read_bytes() == lock.read_bytes()


def _done(folder: Path, lock: Path) -> None:
    shutil.copyfile(lock, folder / "installed")


def _run(command: list[str], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=os.environ | {"PIP_NO_INPUT": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )
    except subprocess.TimeoutExpired:
        raise Absent(f"{Path(command[0]).name} took longer than {PATIENCE_S} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise Absent(f"{Path(command[0]).name} failed: {' / '.join(said)}")


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
