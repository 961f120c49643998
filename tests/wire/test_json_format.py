"""Structured JSON and batches: what is written is read back, and what is hostile is refused with its path."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_strategies import events

from agentflow.errors import Invalid
from agentflow.wire import json_format
from agentflow.wire.event import MAX_BATCH, MAX_EVENT_BYTES, Event

MINIMAL: dict[str, Any] = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}


def decode(**members: Any) -> Event:
    return json_format.decode(json.dumps(MINIMAL | members).encode())


def refused(body: bytes | None = None, **members: Any) -> dict[str, str]:
    """The problems of a document by path."""
    with pytest.raises(Invalid) as caught:
        json_format.decode(body) if body is not None else decode(**members)
    return {problem.path: problem.message for problem in caught.value.problems}


@given(events())
def test_an_event_survives_structured_mode(event: Event) -> None:
    assert json_format.decode(json_format.encode(event)) == event


@given(st.lists(events(), max_size=5))
def test_events_survive_a_batch_in_order(batch: list[Event]) -> None:
    assert json_format.decode_batch(json_format.encode_batch(batch)) == batch


@given(st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps(text).encode()))
def test_any_bytes_are_an_event_or_invalid(body: bytes) -> None:
    for decode_any in (json_format.decode, json_format.decode_batch):
        with contextlib.suppress(Invalid):
            decode_any(body)


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_MEMBERS = st.sampled_from([*MINIMAL, "time", "subject", "data", "data_base64", "x", "tenantid"])


@given(st.dictionaries(_MEMBERS, _ANYTHING))
def test_any_json_object_is_an_event_or_invalid(members: dict[str, Any]) -> None:
    body = json.dumps(MINIMAL | members).encode()
    with contextlib.suppress(Invalid):
        event = json_format.decode(body)
        assert json_format.decode(json_format.encode(event)) == event


def test_our_attributes_become_fields() -> None:
    event = decode(
        tenantid="7c9e6679-7425-40de-944b-e07fc1f90ae7",
        traceparent="00-a-b-01",
        tracestate="v=1",
        dataref="blob:sha256:00",
        color="red",
        level=3,
        urgent=True,
        nothing=None,
    )
    assert event.tenant == UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
    assert (event.traceparent, event.tracestate, event.dataref) == ("00-a-b-01", "v=1", "blob:sha256:00")
    assert event.extensions == {"color": "red", "level": 3, "urgent": True}


def test_every_missing_attribute_is_named_at_once() -> None:
    assert set(refused(b"{}")) == {"specversion", "id", "source", "type"}


@pytest.mark.parametrize(
    ("members", "path"),
    [
        ({"specversion": "0.3"}, "specversion"),
        ({"specversion": 1.0}, "specversion"),
        ({"id": ""}, "id"),
        ({"id": 7}, "id"),
        ({"id": "a\nb"}, "id"),
        ({"id": "a\x7fb"}, "id"),
        ({"id": "\ufdd0"}, "id"),
        ({"id": "\U0001fffe"}, "id"),
        ({"id": "é" * 300}, "id"),
        ({"source": "not a uri"}, "source"),
        ({"source": "a%zz"}, "source"),
        ({"source": ":x"}, "source"),
        ({"source": "/a#b#c"}, "source"),
        ({"source": "/caf\u00e9"}, "source"),
        ({"source": "/[a]"}, "source"),
        ({"type": None}, "type"),
        ({"type": "t" * 257}, "type"),
        ({"subject": ""}, "subject"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2025-01-31"}, "time"),
        ({"time": "2025-01-31T12:00:00"}, "time"),
        ({"time": "2025-02-30T12:00:00Z"}, "time"),
        ({"time": "2025-01-31T12:00:00Z\n"}, "time"),
        ({"time": "２025-01-31T12:00:00Z"}, "time"),
        ({"time": 5}, "time"),
        ({"dataschema": "relative"}, "dataschema"),
        ({"datacontenttype": "json"}, "datacontenttype"),
        ({"datacontenttype": "a/b; c"}, "datacontenttype"),
        ({"Upper": "x"}, "'Upper'"),
        ({"with-dash": "x"}, "'with-dash'"),
        ({"n" * 41: "x"}, "'" + "n" * 41 + "'"),
        ({"level": 2**31}, "level"),
        ({"level": 1.5}, "level"),
        ({"level": {"a": 1}}, "level"),
        ({"note": "a\tb"}, "note"),
        ({"note": "x" * 4097}, "note"),
        ({"type": "agentflow.run.requested.v1", "tenantid": "acme"}, "tenantid"),
        ({"data": "x", "data_base64": "eA=="}, "data_base64"),
        ({"data_base64": "!"}, "data_base64"),
        ({"data_base64": 1}, "data_base64"),
        ({"data_base64": "e30", "datacontenttype": "application/json"}, "data_base64"),
        ({"data_base64": "e30x", "datacontenttype": "application/json"}, "data_base64"),
        ({"data": {"a": 1}, "datacontenttype": "text/plain"}, "data"),
        ({"data": {"text": "a\x00b"}}, "data.text"),
        ({"data": {"rows": [{"x": 1}, {"y\x00": 1}]}}, "data.rows[1].y\\u0000"),
    ],
)
def test_a_fault_is_addressed_by_its_path(members: dict[str, Any], path: str) -> None:
    assert set(refused(**members)) == {path}


def test_too_many_extension_attributes() -> None:
    assert "64" in refused(**{f"x{n}": "v" for n in range(65)})[""]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"\xff",
        b"{",
        b'{"id": NaN}',
        b'"text"',
        b'{"data": "\\ud800"}',
        b'{"data": 1e999}',
    ],
)
def test_what_is_no_json_object_is_refused(body: bytes) -> None:
    assert refused(body)


def test_nesting_is_bounded_even_where_the_parser_would_not_mind() -> None:
    def nested(depth: int) -> bytes:
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        return json.dumps(MINIMAL).encode()[:-1] + b', "data": ' + inner + b"}"

    json_format.decode(nested(64))
    assert "deeper" in next(iter(refused(nested(65)).values()))
    assert "deeper" in next(iter(refused(nested(900)).values()))
    assert refused(nested(100_000))


def test_wide_data_is_not_taken_for_deep_data() -> None:
    assert decode(data=[{"a": []}] * 500).data == [{"a": []}] * 500
    assert decode(data="{[" * 100).data == "{[" * 100


def test_text_that_only_looks_like_an_escaped_nul_passes() -> None:
    event = decode(data={"regex": "\\u0000"}, time="2025-01-31T12:00:00Z", tenantid=str(UUID(int=1)))
    assert event.data == {"regex": "\\u0000"}
    assert json_format.decode(json_format.encode(event)) == event


def test_size_is_bounded_on_the_way_in_and_out() -> None:
    filler = "x" * MAX_EVENT_BYTES
    assert "more than" in refused(data=filler)[""]
    with pytest.raises(Invalid, match="more than"):
        json_format.encode(Event(id="1", source="/s", type="t", data=filler))


@pytest.mark.parametrize(
    "body",
    [
        # A long key above many children: paths must not be copied in full for each.
        b'{"data":{"' + b"k" * 400_000 + b'":[' + b"0," * 200_000 + b'"\\u0000"]}}',
        b'{"data":[' + b"{}," * 300_000 + b"{}]}",
        b'{"data":' + b'"' + b"\\u0000" * 150_000 + b'"}',
        b'{"datacontenttype":"a/b' + b";   ;  " * 300 + b'(","data":1}',
        b'{"source":"/' + b"[" * 1000 + b'"}',
        b"".join(b'{"' + bytes([97 + n]) * 300 + b'":' for n in range(26)) + b'"\\u0000"' + b"}" * 26,
    ],
)
def test_hostile_documents_are_judged_quickly(body: bytes) -> None:
    started = time.perf_counter()
    with pytest.raises(Invalid) as caught:
        json_format.decode(body)
    assert time.perf_counter() - started < 2
    assert all(len(problem.path) < 500 for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("data", "path"),
    [
        ({"a": "x\x00y"}, "data.a"),
        ({"a": float("nan")}, "data.a"),
        ({"a": [1, 2**70]}, "data.a[1]"),
        ({"a": "\ud800"}, "data.a"),
        ({1: 2}, "data"),
        ({"a": object()}, "data.a"),
    ],
)
def test_check_finds_what_cannot_travel_or_be_stored(data: Any, path: str) -> None:
    assert [problem.path for problem in json_format.check(data)] == [path]


@pytest.mark.parametrize("data", [{"a": "x\x00y"}, {"a": 2**70}, {"a": "\ud800"}])
def test_encode_refuses_what_cannot_travel(data: Any) -> None:
    with pytest.raises(Invalid) as caught:
        json_format.encode(Event(id="1", source="/s", type="t", data=data))
    assert caught.value.problem.path.startswith("data.a")


def test_a_time_without_zone_is_refused_when_writing() -> None:
    with pytest.raises(Invalid, match="time zone"):
        json_format.encode(Event(id="1", source="/s", type="t", time=datetime(2025, 1, 1)))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2018-04-05T03:56:24Z", datetime(2018, 4, 5, 3, 56, 24, tzinfo=UTC)),
        ("2018-04-05t03:56:24.5z", datetime(2018, 4, 5, 3, 56, 24, 500_000, tzinfo=UTC)),
        ("2018-04-05T05:56:24.123456789+02:00", datetime(2018, 4, 5, 3, 56, 24, 123_456, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2016, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_every_rfc3339_time_is_read(text: str, moment: datetime) -> None:
    assert decode(time=text).time == moment


@pytest.mark.parametrize(
    "source", ["/a/b", "urn:x:y", "mailto:a@example.com", "a/b?c#d", "http://[::1]:80/x", "%41"]
)
def test_every_uri_reference_is_a_source(source: str) -> None:
    assert decode(source=source).source == source


def test_the_tenant_of_a_foreign_event_is_only_a_claim() -> None:
    mine = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
    assert decode(tenantid="acme").tenant is None
    assert decode(tenantid=str(UUID(int=1))).with_tenant(mine).tenant == mine


def test_base64_data_means_what_its_media_type_says() -> None:
    assert decode(data_base64="eyJhIjoxfQ==", datacontenttype="application/json").data == {"a": 1}
    assert decode(data_base64="aGk=", datacontenttype="text/plain").data == "hi"
    assert decode(data_base64="/w==", datacontenttype="text/plain").data == b"\xff"
    assert decode(data_base64="aGk=", datacontenttype="image/png").data == b"hi"


def test_a_batch_names_the_event_at_fault() -> None:
    body = json.dumps([MINIMAL, MINIMAL | {"id": ""}, 5, MINIMAL | {"data": {"data": 1}}]).encode()
    with pytest.raises(Invalid) as caught:
        json_format.decode_batch(body)
    assert [problem.path for problem in caught.value.problems] == ["[1].id", "[2]"]


def test_a_batch_is_bounded() -> None:
    assert json_format.decode_batch(b"[]") == []
    full = [Event(id=str(n), source="/s", type="t") for n in range(MAX_BATCH)]
    assert json_format.decode_batch(json_format.encode_batch(full)) == full
    with pytest.raises(Invalid, match="1001 events"):
        json_format.decode_batch(json.dumps([MINIMAL] * (MAX_BATCH + 1)).encode())
    with pytest.raises(Invalid, match="1001 events"):
        json_format.encode_batch([*full, full[0]])
    with pytest.raises(Invalid, match="JSON array"):
        json_format.decode_batch(json.dumps(MINIMAL).encode())
    big = json.dumps([MINIMAL, MINIMAL | {"data": "x" * MAX_EVENT_BYTES}]).encode()
    with pytest.raises(Invalid) as caught:
        json_format.decode_batch(big)
    assert caught.value.problem.path == "[1]"
