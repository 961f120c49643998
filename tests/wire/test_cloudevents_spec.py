"""The CloudEvents project's own schema and samples (third-party data, read where it lies)."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from wire_strategies import events

from agentflow.errors import Invalid
from agentflow.wire import catalogue, json_format
from agentflow.wire.event import Event
from agentflow.wire.examples import example
from agentflow.wire.http import from_http
from agentflow.wire.nats import from_nats
from agentflow.wire.place import contracts_path

pytestmark = pytest.mark.contracts


@pytest.fixture(scope="module")
def crds() -> Path:
    """The folder with CloudEvents' files: AGENTFLOW_CRDS, or ../shared/data beside the repository."""
    named = os.environ.get("AGENTFLOW_CRDS")
    base = Path(named) if named else contracts_path().parent / "shared" / "data"
    for folder in (base / "crds" / "cloudevents", base / "cloudevents"):
        if folder.is_dir():
            return folder
    reason = f"no CloudEvents schemas below {base}; set AGENTFLOW_CRDS"
    if os.environ.get("AGENTFLOW_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def schema(crds: Path) -> jsonschema.Draft7Validator:
    document = json.loads((crds / "cloudevents.json").read_text())
    return jsonschema.Draft7Validator(document, format_checker=jsonschema.FormatChecker())


def samples(crds: Path, version: str) -> list[dict[str, Any]]:
    # BaseLoader keeps 1.0 and timestamps as the text they are.
    found: list[dict[str, Any]] = []
    for path in sorted((crds / "yaml").rglob(f"v{version}*.yaml")):
        found += yaml.load_all(path.read_text(), Loader=yaml.BaseLoader)
    assert found
    return found


@pytest.mark.parametrize("name", catalogue.CATALOGUE)
def test_our_examples_conform(schema: jsonschema.Draft7Validator, name: str) -> None:
    schema.validate(json.loads(json_format.encode(example(name))))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=events())
def test_every_structured_event_conforms(schema: jsonschema.Draft7Validator, event: Event) -> None:
    document = json.loads(json_format.encode(event))
    schema.validate(document)
    if isinstance(event.data, bytes):
        assert base64.b64decode(document["data_base64"]) == event.data


@pytest.mark.parametrize("mode", ["binary", "structured", "nats"])
def test_the_samples_of_version_1_are_read(crds: Path, mode: str) -> None:
    for sample in samples(crds, "1"):
        attributes = {k: v for k, v in sample["ContextAttributes"].items() if k != "Extensions"}
        extensions = {
            name: value.strip() for name, value in sample["ContextAttributes"].get("Extensions", {}).items()
        }
        body: str = sample["Data"]
        content_type = attributes.get("datacontenttype")
        if mode == "structured":
            is_json = content_type is None or "json" in content_type
            document = {**attributes, **extensions, "data": json.loads(body) if is_json else body}
            event = json_format.decode(json.dumps(document).encode())
        else:
            headers = {f"ce-{k}": quoted(v) for k, v in {**attributes, **extensions}.items()}
            if mode == "nats":
                event = from_nats(headers, body.encode(), None)
            else:
                headers.pop("ce-datacontenttype", None)
                if content_type:
                    headers["content-type"] = content_type
                (event,) = from_http(headers, body.encode())
        assert (event.id, event.source, event.type) == (
            attributes["id"],
            attributes["source"],
            attributes["type"],
        )
        assert event.extensions == extensions
        if content_type and "json" not in content_type:
            assert event.data == body
        else:
            assert event.data == json.loads(body)


def test_the_samples_of_version_0_3_are_refused_by_name(crds: Path) -> None:
    for sample in samples(crds, "0"):
        attributes = {k: v for k, v in sample["ContextAttributes"].items() if k != "Extensions"}
        with pytest.raises(Invalid) as caught:
            json_format.decode(json.dumps(attributes).encode())
        assert caught.value.problem.path == "specversion"
        assert caught.value.problem.mend


def quoted(text: str) -> str:
    return text.replace("%", "%25").replace('"', "%22").replace(" ", "%20")
