"""dispatch: advance the plan by what has happened and request what comes next.

The planner says which steps start and stop; everything around a step is decided here: attempts and backoff,
holds, timers, subscriptions, cancellation and how the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.decide import fork
from agentflow.core.decide.ending import known
from agentflow.core.decide.starts import begin
from agentflow.core.decide.turn import Turn
from agentflow.core.decision import NOTHING, Decision, Facts
from agentflow.core.message import Message
from agentflow.core.plan import Task
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
from agentflow.core.types import Mismatch
from agentflow.errors import RetryLater

JSON = Any


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Decide upon one thing that happened to a run. What comes late or twice changes nothing."""
    if run is None and message.data.get("by_parent"):
        raise RetryLater("the run is only being asked for", after=1.0)
    run = known(run, message)
    if facts.plan is None:
        if run.terminal:
            return NOTHING  # it has failed before there was a plan
        raise RetryLater("the run has not been planned yet", after=0.2)
    if message.name == "timer.fired" and message.data["kind"] == "hold":
        return _hold_expired(run, message, facts)
    if run.terminal and not (message.name == "child.ended" and _held(run, message.data)):
        return NOTHING
    if run.status in ("requested", "planned") and message.name in NEED_A_START:
        raise RetryLater("the run has not started yet", after=0.2)
    turn = Turn(run, facts)
    HANDLERS[message.name](turn, message.data)
    return turn.decision()


def _planned(turn: Turn, data: Mapping[str, JSON]) -> None:
    if turn.run.status != "planned":
        return
    turn.run = turn.run.move("running")
    turn.wall()
    given = {**data["input"], **data.get("goal", {})}
    if turn.run.forked is not None:
        _advance(turn, *fork.begin(turn, turn.run.forked, given))
        return
    turn.note("run.started", {})
    _advance(turn, Begin(given))


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
    if turn.plan.tasks[opened.task].retry.again(attempt, error["code"], may_pass=error["retryable"]):
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
    if opened is None or opened.waits not in WAITS_FOR[kind] or opened.attempt != (data["attempt"] or 1):
        return
    turn.note("timer.fired", {"kind": kind, "step": step, "attempt": opened.attempt, "task": opened.task})
    if kind == "retry":
        task = turn.plan.tasks[opened.task]
        fault = begin(turn, step, task, turn.facts.step_input or {}, opened.attempt + 1)
        if fault:
            _advance(turn, Failed(step, *fault))
    elif kind == "wait":
        turn.finish(step, opened, "succeeded", {})
        _advance(turn, Completed(step, {}))
    else:
        turn.finish(step, opened, "failed", None, code="timeout", message=f"no {COMES[opened.waits]} came in time")
        _advance(turn, TimedOut(step))


# What a step must be waiting for, for a timer of a kind to concern it.
WAITS_FOR = {"retry": ("retry",), "wait": ("timer",), "timeout": ("event", "person", "child")}
COMES = {"event": "event", "person": "answer", "child": "result"}


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
    event = data["data"]
    carried = event.get("data")
    result = {"data": carried, "id": event["id"], "source": event["source"]}
    if (out := turn.plan.tasks[opened.task].out) and isinstance(carried, dict):
        result = {name: carried[name] for name in out if name in carried} | result
    turn.note("signal.received", {"name": name, "step": step, "task": opened.task})
    turn.finish(step, opened, "succeeded", result)
    _advance(turn, Completed(step, result))


def _answered(turn: Turn, data: Mapping[str, JSON]) -> None:
    """A person's answer; one that is not of the shape the task declares was refused where it was given."""
    step, answer = data["step"], data["output"]
    opened = turn.open.get(step)
    if opened is None or opened.waits != "person" or misfit(turn.plan.tasks[opened.task], answer) is not None:
        return
    turn.note("step.answered", {"step": step, "task": opened.task, "by": data["by"]})
    turn.finish(step, opened, "succeeded", answer)
    _advance(turn, Completed(step, answer))


def _child_ended(turn: Turn, data: Mapping[str, JSON]) -> None:
    """A run that this one has started is over: what it cost is settled in any case, its result taken where it is still
    waited for."""
    step, attempt = data["step"], data["attempt"]
    opened = turn.open.get(step)
    if opened is not None and (opened.waits, opened.attempt, opened.epoch) != ("child", attempt, data["epoch"]):
        opened = None
    if opened is None and not _held(turn.run, data):
        return
    cost = data["cost_micro"]
    turn.settle(step, attempt, cost)
    line = {"step": step, "attempt": attempt, "child": data["child"], "cost_micro": cost}
    if opened is None:
        turn.note("child.ended", {**line, "status": data["status"], "late": True})
        return
    task = turn.plan.tasks[opened.task]
    error, output = data["error"], data["output"]
    if error is None and (fault := misfit(task, output)) is not None:
        error, output = {"code": "bad_result", "message": fault}, None
    status = "failed" if error else "succeeded"
    turn.note("child.ended", {**line, "task": task.name, "status": status, "late": False})
    code, said = (error["code"], error["message"]) if error else ("", "")
    turn.finish(step, opened, status, output, code=code, message=said, cost_micro=cost)
    if error is None:
        _advance(turn, Completed(step, output))
    elif task.retry.again(attempt, code, may_pass=code != "cancelled"):
        turn.retry(step, opened, 0)
    else:
        _advance(turn, Failed(step, code, said))


def _held(run: Run, data: Mapping[str, JSON]) -> bool:
    """Whether something is still held for that attempt."""
    return f"{data['step']}.{data['attempt']}" in run.holds


def misfit(task: Task, output: Mapping[str, JSON]) -> str | None:
    """Why an output is not what the task declares, None when it is."""
    try:
        task.bind(output)
    except Mismatch as fault:
        return f"tasks.{task.name}.out{fault.where}: {fault.message}"
    return None


def _pause(turn: Turn, data: Mapping[str, JSON]) -> None:
    """Nothing more is started; what runs goes on, and what it comes to is decided upon."""
    if _steered(turn, data) and turn.run.status == "running":
        turn.run = turn.run.move("paused")
        turn.note("run.paused", {"reason": data["reason"]})
        _tell(turn, "run.paused", "run.pause_requested", data)


def _resume(turn: Turn, data: Mapping[str, JSON]) -> None:
    if _steered(turn, data) and turn.run.status == "paused":
        turn.run = turn.run.move("running")
        turn.note("run.resumed", {"reason": data["reason"]})
        _tell(turn, "run.resumed", "run.resume_requested", data)
        _start_kept(turn)


def _steered(turn: Turn, data: Mapping[str, JSON]) -> bool:
    """Whether nothing that was asked for later has come before."""
    asked: int = data.get("at_ms", 0)
    if asked < turn.run.steered_ms:
        return False
    turn.run = turn.run.but(steered_ms=asked)
    return True


def _tell(turn: Turn, fact: str, request: str, data: Mapping[str, JSON]) -> None:
    """Say it to whoever listens, and to the runs that this one has started."""
    run, seq = turn.run, turn.run.seq
    said = {"run": str(run.id), "workflow": run.workflow, "version": run.version, "reason": data["reason"]}
    turn.send(fact, f"{fact}:{seq}", said)
    for child in turn.children():
        asked = {"run": str(child), "reason": data["reason"], "by_parent": True, "at_ms": turn.facts.now_ms}
        turn.send(request, f"{request}:{run.id}:{seq}", asked, run=child)


def _start_kept(turn: Turn) -> None:
    """Start what was not while the run was paused."""
    for step, opened in sorted(turn.open.items()):
        if opened.waits != "resume" or step not in turn.open:
            continue
        fault = begin(turn, step, turn.plan.tasks[opened.task], opened.input or {}, opened.attempt)
        if fault:
            _advance(turn, Failed(step, *fault))


def _cancel(turn: Turn, data: Mapping[str, JSON]) -> None:
    asked_before = turn.run.cancel_reason is not None
    turn.run = turn.run.but(cancel_reason=data["reason"])
    turn.note("run.cancel_requested", {"reason": data["reason"]})
    if turn.run.status in ("running", "paused") and not asked_before:
        before = turn.state
        if turn.run.status == "paused":
            turn.run = turn.run.move("running")
        _advance(turn, Signal("cancel", {"reason": data["reason"]}))
        if turn.run.terminal or turn.state != before:
            _start_kept(turn)
            return  # the plan has a way of its own to be cancelled, and takes it
    turn.halt_all()
    turn.end("cancelled")


HANDLERS: Mapping[str, Callable[[Turn, Mapping[str, JSON]], None]] = {
    "child.ended": _child_ended,
    "run.planned": _planned,
    "step.completed": _completed,
    "timer.fired": _timer,
    "signal.received": _signal,
    "step.answered": _answered,
    "run.cancel_requested": _cancel,
    "run.pause_requested": _pause,
    "run.resume_requested": _resume,
}
NEED_A_START = frozenset({"signal.received", "step.answered", "run.pause_requested", "run.resume_requested"})


def _advance(turn: Turn, *events: PlanEvent) -> None:
    """Let the planner run to completion; a step that is refused at once (budget) is its next event."""
    pending = list(events)
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
