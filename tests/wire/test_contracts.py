"""Every contract says the same: catalogue, class, schema, example, subject, stream, consumer and folder."""

from __future__ import annotations

import fnmatch
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from agentflow.errors import Invalid
from agentflow.wire import catalogue, contracts, json_format
from agentflow.wire.examples import outside
from agentflow.wire.http import from_http
from agentflow.wire.nats import from_nats
from agentflow.wire.place import contracts_path
from agentflow.wire.streams import CONSUMERS, STREAMS, consumers_of

ROOT = contracts_path()
NAMES = list(catalogue.CATALOGUE)


def load(path: str) -> Any:
    return json.loads((ROOT / path).read_text())


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = load(f"schemas/events/{name}.schema.json")
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def test_no_contract_file_has_drifted() -> None:
    assert contracts.drift(ROOT) == [], "mend: python -m agentflow.wire.contracts"


def test_drift_is_found_and_written_away(tmp_path: Path) -> None:
    for folder in ("events", "schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    contracts.write(tmp_path)
    assert contracts.drift(tmp_path) == []
    (tmp_path / "events/streams.json").write_text("{}")
    (tmp_path / "schemas/events/run.failed.schema.json").unlink()
    (tmp_path / "events/examples/run.forgotten.json").write_text("{}")
    assert {line.split(":")[0] for line in contracts.drift(tmp_path)} == {
        "events/streams.json",
        "schemas/events/run.failed.schema.json",
        "events/examples/run.forgotten.json",
    }
    contracts.write(tmp_path)
    assert contracts.drift(tmp_path) == []


def test_an_installed_package_brings_its_contracts_along(tmp_path: Path) -> None:
    installed = tmp_path / "site-packages" / "agentflow"
    shutil.copytree(ROOT / "functions" / "agentflow", installed, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "events", installed / "_contracts" / "events")
    program = "from agentflow.wire.place import contracts_path; print(contracts_path())"
    found = run_python(program, PYTHONPATH=str(installed.parent))
    assert Path(found) == installed / "_contracts"
    assert Path(run_python(program)) == ROOT


def test_the_wire_does_not_import_the_sdk_before_it_is_needed() -> None:
    program = "import sys, agentflow.wire.catalogue, agentflow.wire.nats; print('cloudevents' in sys.modules)"
    assert run_python(program) == "False"


def test_the_catalogue_file_lists_every_type_once() -> None:
    rows = load("events/catalogue.json")["events"]
    assert [row["name"] for row in rows] == NAMES
    assert len({row["type"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", NAMES)
def test_one_event_is_the_same_in_every_contract(name: str) -> None:
    entry = catalogue.entry(name)
    row = next(row for row in load("events/catalogue.json")["events"] if row["name"] == name)
    assert row["type"] == f"agentflow.{name}.v1"

    golden = (ROOT / row["example"]).read_bytes()
    event = json_format.decode(golden)
    assert catalogue.of_type(event.type) is entry
    assert json.loads(json_format.encode(event)) == json.loads(golden), (
        "golden example reads and writes the same"
    )
    payload = catalogue.parse(event)
    assert type(payload) is entry.model
    validator(name).validate(event.data)
    validator(name).validate(json.loads(payload.model_dump_json()))

    assert event.tenant is not None
    subject = entry.subject(event.tenant)
    assert row["subject"].replace("{tenant}", str(event.tenant)) == subject
    assert catalogue.tenant_of_subject(subject) == event.tenant
    carriers = [s for s in load("events/streams.json")["streams"] if matches(s["subjects"], subject)]
    assert [stream["name"] for stream in carriers] == [row["stream"]]
    readers = [
        consumer["config"]["durable_name"]
        for consumer in load("events/streams.json")["consumers"]
        if consumer["stream_name"] == row["stream"]
        and matches(consumer["config"]["filter_subjects"], subject)
    ]
    assert sorted(readers) == sorted(row["consumers"]) == sorted(entry.consumers)

    function = event.source.removeprefix("/agentflow/")
    assert function in row["producers"]
    assert (entry.kind == "request") <= (len(entry.consumers) == 1), "a request has one handler"
    assert entry.consumers or entry.public, "somebody reads it"


@pytest.mark.parametrize("name", NAMES)
def test_schema_and_class_refuse_the_same(name: str) -> None:
    event = json_format.decode((ROOT / f"events/examples/{name}.json").read_bytes())
    assert isinstance(event.data, dict)
    wrong: list[dict[str, Any]] = []
    for key in load(f"schemas/events/{name}.schema.json")["required"]:
        wrong.append({k: v for k, v in event.data.items() if k != key})
        wrong.append({**event.data, key: None})
        wrong.append({**event.data, key: [[]]})
    for data in wrong:
        assert not validator(name).is_valid(data)
        with pytest.raises(Invalid):
            catalogue.parse(event.with_data(data))
    # What this version does not write: neither says that it does, and who reads it lets it through.
    more = {**event.data, "surplus": 1}
    assert not validator(name).is_valid(more)
    with pytest.raises(ValidationError):
        catalogue.entry(name).model.model_validate(more)
    catalogue.parse(event.with_data(more))


@pytest.mark.parametrize("function", sorted({f for e in catalogue.CATALOGUE.values() for f in e.consumers}))
def test_every_consumer_is_a_function_with_a_durable_consumer(function: str) -> None:
    assert (ROOT / "functions" / function / "main.py").is_file()
    wanted = {catalogue.entry(name).stream for name in catalogue.consumed_by(function)}
    assert wanted <= {consumer.stream for consumer in consumers_of(function)}


def test_every_producer_is_a_function_or_the_relay() -> None:
    producers = {producer for entry in catalogue.CATALOGUE.values() for producer in entry.producers}
    folders = {path.parent.name for path in (ROOT / "functions").glob("*/main.py")}
    assert producers - {"relay"} <= folders


def test_consumers_read_streams_that_exist_and_filters_that_do_not_overlap() -> None:
    streams = {stream.name: stream.config()["subjects"] for stream in STREAMS}
    for consumer in CONSUMERS:
        for pattern in consumer.filters:
            assert matches(streams[consumer.stream], pattern)
        assert len(set(consumer.filters)) == len(consumer.filters)
    assert consumers_of("plan")[0].filters == ("agentflow.*.in.>",)


def test_the_binary_examples_are_the_structured_one() -> None:
    assert from_http(*message("binary.http")) == [outside()]
    headers, payload = message("binary.nats")
    assert from_nats(headers, payload, None) == outside()
    assert json_format.decode((ROOT / "events/examples/outside/structured.json").read_bytes()) == outside()


def run_python(program: str, **environ: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environ, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def message(name: str) -> tuple[dict[str, str], bytes]:
    """Headers and body of an example message, whose first lines say how it is sent."""
    head, _, body = (ROOT / "events/examples/outside" / name).read_text().partition("\n\n")
    return dict(line.split(": ", 1) for line in head.splitlines() if ": " in line), body.strip().encode()


def matches(patterns: list[str] | tuple[str, ...], subject: str) -> bool:
    """Whether a NATS subject matches one of the patterns (* is one token, > the rest)."""
    for pattern in patterns:
        wanted, given = pattern.split("."), subject.split(".")
        if wanted[-1] == ">":
            given = [*given[: len(wanted) - 1], ">"] if len(given) >= len(wanted) else []
        if len(wanted) == len(given) and all(map(fnmatch.fnmatchcase, given, wanted)):
            return True
    return False
