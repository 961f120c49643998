"""An archive in a folder: for small installations, tests, and file systems that somebody else backs up."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from agentflow.archive import no_object
from agentflow.errors import Rejected, RetryLater


class Folder:
    """Objects as files, for the eyes of their owner only."""

    def __init__(self, path: str) -> None:
        self._root = Path(path)

    def put(self, name: str, content: BinaryIO, sha256: bytes) -> None:
        """Written beside, synced, renamed, synced and read again: after a crash it is there whole or not at all."""
        path = self._root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            part = path.with_name(path.name + ".part")
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                shutil.copyfileobj(content, file)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
            _sync(path.parent)
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").digest()
        except OSError as fault:
            raise RetryLater(f"the archive {self._root}: {fault.strerror or fault}") from fault
        if found != sha256:
            raise RetryLater(f"the archive {self._root} holds something else as {name}")

    def holds(self, name: str) -> bool:
        return (self._root / name).is_file()

    def get(self, name: str) -> BinaryIO:
        try:
            return (self._root / name).open("rb")
        except FileNotFoundError:
            raise no_object(name) from None

    def names(self, prefix: str) -> Iterator[str]:
        start = self._root / prefix
        if not start.is_dir():
            if not self._root.is_dir():
                mend = "check AGENTFLOW_ARCHIVE"
                raise Rejected(f"there is no folder {self._root}", code="no_archive", mend=mend)
            return
        for path in sorted(start.rglob("*")):
            if path.is_file() and path.suffix != ".part":
                yield path.relative_to(self._root).as_posix()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
