"""CloudEvents attributes as headers, for binary mode over HTTP and NATS: ``ce-`` names, encoded values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, unquote_to_bytes

from agentflow.errors import Invalid, Problem
from agentflow.wire.attributes import format_time, scalar_text
from agentflow.wire.event import Event

PREFIX = "ce-"

# Printable ASCII without space, double quote and percent travels as it is.
_PLAIN = re.compile(r"[!#$&-~]*")
_SAFE = "".join(chr(c) for c in range(0x21, 0x7F) if chr(c) not in '"%')
_ESCAPED = re.compile(r"\\(.)")


def percent_encode(value: str) -> str:
    """The header value of an attribute: space, ``"``, ``%`` and all but printable ASCII as %XX of UTF-8."""
    return value if _PLAIN.fullmatch(value) else quote(value, safe=_SAFE)


def percent_decode(value: str, path: str) -> str:
    """The attribute in a header value; ``Invalid`` when the header is not ASCII or its bytes are not UTF-8.

    A value in double quotes is unquoted first; a ``%`` that starts no escape stands for itself, because many
    senders do not encode it.
    """
    if not value.isascii():
        mend = "percent-encode the UTF-8 bytes"
        raise Invalid([Problem(path, "header value is not ASCII", mend, "bad_attribute")])
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = _ESCAPED.sub(r"\1", value[1:-1])
    if "%" not in value:
        return value
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError:
        mend = "percent-encode the UTF-8 bytes"
        raise Invalid([Problem(path, "percent-encoded bytes are not UTF-8", mend, "bad_attribute")]) from None


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers under lower-case names; ``Invalid`` when two spellings of a name disagree."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        if found.setdefault(key, value) != value:
            said = "header stands twice with different values"
            raise Invalid([Problem(key[:60], said, "send it once", "bad_header")])
    return found


def read(headers: Mapping[str, str]) -> dict[str, str]:
    """The attributes in lower-case headers, decoded; other headers are not CloudEvents' business."""
    found: dict[str, str] = {}
    problems: list[Problem] = []
    for header, value in headers.items():
        if header.startswith(PREFIX):
            name = header[len(PREFIX) :]
            try:
                found[name] = percent_decode(value, name[:60])
            except Invalid as fault:
                problems += fault.problems
    if problems:
        raise Invalid(problems)
    return found


def write(event: Event) -> dict[str, str]:
    """The event's attributes as headers, all but ``datacontenttype``, whose header depends on the road."""
    headers = {
        "ce-specversion": "1.0",
        "ce-id": percent_encode(event.id),
        "ce-source": percent_encode(event.source),
        "ce-type": percent_encode(event.type),
    }
    if event.subject is not None:
        headers["ce-subject"] = percent_encode(event.subject)
    if event.time is not None:
        headers["ce-time"] = format_time(event.time)
    if event.tenant is not None:
        headers["ce-tenantid"] = str(event.tenant)
    if event.traceparent is not None:
        headers["ce-traceparent"] = percent_encode(event.traceparent)
    if event.tracestate is not None:
        headers["ce-tracestate"] = percent_encode(event.tracestate)
    if event.dataref is not None:
        headers["ce-dataref"] = percent_encode(event.dataref)
    if event.dataschema is not None:
        headers["ce-dataschema"] = percent_encode(event.dataschema)
    for name, value in event.extensions.items():
        headers[PREFIX + name] = percent_encode(scalar_text(value))
    return headers


def size(headers: Mapping[str, str]) -> int:
    """The bytes that the attributes among lower-case headers take."""
    return sum(len(name) + len(value) + 4 for name, value in headers.items() if name.startswith(PREFIX))
