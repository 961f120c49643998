"""Spans across the events of a run: one trace per run, carried from hop to hop as ``traceparent``.

Spans go out only where an exporter is configured; then the OpenTelemetry SDK is imported and records them.
Without one a span is nothing but its place in the trace, so that events still carry it: no SDK, no cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from agentflow.wire import trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from agentflow.config import Settings

Value = str | bool | int | float | Sequence[str]
TOKENS = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cached_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_write_tokens": "gen_ai.usage.cache_write.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
    "fault": "agentflow.usage.fault",
}
Kind = Literal["internal", "server", "client", "producer", "consumer"]

SERVICE = "agentflow"
MAX_TEXT = 500
_LOW_64 = (1 << 64) - 1


class Span:
    """A span being recorded (or only passed on). ``traceparent`` is what outgoing events carry."""

    __slots__ = ("_recorded", "traceparent")

    def __init__(self, traceparent: str, recorded: Any = None) -> None:
        self.traceparent = traceparent
        self._recorded = recorded

    @property
    def trace_id(self) -> str:
        """32 hexadecimal digits."""
        return self.traceparent[3:35]

    def set(self, attributes: Mapping[str, Value | None]) -> None:
        """Add attributes; those that are None are left out, long texts are cut."""
        if self._recorded is not None:
            self._recorded.set_attributes(_clean(attributes))

    def fail(self, code: str) -> None:
        """Mark the span as failed. ``code`` is an error code, not a message: messages may quote payloads."""
        if self._recorded is not None:
            from opentelemetry.trace import Status, StatusCode

            self._recorded.set_attribute("error.type", code[:MAX_TEXT])
            self._recorded.set_status(Status(StatusCode.ERROR, code[:MAX_TEXT]))


class Tracing:
    """What this process does with spans: the share of new traces it samples, and where they go."""

    __slots__ = ("provider", "sample", "tracer")

    def __init__(self) -> None:
        self.sample = 1.0
        self.provider: Any = None
        self.tracer: Any = None


_tracing = Tracing()


def configure(settings: Settings, exporter: SpanExporter | None = None) -> None:
    """Sample ``trace_sample`` of new traces; send spans to ``exporter`` or the ``otlp_endpoint``.

    With neither, spans stay out of the network and out of memory. A given exporter gets each span when it
    ends; the endpoint gets them in batches from a thread of its own.
    """
    shutdown()
    _tracing.sample = min(1.0, max(0.0, settings.trace_sample))
    if exporter is None and not settings.otlp_endpoint:
        return
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    provider = TracerProvider(
        sampler=ParentBased(TraceIdRatioBased(_tracing.sample)),
        resource=Resource.create({"service.name": SERVICE}),
        shutdown_on_exit=False,
    )
    if exporter is not None:
        provider.add_span_processor(SimpleSpanProcessor(exporter))
    else:
        from agentflow.observe.otlp import JsonExporter

        provider.add_span_processor(BatchSpanProcessor(JsonExporter(settings.otlp_endpoint)))
    _tracing.provider = provider
    _tracing.tracer = provider.get_tracer(SERVICE)


def shutdown() -> None:
    """Send what is left and stop recording; hosts call it last. Blocks while the last batch is sent."""
    provider, _tracing.provider, _tracing.tracer = _tracing.provider, None, None
    if provider is not None:
        provider.shutdown()


def recording(traceparent: str | None) -> bool:
    """Whether a span under ``traceparent`` would be recorded: spans are exported, and its trace is sampled."""
    if _tracing.tracer is None or not traceparent:
        return False
    parent = trace.parse(traceparent)
    return parent is not None and parent.sampled


@contextmanager
def start_span(
    name: str,
    traceparent: str | None = None,
    attributes: Mapping[str, Value | None] | None = None,
    kind: Kind = "internal",
) -> Iterator[Span]:
    """A span under ``traceparent``, or the root of a new trace when that is absent or malformed.

    An exception that leaves the block marks the span as failed with the exception's type (or its ``code``)
    and passes on. Cheap enough for every event: a few microseconds when nothing is exported.
    """
    if _tracing.tracer is None:
        yield Span(_next(traceparent))
        return
    with _recorded(name, traceparent, attributes, kind) as span:
        yield span


def genai(
    operation: str,
    provider: str,
    model: str,
    *,
    answered_by: str | None = None,
    usage: Mapping[str, Any] | None = None,
) -> dict[str, Value | None]:
    """Attributes of a model call by OpenTelemetry's GenAI conventions (``usage`` as in step.completed)."""
    usage = usage or {}
    return {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "gen_ai.response.model": answered_by,
        **tokens(usage),
    }


def tokens(usage: Mapping[str, Any]) -> dict[str, Value | None]:
    """The tokens of a model call by the same conventions; what there are none of is left out."""
    return {name: usage[key] for key, name in TOKENS.items() if usage.get(key)}


def _next(traceparent: str | None) -> str:
    parent = trace.parse(traceparent)
    if parent is not None:
        return trace.format(trace.child(parent, random.randbytes(8)))
    drawn = random.randbytes(24)
    # The rule of TraceIdRatioBased, so that hosts with and without an exporter agree on a trace.
    low = int.from_bytes(drawn[:16]) & _LOW_64
    return trace.format(trace.root(drawn, sampled=low < round(_tracing.sample * (_LOW_64 + 1))))


@contextmanager
def _recorded(
    name: str, traceparent: str | None, attributes: Mapping[str, Value | None] | None, kind: Kind
) -> Iterator[Span]:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        SpanKind,
        TraceFlags,
        set_span_in_context,
    )

    parent = trace.parse(traceparent)
    context = Context()
    if parent is not None:
        remote = SpanContext(
            int(parent.trace_id, 16),
            int(parent.span_id, 16),
            is_remote=True,
            trace_flags=TraceFlags(parent.flags),
        )
        context = set_span_in_context(NonRecordingSpan(remote), context)
    recorded = _tracing.tracer.start_span(
        name, context=context, kind=SpanKind[kind.upper()], attributes=_clean(attributes or {})
    )
    own = recorded.get_span_context()
    span = Span(f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}", recorded)
    try:
        yield span
    except BaseException as fault:
        span.fail(str(getattr(fault, "code", None) or type(fault).__name__))
        raise
    finally:
        recorded.end()


def _clean(attributes: Mapping[str, Value | None]) -> dict[str, Value]:
    return {
        name: value[:MAX_TEXT] if isinstance(value, str) else value
        for name, value in attributes.items()
        if value is not None
    }
