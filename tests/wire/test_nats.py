"""CloudEvents over NATS messages: both modes, and the tenant only ever from the subject."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wire_strategies import events, in_binary

from agentflow.errors import Invalid
from agentflow.wire.event import Event
from agentflow.wire.http import BATCH, STRUCTURED, from_http
from agentflow.wire.nats import from_nats, message_id, split_batch, to_nats, to_nats_batch

TENANT = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
OTHER = UUID("018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b10")
BINARY = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}


@given(events(), st.uuids())
def test_an_event_survives_binary_mode(event: Event, tenant: UUID) -> None:
    headers, payload = to_nats(event, "binary")
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    assert not any(name.lower() == "content-type" for name in headers)
    assert from_nats(headers, payload, tenant) == in_binary(event.with_tenant(tenant))


@given(events(), st.uuids())
def test_an_event_survives_structured_mode(event: Event, tenant: UUID) -> None:
    headers, payload = to_nats(event, "structured")
    assert headers == {"Content-Type": STRUCTURED}
    assert from_nats(headers, payload, tenant) == event.with_tenant(tenant)


@given(st.lists(events(), min_size=1, max_size=5), st.uuids())
def test_events_survive_a_batch(several: list[Event], tenant: UUID) -> None:
    headers, payload = to_nats_batch(several)
    bodies = split_batch(headers, payload)
    read = [from_nats({"Content-Type": STRUCTURED}, body, tenant) for body in bodies]
    assert read == [event.with_tenant(tenant) for event in several]
    assert from_http({"content-type": BATCH}, payload) == several  # it is a batch as HTTP knows it


@given(st.text("0123456789 -x", max_size=12), st.binary(max_size=12))
def test_any_sizes_are_met_with_calm(sizes: str, payload: bytes) -> None:
    bodies = split_batch({"Content-Type": BATCH, "Agentflow-Sizes": sizes}, payload)
    assert sum(len(body) + 1 for body in bodies) + 1 == len(payload) or not bodies


@pytest.mark.parametrize("mode", ["binary", "structured"])
def test_the_tenant_is_the_subjects_whatever_the_content_claims(mode: str) -> None:
    claim = Event(id="1", source="/s", type="t", tenant=OTHER)
    headers, payload = to_nats(claim, "binary" if mode == "binary" else "structured")
    assert from_nats(headers, payload, TENANT).tenant == TENANT
    assert from_nats(headers, payload, None).tenant is None


def test_the_media_type_of_binary_data_has_its_own_header() -> None:
    headers, payload = to_nats(
        Event(id="1", source="/s", type="t", datacontenttype="text/plain", data="hi"), "binary"
    )
    assert (headers["ce-datacontenttype"], payload) == ("text/plain", b"hi")


def test_header_names_are_matched_without_regard_to_case() -> None:
    headers = {"Ce-Specversion": "1.0", "CE-ID": "1", "ce-Source": "/s", "Ce-Type": "t"}
    assert from_nats(headers, b"", TENANT).id == "1"
    structured = to_nats(Event(id="2", source="/s", type="t"))[1]
    assert (
        from_nats({"content-type": "Application/CloudEvents+json; charset=utf-8"}, structured, TENANT).id
        == "2"
    )


def test_a_plain_content_type_is_believed_where_ce_datacontenttype_is_missing() -> None:
    assert from_nats(BINARY | {"Content-Type": "text/plain"}, b"1", TENANT).data == "1"
    both = BINARY | {"Content-Type": "text/plain", "ce-datacontenttype": "application/json"}
    assert from_nats(both, b"1", TENANT).data == 1


@pytest.mark.parametrize(
    ("headers", "payload", "path"),
    [
        (None, b"{}", ""),
        ({}, b"{}", ""),
        ({"Content-Type": "application/json"}, b"{}", ""),
        ({"Content-Type": BATCH}, b"[]", "content-type"),
        ({"Content-Type": "application/cloudevents+avro"}, b"", "content-type"),
        ({"Content-Type": STRUCTURED}, b"nope", ""),
        ({"Content-Type": STRUCTURED}, b'{"specversion":"1.0","id":"1","type":"t"}', "source"),
        (BINARY | {"ce-id": "%ff"}, b"", "id"),
        (BINARY | {"ce-datacontenttype": "application/json"}, b"{", "data"),
        (BINARY, b"x" * 1024 * 1024, ""),
    ],
)
def test_what_is_no_event_is_refused_with_its_path(
    headers: dict[str, str] | None, payload: bytes, path: str
) -> None:
    with pytest.raises(Invalid) as caught:
        from_nats(headers, payload, TENANT)
    assert caught.value.problem.path == path
    assert caught.value.problem.message


def test_the_message_id_tells_tenants_sources_and_ids_apart() -> None:
    one = Event(id="1", source="/s", type="t", tenant=TENANT)
    others = [
        one.with_tenant(OTHER),
        Event(id="2", source="/s", type="t", tenant=TENANT),
        Event(id="1", source="/s2", type="t", tenant=TENANT),
        Event(id="s|1", source="/", type="t", tenant=TENANT),
    ]
    ids = [message_id(event) for event in (one, *others)]
    assert len(set(ids)) == len(ids)
    assert message_id(one) == message_id(Event(id="1", source="/s", type="t", tenant=TENANT, subject="again"))
    assert message_id(Event(id="ü\n", source="/s", type="t")).isprintable()
