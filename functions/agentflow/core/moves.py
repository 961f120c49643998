"""What goes into a planner and what comes out: its state, the events it is told, the commands it gives.

Everything here is a value. ``core.planner`` is the door; this module exists so that both planners can share the
words without importing each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agentflow.core.types import JSON


@dataclass(frozen=True, slots=True)
class PlanState:
    """Where a run is. JSON all through and bounded by the plan's size, never by the run's length.

    ``vars`` holds inputs and working variables (it is the same object as before when nothing was set); ``cursor``
    belongs to the planner, and where it may hold many entries it holds them in an ``immutables.Map``, of which a new
    version costs the same however many there are; ``steps`` counts the steps started so far, so the next one is
    ``steps + 1``; ``undo`` is what could be undone, and what is being undone (``core.undo``); ``agents`` what agents at
    work have said and heard (``core.agents``).
    Treat it as immutable: states share structure.
    """

    vars: dict[str, JSON]
    cursor: dict[str, JSON]
    steps: int
    undo: Mapping[str, JSON] | None = None
    agents: Mapping[str, JSON] | None = None

    @property
    def ended(self) -> bool:
        """Whether the run has finished: nothing moves it any more."""
        return "ended" in self.cursor


# ------------------------------------------------------------------------------------------------- plan events


@dataclass(frozen=True, slots=True)
class Begin:
    """The run starts, with an input that ``check_input`` found no fault in."""

    input: dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Completed:
    """A step ended well with this result (an object)."""

    step: int
    result: dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Failed:
    """A step failed for good: its retries are over."""

    step: int
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A task that waits for an event ran out of time."""

    step: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Somebody says something to the run: transitions on this name may take it."""

    name: str
    data: JSON = None


@dataclass(frozen=True, slots=True)
class Elapsed:
    """The time of a timer that the planner has set is over."""

    timer: int


PlanEvent = Begin | Completed | Failed | TimedOut | Signal | Elapsed


# --------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True, slots=True)
class Start:
    """Start this task as this step."""

    step: int
    task: str
    input: dict[str, JSON]


@dataclass(frozen=True, slots=True)
class Halt:
    """A running step is preempted: drop its result."""

    step: int


@dataclass(frozen=True, slots=True)
class Ended:
    """A step that the planner carries out itself, by means of other steps, has ended: with this result, or with the
    code and message of its failure."""

    step: int
    result: dict[str, JSON] | None
    code: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Say ``Elapsed`` after so many milliseconds. ``timer`` is a number of its own, never used again in the run."""

    timer: int
    after_ms: int


@dataclass(frozen=True, slots=True)
class ClearTimer:
    """Nobody waits for that timer any more."""

    timer: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The run is over. ``reason`` is '' when ok, else a sentence that begins with a path into the plan."""

    ok: bool
    output: dict[str, JSON]
    reason: str


Command = Start | Halt | Ended | SetTimer | ClearTimer | Finish


@dataclass(frozen=True, slots=True)
class Advance:
    """The new state and what to do now: halts first, then starts, then timers; or halts and the finish, which ends all
    timers.

    ``changed`` says how the state differs from the one before, in plain JSON: ``vars``, those that were set, and of the
    cursor what is new (null: gone). Equal changes to equal states make equal states, so whoever compares two histories
    compares these, and need not look at 10,000 entries to see that one of them has changed.
    """

    state: PlanState
    commands: tuple[Command, ...]
    changed: dict[str, JSON] = field(default_factory=dict)


def both(first: Advance, ended: Ended, then: Advance) -> Advance:
    """Two advances as one: what ``ended`` in the first has led to the second."""
    changed = changed_twice(first.changed, then.changed)
    return Advance(then.state, (*first.commands, ended, *then.commands), changed)


TABLES = ("n", "run", "timers", "own", "loose")
"""What of a tree's cursor is said as changes: the entries that are new, null for those that are gone."""


def changed_twice(first: dict[str, JSON], then: dict[str, JSON]) -> dict[str, JSON]:
    """What two changes, one after the other, come to: a tree's tables add up, all else is replaced."""
    if not first or not then:
        return first or then
    was, cursor = first["cursor"], then["cursor"]
    if "n" in was and "n" in cursor:
        tables = {name: {**was.get(name, {}), **cursor[name]} for name in TABLES if name in cursor}
        cursor = {**was, **cursor, **tables}
    return {**first, **then, "vars": {**first["vars"], **then["vars"]}, "cursor": cursor}
