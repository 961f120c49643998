"""What lies in the archive: one line per row, a manifest that tells the truth, the same runs the same object."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from uuid import UUID, uuid4

from agentflow.archive import Archive, open_archive
from agentflow.archive.format import Manifest, Parcel, find_run, manifests, week_name

TENANT = uuid4()
BORN = datetime(2026, 8, 3, 10, 11, 12, tzinfo=UTC)
RUNS = [(BORN + timedelta(minutes=n), uuid4()) for n in range(3)]


def rows(runs: list[tuple[datetime, UUID]]) -> list[tuple[str, bytes]]:
    return [
        (table, json.dumps({"run_id": str(run), "note": "ünïcode"}).encode())
        for table in ("runs", "steps", "steps")
        for _, run in runs
    ]


def send(archive: Archive, runs: list[tuple[datetime, UUID]]) -> Manifest:
    with Parcel(TENANT, runs) as parcel:
        parcel.add(rows(runs))
        return parcel.send(archive)


def folder(tmp_path: Path) -> Archive:
    archive = open_archive(f"file://{tmp_path}")
    assert archive is not None
    return archive


def test_an_object_is_lines_of_json_that_any_tool_reads(tmp_path: Path) -> None:
    manifest = send(folder(tmp_path), RUNS)
    content = (tmp_path / manifest.object).read_bytes()
    lines = [json.loads(line) for line in gzip.decompress(content).splitlines()]
    assert [line["table"] for line in lines] == ["runs"] * 3 + ["steps"] * 6
    assert lines[0]["row"] == {"run_id": str(RUNS[0][1]), "note": "ünïcode"}


def test_the_manifest_says_what_is_in_it(tmp_path: Path) -> None:
    manifest = send(folder(tmp_path), RUNS)
    content = (tmp_path / manifest.object).read_bytes()
    (path,) = (tmp_path / "manifests").rglob("*.json")
    assert json.loads(path.read_text()) == {
        "format": "agentflow-archive/v1",
        "tenant": str(TENANT),
        "object": manifest.object,
        "counts": {"runs": 3, "steps": 6},
        "first": "2026-08-03T10:11:12+00:00",
        "last": "2026-08-03T10:13:12+00:00",
        "bytes": len(content),
        "raw_bytes": len(gzip.decompress(content)),
        "sha256": sha256(content).hexdigest(),
        "runs": [str(run) for _, run in RUNS],
    }
    assert manifest.object.startswith(f"runs/{TENANT}/2026w32/20260803T101112Z-")


def test_the_same_runs_are_the_same_object_in_whatever_order_they_come(tmp_path: Path) -> None:
    first = send(folder(tmp_path), RUNS)
    kept = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}
    again = send(folder(tmp_path), RUNS)
    assert again == first
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == kept


def test_other_content_never_takes_the_place_of_what_is_there(tmp_path: Path) -> None:
    """A run may come again under the same id, long after the first one has gone."""
    first = send(folder(tmp_path), RUNS)
    with Parcel(TENANT, RUNS) as parcel:
        parcel.add(rows(RUNS)[:3])
        second = parcel.send(folder(tmp_path))
    assert second.object != first.object
    assert len(list(manifests(folder(tmp_path), TENANT))) == 2


def test_a_run_is_found_among_many_objects(tmp_path: Path) -> None:
    archive = folder(tmp_path)
    others = [(BORN + timedelta(weeks=1), uuid4())]
    send(archive, RUNS)
    send(archive, others)
    found = find_run(archive, TENANT, others[0][1])
    assert found is not None
    assert {table: len(rows) for table, rows in found.items()} == {"runs": 1, "steps": 2}
    assert find_run(archive, TENANT, others[0][1], week_name(BORN)) is None
    assert find_run(archive, uuid4(), others[0][1]) is None


def test_weeks_are_named_as_partitions_are() -> None:
    assert week_name(datetime(2026, 1, 1, tzinfo=UTC)) == "2026w01"
    assert week_name(datetime(2027, 1, 1, tzinfo=UTC)) == "2026w53"
