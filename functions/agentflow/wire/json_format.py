"""CloudEvents in JSON: structured mode and batches, fast enough to be on the road of every step.

``encode`` trusts the event's attributes (ours are made by code) and still refuses data that cannot travel;
``decode`` trusts nothing. Both raise ``Invalid`` with paths such as ``source`` or ``data.output.text``.
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Any

from agentflow.errors import Invalid, Problem
from agentflow.wire.attributes import build
from agentflow.wire.content import form, from_bytes
from agentflow.wire.event import MAX_BATCH, MAX_EVENT_BYTES, Event
from agentflow.wire.json_value import MAX_PROBLEMS, check, dumps, loads

__all__ = [
    "MAX_BATCH_BYTES",
    "check",
    "decode",
    "decode_batch",
    "decode_dict",
    "encode",
    "encode_batch",
    "to_dict",
]

MAX_BATCH_BYTES = 8 * 1024 * 1024


def encode(event: Event) -> bytes:
    """The event as one JSON document, at most 1 MiB."""
    body = dumps(to_dict(event))
    if len(body) > MAX_EVENT_BYTES:
        raise Invalid([too_large(len(body))], code="too_large")
    return body


def decode(body: bytes) -> Event:
    """The event in one JSON document."""
    if len(body) > MAX_EVENT_BYTES:
        raise Invalid([too_large(len(body))], code="too_large")
    return decode_dict(loads(body))


def encode_batch(events: list[Event] | tuple[Event, ...]) -> bytes:
    """The events as one JSON array, at most 1,000 of them and 8 MiB."""
    if len(events) > MAX_BATCH:
        raise Invalid([_too_many(len(events))], code="too_large")
    body = b"[" + b",".join(encode(event) for event in events) + b"]"
    if len(body) > MAX_BATCH_BYTES:
        raise Invalid([too_large(len(body), MAX_BATCH_BYTES)], code="too_large")
    return body


def decode_batch(body: bytes) -> list[Event]:
    """The events in one JSON array, [] for an empty one; a problem's path starts with ``[index]``."""
    if len(body) > MAX_BATCH_BYTES:
        raise Invalid([too_large(len(body), MAX_BATCH_BYTES)], code="too_large")
    items = loads(body)
    if not isinstance(items, list):
        mend = "send one event as application/cloudevents+json"
        raise Invalid([Problem("", "a batch is a JSON array of events", mend, "bad_batch")])
    if len(items) > MAX_BATCH:
        raise Invalid([_too_many(len(items))], code="too_large")
    events: list[Event] = []
    problems: list[Problem] = []
    for index, item in enumerate(items):
        try:
            event = decode_dict(item, f"[{index}].")
            if len(body) > MAX_EVENT_BYTES:
                encode(event)  # refuses one that is too large by itself
            events.append(event)
        except Invalid as fault:
            here = f"[{index}]"
            problems += [p if p.path else replace(p, path=here) for p in fault.problems]
            if len(problems) >= MAX_PROBLEMS:
                break
    if problems:
        raise Invalid(problems[:MAX_PROBLEMS], code=problems[0].code)
    return events


def to_dict(event: Event) -> dict[str, Any]:
    """The members of the event's JSON document; time and tenant are left to the JSON writer."""
    document: dict[str, Any] = dict(event.extensions) if event.extensions else {}
    document["specversion"] = "1.0"
    document["id"] = event.id
    document["source"] = event.source
    document["type"] = event.type
    if event.subject is not None:
        document["subject"] = event.subject
    if event.time is not None:
        if event.time.tzinfo is None:
            raise Invalid([Problem("time", "has no time zone", code="bad_time")])
        document["time"] = event.time
    if event.tenant is not None:
        document["tenantid"] = event.tenant
    if event.traceparent is not None:
        document["traceparent"] = event.traceparent
        if event.tracestate is not None:
            document["tracestate"] = event.tracestate
    elif event.tracestate is not None:
        document["tracestate"] = event.tracestate
    if event.dataref is not None:
        document["dataref"] = event.dataref
    if event.dataschema is not None:
        document["dataschema"] = event.dataschema
    if event.datacontenttype is not None:
        document["datacontenttype"] = event.datacontenttype
    data = event.data
    if isinstance(data, bytes):
        document["data_base64"] = b64encode(data).decode()
    elif data is not None:
        document["data"] = data
    return document


def decode_dict(document: Any, path: str = "") -> Event:
    """The event in a parsed JSON document, which is consumed. ``path`` is put before every problem's path."""
    if type(document) is not dict:
        raise Invalid([Problem(path[:-1], "an event is a JSON object", code="bad_event")])
    data = document.pop("data", None)
    encoded = document.pop("data_base64", None)
    event = build(document, data, path)
    if encoded is not None:
        if data is not None:
            mend = "send one of them"
            raise Invalid([Problem(path + "data_base64", "stands beside data", mend, "bad_event")])
        return event.with_data(_from_base64(encoded, event.datacontenttype, path), dataref=event.dataref)
    if data is None or type(data) is str or event.datacontenttype is None:
        return event
    if form(event.datacontenttype)[0] != "json":
        mend = "send a JSON string or data_base64, or name a JSON media type"
        said = f"is a JSON {type(data).__name__}, but datacontenttype is {event.datacontenttype[:60]}"
        raise Invalid([Problem(path + "data", said, mend, "bad_data")])
    return event


def too_large(size: int, limit: int = MAX_EVENT_BYTES) -> Problem:
    """The problem of an event or batch of ``size`` bytes."""
    mend = "send large data as a file and refer to it"
    return Problem("", f"has {size} bytes, more than {limit}", mend, "too_large")


def _too_many(count: int) -> Problem:
    return Problem("", f"has {count} events, more than {MAX_BATCH}", "send smaller batches", "too_large")


def _from_base64(encoded: Any, contenttype: str | None, path: str) -> Any:
    if not isinstance(encoded, str):
        raise Invalid([Problem(path + "data_base64", "is not a string", code="bad_data")])
    try:
        body = b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Invalid([Problem(path + "data_base64", "is not base64", code="bad_data")]) from None
    return from_bytes(body, contenttype, path + "data_base64")
