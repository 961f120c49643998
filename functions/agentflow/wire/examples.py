"""One example of every event, the source of events/examples: a run that triages an incident.

Fixed ids and times, so that the files are the same on every machine.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from agentflow.wire import catalogue
from agentflow.wire.event import Event

TENANT = UUID("7c9e6679-7425-40de-944b-e07fc1f90ae7")
RUN = UUID("018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b10")
STARTED = datetime(2025, 1, 31, 12, 0, 0, tzinfo=UTC)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

_WORKFLOW = {"workflow": "incident-triage", "version": 3}
_STEP = {"run": str(RUN), "step": 2, "attempt": 1, "epoch": 0}
_TOTAL = {"run": str(RUN), **_WORKFLOW, "steps": 5, "spent_micro": 2150, "duration_ms": 4210}

_BUDGET = {
    "scope": "budget:support",
    "period": "day",
    "limit_micro": 10_000_000,
    "soft_micro": 8_000_000,
    "held_micro": 1_200,
    "resets_at": "2025-02-01T00:00:00Z",
}

# name: (key in the event's id, seconds after the start, data)
_DATA: dict[str, tuple[str, float, dict[str, Any]]] = {
    "run.requested": (
        "requested",
        0,
        {"run": str(RUN), **_WORKFLOW, "input": {"service": "checkout"}, "budget_micro": 50_000},
    ),
    "run.planned": (
        "planned",
        0.01,
        {
            "run": str(RUN),
            **_WORKFLOW,
            "plan_hash": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            "input": {"service": "checkout"},
            "models": {
                "fast": {
                    "provider": "openai",
                    "model": "gpt-5-mini",
                    "input_micro_per_mtok": 250_000,
                    "output_micro_per_mtok": 2_000_000,
                    "price_version": "genai-prices 0.2.3 @2026-11-01",
                    "cache_read_micro_per_mtok": 25_000,
                }
            },
            "limit_micro": 50_000,
        },
    ),
    "llm.requested": (
        "2.1.request",
        0.4,
        {
            **_STEP,
            "task": "classify",
            "model": {"provider": "openai", "model": "gpt-5-mini"},
            "messages": [
                {"role": "system", "content": "You triage incidents."},
                {"role": "user", "content": "412 errors: connection pool exhausted. How severe?"},
            ],
            "max_output_tokens": 256,
            "output_schema": {
                "type": "object",
                "properties": {"severity": {"type": "string"}},
                "required": ["severity"],
                "additionalProperties": False,
            },
            "timeout_ms": 60_000,
            "hold_micro": 600,
        },
    ),
    "tool.requested": (
        "3.1.request",
        1.3,
        {
            **_STEP,
            "step": 3,
            "task": "notify",
            "tool": "page_on_call",
            **_WORKFLOW,
            "input": {"severity": "high"},
            "timeout_ms": 30_000,
            "hold_micro": 1_000,
            "key": "018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b10/notify",
        },
    ),
    "step.completed": (
        "2.1.0.completed",
        1.25,
        {
            **_STEP,
            "task": "classify",
            "status": "succeeded",
            "output": {"severity": "high"},
            "error": None,
            "usage": {"input_tokens": 64, "output_tokens": 9, "cached_tokens": 0, "calls": 1},
            "cost_micro": 34,
            "duration_ms": 812,
            "late": False,
        },
    ),
    "timer.fired": (
        "timer.2.1.timeout",
        60.4,
        {"run": str(RUN), "timer": "2.1.timeout", "kind": "timeout", "step": 2, "attempt": 1},
    ),
    "run.cancel_requested": (
        "cancel",
        2,
        {"run": str(RUN), "reason": "duplicate of an earlier incident"},
    ),
    "run.pause_requested": ("pause", 2, {"run": str(RUN), "reason": "the provider has an incident"}),
    "run.resume_requested": ("resume", 3, {"run": str(RUN), "reason": "the incident is over"}),
    "step.answered": (
        "answer.5",
        3600,
        {"run": str(RUN), "step": 5, "output": {"ok": True}, "by": "key:ops"},
    ),
    "child.ended": (
        "6.1:child",
        9.5,
        {
            **_STEP,
            "step": 6,
            "child": "018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b99",
            "status": "succeeded",
            "output": {"sent": True},
            "error": None,
            "cost_micro": 120,
            "duration_ms": 5_300,
        },
    ),
    "run.paused": ("run.paused:4", 2, {"run": str(RUN), **_WORKFLOW, "reason": "the provider has an incident"}),
    "run.resumed": ("run.resumed:5", 3, {"run": str(RUN), **_WORKFLOW, "reason": "the incident is over"}),
    "human.requested": (
        "5.1:human",
        2,
        {
            "run": str(RUN),
            **_WORKFLOW,
            "step": 5,
            "task": "approve",
            "use": "on-call",
            "input": {"severity": "high"},
            "timeout_ms": 3_600_000,
        },
    ),
    "signal.received": (
        "signal.1",
        2,
        {"run": str(RUN), "name": "approved", "data": {"by": "on-call"}, "step": None},
    ),
    "run.completed": (
        "ended",
        4.21,
        {**_TOTAL, "output": {"severity": "high", "summary": "Pool exhausted."}},
    ),
    "run.failed": (
        "ended",
        4.21,
        {
            **_TOTAL,
            "error": {
                "code": "no_such_field",
                "message": "no such key: score",
                "path": "states.triage.transitions[0].if",
            },
        },
    ),
    "run.cancelled": ("ended", 4.21, {**_TOTAL, "reason": "duplicate of an earlier incident"}),
    "budget.exhausted": (
        "budget.4",
        3,
        {
            "run": str(RUN),
            "step": 4,
            "scope": "run",
            "limit_micro": 50_000,
            "spent_micro": 49_000,
            "held_micro": 500,
            "needed_micro": 600,
            "period": "total",
            "remaining_micro": 500,
            "resets_at": None,
        },
    ),
    "budget.violation": (
        "2.1:violation",
        1.3,
        {
            "run": str(RUN),
            "step": 2,
            "attempt": 1,
            "task": "classify",
            "reason": "700 micro-dollars were billed, 600 had been held",
            "held_micro": 600,
            "billed_micro": 700,
            "frozen": True,
        },
    ),
    "budget.warning": ("budget.warning:1", 3, {**_BUDGET, "spent_micro": 8_000_400, "remaining_micro": 1_998_400}),
    "budget.restored": ("budget.restored:1", 43_200, {**_BUDGET, "spent_micro": 0, "remaining_micro": 9_998_800}),
}


def example(name: str) -> Event:
    """The example of a catalogue name."""
    if name == "event.received":
        return catalogue.received(outside(), tenant=TENANT, source_function="api", time=STARTED)
    key, after, data = _DATA[name]
    return catalogue.make(
        name,
        run=RUN,
        key=key,
        source_function=catalogue.entry(name).producers[0],
        tenant=TENANT,
        time=STARTED + timedelta(seconds=after),
        data=data,
        traceparent=TRACEPARENT,
    )


def outside() -> Event:
    """An event as a client publishes it: the reason of ``event.received``."""
    return Event(
        id="4711",
        source="/monitoring/alerts",
        type="com.example.alert.raised",
        subject="checkout",
        time=STARTED,
        datacontenttype="application/json",
        data={"service": "checkout", "errors": 412},
    )
