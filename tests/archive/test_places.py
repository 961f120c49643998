"""Every archive keeps what it was given, and says so only when it is true."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from agentflow.archive import Archive, open_archive
from agentflow.errors import Rejected, RetryLater

from .conftest import BUCKET, S3, sha256

NAMES = ("runs/a/2026w31/1.jsonl.gz", "runs/a/2026w32/2.jsonl.gz", "runs/ab/2026w31/3.jsonl.gz")


def put(archive: Archive, name: str, content: bytes) -> None:
    archive.put(name, BytesIO(content), sha256(content))


class PlaceCase:
    """What every archive does; a subclass names one with the fixture ``archive``."""

    def test_what_is_put_is_there(self, archive: Archive) -> None:
        content = os.urandom(300_000)
        assert not archive.holds(NAMES[0])
        put(archive, NAMES[0], content)
        assert archive.holds(NAMES[0])
        with archive.get(NAMES[0]) as found:
            assert found.read() == content

    def test_put_twice_it_is_there_once(self, archive: Archive) -> None:
        put(archive, NAMES[0], b"content")
        put(archive, NAMES[0], b"content")
        assert list(archive.names("runs/")) == [NAMES[0]]

    def test_names_are_listed_by_prefix_in_order(self, archive: Archive) -> None:
        for name in reversed(NAMES):
            put(archive, name, b"x")
        assert list(archive.names("runs/")) == list(NAMES)
        assert list(archive.names("runs/a/")) == list(NAMES[:2])
        assert list(archive.names("runs/a/2026w32")) == [NAMES[1]]
        assert list(archive.names("blobs/")) == []

    def test_what_is_not_there_is_refused_by_name(self, archive: Archive) -> None:
        put(archive, NAMES[0], b"x")
        with pytest.raises(Rejected, match=NAMES[1]):
            archive.get(NAMES[1]).read()


class TestFolder(PlaceCase):
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Archive:
        found = open_archive(f"file://{tmp_path}")
        assert found is not None
        return found

    def test_what_is_damaged_on_the_way_is_found(self, archive: Archive) -> None:
        with pytest.raises(RetryLater, match="something else"):
            archive.put(NAMES[0], BytesIO(b"damaged"), sha256(b"content"))

    def test_nobody_else_may_read_it(self, archive: Archive, tmp_path: Path) -> None:
        put(archive, NAMES[0], b"x")
        path = tmp_path / NAMES[0]
        assert path.stat().st_mode & 0o077 == 0
        assert path.parent.stat().st_mode & 0o077 == 0

    def test_what_a_crash_left_half_written_is_not_an_object(self, archive: Archive, tmp_path: Path) -> None:
        put(archive, NAMES[0], b"x")
        (tmp_path / f"{NAMES[1]}.part").parent.mkdir(parents=True)
        (tmp_path / f"{NAMES[1]}.part").write_bytes(b"hal")
        assert list(archive.names("runs/")) == [NAMES[0]]
        put(archive, NAMES[1], b"half")
        with archive.get(NAMES[1]) as found:
            assert found.read() == b"half"

    def test_a_folder_that_is_not_there_is_said(self, tmp_path: Path) -> None:
        archive = open_archive(f"file://{tmp_path}/nowhere")
        assert archive is not None
        with pytest.raises(Rejected, match="no folder"):
            list(archive.names("runs/"))


class TestBucket(PlaceCase):
    @pytest.fixture
    def archive(self, s3: S3) -> Archive:
        found = open_archive(f"s3://{BUCKET}/some/prefix", endpoint=s3.endpoint)
        assert found is not None
        return found

    def test_objects_lie_under_the_prefix_with_their_checksum(self, archive: Archive, s3: S3) -> None:
        put(archive, NAMES[0], b"x")
        assert s3.objects() == [f"some/prefix/{NAMES[0]}"]
        head = s3.client.head_object(Bucket=BUCKET, Key=s3.objects()[0], ChecksumMode="ENABLED")
        assert head["ChecksumSHA256"] == "LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="

    def test_more_than_a_page_is_listed(self, archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "3")
        names = [f"runs/{number:05}" for number in range(10)]
        for name in names:
            put(archive, name, b"")
        assert list(archive.names("runs/")) == names

    @pytest.mark.parametrize(
        ("encryption", "algorithm", "key"),
        [
            ("AES256", "AES256", None),
            ("aws:kms", "aws:kms", None),
            ("aws:kms:alias/cold", "aws:kms", "alias/cold"),
        ],
    )
    def test_encryption_is_asked_for(self, s3: S3, encryption: str, algorithm: str, key: str | None) -> None:
        archive = open_archive(f"s3://{BUCKET}", endpoint=s3.endpoint, encryption=encryption)
        assert archive is not None
        put(archive, NAMES[0], b"x")
        head = s3.client.head_object(Bucket=BUCKET, Key=NAMES[0])
        assert head["ServerSideEncryption"] == algorithm
        assert head.get("SSEKMSKeyId") == key

    def test_a_bucket_that_is_not_there_is_refused_with_the_mend(self, s3: S3) -> None:
        archive = open_archive("s3://nobodys", endpoint=s3.endpoint)
        assert archive is not None
        with pytest.raises(Rejected, match="NoSuchBucket") as caught:
            put(archive, NAMES[0], b"x")
        assert "s3:PutObject" in str(caught.value)

    def test_a_store_that_is_away_is_a_passing_fault(self, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        archive = open_archive(f"s3://{BUCKET}", endpoint="http://127.0.0.1:9")
        assert archive is not None
        with pytest.raises(RetryLater, match="EndpointConnectionError"):
            put(archive, NAMES[0], b"x")

    def test_a_store_that_keeps_no_checksums_is_read_again(
        self, archive: Any, s3: S3, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As older S3-compatible stores do: the header is accepted and forgotten."""
        head = archive._client.head_object

        def forgetful(**asked: Any) -> Any:
            return {name: value for name, value in head(**asked).items() if not name.startswith("Checksum")}

        monkeypatch.setattr(archive._client, "head_object", forgetful)
        put(archive, NAMES[0], b"content")
        real = archive._client.put_object
        monkeypatch.setattr(
            archive._client,
            "put_object",
            lambda **asked: real(
                **{k: v for k, v in asked.items() if k != "ChecksumSHA256"} | {"Body": b"other"}
            ),
        )
        with pytest.raises(RetryLater, match="something else"):
            put(archive, NAMES[1], b"content")


@pytest.mark.parametrize("url", ["s3://", "file://relative", "/a/folder", "http://bucket", "s3:bucket"])
def test_what_is_no_archive_is_refused(url: str) -> None:
    with pytest.raises(Rejected, match="s3://bucket/prefix"):
        open_archive(url)


def test_no_setting_is_no_archive() -> None:
    assert open_archive("") is None
