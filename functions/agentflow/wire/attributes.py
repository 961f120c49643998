"""CloudEvents context attributes: from a mapping of names to values, however it travelled, to an ``Event``.

Every decoder ends in ``build``, so every road has the same rules: CloudEvents 1.0 plus bounds. id, source,
type and subject are bounded in UTF-8 bytes because they are parts of database keys (a PostgreSQL btree entry
holds about 2,700 bytes).
"""

from __future__ import annotations

import re
from datetime import datetime
from functools import lru_cache
from typing import Any
from uuid import UUID

from agentflow.errors import Invalid, Problem
from agentflow.wire.event import JSON, TYPE_PREFIX, Event, Scalar

MAX_ID = 512
MAX_SOURCE = 1024
MAX_TYPE = 256
MAX_SUBJECT = 512
MAX_VALUE = 4096
"""Most UTF-8 bytes of any other attribute."""
MAX_NAME = 40
MAX_EXTENSIONS = 64

_NAME = re.compile(r"[a-z0-9]{1,40}")
# C0 and C1 controls, noncharacters and surrogates are not allowed in a CloudEvents String.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef]")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,18})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_URI_CHARACTERS = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_MEDIA_TYPE = re.compile(
    # Blanks are matched in one way only: what an outsider sends must not make this backtrack.
    rf"{_TOKEN}/{_TOKEN}(?:[ \t]*+;(?:[ \t]*+{_TOKEN}=(?:{_TOKEN}|\"(?:[^\"\\]|\\.)*+\"))?)*+[ \t]*+"
)


def build(attributes: dict[str, Any], data: JSON | bytes, path: str = "") -> Event:
    """Validate ``attributes`` (which is consumed) and make the event; ``Invalid`` carries every problem.

    ``path`` is put before the attribute's name in a problem's path: ``[3].`` for the fourth of a batch.
    """
    faults: list[Problem] = []
    take = attributes.pop
    version = take("specversion", None)
    if version != "1.0":
        said = "is missing" if version is None else f"{version!r:.40} is not supported"
        faults.append(Problem(path + "specversion", said, 'send specversion "1.0"', "bad_specversion"))
    id_ = _text(take("id", None), path + "id", MAX_ID, faults, required=True)
    source = _text(take("source", None), path + "source", MAX_SOURCE, faults, required=True)
    type_ = _text(take("type", None), path + "type", MAX_TYPE, faults, required=True)
    subject = _text(take("subject", None), path + "subject", MAX_SUBJECT, faults)
    contenttype = _text(take("datacontenttype", None), path + "datacontenttype", MAX_VALUE, faults)
    dataschema = _text(take("dataschema", None), path + "dataschema", MAX_VALUE, faults)
    traceparent = _text(take("traceparent", None), path + "traceparent", MAX_VALUE, faults)
    tracestate = _text(take("tracestate", None), path + "tracestate", MAX_VALUE, faults)
    dataref = _text(take("dataref", None), path + "dataref", MAX_VALUE, faults)
    time = take("time", None)
    moment = None
    if time is not None:
        moment = _moment(time)
        if moment is None:
            mend = "write it like 2025-01-31T12:00:00Z"
            faults.append(Problem(path + "time", "is not an RFC 3339 timestamp", mend, "bad_time"))
    tenant = take("tenantid", None)
    owner = None
    if tenant is not None:
        owner = _uuid(tenant) if type(tenant) is str else None
        # A foreign event may carry a tenantid of its own making: edges overrule it anyway.
        if owner is None and type_ is not None and type_.startswith(TYPE_PREFIX):
            faults.append(Problem(path + "tenantid", "is not a UUID", code="bad_attribute"))
    if source is not None and not _is_uri_reference(source):
        mend = "percent-encode what RFC 3986 does not allow"
        faults.append(Problem(path + "source", "is not a URI reference", mend, "bad_source"))
    if dataschema is not None and not _is_uri(dataschema):
        faults.append(Problem(path + "dataschema", "is not an absolute URI", code="bad_attribute"))
    if contenttype is not None and not _is_media_type(contenttype):
        mend = "write it like application/json"
        faults.append(Problem(path + "datacontenttype", "is not a media type", mend, "bad_attribute"))
    extensions = _extensions(attributes, path, faults) if attributes else None
    if faults or id_ is None or source is None or type_ is None:  # a missing one is among the faults
        raise Invalid(faults, code=faults[0].code)
    event = (id_, source, type_, subject, moment, owner, data, contenttype, dataschema, dataref)
    if extensions is None:
        return Event(*event, traceparent, tracestate)
    return Event(*event, traceparent, tracestate, extensions)


def format_time(moment: datetime) -> str:
    """RFC 3339 text of an aware datetime, UTC as ``Z``."""
    text = moment.isoformat()
    return text[:-6] + "Z" if text.endswith("+00:00") else text


def is_name(name: str) -> bool:
    """Whether ``name`` may name an attribute: lower-case letters and digits, at most 40."""
    return _NAME.fullmatch(name) is not None


def scalar_text(value: Scalar) -> str:
    """The canonical string of an attribute value, as binary mode carries it."""
    if isinstance(value, str):
        return value
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _text(value: Any, path: str, limit: int, faults: list[Problem], *, required: bool = False) -> str | None:
    if type(value) is str and value:
        if len(value) <= limit and value.isascii() and value.isprintable():
            return value
        problem = _text_problem(value, path, limit)
        if problem is None:
            return value
        faults.append(problem)
    elif value is None:
        if required:
            faults.append(Problem(path, "is missing", "every CloudEvent has it", "missing_attribute"))
    elif value == "":
        faults.append(Problem(path, "is empty", "" if required else "leave it out", "bad_attribute"))
    else:
        faults.append(Problem(path, f"is not a string but {type(value).__name__}", code="bad_attribute"))
    return None


def _text_problem(value: str, path: str, limit: int) -> Problem | None:
    bad = _FORBIDDEN.search(value)
    if bad:
        return Problem(path, f"contains the character U+{ord(bad.group()):04X}", code="bad_attribute")
    if not value.isascii() and any(ord(c) & 0xFFFE == 0xFFFE for c in value):
        return Problem(path, "contains a Unicode noncharacter", code="bad_attribute")
    if len(value.encode()) > limit:
        return Problem(path, f"is longer than {limit} bytes", "shorten it", "too_large")
    return None


def _extensions(attributes: dict[str, Any], path: str, faults: list[Problem]) -> dict[str, Scalar] | None:
    if len(attributes) > MAX_EXTENSIONS:
        faults.append(Problem(path, f"has more than {MAX_EXTENSIONS} extension attributes", code="too_large"))
        return None
    found: dict[str, Scalar] = {}
    for name, value in attributes.items():
        at = path + (name if is_name(name) else repr(name)[:60])
        if not is_name(name) or name in {"data", "specversion"}:
            mend = "use 1 to 40 lower-case letters and digits"
            faults.append(Problem(at, "is not an attribute name", mend, "bad_attribute"))
        elif isinstance(value, bool):
            found[name] = value
        elif isinstance(value, int):
            if not -(2**31) <= value < 2**31:
                faults.append(Problem(at, "integer exceeds 32 bits", "send it as a string", "bad_attribute"))
            found[name] = value
        elif isinstance(value, str):
            problem = _text_problem(value, at, MAX_VALUE)
            if problem:
                faults.append(problem)
            found[name] = value
        elif value is not None:  # null stands for absent
            said = f"is {type(value).__name__}, not a string, an integer or a boolean"
            faults.append(Problem(at, said, "put structured values into data", "bad_attribute"))
    return found or None


def _moment(text: Any) -> datetime | None:
    if type(text) is not str or len(text) > 64 or _TIME.fullmatch(text) is None:
        return None
    # datetime has no second 60: a leap second is given as the second before it.
    if text[17:19] == "60":
        text = text[:17] + "59" + text[19:]
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        return None


@lru_cache(maxsize=4096)
def _uuid(text: str) -> UUID | None:
    try:
        value = UUID(text)
    except ValueError:
        return None
    return value if len(text) == 36 and str(value) == text.lower() else None


@lru_cache(maxsize=4096)
def _is_uri_reference(text: str) -> bool:
    if _URI_CHARACTERS.fullmatch(text) is None or text.count("#") > 1:
        return False
    first = re.split(r"[/?#]", text, maxsplit=1)[0]
    if ":" in first and _SCHEME.fullmatch(first.split(":", 1)[0]) is None:
        return False
    authority = re.match(r"(?:[^:/?#]+:)?//([^/?#]*)", text)
    rest = text[authority.end() :] if authority else text
    if "[" in rest or "]" in rest:
        return False
    host = authority.group(1).rpartition("@")[2] if authority else ""
    return ("[" in host) == ("]" in host)


def _is_uri(text: str) -> bool:
    return ":" in text.split("/", 1)[0] and _is_uri_reference(text)


@lru_cache(maxsize=1024)
def _is_media_type(text: str) -> bool:
    return _MEDIA_TYPE.fullmatch(text) is not None
