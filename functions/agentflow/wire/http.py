"""CloudEvents over HTTP: binary, structured and batch, and the CloudEvent object of the official SDK.

functions-framework hands functions the SDK's object, so ``from_sdk`` and ``to_sdk`` meet it there. The bytes
are read and written here: the SDK (1.12) has no batch mode, does not percent-encode headers, takes malformed
JSON for a string and bounds nothing. tests/wire/test_sdk_interop.py holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from agentflow.errors import Invalid, Problem
from agentflow.wire import headers as ce_headers
from agentflow.wire import json_format
from agentflow.wire.attributes import build, format_time
from agentflow.wire.content import form, from_bytes, to_bytes
from agentflow.wire.event import MAX_EVENT_BYTES, Event
from agentflow.wire.json_value import dumps, loads

if TYPE_CHECKING:
    from cloudevents.http import CloudEvent

Mode = Literal["binary", "structured"]

STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"


def from_http(headers: Mapping[str, str], body: bytes | None) -> list[Event]:
    """The events of one request or response, in any mode; ``Invalid`` addresses every fault.

    Header names are matched without regard to case. The tenant is what the content claims: an edge that
    serves outsiders overrules it by ``with_tenant``.
    """
    body = body or b""
    lowered = ce_headers.lower(headers)
    content_type = lowered.get("content-type", "")
    media, charset = _media(content_type)
    if media.startswith("application/cloudevents"):
        if charset not in {"", "utf-8", "utf8", "us-ascii"}:
            raise Invalid([Problem("content-type", "has to be UTF-8", "send charset=utf-8", "bad_charset")])
        if media == STRUCTURED:
            return [json_format.decode(body)]
        if media == BATCH:
            return json_format.decode_batch(body)
        mend = f"send {STRUCTURED}, {BATCH} or binary mode"
        raise Invalid([Problem("content-type", f"{media} is not supported", mend, "unsupported_format")])
    if "ce-specversion" not in lowered and "ce-type" not in lowered:
        mend = f"set Content-Type to {STRUCTURED}, or send ce- headers"
        raise Invalid([Problem("", "is not a CloudEvent", mend, "not_a_cloudevent")])
    total = len(body) + ce_headers.size(lowered)
    if total > MAX_EVENT_BYTES:
        raise Invalid([json_format.too_large(total)], code="too_large")
    attributes: dict[str, Any] = ce_headers.read(lowered)
    said = attributes.pop("datacontenttype", None)
    if said is not None and said != content_type:
        mend = "send Content-Type only"
        raise Invalid([Problem("datacontenttype", "differs from Content-Type", mend, "bad_attribute")])
    if content_type:
        attributes["datacontenttype"] = content_type
    return [binary(attributes, body)]


def to_http(event: Event, mode: Mode = "binary") -> tuple[dict[str, str], bytes]:
    """Headers (lower-case names) and body that carry one event."""
    if mode == "structured":
        return {"content-type": STRUCTURED}, json_format.encode(event)
    headers = ce_headers.write(event)
    if event.datacontenttype is not None:
        headers["content-type"] = event.datacontenttype
    body = to_bytes(event.data, event.datacontenttype)
    total = len(body) + ce_headers.size(headers)
    if total > MAX_EVENT_BYTES:
        raise Invalid([json_format.too_large(total)], code="too_large")
    return headers, body


def to_http_batch(events: Sequence[Event]) -> tuple[dict[str, str], bytes]:
    """Headers and body that carry up to 1,000 events in one request."""
    return {"content-type": BATCH}, json_format.encode_batch(tuple(events))


def from_sdk(cloudevent: CloudEvent, *, percent_encoded: bool = False) -> Event:
    """The event in the SDK's CloudEvent object, as functions-framework hands it to a function.

    The SDK leaves percent-encoded headers as they are and does not tell the mode: pass ``percent_encoded``
    when the request was in binary mode. Data that the SDK could not parse arrives as bytes and is judged by
    its media type here. An event that came without a time has the SDK's: the moment it was read.
    """
    attributes: dict[str, Any] = {}
    for name, value in cloudevent.get_attributes().items():
        if isinstance(value, str) and percent_encoded and name != "datacontenttype":
            value = ce_headers.percent_decode(value, name[:60])
        attributes[name] = format_time(value) if isinstance(value, datetime) else value
    data = cloudevent.get_data()
    if isinstance(data, bytes | bytearray | memoryview):
        body = bytes(data)
        _bound(len(body))
        return binary(attributes, body)
    event = build(attributes, None)
    if data is None:
        return event
    body = dumps(data, "data")
    _bound(len(body))
    if event.datacontenttype is not None and form(event.datacontenttype)[0] != "json":
        # The SDK parses any body that looks like JSON; text "12" comes back as the number 12.
        return event.with_data(data if isinstance(data, str) else body.decode(), dataref=event.dataref)
    return event.with_data(loads(body, "data"), dataref=event.dataref)


def to_sdk(event: Event) -> CloudEvent:
    """The SDK's CloudEvent object for an event."""
    from cloudevents.http import CloudEvent  # 0.1 s, so only where it is needed

    attributes = json_format.to_dict(event)
    attributes.pop("data", None)
    attributes.pop("data_base64", None)
    if event.time is not None:
        attributes["time"] = format_time(event.time)
    if event.tenant is not None:
        attributes["tenantid"] = str(event.tenant)
    cloudevent = CloudEvent(attributes, event.data)
    if event.time is None:
        del cloudevent["time"]  # the SDK made one up
    return cloudevent


def binary(attributes: dict[str, Any], body: bytes) -> Event:
    """The event of binary mode: decoded attributes (consumed), and the body its media type explains."""
    event = build(attributes, None)
    if not body:
        return event
    return event.with_data(from_bytes(body, event.datacontenttype), dataref=event.dataref)


def _bound(size: int) -> None:
    if size > MAX_EVENT_BYTES:
        raise Invalid([json_format.too_large(size)], code="too_large")


def _media(content_type: str) -> tuple[str, str]:
    media, _, parameters = content_type.partition(";")
    charset = ""
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            charset = value.strip().strip('"').lower()
    return media.strip().lower(), charset
