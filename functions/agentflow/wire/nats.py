"""CloudEvents over NATS messages: structured mode by its Content-Type, binary mode by ``ce-`` headers.

Unlike HTTP, binary mode carries the media type of the data as ``ce-datacontenttype``. Between our own functions
several events of one subject may share a message: a JSON array as in HTTP's batches, and a header that says how long
each is, so that they are told apart without reading them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

from agentflow.errors import Invalid, Problem
from agentflow.wire import headers as ce_headers
from agentflow.wire import json_format
from agentflow.wire.attributes import build
from agentflow.wire.content import from_bytes, to_bytes
from agentflow.wire.event import MAX_EVENT_BYTES, Event
from agentflow.wire.http import BATCH, STRUCTURED, Mode

CONTENT_TYPE = "Content-Type"
SIZES = "Agentflow-Sizes"


def to_nats(event: Event, mode: Mode = "structured") -> tuple[dict[str, str], bytes]:
    """Headers and payload that carry one event."""
    if mode == "structured":
        return {CONTENT_TYPE: STRUCTURED}, json_format.encode(event)
    headers = ce_headers.write(event)
    if event.datacontenttype is not None:
        headers["ce-datacontenttype"] = ce_headers.percent_encode(event.datacontenttype)
    payload = to_bytes(event.data, event.datacontenttype)
    total = len(payload) + ce_headers.size(headers)
    if total > MAX_EVENT_BYTES:
        raise Invalid([json_format.too_large(total)], code="too_large")
    return headers, payload


def to_nats_batch(events: Sequence[Event]) -> tuple[dict[str, str], bytes]:
    """Headers and payload that carry several events; the caller sees to it that they are few and small."""
    bodies = [json_format.encode(event) for event in events]
    sizes = " ".join(str(len(body)) for body in bodies)
    return {CONTENT_TYPE: BATCH, SIZES: sizes}, b"[" + b",".join(bodies) + b"]"


def split_batch(headers: Mapping[str, str] | None, payload: bytes) -> list[bytes]:
    """The events of a batch, each as the payload of structured mode; [] for any other message.

    A batch whose sizes don't add up is taken for a message that can't be read: ``from_nats`` says so.
    """
    if headers is None or headers.get(CONTENT_TYPE) != BATCH or SIZES not in headers:
        return []
    try:
        sizes = [int(size) for size in headers[SIZES].split()]
    except ValueError:
        return []
    if not sizes or min(sizes) <= 0 or sum(sizes) + len(sizes) + 1 != len(payload):
        return []
    bodies, start = [], 1
    for size in sizes:
        bodies.append(payload[start : start + size])
        start += size + 1
    return bodies


def from_nats(headers: Mapping[str, str] | None, payload: bytes, tenant_from_subject: UUID | None) -> Event:
    """The event in one message; its tenant is the subject's, whatever the content claims."""
    if headers is not None and headers.get(CONTENT_TYPE) == STRUCTURED:
        event = json_format.decode(payload)
    else:
        event = _decode(headers or {}, payload)
    return event if event.tenant == tenant_from_subject else replace(event, tenant=tenant_from_subject)


def message_id(event: Event) -> str:
    """The ``Nats-Msg-Id`` of an event: tenant, source and id.

    Source and id are what makes a CloudEvent unique; the tenant keeps one tenant's event from suppressing
    another's, because JetStream compares ids across a whole stream. No source contains ``|``.
    """
    return ce_headers.percent_encode(f"{event.tenant}|{event.source}|{event.id}")


def _decode(headers: Mapping[str, str], payload: bytes) -> Event:
    lowered = ce_headers.lower(headers)
    content_type = lowered.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith("application/cloudevents"):
        if media == STRUCTURED:
            return json_format.decode(payload)
        mend = f"publish one event per message as {STRUCTURED}, or in binary mode"
        raise Invalid([Problem("content-type", f"{media} is not supported", mend, "unsupported_format")])
    if "ce-specversion" not in lowered and "ce-type" not in lowered:
        mend = f"set the header Content-Type to {STRUCTURED}, or set ce- headers"
        raise Invalid([Problem("", "is not a CloudEvent", mend, "not_a_cloudevent")])
    total = len(payload) + ce_headers.size(lowered)
    if total > MAX_EVENT_BYTES:
        raise Invalid([json_format.too_large(total)], code="too_large")
    attributes: dict[str, Any] = ce_headers.read(lowered)
    if content_type and "datacontenttype" not in attributes:
        attributes["datacontenttype"] = content_type  # many publishers know only this header
    event = build(attributes, None)
    if not payload:
        return event
    return event.with_data(from_bytes(payload, event.datacontenttype), dataref=event.dataref)
