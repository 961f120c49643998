"""Machines: what can happen to a state that no transition is sure to take, and what follows from that."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core.machine import Machine, State, Transition
from agentflow.core.plan import Task
from agentflow.core.structure import answers, may_be, reachable, sure
from agentflow.errors import Problem

ENDS: dict[str, tuple[str, ...]] = {
    "llm": ("done", "failed"),
    "tool": ("done", "failed"),
    "agent": ("done", "failed"),
    "workflow": ("done", "failed", "timeout"),
    "compensate": ("done", "failed"),
    "human": ("done", "failed", "timeout"),
    "event": ("done", "timeout"),
    "wait": ("done",),
    "judge": ("done",),
    "keep": ("done",),
}
"""How a task of each kind can end, as a plan's author sees it. A result of the wrong shape is a failure, too."""

_UNKNOWN = ("done", "failed")


def ends(state: State) -> tuple[str, ...]:
    """The events that a state's own task can end with."""
    return () if state.task is None else ends_of(state.task)


def ends_of(task: Task) -> tuple[str, ...]:
    """The events that a task can end with: without a time limit nothing times out, and a time may be none."""
    found = ENDS.get(task.kind, _UNKNOWN)
    if "until" in task.inputs:
        return (*found, "failed")
    return found if task.timeout_ms else tuple(end for end in found if end != "timeout")


def takers(machine: Machine, state: State, event: str) -> tuple[Transition, ...]:
    """The transitions that an end of ``state`` may take: its own for ``done``, those around it, too, otherwise."""
    if event == "done":
        return state.on.get("done", ())
    names = (event, "failed") if event == "timeout" else (event,)
    return tuple(
        each for index in state.chain for name in names for each in machine.states[index].on.get(name, ())
    )


def unhandled(machine: Machine) -> Iterator[Problem]:
    """Ends of tasks and of inner states that the run may not survive, or that may leave it where it is."""
    reached = reachable(machine)
    for state in machine.states:
        if state.index not in reached or state.kind == "machine":
            continue
        for event in _events(machine, state):
            found = takers(machine, state, event)
            if not sure(found):
                yield _problem(machine, state, event, some=bool(found))


def _events(machine: Machine, state: State) -> tuple[str, ...]:
    if state.kind == "atomic":
        return ends(state)
    if state.kind not in ("compound", "parallel") or not answers(machine, state):
        return ()
    return tuple(event for event in ("done", "failed") if may_be(machine, state, event))


def _problem(machine: Machine, state: State, event: str, *, some: bool) -> Problem:
    what = f"task {state.task.name!r}" if state.task is not None else f"{state.name!r}"
    happens = {"done": "is done", "failed": "fails", "timeout": "times out"}[event]
    if state.task is None and event == "failed":
        happens = "fails (an inner state is a failure)"
    follows = "the run ends" if event != "done" else _stays(machine, state)
    if some:
        message = f"when {what} {happens} and no condition of the transitions for that holds, {follows}"
        mend = f"let the last one for `{event}` have no `if`"
    else:
        message = f"when {what} {happens}, no transition takes it and {follows}"
        mend = f"add one with event: {event}, here or around it" if event != "done" else "add one with event: done"
    return Problem(state.path, message, mend, "unhandled", "warning")


def _stays(machine: Machine, state: State) -> str:
    """What follows where nothing takes ``done``."""
    around = [machine.states[index] for index in state.chain]
    if any(each.listens or each.timed or each.eventless for each in around):
        return "it stays until another transition leads out"
    if any(each.kind == "parallel" for each in around[1:]):
        return "it stays until another region leads out; when nothing else runs, the run ends"
    return "the run ends"
