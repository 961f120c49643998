"""Event data and bytes: what ``datacontenttype`` says about a body, in both directions.

One rule for every road, so that an event means the same however it came: JSON media types (and none at all,
when the bytes happen to be JSON) become JSON values, text and XML in a known charset become ``str``, the rest
stays ``bytes``, and an empty body is no data.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

from agentflow.errors import Invalid, Problem
from agentflow.wire.event import JSON
from agentflow.wire.json_value import dumps, loads

Form = Literal["json", "text", "bytes", "unknown"]

_CHARSETS = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
}


@lru_cache(maxsize=1024)
def form(contenttype: str | None) -> tuple[Form, str | None]:
    """How data of this media type is held, and its charset (a Python codec; None: not one we convert)."""
    if contenttype is None:
        return "unknown", "utf-8"
    media, _, parameters = contenttype.partition(";")
    kind, _, subtype = media.strip().lower().partition("/")
    charset: str | None = "utf-8"
    for parameter in parameters.split(";"):
        key, _, value = parameter.partition("=")
        if key.strip().lower() == "charset":
            charset = _CHARSETS.get(value.strip().strip('"').lower())
    if subtype == "json" or subtype.endswith("+json"):
        return "json", charset
    if kind == "text" or subtype == "xml" or subtype.endswith("+xml"):
        return "text", charset
    return "bytes", charset


def from_bytes(body: bytes, contenttype: str | None, path: str = "data") -> JSON | bytes:
    """The data that a body of this media type stands for; ``Invalid`` when it is JSON only by its label."""
    if not body:
        return None
    kind, charset = form(contenttype)
    if kind == "json":
        if charset not in {"utf-8", "ascii"}:
            mend = "send JSON as UTF-8"
            raise Invalid([Problem(path, "is JSON in a charset that is not UTF-8", mend, "bad_json")])
        value: JSON = loads(body, path)
        return value
    if kind == "unknown":
        try:
            value = loads(body, path)
        except Invalid as fault:
            if fault.problems[0].code == "bad_json":
                return body
            raise
        return value
    if kind == "text" and charset is not None:
        try:
            text = body.decode(charset)
        except UnicodeDecodeError:
            return body
        return body if "\x00" in text else text
    return body


def to_bytes(data: JSON | bytes, contenttype: str | None) -> bytes:
    """The body for this data, the reverse of ``from_bytes``; ``Invalid`` when the charset cannot hold it."""
    if data is None:
        return b""
    if isinstance(data, bytes):
        return data
    kind, charset = form(contenttype)
    if isinstance(data, str) and kind in {"text", "bytes"}:
        try:
            if charset is not None:
                return data.encode(charset)
        except UnicodeEncodeError:
            pass
        mend = "name charset=utf-8 in datacontenttype"
        raise Invalid([Problem("data", "does not fit the charset of its media type", mend, "bad_charset")])
    return dumps(data, "data")
