"""How runs end: one place that closes a run and states the fact, whatever ended it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.decision import Decided, Decision, Facts, RunEnded
from agentflow.core.message import Message
from agentflow.core.run import EMPTY, Run
from agentflow.core.waiting import NOBODY
from agentflow.errors import Rejected


def known(run: Run | None, message: Message) -> Run:
    """The run a message is about; a message about no run is parked, not dropped."""
    if run is None:
        raise Rejected(f"there is no run {message.run}", code="unknown_run", path="data.run")
    return run


def failed(run: Run, facts: Facts, code: str, message: str, *, path: str = "") -> Decision:
    """The run fails before anything was started."""
    counted = run.but(seq=run.seq + 1)
    ended, facts_out = end(counted, facts, "failed", error={"code": code, "message": message, "path": path})
    line = Decided("run.failed", {"error": ended.error})
    return Decision(run=ended, rows=(line, RunEnded()), messages=facts_out)


def end(
    run: Run,
    facts: Facts,
    status: str,
    *,
    output: Mapping[str, Any] | None = None,
    error: Mapping[str, Any] | None = None,
) -> tuple[Run, tuple[Message, ...]]:
    """The ended run and the public fact that says so (run.completed, run.failed or run.cancelled); a run that another
    one waits for tells that, too."""
    ended = run.move(status, output=output, error=error, open=EMPTY, short=NOBODY)
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
    fact = Message(name, run.tenant, run.id, "ended", data, run.trace)
    return ended, (fact, _told(ended, data)) if run.parent else (fact,)


def _told(run: Run, data: Mapping[str, Any]) -> Message:
    """What the run that waits is told. What is still held may yet be spent: it is counted as if it were."""
    parent = run.parent
    assert parent is not None
    error = None
    if run.status == "failed":
        error = {key: data["error"].get(key, "") for key in ("code", "message")}
    elif run.status == "cancelled":
        error = {"code": "cancelled", "message": run.cancel_reason or ""}
    told = {
        "run": str(parent.run),
        "step": parent.step,
        "attempt": parent.attempt,
        "epoch": parent.epoch,
        "child": str(run.id),
        "status": "failed" if error else "succeeded",
        "output": None if error else data["output"],
        "error": error,
        "cost_micro": run.spent_micro + run.held_micro,
        "duration_ms": data["duration_ms"],
    }
    key = f"{parent.step}.{parent.attempt}:child"
    return Message("child.ended", run.tenant, parent.run, key, told, run.trace)
