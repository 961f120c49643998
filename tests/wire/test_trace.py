"""W3C trace context: good values are continued, malformed ones are ignored."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.wire import trace

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{SPAN}-01"


def test_a_context_is_parsed_and_formatted() -> None:
    context = trace.parse(GOOD)
    assert context == trace.TraceContext(TRACE, SPAN, 1)
    assert context.sampled
    assert trace.format(context) == GOOD
    unsampled = trace.parse(f"00-{TRACE}-{SPAN}-00")
    assert unsampled is not None
    assert not unsampled.sampled


@given(st.binary(min_size=24, max_size=24), st.binary(min_size=8, max_size=8), st.booleans())
def test_a_child_stays_in_the_trace_and_keeps_the_decision(seed: bytes, span: bytes, sampled: bool) -> None:
    parent = trace.root(seed, sampled=sampled)
    child = trace.child(parent, span)
    assert (child.trace_id, child.sampled) == (parent.trace_id, sampled)
    for context in (parent, child):
        assert trace.parse(trace.format(context)) == context


def test_zero_bytes_still_give_valid_ids() -> None:
    context = trace.child(trace.root(bytes(24), sampled=True), bytes(8))
    assert trace.parse(trace.format(context)) == context


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "garbage",
        GOOD.upper(),
        GOOD + " ",
        GOOD + "\n",
        GOOD + "-extra",
        GOOD[:-1],
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}g-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01x",
        f"00-{TRACE}-{SPAN}-１1",
    ],
)
def test_a_malformed_traceparent_is_ignored(value: str | None) -> None:
    assert trace.parse(value) is None
    assert trace.tracestate(value, "a=1") is None


@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    trace.parse(text)
    trace.tracestate(GOOD, text)


def test_a_later_version_is_read_by_its_first_fields() -> None:
    assert trace.parse(f"cc-{TRACE}-{SPAN}-ff-what-the-future-will-be-like") == trace.TraceContext(
        TRACE, SPAN, 3
    )
    assert trace.parse(f"01-{TRACE}-{SPAN}-01") == trace.TraceContext(TRACE, SPAN, 1)


@pytest.mark.parametrize(
    ("state", "kept"),
    [
        ("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
        (" a=1 ,, b@c=2\t", "a=1,b@c=2"),
        ("a=1,a=2", None),
        ("A=1", None),
        ("a", None),
        ("a=b=c", None),
        ("a=" + "x" * 257, None),
        (",".join(f"k{n}=1" for n in range(33)), None),
        (",".join(f"k{n}=1" for n in range(32)), ",".join(f"k{n}=1" for n in range(32))),
        ("", None),
        (",", None),
        (None, None),
    ],
)
def test_tracestate_is_passed_on_only_when_it_is_well_formed(state: str | None, kept: str | None) -> None:
    assert trace.tracestate(GOOD, state) == kept


@pytest.mark.parametrize("size", [0, 7, 9])
def test_random_bytes_have_to_be_enough(size: int) -> None:
    with pytest.raises(ValueError, match="8 random bytes"):
        trace.child(trace.TraceContext(TRACE, SPAN), bytes(size))
