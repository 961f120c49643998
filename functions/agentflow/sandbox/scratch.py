"""Folders for jobs of the process driver: private, removed whatever they hold, found again after a kill."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "agentflow-tools-"


class Scratch:
    """One folder per host process, locked while it lives; each job gets a folder inside."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX))
        # Another user's job must pass through to its own folder, and see no other.
        self.root.chmod(0o711)
        # Locked before it has its name: whoever finds it unlocked may remove the folder.
        self._lock = os.open(self.root / ".new", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        os.rename(self.root / ".new", self.root / ".lock")

    def make(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))

    def close(self) -> None:
        remove(self.root)
        os.close(self._lock)


def remove(folder: Path) -> None:
    """Remove a folder a tool has written to: it may be too deep to recurse into, or locked by its modes."""
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except (OSError, RecursionError):
        for command in (["chmod", "-R", "u+rwX", "--"], ["rm", "-rf", "--"]):
            subprocess.run([*command, str(folder)], check=False, stderr=subprocess.DEVNULL)


def remove_strays(uid: int) -> None:
    """Remove what a job has left in folders everyone may write to, told by the user id that was its own."""
    for folder in ("/tmp", "/var/tmp", "/dev/shm"):
        with suppress(OSError), os.scandir(folder) as entries:
            for entry in entries:
                if entry.stat(follow_symlinks=False).st_uid != uid:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    remove(Path(entry.path))
                else:
                    os.unlink(entry.path)


def remove_abandoned() -> list[Path]:
    """Remove the folders of hosts of this user that are gone; a living host holds its folder's lock."""
    with os.scandir(tempfile.gettempdir()) as entries:
        found = [Path(entry.path) for entry in entries if entry.name.startswith(PREFIX)]
    return [folder for folder in found if _removed_if_abandoned(folder)]


def _removed_if_abandoned(folder: Path) -> bool:
    try:
        at = folder.lstat()
        if not stat.S_ISDIR(at.st_mode) or at.st_uid != os.getuid():
            return False
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # being made, or removed by another host
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        remove(folder)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(lock)
