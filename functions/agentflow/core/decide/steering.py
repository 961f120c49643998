"""Steering: a run is paused, resumed or cancelled, by whoever asks or by the run around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.decide.starts import begin
from agentflow.core.decide.turn import Turn
from agentflow.core.planner import Failed, Signal

JSON = Any


def pause(turn: Turn, data: Mapping[str, JSON]) -> None:
    """Nothing more is started; what runs goes on, and what it comes to is decided upon."""
    if _steered(turn, data) and turn.run.status == "running":
        turn.run = turn.run.move("paused")
        turn.note("run.paused", {"reason": data["reason"]})
        _tell(turn, "run.paused", "run.pause_requested", data)


def resume(turn: Turn, data: Mapping[str, JSON]) -> None:
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
            turn.advance(Failed(step, *fault))


def cancel(turn: Turn, data: Mapping[str, JSON]) -> None:
    asked_before = turn.run.cancel_reason is not None
    turn.run = turn.run.but(cancel_reason=data["reason"])
    turn.note("run.cancel_requested", {"reason": data["reason"]})
    if turn.run.status in ("running", "paused") and not asked_before:
        before = turn.state
        if turn.run.status == "paused":
            turn.run = turn.run.move("running")
        turn.advance(Signal("cancel", {"reason": data["reason"]}))
        if turn.run.terminal or turn.state != before:
            _start_kept(turn)
            return  # the plan has a way of its own to be cancelled, and takes it
    turn.halt_all()
    turn.end("cancelled")
