"""Metrics in Prometheus format. Labels come from small closed sets, never a run's or tenant's name.

Prometheus metrics are in-process counters: each host counts what it did itself, and the scraper adds up.
"""

from __future__ import annotations

from collections import Counter as Counted
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST

OTHER = "other"
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
_SLOW = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

# Every value a label may have; anything else is counted as "other".
VALUES: dict[str, frozenset[str]] = {
    "status": frozenset(
        {"requested", "planned", "running", "succeeded", "failed", "cancelled", "halted", "retried"}
    ),
    "kind": frozenset({"llm", "agent", "tool", "human", "wait", "event", "workflow", "compensate"}),
    "function": frozenset({"api", "plan", "dispatch", "invoke_llm", "run_tool", "account_cost", "relay"}),
    "direction": frozenset({"input", "output", "cached"}),
    "frozen": frozenset({"yes", "no"}),
    "method": frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}),
}

registry = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)

RUNS = Counter("agentflow_runs", "Runs that reached a status.", ["status"], registry=registry)
STEPS = Counter("agentflow_steps", "Step attempts that ended.", ["kind", "status"], registry=registry)
STEP_SECONDS = Histogram(
    "agentflow_step_seconds",
    "Time a step's attempt took, from its start.",
    ["kind"],
    buckets=_SLOW,
    registry=registry,
)
DIRECTIONS = ("input", "output", "cached", "cache_write", "reasoning")
TOKENS = Counter("agentflow_llm_tokens", "Tokens as providers count them.", ["direction"], registry=registry)
COST = Counter("agentflow_cost_micro_dollars", "Money spent, in micro-dollars.", registry=registry)
BATCH = Histogram(
    "agentflow_batch_events",
    "Events handled in one transaction.",
    ["function"],
    buckets=_SIZES,
    registry=registry,
)
TRANSACTION_SECONDS = Histogram(
    "agentflow_transaction_seconds",
    "Time of one transaction, commit included.",
    ["function"],
    buckets=_FAST,
    registry=registry,
)
RESENT = Counter("agentflow_outbox_resent", "Messages the relay sent again.", registry=registry)
PARKED = Counter("agentflow_parked", "Messages that could not be handled.", ["function"], registry=registry)
PUSH_REFUSED = Counter(
    "agentflow_push_refused", "Requests to a push door without its key.", ["function"], registry=registry
)
VIOLATIONS = Counter(
    "agentflow_budget_violations",
    "Calls that were not billed as they had to be; frozen: their accounts admit nothing more.",
    ["frozen"],
    registry=registry,
)
WAITING = Gauge(
    "agentflow_waiting_messages",
    "Messages in JetStream that were not handed to their function yet.",
    ["function"],
    registry=registry,
)
CALLS = Gauge("agentflow_calls_in_flight", "External calls being made.", ["function"], registry=registry)
REQUESTS = Counter(
    "agentflow_http_requests", "API requests answered.", ["method", "route", "code"], registry=registry
)
REQUEST_SECONDS = Histogram(
    "agentflow_http_seconds",
    "Time to answer an API request; streams and waits count to their end.",
    ["route"],
    buckets=_SLOW,
    registry=registry,
)
STREAMS = Gauge(
    "agentflow_http_open_waits", "Clients held open: event streams and ?wait=.", registry=registry
)


# Of a series that begins with its first count Prometheus sees no increase: what alerts ask about begins at zero.
for _status in VALUES["status"]:
    RUNS.labels(_status)
for _kind in ("llm", "tool"):
    for _status in ("succeeded", "failed"):
        STEPS.labels(_kind, _status)
for _function in (*VALUES["function"], OTHER):
    PARKED.labels(_function)
for _frozen in VALUES["frozen"]:
    VIOLATIONS.labels(_frozen)


def label(name: str, value: str) -> str:
    """The value if the label may have it, else ``other``: what keeps the number of series bounded."""
    return value if value in VALUES[name] else OTHER


def run_reached(status: str) -> None:
    """Count a run that has committed to a status."""
    RUNS.labels(label("status", status)).inc()


def steps_ended(kind: str, reports: Sequence[Mapping[str, Any]]) -> None:
    """Count attempts of a kind that ended together: each report has status, duration_ms and usage (tokens)."""
    kind = label("kind", kind)
    for status, count in Counted(report["status"] for report in reports).items():
        STEPS.labels(kind, label("status", status)).inc(count)
    observe = STEP_SECONDS.labels(kind).observe
    for report in reports:
        observe(report["duration_ms"] / 1000)
    for direction in DIRECTIONS:
        count = sum(report["usage"].get(f"{direction}_tokens", 0) for report in reports)
        if count:
            TOKENS.labels(direction).inc(count)


def transaction(function: str, events: int, seconds: float) -> None:
    """Count a committed transaction of a function: how many events it carried and how long it took."""
    function = label("function", function)
    BATCH.labels(function).observe(events)
    TRANSACTION_SECONDS.labels(function).observe(seconds)


def resent(count: int = 1) -> None:
    """Count messages the relay sent again."""
    RESENT.inc(count)


def parked(function: str) -> None:
    """Count a message that was parked."""
    PARKED.labels(label("function", function)).inc()


def push_refused(function: str) -> None:
    """Count a request that a push door has refused."""
    PUSH_REFUSED.labels(label("function", function)).inc()


def violated(*, frozen: bool) -> None:
    """Count a call that was not billed as it had to be."""
    VIOLATIONS.labels("yes" if frozen else "no").inc()


def in_flight(function: str, change: int) -> None:
    """Note that external calls were begun (+) or ended (-)."""
    CALLS.labels(label("function", function)).inc(change)


def route(method: str, pattern: str) -> None:
    """Begin at zero the errors of ours that a route of the API may be answered with."""
    for code in ("500", "503"):
        REQUESTS.labels(label("method", method), pattern, code)


def waiting(messages: Mapping[str, int]) -> None:
    """Set how many messages wait for each function; one that is not named is not known, and has no number."""
    WAITING.clear()
    for function, count in messages.items():
        WAITING.labels(label("function", function)).set(count)


def request(method: str, route: str, code: int, seconds: float) -> None:
    """Count an API request; ``route`` is the route's pattern, never the path that was asked for."""
    REQUESTS.labels(label("method", method), route, str(code)).inc()
    REQUEST_SECONDS.labels(route).observe(seconds)


def render() -> bytes:
    """All metrics in Prometheus text format."""
    return generate_latest(registry)


Message = MutableMapping[str, Any]
WHEN_ASKED: set[Callable[[], Awaitable[None]]] = set()
"""What ``endpoint`` awaits before it answers: what is measured only when somebody looks. None may raise or linger."""


async def endpoint(
    scope: Message, receive: Callable[[], Awaitable[Message]], send: Callable[[Message], Awaitable[None]]
) -> None:
    """ASGI application that answers with ``render()``; the host mounts it at /metrics."""
    if scope["type"] != "http":
        return
    for measure in tuple(WHEN_ASKED):
        await measure()
    body = render()
    headers = [(b"content-type", CONTENT_TYPE_LATEST.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
