"""The official SDK reads what we write; we read what it writes and what functions-framework hands over."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from cloudevents.http import from_http as sdk_from_http
from hypothesis import given
from wire_strategies import events

from agentflow.errors import Invalid
from agentflow.wire import catalogue
from agentflow.wire.event import MAX_EVENT_BYTES, Event
from agentflow.wire.examples import example
from agentflow.wire.http import from_http, from_sdk, to_http, to_sdk

NOW = datetime(2025, 1, 31, 12, tzinfo=UTC)
NAMES = list(catalogue.CATALOGUE)
FOREIGN = {
    "id": "1",
    "source": "/s",
    "type": "com.example.x",
    "time": "2025-01-31T12:00:00+00:00",
    "subject": "it",
    "datacontenttype": "application/json",
    "color": "red",
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_sdk_reads_our_events(name: str, mode: Any) -> None:
    event = example(name)
    read = sdk_from_http(*to_http(event, mode))
    assert (read["id"], read["source"], read["type"]) == (event.id, event.source, event.type)
    assert read["tenantid"] == str(event.tenant)
    assert read.data == event.data
    assert from_sdk(read) == event


@pytest.mark.parametrize("data", [{"a": [1, "ü"]}, [1], 5, True, None])
@pytest.mark.parametrize("write", [to_binary, to_structured])
def test_we_read_the_sdks_events(write: Any, data: Any) -> None:
    headers, body = write(CloudEvent(FOREIGN, data))
    (event,) = from_http(headers, body)
    assert (event.id, event.source, event.type, event.subject) == ("1", "/s", "com.example.x", "it")
    assert event.time == datetime(2025, 1, 31, 12, tzinfo=UTC)
    assert event.extensions == {"color": "red"}
    assert event.data == data


@given(events())
def test_an_event_survives_the_sdks_object(event: Event) -> None:
    assert from_sdk(to_sdk(event)) == event


@given(events())
def test_an_event_survives_the_sdks_structured_mode(event: Event) -> None:
    assert from_http(*to_structured(to_sdk(event))) == [event]


def test_percent_encoded_headers_are_decoded_where_the_caller_knows_the_mode() -> None:
    event = Event(id="a b", source="/s", type="t", subject="100%", time=NOW, data={})
    read = sdk_from_http(*to_http(event, "binary"))
    assert from_sdk(read, percent_encoded=True) == event
    structured = sdk_from_http(*to_http(event, "structured"))
    assert from_sdk(structured) == event


@pytest.mark.parametrize(
    ("contenttype", "handed", "data"),
    [
        ("application/json", {"a": 1}, {"a": 1}),
        ("application/json", b'{"a":1}', {"a": 1}),
        ("application/json", "text", "text"),
        (None, b"\xff", b"\xff"),
        (None, {"a": 1}, {"a": 1}),
        ("text/plain", "hi", "hi"),
        ("text/plain", b"hi", "hi"),
        ("text/plain", 12, "12"),
        ("image/png", b"\x89", b"\x89"),
        ("application/json", None, None),
    ],
)
def test_whatever_the_framework_hands_over_is_understood(
    contenttype: str | None, handed: Any, data: Any
) -> None:
    attributes = {"id": "1", "source": "/s", "type": "t"}
    if contenttype:
        attributes["datacontenttype"] = contenttype
    assert from_sdk(CloudEvent(attributes, handed)).data == data


@pytest.mark.parametrize(
    ("attributes", "handed", "path"),
    [
        ({}, b"{malformed", "data"),
        ({}, {"a": "\x00"}, "data.a"),
        ({"specversion": "0.3"}, {}, "specversion"),
        ({"id": ""}, {}, "id"),
        ({"bad-name": "x"}, {}, "'bad-name'"),
        ({}, "x" * MAX_EVENT_BYTES, ""),
    ],
)
def test_what_the_framework_lets_through_is_still_judged(
    attributes: dict[str, Any], handed: Any, path: str
) -> None:
    with pytest.raises(Invalid) as caught:
        from_sdk(CloudEvent(FOREIGN | attributes, handed))
    assert caught.value.problem.path == path


def test_an_object_with_python_values_is_read() -> None:
    moment = datetime(2025, 1, 31, 12, tzinfo=UTC)
    made = CloudEvent(
        {"id": "1", "source": "/s", "type": "t", "time": moment, "tenantid": str(UUID(int=7))}, {"a": 1}
    )
    event = from_sdk(made)
    assert (event.time, event.tenant) == (moment, UUID(int=7))
