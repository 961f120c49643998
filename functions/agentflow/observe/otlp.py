"""Spans to an OTLP/HTTP endpoint in OTLP's JSON encoding.

Written here because the official exporter brings protobuf and requests for what is one POST of JSON.
Source: opentelemetry-proto, "OTLP/HTTP" and "JSON Protobuf Encoding": ids in hex, 64-bit integers as strings.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from agentflow.observe import logs

TIMEOUT_S = 10.0
TRIES = 3
RETRY_ON = frozenset({429, 502, 503, 504})

_log = logs.logger("otlp")


class JsonExporter(SpanExporter):
    """Posts batches of spans; what three tries do not deliver is dropped, and the log says so."""

    def __init__(self, endpoint: str) -> None:
        base = endpoint.rstrip("/")
        self._url = base if base.endswith("/v1/traces") else f"{base}/v1/traces"
        if not base.startswith(("http://", "https://")):
            raise ValueError(f"otlp_endpoint {endpoint!r} is not an http or https URL")
        self._closing = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send one batch; called from the batch processor's thread."""
        body = orjson.dumps(document(spans))
        request = urllib.request.Request(self._url, body, {"content-type": "application/json"}, method="POST")
        reason = ""
        for attempt in range(TRIES):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_S):
                    return SpanExportResult.SUCCESS
            except urllib.error.HTTPError as fault:
                reason = f"HTTP {fault.code}"
                if fault.code not in RETRY_ON:
                    break
            except OSError as fault:
                reason = type(fault).__name__
            if attempt + 1 == TRIES or self._closing.wait(2.0**attempt):
                break
        _log.warning("spans dropped", count=len(spans), reason=reason)
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        """Stop waiting between tries."""
        self._closing.set()


def document(spans: Sequence[ReadableSpan]) -> dict[str, Any]:
    """The ExportTraceServiceRequest for these spans, which share one resource."""
    resource = spans[0].resource.attributes if spans else {}
    scope = {"scope": {"name": "agentflow"}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": {"attributes": _attributes(resource)}, "scopeSpans": [scope]}]}


def _span(span: ReadableSpan) -> dict[str, Any]:
    own = span.get_span_context()
    assert own is not None
    found: dict[str, Any] = {
        "traceId": f"{own.trace_id:032x}",
        "spanId": f"{own.span_id:016x}",
        "flags": int(own.trace_flags),
        "name": span.name,
        "kind": span.kind.value + 1,  # the wire counts from 1, 0 is unspecified
        "startTimeUnixNano": str(span.start_time or 0),
        "endTimeUnixNano": str(span.end_time or 0),
        "attributes": _attributes(span.attributes or {}),
    }
    if span.parent is not None:
        found["parentSpanId"] = f"{span.parent.span_id:016x}"
    if span.status.status_code is not StatusCode.UNSET:
        found["status"] = {"code": span.status.status_code.value, "message": span.status.description or ""}
    return found


def _attributes(attributes: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list | tuple):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {"stringValue": str(value)}
