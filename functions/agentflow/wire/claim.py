"""Claim check: data too large to travel inline is left as a blob, and its reference travels as ``dataref``.

A reference names the SHA-256 of the bytes, so the same content is stored once and a blob cannot be swapped.
"""

from __future__ import annotations

import re
from hashlib import sha256

from agentflow.errors import Invalid, Problem
from agentflow.wire.event import Event
from agentflow.wire.json_value import dumps, loads

INLINE_LIMIT = 64 * 1024
"""Most bytes of data (as JSON) that travel inside an event."""

_REF = re.compile(r"blob:sha256:([0-9a-f]{64})")


def blob_ref(content: bytes) -> str:
    """The reference of these bytes: ``blob:sha256:<hex>``."""
    return "blob:sha256:" + sha256(content).hexdigest()


def is_ref(text: object) -> bool:
    """Whether ``text`` is a well-formed reference; says nothing about whether the blob exists."""
    return isinstance(text, str) and _REF.fullmatch(text) is not None


def ref_hash(ref: str) -> bytes:
    """The 32 bytes of the hash in a reference; ``Invalid`` when it is malformed."""
    match = _REF.fullmatch(ref)
    if match is None:
        mend = "write blob:sha256: and 64 hexadecimal digits"
        raise Invalid([Problem("dataref", "is not a blob reference", mend, "bad_ref")])
    return bytes.fromhex(match.group(1))


def check_in(event: Event) -> tuple[Event, bytes | None]:
    """Move the JSON data of one of our events out when it exceeds the limit.

    Returns the event to send and the bytes to store under its ``dataref``, or None when it travels whole.
    """
    if event.data is None or event.dataref is not None:
        return event, None
    content = event.data if isinstance(event.data, bytes) else dumps(event.data, "data")
    if len(content) <= INLINE_LIMIT:
        return event, None
    return event.with_data(None, dataref=blob_ref(content)), content


def check_out(event: Event, content: bytes) -> Event:
    """Put the stored bytes back as the event's JSON data; ``Invalid`` when they are not what it refers to."""
    if event.dataref != blob_ref(content):
        raise Invalid([Problem("dataref", "does not match the stored content", code="bad_ref")])
    return event.with_data(loads(content, "data"))
