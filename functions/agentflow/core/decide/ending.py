"""How runs end: one place that closes a run and states the fact, whatever ended it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.decision import Decided, Decision, Facts, RunEnded
from agentflow.core.message import Message
from agentflow.core.run import EMPTY, Run
from agentflow.errors import Rejected


def known(run: Run | None, message: Message) -> Run:
    """The run a message is about; a message about no run is parked, not dropped."""
    if run is None:
        raise Rejected(f"there is no run {message.run}", code="unknown_run", path="data.run")
    return run


def failed(run: Run, facts: Facts, code: str, message: str, *, path: str = "") -> Decision:
    """The run fails before anything was started."""
    counted = run.but(seq=run.seq + 1)
    ended, fact = end(counted, facts, "failed", error={"code": code, "message": message, "path": path})
    line = Decided("run.failed", {"error": ended.error})
    return Decision(run=ended, rows=(line, RunEnded()), messages=(fact,))


def end(
    run: Run,
    facts: Facts,
    status: str,
    *,
    output: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> tuple[Run, Message]:
    """The ended run and the public fact that says so (run.completed, run.failed or run.cancelled)."""
    ended = run.move(status, output=output, error=error, open=EMPTY)
    data: dict[str, Any] = {
        "run": str(run.id),
        "workflow": run.workflow,
        "version": run.version or 0,
        "steps": run.steps,
        "spent_micro": run.spent_micro,
        "duration_ms": max(0, facts.now_ms - run.created_ms),
    }
    if status == "succeeded":
        data["output"] = dict(output or {})
        name = "run.completed"
    elif status == "failed":
        data["error"] = dict(error or {})
        name = "run.failed"
    else:
        data["reason"] = run.cancel_reason or ""
        name = "run.cancelled"
    return ended, Message(name, run.tenant, run.id, "ended", data, run.trace)
