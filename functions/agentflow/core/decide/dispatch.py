"""dispatch: advance the plan by what has happened and request what comes next.

The planner says which steps start and stop; everything around a step is decided here: attempts and backoff,
holds, timers, subscriptions, cancellation and how the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.decide.ending import known
from agentflow.core.decide.turn import Turn
from agentflow.core.decision import NOTHING, Decision, Facts
from agentflow.core.message import Message
from agentflow.core.planner import (
    Begin,
    Completed,
    Elapsed,
    Failed,
    PlanEvent,
    Signal,
    TimedOut,
    awaits,
    match_event,
)
from agentflow.core.run import Run
from agentflow.errors import RetryLater

JSON = Any


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Decide upon one thing that happened to a run. What comes late or twice changes nothing."""
    run = known(run, message)
    if facts.plan is None:
        raise RetryLater("the run has not been planned yet", after=0.2)
    if message.name == "timer.fired" and message.data["kind"] == "hold":
        return _hold_expired(run, message, facts)
    if run.terminal:
        return NOTHING
    if run.status in ("requested", "planned") and message.name == "signal.received":
        raise RetryLater("the run has not started yet", after=0.2)
    turn = Turn(run, facts)
    HANDLERS[message.name](turn, message.data)
    return turn.decision()


def _planned(turn: Turn, data: Mapping[str, JSON]) -> None:
    if turn.run.status != "planned":
        return
    turn.run = turn.run.move("running")
    turn.wall()
    turn.note("run.started", {})
    _advance(turn, Begin(dict(data["input"])))


def _completed(turn: Turn, data: Mapping[str, JSON]) -> None:
    step, attempt = data["step"], data["attempt"]
    opened = turn.open.get(step)
    if (
        data["late"]
        or opened is None
        or opened.waits != "decision"
        or opened.attempt != attempt
        or opened.epoch != data["epoch"]
    ):
        return
    line: dict[str, JSON] = {"step": step, "attempt": attempt, "task": opened.task, "status": data["status"]}
    line |= {"cost_micro": data["cost_micro"], "duration_ms": data["duration_ms"], "usage": data["usage"]}
    if data["status"] == "succeeded":
        turn.note("step.completed", line)
        turn.close(step)
        _advance(turn, Completed(step, data["output"]))
        return
    error = data["error"]
    turn.note("step.completed", line | {"error": {"code": error["code"], "message": error["message"]}})
    if error["retryable"] and attempt < turn.plan.tasks[opened.task].retry_max:
        turn.retry(step, opened, error["retry_after_ms"] or 0)
        return
    turn.close(step)
    _advance(turn, Failed(step, error["code"], error["message"]))


def _timer(turn: Turn, data: Mapping[str, JSON]) -> None:
    kind, step = data["kind"], data["step"]
    if kind == "wall":
        turn.note("timer.fired", {"kind": kind})
        turn.halt_all()
        limit = turn.plan.limits.wall_ms // 1000
        turn.fail("wall_limit", f"the run took longer than limits.wall ({limit} s)", "limits.wall")
        return
    if kind == "after":
        if awaits(turn.state, step):
            turn.note("timer.fired", {"kind": kind, "timer": step})
            _advance(turn, Elapsed(step))
        return
    opened = turn.open.get(step)
    if opened is None or opened.waits != WAITS_FOR[kind] or opened.attempt != (data["attempt"] or 1):
        return
    turn.note("timer.fired", {"kind": kind, "step": step, "attempt": opened.attempt, "task": opened.task})
    if kind == "retry":
        fault = turn.request(step, opened.task, turn.facts.step_input or {}, opened.attempt + 1)
        if fault:
            _advance(turn, Failed(step, *fault))
    elif kind == "wait":
        turn.finish(step, opened, "succeeded", {})
        _advance(turn, Completed(step, {}))
    else:
        turn.finish(step, opened, "failed", None, code="timeout", message="no event came in time")
        _advance(turn, TimedOut(step))


# What a step must be waiting for, for a timer of a kind to concern it.
WAITS_FOR = {"retry": "retry", "wait": "timer", "timeout": "event"}


def _signal(turn: Turn, data: Mapping[str, JSON]) -> None:
    name, step = data["name"], data["step"]
    if step is None:
        turn.note("signal.received", {"name": name, "data": data["data"]})
        _advance(turn, Signal(name, data["data"]))
        return
    opened = turn.open.get(step)
    if opened is None or opened.waits != "event":
        return
    assert turn.state is not None
    if not match_event(turn.plan, opened.task, turn.state, step, data["data"]):
        return
    result = {"data": data["data"].get("data"), "id": data["data"]["id"], "source": data["data"]["source"]}
    turn.note("signal.received", {"name": name, "step": step, "task": opened.task})
    turn.finish(step, opened, "succeeded", result)
    _advance(turn, Completed(step, result))


def _cancel(turn: Turn, data: Mapping[str, JSON]) -> None:
    asked_before = turn.run.cancel_reason is not None
    turn.run = turn.run.but(cancel_reason=data["reason"])
    turn.note("run.cancel_requested", {"reason": data["reason"]})
    if turn.run.status == "running" and not asked_before:
        before = turn.state
        _advance(turn, Signal("cancel", {"reason": data["reason"]}))
        if turn.run.terminal or turn.state != before:
            return  # the plan has a way of its own to be cancelled, and takes it
    turn.halt_all()
    turn.end("cancelled")


HANDLERS: Mapping[str, Callable[[Turn, Mapping[str, JSON]], None]] = {
    "run.planned": _planned,
    "step.completed": _completed,
    "timer.fired": _timer,
    "signal.received": _signal,
    "run.cancel_requested": _cancel,
}


def _advance(turn: Turn, event: PlanEvent) -> None:
    """Let the planner run to completion; a step that is refused at once (budget) is its next event."""
    pending = [event]
    while pending and not turn.run.terminal:
        pending += turn.obey(pending.pop(0))


def _hold_expired(run: Run, message: Message, facts: Facts) -> Decision:
    """A halted call never reported: it may have been made, so its whole hold counts as spent."""
    data = message.data
    key = f"{data['step']}.{data['attempt']}"
    held = run.holds.get(key)
    if held is None:
        return NOTHING
    turn = Turn(run, facts)
    turn.settle_whole(data["step"], data["attempt"], held)
    return turn.decision()
