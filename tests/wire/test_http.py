"""CloudEvents over HTTP: binary, structured and batch, as any client may send them."""

from __future__ import annotations

import contextlib
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_strategies import events, in_binary

from agentflow.errors import Invalid
from agentflow.wire.event import MAX_EVENT_BYTES, Event, Scalar
from agentflow.wire.http import BATCH, STRUCTURED, from_http, to_http, to_http_batch

BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


def only(headers: dict[str, str], body: bytes = b"") -> Event:
    (event,) = from_http(headers, body)
    return event


def refused(headers: dict[str, str], body: bytes = b"") -> dict[str, str]:
    with pytest.raises(Invalid) as caught:
        from_http(headers, body)
    return {problem.path: problem.message for problem in caught.value.problems}


@given(events())
def test_an_event_survives_binary_mode(event: Event) -> None:
    headers, body = to_http(event, "binary")
    assert all(name.islower() and value.isascii() and value.isprintable() for name, value in headers.items())
    assert only(headers, body) == in_binary(event)


@given(events())
def test_an_event_survives_structured_mode(event: Event) -> None:
    assert only(*to_http(event, "structured")) == event


@given(st.lists(events(), max_size=4))
def test_events_survive_a_batch(batch: list[Event]) -> None:
    headers, body = to_http_batch(batch)
    assert headers == {"content-type": BATCH}
    assert from_http(headers, body) == batch


@given(
    st.dictionaries(
        st.sampled_from([*BINARY, "Ce-Id", "ce-data", "ce-extensions", "content-type", "ce-x"]), st.text()
    ),
    st.binary(max_size=50),
)
def test_any_request_is_an_event_or_invalid(headers: dict[str, str], body: bytes) -> None:
    with contextlib.suppress(Invalid):
        (event,) = from_http(BINARY | headers, body)
        assert event.data is None or body


def test_header_names_are_matched_without_regard_to_case() -> None:
    headers = {"CE-SpecVersion": "1.0", "Ce-Id": "1", "cE-source": "/s", "Ce-Type": "t", "Ce-MyExt": "v"}
    event = only(headers | {"Content-Type": "Application/JSON"}, b'{"a":1}')
    assert event.data == {"a": 1}
    assert event.extensions == {"myext": "v"}


def test_two_spellings_of_a_header_that_disagree_are_refused() -> None:
    assert refused(BINARY | {"CE-ID": "2"}) == {"ce-id": "header stands twice with different values"}


@pytest.mark.parametrize(
    ("header", "subject"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("100%25", "100%"),
        ("100%", "100%"),
        ("a+b", "a+b"),
        ("%41%2f", "A/"),
        ('"quoted \\"text\\" here"', 'quoted "text" here'),
        ("%22in%20quotes%22", '"in quotes"'),
        ("with space", "with space"),
    ],
)
def test_header_values_are_percent_decoded_once(header: str, subject: str) -> None:
    assert only(BINARY | {"ce-subject": header}).subject == subject


def test_header_values_are_percent_encoded() -> None:
    event = Event(id='a "b" 100% ☃', source="/s", type="t")
    assert to_http(event)[0]["ce-id"] == "a%20%22b%22%20100%25%20%E2%98%83"


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({"ce-id": "%ff"}, "id"),
        ({"ce-id": "\u00e9"}, "id"),
        ({"ce-id": "%00"}, "id"),
        ({"ce-id": "a%0d%0ab"}, "id"),
        ({"ce-id": ""}, "id"),
        ({"ce-specversion": "0.3"}, "specversion"),
        ({"ce-data": "x"}, "data"),
        ({"ce-my-ext": "x"}, "'my-ext'"),
        ({"ce-datacontenttype": "text/plain"}, "datacontenttype"),
        ({"content-type": "nonsense"}, "datacontenttype"),
    ],
)
def test_a_bad_header_is_named(headers: dict[str, str], path: str) -> None:
    assert set(refused(BINARY | headers, b"{}")) == {path}


def test_missing_headers_are_named_at_once() -> None:
    assert set(refused({"ce-specversion": "1.0"})) == {"id", "source", "type"}


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        (None, b'{"a":1}', {"a": 1}),
        (None, b"plain", b"plain"),
        (None, b"", None),
        ("application/json", b"", None),
        ("application/json; charset=utf-8", b'"text"', "text"),
        ("application/vnd.x+json", b"[1]", [1]),
        ("text/plain", "grüß".encode(), "grüß"),
        ("text/plain; charset=iso-8859-1", "grüß".encode("latin-1"), "grüß"),
        ("text/plain; charset=us-ascii", b"Hello", "Hello"),
        ("text/plain; charset=utf-16", b"\xff\xfea\x00", b"\xff\xfea\x00"),
        ("text/plain", b"a\x00b", b"a\x00b"),
        ("text/plain", b'{"a":1}', '{"a":1}'),
        ("application/xml", b"<a/>", "<a/>"),
        ("image/png", b"\x89PNG", b"\x89PNG"),
        ("application/octet-stream", b'{"a":1}', b'{"a":1}'),
    ],
)
def test_the_body_means_what_its_media_type_says(content_type: str | None, body: bytes, data: object) -> None:
    headers = BINARY if content_type is None else BINARY | {"content-type": content_type}
    event = only(headers, body)
    assert event.data == data
    assert event.datacontenttype == content_type
    assert to_http(event)[1] == body


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_text_that_its_charset_cannot_hold_is_refused_in_binary_mode_only(mode: str) -> None:
    event = Event(id="1", source="/s", type="t", datacontenttype="text/plain; charset=us-ascii", data="€")
    if mode == "structured":
        assert only(*to_http(event, "structured")) == event
    else:
        with pytest.raises(Invalid, match="charset"):
            to_http(event, "binary")


@pytest.mark.parametrize("body", [b"{", b"\xff", b"nope", b'{"a":"\\u0000"}', b"[" * 200 + b"]" * 200])
def test_json_only_by_its_label_is_refused(body: bytes) -> None:
    (path,) = refused(BINARY | {"content-type": "application/json"}, body)
    assert path.startswith("data")


def test_json_in_another_charset_is_refused() -> None:
    assert set(refused(BINARY | {"content-type": "application/json; charset=utf-16"}, b"{}")) == {"data"}


@pytest.mark.parametrize(
    ("headers", "path"),
    [
        ({}, ""),
        ({"content-type": "application/json"}, ""),
        ({"content-type": "application/cloudevents+xml"}, "content-type"),
        ({"content-type": "application/cloudevents"}, "content-type"),
        ({"content-type": STRUCTURED + "; charset=utf-16"}, "content-type"),
    ],
)
def test_what_is_no_cloudevent_says_how_to_send_one(headers: dict[str, str], path: str) -> None:
    with pytest.raises(Invalid) as caught:
        from_http(headers, b"{}")
    assert caught.value.problem.path == path
    assert caught.value.problem.mend


def test_content_type_decides_the_mode_even_beside_binary_headers() -> None:
    headers, body = to_http(Event(id="inner", source="/s", type="t"), "structured")
    assert only(BINARY | {"content-type": "Application/CloudEvents+JSON; charset=UTF-8"}, body).id == "inner"
    assert only(BINARY | headers, body).id == "inner"


def test_an_event_in_binary_mode_is_bounded_headers_included() -> None:
    octets = {"content-type": "application/octet-stream"}
    assert "more than" in refused(BINARY | octets, b"x" * (MAX_EVENT_BYTES - 10))[""]
    only(BINARY | octets, b"x" * (MAX_EVENT_BYTES - 200))
    with pytest.raises(Invalid, match="more than"):
        to_http(Event(id="1", source="/s", type="t", data=b"x" * MAX_EVENT_BYTES))


def test_hostile_headers_are_judged_quickly() -> None:
    started = time.process_time()
    refused(BINARY | {"content-type": "a/b" + ";   " * 900 + "("}, b"{}")
    refused(BINARY | {"content-type": "a/b" + ';a="\\' * 600}, b"{}")
    refused(BINARY | {"ce-id": "%" * 500_000})
    refused(BINARY | {"ce-id": '"' + "\\" * 500_001 + '"'})
    refused(BINARY | {f"ce-x{n}": "v" for n in range(10_000)})
    assert time.process_time() - started < 1


def test_extension_values_take_their_canonical_form_in_binary_mode() -> None:
    values: dict[str, Scalar] = {"flag": True, "count": -3, "text": "x"}
    headers, _ = to_http(Event(id="1", source="/s", type="t", extensions=values))
    assert (headers["ce-flag"], headers["ce-count"], headers["ce-text"]) == ("true", "-3", "x")
