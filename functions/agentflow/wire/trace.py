"""W3C Trace Context as pure functions: parse, make a child, format; random bytes are arguments.

Malformed input is ignored, as the recommendation demands: the trace starts anew, no error is raised.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

SAMPLED = 0x01
RANDOM = 0x02
MAX_TRACESTATE_MEMBERS = 32

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KEY = r"(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
_MEMBER = re.compile(rf"{_KEY}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span's place in a trace: ids in lower-case hex (32 and 16 digits), flags as an integer."""

    trace_id: str
    span_id: str
    flags: int = SAMPLED

    @property
    def sampled(self) -> bool:
        """Whether the caller records this trace."""
        return bool(self.flags & SAMPLED)


def parse(traceparent: str | None) -> TraceContext | None:
    """The context in a ``traceparent`` value, or None when it is absent or malformed.

    A version above 00 is read by its first four fields; flags we do not know are dropped.
    """
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest is not None):
        return None
    if not trace_id.strip("0") or not span_id.strip("0"):
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & (SAMPLED | RANDOM))


def format(context: TraceContext) -> str:  # noqa: A001 - trace.format reads as what it does
    """The ``traceparent`` value of a context, version 00."""
    return f"00-{context.trace_id}-{context.span_id}-{context.flags:02x}"


def root(random: bytes, *, sampled: bool) -> TraceContext:
    """A new trace from 24 random bytes: 16 for the trace, 8 for the span."""
    if len(random) != 24:
        raise ValueError("a new trace needs 24 random bytes")
    flags = RANDOM | (SAMPLED if sampled else 0)
    return TraceContext(_hex(random[:16]), _hex(random[16:]), flags)


def child(parent: TraceContext, random: bytes) -> TraceContext:
    """A child span in the parent's trace, from 8 random bytes; the sampling decision is inherited."""
    if len(random) != 8:
        raise ValueError("a child span needs 8 random bytes")
    return replace(parent, span_id=_hex(random))


def tracestate(traceparent: str | None, state: str | None) -> str | None:
    """The ``tracestate`` to pass on: as it came, or None when it or its traceparent is malformed."""
    if not state or parse(traceparent) is None:
        return None
    members = [member.strip(" \t") for member in state.split(",")]
    members = [member for member in members if member]
    keys = [member.partition("=")[0] for member in members]
    if len(members) > MAX_TRACESTATE_MEMBERS or len(set(keys)) != len(keys):
        return None
    return ",".join(members) or None if all(map(_MEMBER.fullmatch, members)) else None


def _hex(random: bytes) -> str:
    # All zeros is the one value the recommendation calls invalid.
    return random.hex() if any(random) else "1".zfill(2 * len(random))
