"""An archive in a bucket: Amazon S3, or what speaks its language (MinIO, Ceph, R2 …).

Credentials and region come the usual AWS way (environment, profile, role).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from agentflow.archive import no_object
from agentflow.errors import Rejected, RetryLater

REFUSALS = {
    "AccessDenied",
    "NoSuchBucket",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AllAccessDisabled",
}
MISSING = {"404", "NoSuchKey", "NotFound"}
MEND = "check the bucket's name, the credentials and s3:PutObject, s3:GetObject, s3:ListBucket"


class Bucket:
    """Objects under a prefix of a bucket. Sent with their SHA-256, which S3 checks, and looked at again."""

    def __init__(self, bucket: str, prefix: str, *, endpoint: str = "", encryption: str = "") -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        style = {"addressing_style": "path"} if endpoint else {}
        retries = {"mode": "standard", "max_attempts": 4}
        config = Config(retries=retries, connect_timeout=5, read_timeout=60, s3=style)
        self._client: Any = boto3.client("s3", endpoint_url=endpoint or None, config=config)
        self._sealed: dict[str, str] = {}
        if encryption:
            kind, _, key = encryption.partition("aws:kms:")
            self._sealed = {"ServerSideEncryption": "aws:kms" if key else kind}
            if key:
                self._sealed["SSEKMSKeyId"] = key

    def put(self, name: str, content: BinaryIO, sha256: bytes) -> None:
        digest = base64.b64encode(sha256).decode()
        with self._asking(name):
            if self._digest(name) == digest:
                return
            content.seek(0)
            checked = {"ChecksumAlgorithm": "SHA256", "ChecksumSHA256": digest}
            self._client.put_object(Body=content, **checked, **self._at(name), **self._sealed)
            if self._digest(name, read=True) != digest:
                raise RetryLater(f"the archive s3://{self._bucket} holds something else as {name}")

    def holds(self, name: str) -> bool:
        with self._asking(name):
            return self._head(name) is not None

    def get(self, name: str) -> BinaryIO:
        with self._asking(name):
            body: BinaryIO = self._client.get_object(**self._at(name))["Body"]
            return body

    def names(self, prefix: str) -> Iterator[str]:
        with self._asking(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for entry in page.get("Contents", ()):
                    yield entry["Key"].removeprefix(self._prefix)

    def _digest(self, name: str, *, read: bool = False) -> str | None:
        """What the store says it holds. One that keeps no checksums has to show it: with ``read`` it is read."""
        head = self._head(name)
        if head is None:
            return None
        if "ChecksumSHA256" in head or not read:
            kept: str | None = head.get("ChecksumSHA256")
            return kept
        digest = hashlib.sha256()
        for piece in self._client.get_object(**self._at(name))["Body"].iter_chunks(1024 * 1024):
            digest.update(piece)
        return base64.b64encode(digest.digest()).decode()

    def _head(self, name: str) -> dict[str, Any] | None:
        try:
            head: dict[str, Any] = self._client.head_object(**self._at(name), ChecksumMode="ENABLED")
        except ClientError as fault:
            if str(fault.response["Error"]["Code"]) in MISSING:
                return None
            raise
        return head

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}

    @contextmanager
    def _asking(self, name: str) -> Iterator[None]:
        place = f"the archive s3://{self._bucket}"
        try:
            yield
        except (NoCredentialsError, PartialCredentialsError) as fault:
            raise Rejected(f"{place}: {fault}", code="archive_refused", mend=MEND) from None
        except ClientError as fault:
            code = str(fault.response["Error"]["Code"])
            if code in MISSING:
                raise no_object(name) from None
            if code in REFUSALS or code == "403":
                raise Rejected(f"{place}: {code}", code="archive_refused", mend=MEND) from None
            raise RetryLater(f"{place}: {code}") from fault
        except BotoCoreError as fault:
            raise RetryLater(f"{place}: {type(fault).__name__}") from fault
