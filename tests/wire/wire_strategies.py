"""Events as hypothesis makes them: every attribute, every form of data, in the form that decoding gives."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import strategies as st

from agentflow.wire.attributes import scalar_text
from agentflow.wire.event import Event

# Surrogates cannot be sent, control characters and noncharacters are not allowed in attributes.
_LEGAL = st.characters(
    exclude_categories=("Cs", "Cc"), exclude_characters="".join(map(chr, range(0xFDD0, 0xFDF0)))
)
attribute_text = st.text(_LEGAL.filter(lambda c: ord(c) & 0xFFFE != 0xFFFE), min_size=1, max_size=40)
sources = st.one_of(
    st.sampled_from(
        ["/a", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "1-555-123-4567", "//h/p?q=%20#f"]
    ),
    st.from_regex(r"/[a-z0-9._~!$&'()*+,;=:@/-]{0,30}", fullmatch=True),
)
times = st.datetimes(
    min_value=datetime(1970, 1, 2),  # noqa: DTZ001 - hypothesis wants naive bounds
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(-timedelta(hours=8))]),
)
KNOWN = {
    "id",
    "source",
    "type",
    "subject",
    "time",
    "data",
    "specversion",
    "datacontenttype",
    "dataschema",
    "dataref",
    "tenantid",
    "traceparent",
    "tracestate",
}
extensions = st.dictionaries(
    st.from_regex(r"[a-z0-9]{1,40}", fullmatch=True).filter(lambda name: name not in KNOWN),
    st.one_of(attribute_text, st.just(""), st.booleans(), st.integers(-(2**31), 2**31 - 1)),
    max_size=4,
)
json_text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=20)
json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False),
        json_text,
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(json_text, inner, max_size=4)),
    max_leaves=12,
)


def _not_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return True
    return False


_binary = st.binary(min_size=1, max_size=40)
contents = st.one_of(
    st.tuples(st.just(None), st.one_of(json_values, _binary.filter(_not_json))),
    st.tuples(
        st.sampled_from(
            ["application/json", "application/json; charset=utf-8", "text/json", "application/a+json"]
        ),
        json_values,
    ),
    st.tuples(
        st.sampled_from(["text/plain", 'text/plain; charset="UTF-8"', "application/xml", "image/svg+xml"]),
        st.one_of(st.none(), json_text.filter(bool), st.binary(max_size=20).map(lambda body: b"\xff" + body)),
    ),
    st.tuples(st.sampled_from(["application/octet-stream", "image/png"]), st.one_of(st.none(), _binary)),
)


@st.composite
def events(draw: st.DrawFn) -> Event:
    contenttype, data = draw(contents)
    optional = st.none() | attribute_text
    return Event(
        id=draw(attribute_text),
        source=draw(sources),
        type=draw(attribute_text),
        subject=draw(optional),
        time=draw(st.none() | times),
        tenant=draw(st.none() | st.uuids()),
        data=data,
        datacontenttype=contenttype,
        dataschema=draw(st.sampled_from([None, "urn:schema:a", "https://example.com/s#1"])),
        dataref=draw(optional),
        traceparent=draw(optional),
        tracestate=draw(optional),
        extensions=draw(extensions),
    )


def in_binary(event: Event) -> Event:
    """What binary mode keeps of an event: extension values become strings."""
    values = {name: scalar_text(value) for name, value in event.extensions.items()}
    return dataclasses.replace(event, extensions=values)
