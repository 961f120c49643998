"""api: what is accepted from outside becomes durable, once, before anybody is told so."""

from __future__ import annotations

from uuid import UUID

from agentflow.core.decide import correction
from agentflow.core.decision import NOTHING, Decision, Facts
from agentflow.core.message import Message
from agentflow.core.run import Parent, Run
from agentflow.errors import Conflict, Rejected

CORRECT = "spend.corrected"
"""What the API itself decides upon, with nobody else to be told."""
STEERING = frozenset({"run.pause_requested", "run.resume_requested"})


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Accept a request for a run, or refuse it: ``Rejected`` (unknown run), ``Conflict`` (contradicts the record)."""
    if message.name == "event.received":
        return Decision(messages=(message,))
    if message.name == "run.requested":
        return _accept_run(run, message, facts)
    if message.name == CORRECT:
        return correction.decide(run, message, facts)
    if run is None:
        raise Rejected("no such run", code="not_found", path="run", mend="look it up with GET /v1/runs")
    if run.terminal:
        raise Conflict(f"the run has already {_past(run.status)}", code="run_over")
    if message.name in STEERING:
        # They may overtake each other on the way: the later one is to have the last word.
        message = message._replace(data={**message.data, "at_ms": facts.now_ms})
    return Decision(messages=(message,))


KEPT = frozenset({"request_hash", "fork", "budget", "expected_micro"})
"""What stays with the run, where whoever carries the request out finds it: a fork may be large, and functions of a
former version would not know the rest."""


def _accept_run(run: Run | None, message: Message, facts: Facts) -> Decision:
    request_hash = message.data.get("request_hash") or ""
    if run is not None:
        if run.request_hash != request_hash:
            raise Conflict("this Idempotency-Key was used with another request", code="idempotency_mismatch")
        return NOTHING
    data = {name: value for name, value in message.data.items() if name not in KEPT}
    return Decision(run=requested(message, facts), messages=(message._replace(data=data),))


def requested(message: Message, facts: Facts) -> Run:
    """The run that a run.requested message asks for."""
    data = message.data
    around = data.get("parent")
    return Run(
        tenant=message.tenant,
        id=message.run,
        workflow=data["workflow"],
        version=data["version"],
        limit_micro=data.get("budget_micro") or 0,
        input=data["input"],
        request_hash=data.get("request_hash") or "",
        trace=message.trace,
        created_ms=facts.now_ms,
        priority=data.get("priority", 5),
        parent=Parent(**{**around, "run": UUID(around["run"])}) if around else None,
        forked=data.get("fork"),
        expected_micro=data.get("expected_micro"),
        budget=data.get("budget"),
    )


def _past(status: str) -> str:
    return "been cancelled" if status == "cancelled" else status
