"""What requirements.lock says of a package: its version, and the hashes of the files that may be installed."""

from __future__ import annotations

import importlib.util
import re
from functools import cache
from pathlib import Path

from packages import Package

ROOT = Path(__file__).parents[2]
OURS = "agentflow"
PLACE = "opt/agentflow/"  # where the lock is installed; what lies elsewhere came with the base


@cache
def lock() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Version and SHA-256 digests of what goes into an image, by name."""
    spec = importlib.util.spec_from_file_location("image_lock", ROOT / "infra/docker/lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found = {}
    for name, block in module.chosen((ROOT / "requirements.lock").read_text(), "run").items():
        version = re.match(r"[^=]+==([^ ;]+)", block)
        assert version is not None
        found[name] = (version[1], tuple(sorted(re.findall(r"--hash=sha256:([0-9a-f]{64})", block))))
    return found


def is_locked(package: Package) -> bool:
    """Whether a package is where the lock is installed, and not the project itself."""
    return package.kind == "pypi" and package.folder.startswith(PLACE) and package.name != OURS


def hashes(package: Package) -> tuple[str, ...]:
    """The digests that the lock allows for a package's file; none where it is not the lock's."""
    version, allowed = lock().get(package.name, ("", ()))
    return allowed if is_locked(package) and version == package.version else ()


def not_locked(packages: list[Package]) -> list[str]:
    """One line for each package that the lock does not name in that version."""
    faults = []
    for each in filter(is_locked, packages):
        version, _ = lock().get(each.name, ("", ()))
        if version != each.version:
            there = f"has {version}" if version else "does not have it"
            faults.append(f"{each.name} {each.version}: requirements.lock {there}")
    return faults
