"""The archive: where runs go before their rows are removed. Objects by name, in a bucket or a folder."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, Protocol

from agentflow.errors import Rejected

MEND = "write s3://bucket/prefix or file:///a/folder"


class Archive(Protocol):
    """Objects by name. Calls block: from an event loop, use a thread.

    Every method raises ``RetryLater`` when the archive can't be reached now, ``Rejected`` when it refuses us.
    """

    def put(self, name: str, content: BinaryIO, sha256: bytes) -> None:
        """Keep an object. When this returns it has been looked at again, and it is the one with that SHA-256."""
        ...

    def holds(self, name: str) -> bool:
        """Whether there is an object of that name."""
        ...

    def get(self, name: str) -> BinaryIO:
        """An object's content; close it. ``Rejected`` when there is none."""
        ...

    def names(self, prefix: str) -> Iterator[str]:
        """Names that begin with ``prefix``, in order."""
        ...


def open_archive(url: str, *, endpoint: str = "", encryption: str = "") -> Archive | None:
    """The archive that a setting names, None for an empty one. Connects to nothing.

    ``endpoint`` is for S3-compatible stores, ``encryption`` is ``AES256``, ``aws:kms`` or ``aws:kms:KEY``.
    """
    if not url:
        return None
    scheme, _, rest = url.partition("://")
    if scheme == "s3" and rest.partition("/")[0]:
        from agentflow.archive.s3 import Bucket  # boto3 takes 160 ms

        bucket, _, prefix = rest.partition("/")
        return Bucket(bucket, prefix.strip("/"), endpoint=endpoint, encryption=encryption)
    if scheme == "file" and rest.startswith("/"):
        from agentflow.archive.folder import Folder

        return Folder(rest)
    raise Rejected(f"{url!r} is no archive", code="bad_setting", path="AGENTFLOW_ARCHIVE", mend=MEND)


def no_object(name: str) -> Rejected:
    """The refusal of a name that stands for nothing."""
    return Rejected(f"the archive has no {name}", code="not_found", mend="see: agentflow archive list")
