"""dispatch: advance the plan by what has happened and request what comes next.

The planner says which steps start and stop; everything around a step is decided here: attempts and backoff,
holds, timers, subscriptions, cancellation and how the run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.budgets import EXHAUSTED
from agentflow.core.decide import fork, settlement, steering
from agentflow.core.decide.ending import known
from agentflow.core.decide.starts import begin
from agentflow.core.decide.turn import MAX_LOST, Turn
from agentflow.core.decision import NOTHING, Decision, Facts, PeriodEnded, Unsubscribed
from agentflow.core.message import Message
from agentflow.core.money import LOST, NOT_CALLED
from agentflow.core.plan import Task
from agentflow.core.planner import (
    Begin,
    Completed,
    Elapsed,
    Failed,
    Signal,
    TimedOut,
    awaits,
    match_event,
)
from agentflow.core.run import OpenStep, Run
from agentflow.core.types import Mismatch
from agentflow.core.waiting import RUN
from agentflow.errors import RetryLater

JSON = Any


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Decide upon one thing that happened to a run. What comes late or twice changes nothing."""
    if message.name == "timer.fired" and message.data["kind"] == "period":
        scope, _, _ = message.data["timer"].removeprefix("period:").rpartition(":")
        return Decision(rows=(PeriodEnded(message.tenant, scope),))
    if run is None and message.data.get("by_parent"):
        raise RetryLater("the run is only being asked for", after=1.0)
    run = known(run, message)
    if facts.plan is None:
        if run.terminal:
            return NOTHING  # it has failed before there was a plan
        raise RetryLater("the run has not been planned yet", after=0.2)
    if message.name == "timer.fired" and message.data["kind"] == "hold":
        return settlement.expired(run, message, facts)
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
        turn.advance(*fork.begin(turn, turn.run.forked, given))
        return
    turn.note("run.started", {})
    turn.advance(Begin(given))


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
    lost = (data["error"] or {}).get("code") in (LOST, NOT_CALLED) and opened.lost < MAX_LOST
    if opened.lost or lost:
        line["lost"] = opened.lost + lost
    line |= {"cost_micro": data["cost_micro"], "duration_ms": data["duration_ms"], "usage": data["usage"]}
    if data.get("alias"):
        line["model"] = data["alias"]
    if data["status"] == "succeeded":
        turn.note("step.completed", line)
        turn.close(step)
        turn.advance(Completed(step, data["output"]))
        return
    error = data["error"]
    line |= {"error": {"code": error["code"], "message": error["message"]}}
    turn.note("step.completed", line | ({"again": True} if lost else {}))
    if lost:
        turn.make_again(step, opened)
        return
    counts = attempt - opened.lost
    if turn.plan.tasks[opened.task].retry.again(counts, error["code"], may_pass=error["retryable"]):
        turn.retry(step, opened, error["retry_after_ms"] or 0)
        return
    turn.close(step)
    turn.advance(Failed(step, error["code"], error["message"]))


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
            turn.advance(Elapsed(step))
        return
    opened = turn.open.get(step)
    if opened is None or opened.waits not in WAITS_FOR[kind] or opened.attempt != (data["attempt"] or 1):
        return
    line = {"kind": kind, "step": step, "attempt": opened.attempt, "task": opened.task}
    if kind == "budget":
        _try_again(turn, step, opened, "timer.fired", line)
        return
    turn.note("timer.fired", line)
    if kind == "retry":
        task = turn.plan.tasks[opened.task]
        fault = begin(turn, step, task, turn.facts.step_input or {}, opened.attempt + 1)
        if fault:
            turn.advance(Failed(step, *fault))
    elif kind == "wait":
        turn.finish(step, opened, "succeeded", {})
        turn.advance(Completed(step, {}))
    else:
        turn.finish(step, opened, "failed", None, code="timeout", message=f"no {COMES[opened.waits]} came in time")
        turn.advance(TimedOut(step))


# What a step must be waiting for, for a timer of a kind to concern it.
WAITS_FOR = {
    "retry": ("retry",),
    "wait": ("timer",),
    "timeout": ("event", "person", "child"),
    "budget": ("budget",),
}
COMES = {"event": "event", "person": "answer", "child": "result"}


def _try_again(turn: Turn, step: int, opened: OpenStep, name: str, line: Mapping[str, JSON]) -> None:
    """Begin a step that has waited for money. If it has to wait for the same thing again, that is no news."""
    before, waited_for = turn.run, turn.run.short[step]
    turn.fund(step)
    fault = begin(turn, step, turn.plan.tasks[opened.task], opened.input or {}, opened.attempt, waited_for)
    if f"{step}.{opened.attempt}" in turn.holds:
        turn.funded(waited_for)
    if fault:
        turn.note(name, {**line, "error": {"code": fault[0], "message": fault[1]}})
    elif turn.run.short.get(step) != waited_for or name != "timer.fired":
        turn.note(name, line)
    else:
        turn.run = before
    if fault:
        turn.advance(Failed(step, *fault))


def _approved(turn: Turn, step: int, opened: OpenStep, data: Mapping[str, JSON]) -> None:
    """What a person says to a step that a limit does not admit: its run may spend more, or it is to be tried again
    where the tenant's accounts are short; or it fails."""
    answer, shortage = data["output"], turn.run.short[step]
    turn.row(Unsubscribed(step))
    line: dict[str, JSON] = {"step": step, "attempt": opened.attempt, "task": opened.task, "by": data["by"]}
    line["approve"] = answer["approve"]
    if not answer["approve"]:
        turn.note("step.answered", line)
        said = f"tasks.{opened.task}: {shortage.needed_micro} micro-dollars more were not approved by {data['by']}"
        turn.finish(step, opened, "failed", None, code=EXHAUSTED, message=said)
        turn.advance(Failed(step, EXHAUSTED, said))
        return
    if shortage.scope == RUN:
        run = turn.run
        lacking = run.spent_micro + run.held_micro + shortage.needed_micro - run.limit_micro
        limit = run.limit_micro + max(lacking, answer.get("micro") or 0)
        turn.run = run.but(limit_micro=limit)
        line["limit_micro"] = limit
    _try_again(turn, step, opened, "step.answered", line)


def _signal(turn: Turn, data: Mapping[str, JSON]) -> None:
    name, step = data["name"], data["step"]
    if step is None:
        turn.note("signal.received", {"name": name, "data": data["data"]})
        turn.advance(Signal(name, data["data"]))
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
    turn.advance(Completed(step, result))


def _answered(turn: Turn, data: Mapping[str, JSON]) -> None:
    """A person's answer; one that is not of the shape the task declares was refused where it was given."""
    step, answer = data["step"], data["output"]
    opened = turn.open.get(step)
    if opened is not None and opened.waits == "approval":
        _approved(turn, step, opened, data)
        return
    if opened is None or opened.waits != "person" or misfit(turn.plan.tasks[opened.task], answer) is not None:
        return
    turn.note("step.answered", {"step": step, "task": opened.task, "by": data["by"]})
    turn.finish(step, opened, "succeeded", answer)
    turn.advance(Completed(step, answer))


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
    whose = opened.task if opened is not None else turn.run.halted.get(f"{step}.{attempt}", "")
    settlement.settle(turn, step, attempt, whose, cost, data.get("duration_ms", 0))
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
    passes = code != "cancelled"
    turn.finish(step, opened, status, output, code=code, message=said, cost_micro=cost, retryable=passes)
    if error is None:
        turn.advance(Completed(step, output))
    elif task.retry.again(attempt, code, may_pass=passes):
        turn.retry(step, opened, 0)
    else:
        turn.advance(Failed(step, code, said))


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


HANDLERS: Mapping[str, Callable[[Turn, Mapping[str, JSON]], None]] = {
    "child.ended": _child_ended,
    "run.planned": _planned,
    "step.completed": _completed,
    "timer.fired": _timer,
    "signal.received": _signal,
    "step.answered": _answered,
    "run.cancel_requested": steering.cancel,
    "run.pause_requested": steering.pause,
    "run.resume_requested": steering.resume,
}
NEED_A_START = frozenset({"signal.received", "step.answered", "run.pause_requested", "run.resume_requested"})
