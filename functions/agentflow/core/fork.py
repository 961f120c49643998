"""A fork: the point in a run's life from which another run goes on.

The point is just before the decision that started a step. What had ended by then keeps its result; what was open is
started anew, and the event that was decided upon there is decided upon again, with some variables set if one likes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentflow.core.moves import (
    Begin,
    ClearTimer,
    Command,
    Completed,
    Elapsed,
    Ended,
    Failed,
    Halt,
    PlanEvent,
    PlanState,
    SetTimer,
    Signal,
    Start,
    TimedOut,
)

JSON = Any
ENTRY = "run.forked"
"""The line of history that says so; its data is ``Fork.line``."""
BEGIN = "begin"
"""What of a fork's JSON only its first decision needs; it may be large."""

EVENTS: Mapping[str, type[PlanEvent]] = {
    "completed": Completed,
    "failed": Failed,
    "timed_out": TimedOut,
    "signal": Signal,
    "elapsed": Elapsed,
}
_NAMES = {kind: name for name, kind in EVENTS.items()}


class Fork(NamedTuple):
    """Where a run begins that goes on from ``run``, before its step ``at``.

    ``state`` is the planner's (None: the run's own begin), ``event`` what is decided upon first, while the variables in
    ``sets`` keep their values. ``open``: steps that were running, ``timers``: those that were pending, ``cancelled``:
    why the run was being cancelled. ``reused``: (run, last step) of the runs whose results count, the youngest first.
    """

    run: str
    at: int
    sets: dict[str, JSON]
    state: PlanState | None
    event: PlanEvent
    open: tuple[Start, ...] = ()
    timers: tuple[SetTimer, ...] = ()
    cancelled: str | None = None
    reused: tuple[tuple[str, int], ...] = ()

    @property
    def origin(self) -> dict[str, JSON]:
        """What stays with the run."""
        return {"run": self.run, "at": self.at, "reused": self.reused}

    @property
    def base(self) -> dict[str, JSON]:
        """What its first decision rests on, as a change from nothing."""
        return {"state": _state_json(self.state), "set": self.sets}

    def line(self) -> dict[str, JSON]:
        """The fork as JSON: all it takes to decide its begin again."""
        begin = {
            "state": _state_json(self.state),
            "event": _event_json(self.event),
            "open": [(each.step, each.task, each.input) for each in self.open],
            "timers": [(each.timer, each.after_ms) for each in self.timers],
            "cancelled": self.cancelled,
        }
        return {**self.origin, "set": self.sets, BEGIN: begin}

    def again(self, commands: Sequence[Command]) -> tuple[Command, ...]:
        """What was open and pending, to be started anew, but for what the first decision's commands have ended."""
        ended = {each.step for each in commands if isinstance(each, Halt | Ended)}
        cleared = {each.timer for each in commands if isinstance(each, ClearTimer)}
        return (
            *(each for each in self.open if each.step not in ended),
            *(each for each in self.timers if each.timer not in cleared),
        )


def read(line: Mapping[str, JSON], given: Mapping[str, JSON]) -> Fork:
    """The fork that ``Fork.line`` wrote; ``given`` is the run's input, for one that begins at the begin."""
    begin = line[BEGIN]
    return Fork(
        run=line["run"],
        at=line["at"],
        sets=line["set"],
        state=PlanState(**begin["state"]) if begin["state"] else None,
        event=_event(begin["event"], given),
        open=tuple(Start(*each) for each in begin["open"]),
        timers=tuple(SetTimer(*each) for each in begin["timers"]),
        cancelled=begin["cancelled"],
        reused=tuple((run, last) for run, last in line["reused"]),
    )


def _state_json(state: PlanState | None) -> JSON:
    if state is None:
        return None
    inner = {"agents": state.agents} if state.agents else {}
    return {"vars": state.vars, "cursor": state.cursor, "steps": state.steps, "undo": state.undo, **inner}


def _event_json(event: PlanEvent) -> JSON:
    if isinstance(event, Begin):
        return None
    return [_NAMES[type(event)], *(getattr(event, name) for name in event.__match_args__)]


def _event(written: JSON, given: Mapping[str, JSON]) -> PlanEvent:
    if written is None:
        return Begin(dict(given))
    name, *fields = written
    return EVENTS[name](*fields)
