"""How runs lie in the archive: JSON lines, compressed, with a manifest beside them.

    runs/<tenant>/<week>/<first run's time>-<hash>.jsonl.gz       {"table": "steps", "row": {…}} per line
    manifests/<tenant>/<week>/<first run's time>-<hash>.json      what is in it: runs, counts, sizes, SHA-256
    blobs/<tenant>/<SHA-256>                                      files that the runs refer to

Names are made from the content: the same runs archived again, say after a crash, are the same object.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from types import TracebackType
from typing import Any, BinaryIO
from uuid import UUID

from agentflow.archive import Archive

VERSION = "agentflow-archive/v1"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one object holds. ``bytes`` and ``sha256`` are those of the object, ``raw_bytes`` of what is in it."""

    tenant: UUID
    object: str
    runs: tuple[UUID, ...]
    counts: dict[str, int]
    first: str
    last: str
    bytes: int
    raw_bytes: int
    sha256: str

    def json(self) -> dict[str, Any]:
        """The manifest as it is written."""
        return {
            "format": VERSION, "tenant": str(self.tenant), "object": self.object, "counts": self.counts,
            "first": self.first, "last": self.last, "bytes": self.bytes, "raw_bytes": self.raw_bytes,
            "sha256": self.sha256, "runs": [str(run) for run in self.runs],
        }  # fmt: skip


class Parcel:
    """Lines on their way into the archive, in a file that vanishes with this process. Use as a context."""

    def __init__(self, tenant: UUID, runs: Sequence[tuple[datetime, UUID]]) -> None:
        self._tenant = tenant
        self._runs = sorted(runs)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  closed by __exit__
        self._gzip = gzip.GzipFile(filename="", mode="wb", fileobj=self._file, compresslevel=6, mtime=0)
        self._hash = hashlib.sha256()
        self._counts: Counter[str] = Counter()
        self._raw = 0

    def __enter__(self) -> Parcel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def add(self, rows: Sequence[tuple[str, bytes]]) -> None:
        """Rows (table, JSON text without line breaks), each a line."""
        for table, row in rows:
            line = b'{"table":"%b","row":%b}\n' % (table.encode(), row)
            self._gzip.write(line)
            self._hash.update(line)
            self._counts[table] += 1
            self._raw += len(line)

    def send(self, archive: Archive) -> Manifest:
        """Put it into the archive, the manifest last: what has a manifest is whole."""
        self._gzip.close()
        size = self._file.tell()
        self._file.seek(0)
        digest = hashlib.file_digest(self._file, "sha256").digest()
        first, last = self._runs[0][0], self._runs[-1][0]
        place = f"{self._tenant}/{week_name(first)}/{first:%Y%m%dT%H%M%SZ}-{self._hash.hexdigest()[:32]}"
        manifest = Manifest(
            self._tenant, f"runs/{place}.jsonl.gz", tuple(run for _, run in self._runs), dict(self._counts),
            first.isoformat(), last.isoformat(), size, self._raw, digest.hex(),
        )  # fmt: skip
        self._file.seek(0)
        archive.put(manifest.object, self._file, digest)
        text = json.dumps(manifest.json(), indent=1).encode()
        archive.put(f"manifests/{place}.json", BytesIO(text), hashlib.sha256(text).digest())
        return manifest


def send_blob(archive: Archive, tenant: UUID, ref: str, content: bytes) -> None:
    """Put a file that runs refer to into the archive."""
    archive.put(blob_name(tenant, ref), BytesIO(content), hashlib.sha256(content).digest())


def blob_name(tenant: UUID, ref: str) -> str:
    """The name of a blob's object."""
    return f"blobs/{tenant}/{ref.rpartition(':')[2]}"


def week_name(at: datetime) -> str:
    """A week by its ISO number, as partitions are named: ``2026w47``."""
    year, week, _ = at.isocalendar()
    return f"{year:04}w{week:02}"


def manifests(archive: Archive, tenant: UUID, week: str = "") -> Iterator[Manifest]:
    """What the archive holds of a tenant, oldest first; of one week, if it is named."""
    for name in archive.names(f"manifests/{tenant}/{week}"):
        with closing(archive.get(name)) as content:
            found = json.loads(content.read())
        yield Manifest(
            UUID(found["tenant"]), found["object"], tuple(map(UUID, found["runs"])), found["counts"],
            found["first"], found["last"], found["bytes"], found["raw_bytes"], found["sha256"],
        )  # fmt: skip


def find_run(
    archive: Archive, tenant: UUID, run: UUID, week: str = ""
) -> dict[str, list[dict[str, Any]]] | None:
    """A run's rows by table, None when it was not archived. Reads manifests until one names the run."""
    for manifest in manifests(archive, tenant, week):
        if run in manifest.runs:
            with closing(archive.get(manifest.object)) as content:
                return rows_of(content, run)
    return None


def rows_of(content: BinaryIO, run: UUID) -> dict[str, list[dict[str, Any]]]:
    """The rows of one run, by table, out of an object's content."""
    found: dict[str, list[dict[str, Any]]] = {}
    for entry in lines(content):
        if entry["row"]["run_id"] == str(run):
            found.setdefault(entry["table"], []).append(entry["row"])
    return found


def lines(content: BinaryIO) -> Iterator[dict[str, Any]]:
    """Every line of an object: ``{"table": …, "row": …}``."""
    with gzip.GzipFile(fileobj=content, mode="rb") as text:
        for line in text:
            yield json.loads(line)
