"""A small-scope model check: every way that a plan can go, step by step, with the planner that runs it.

``explore(plan)`` walks breadth first over the states of ``planner.advance``, for an ``abstract`` plan: whatever a
condition can say it says, lists have 0, 1 or 2 elements, and every step ends in every way it can. Two states are the
same when their cursors are, but for the numbers of steps and timers.

What a complete check proves, for lists of up to two elements and whatever the expressions say:

* no run is stuck: as long as it has not ended a step runs, a timer is set or a signal is waited for;
* the end of every step and timer that is under way is taken, and nothing is under way after the end of the run;
* no state is left out from which only ``visits``, ``limits`` or a missing transition would end the run.

A fault that it reports of the planner is one; of the plan, too: more is possible here than in a run, not less. That an
end can be reached it shows for what conditions may say, not for what they will say.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from agentflow.core.abstraction import Oracle, Unknown, abstract
from agentflow.core.configuration import FAILURE_STATE
from agentflow.core.graph import heaviest, leading_to, lightest
from agentflow.core.held import held
from agentflow.core.machine import ANY, OWN_EVENTS, Machine
from agentflow.core.moves import (
    Advance,
    Begin,
    ClearTimer,
    Completed,
    Elapsed,
    Ended,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    SetTimer,
    Signal,
    Start,
    TimedOut,
)
from agentflow.core.plan import Plan, Task
from agentflow.core.review_handlers import ends_of
from agentflow.core.structure import transitions_of
from agentflow.core.types import zero

MAX_STATES = 5_000
MAX_ADVANCES = 40_000
CARRIED = frozenset({"compensate", "judge", "keep"})
AWAITED = frozenset({"event", "human", "workflow"})
LOOPS = 2
"""Rounds that loops are cut to where a plan has too many states otherwise."""

Reducer = Callable[[Plan, PlanState | None, PlanEvent], Advance]


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the shortest way there: ``trace`` says what happens, from the beginning.

    ``code``: of the plan ``no_end``, ``no_success``, ``fuel``; of the planner ``stuck``, ``ignored``, ``left_running``.
    """

    code: str
    message: str
    trace: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.message}: {' → '.join(self.trace)}" if self.trace else self.message


@dataclass(frozen=True, slots=True)
class Explored:
    """``states``: how many were visited. ``complete``: that is all there are; otherwise ``limit`` says how far it went.

    ``longest`` is the most steps of a run; None where only limits end it, or the check is not complete.
    """

    states: int
    complete: bool
    limit: str
    findings: tuple[Finding, ...]
    longest: int | None


def explore(
    plan: Plan,
    advance: Reducer,
    *,
    states: int = MAX_STATES,
    advances: int = MAX_ADVANCES,
    shorten: bool = True,
    going: Callable[[], bool] = lambda: True,
) -> Explored:
    """The check of a plan with ``planner.advance``, or another planner that is to be checked, within bounds.

    ``shorten``: where there are too many states, look at fewer rounds of loops. ``going`` is asked before every event
    whether to go on: whoever has a clock bounds the time by it.
    """
    try:
        search = _Search(plan, advance, 0, states, advances, going)
        if search.run():
            return search.explored(search.oracle.cut)
        cut = f"the first {len(search.places) - 1:,} states"
        if shorten and going():
            search = _Search(plan, advance, LOOPS, states, advances, going)
            through = search.run()
            cut = f"the first {len(search.places) - 1:,} states"
            cut = f"{LOOPS} rounds of each loop" + ("" if through else f", {cut}")
    except Unknown as fault:
        return Explored(0, False, str(fault), (), None)
    return search.explored(cut)


@dataclass(slots=True)
class _Place:
    """One state of the search, what is under way in it as its commands say, and how it was reached first."""

    state: PlanState
    steps: dict[int, str]
    timers: dict[int, int]
    number: int
    came: tuple[_Place, str] | None
    finish: Finish | None = None

    def trace(self) -> tuple[str, ...]:
        found: list[str] = []
        place: _Place = self
        while place.came is not None:
            place, said = place.came
            found.append(said)
        return tuple(reversed(found))


class _Search:
    def __init__(
        self, plan: Plan, advance: Reducer, loops: int, states: int, advances: int, going: Callable[[], bool]
    ) -> None:
        self.oracle = Oracle()
        self.plan = abstract(plan, self.oracle, loops=loops)
        self.advance = advance
        self.limits = (states, advances)
        self.going = going
        self.fuel = plan.limits.steps
        self.signals = _signals(self.plan.machine) if self.plan.machine is not None else ()
        before = PlanState({}, {}, 0)
        self.places = [_Place(before, {}, {}, 0, None)]  # the first is before the beginning
        self.known: dict[str, _Place] = {}
        self.edges: list[list[tuple[int, int]]] = [
            []
        ]  # of each place where it leads, and with how many new steps
        self.findings: dict[str, Finding] = {}
        self.advances = 0

    # -- the search --------------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Visit every state; False when there are too many."""
        todo = deque(self.places)
        while todo:
            place = todo.popleft()
            if place.finish is not None:
                continue
            moves = False
            for event, said in self._events(place):
                for after, is_new in self._follow(place, event, said):
                    moves = True
                    if is_new:
                        todo.append(after)
                if self._has_enough():
                    return False
            if not moves:
                self._find("stuck", "the run goes on, but nothing is left that moves it", place)
        return True

    def _has_enough(self) -> bool:
        states, advances = self.limits
        return self.advances > advances or len(self.places) > states or not self.going()

    def _follow(self, place: _Place, event: PlanEvent, said: str) -> Iterator[tuple[_Place, bool]]:
        """The places that ``event`` leads to, and whether they are new; none when it has no effect."""
        state = place.state if place.number else None
        for moved, decisions in self.oracle.outcomes(lambda: self.advance(self.plan, state, event)):
            self.advances += 1
            if not self.going() or self.advances > self.limits[1]:
                return
            if moved.state is state:
                if not isinstance(event, Signal):
                    self._find("ignored", f"the planner takes no notice of `{said}`", place)
                continue
            words = f"{said} ({', '.join(decisions)})" if decisions else said
            after = self._after(place, event, moved, words)
            self.edges[place.number].append((after.number, sum(isinstance(c, Start) for c in moved.commands)))
            is_new = after.number == len(self.places)
            if is_new:
                self.places.append(after)
                self.edges.append([])
            yield after, is_new

    def _after(self, place: _Place, event: PlanEvent, moved: Advance, said: str) -> _Place:
        steps, timers, finish = dict(place.steps), dict(place.timers), None
        steps.pop(getattr(event, "step", 0), None)
        timers.pop(getattr(event, "timer", 0), None)
        for command in moved.commands:
            if isinstance(command, Start):
                steps[command.step] = command.task
            elif isinstance(command, Halt):
                steps.pop(command.step, None)
            elif isinstance(command, SetTimer):
                timers[command.timer] = command.after_ms
            elif isinstance(command, ClearTimer):
                timers.pop(command.timer, None)
            elif isinstance(command, Ended):
                steps.pop(command.step, None)
            else:
                finish = command
        after = _Place(moved.state, steps, timers, len(self.places), (place, said), finish)
        if finish is not None and steps:
            self._find("left_running", f"the run has ended and {', '.join(steps.values())} still runs", after)
        return self.known.setdefault(_identity(self.plan, after), after)

    def _events(self, place: _Place) -> Iterator[tuple[PlanEvent, str]]:
        """Everything that may happen next, in words."""
        if not place.number:
            yield Begin({name: zero(type_) for name, type_ in self.plan.input.items()}), "begin"
            return
        for step, name in place.steps.items():
            task = self.plan.tasks[name]
            if task.kind in CARRIED:
                continue  # the planner ends it itself
            ends = ends_of(task)
            if self.plan.machine is not None and "failed" in ends:
                ends = tuple(dict.fromkeys((*ends, "timeout")))
            for end in ends:
                yield _ended(step, task, end), f"{name} {end}"
        for timer, milliseconds in place.timers.items():
            yield Elapsed(timer), f"{milliseconds} ms"
        for name in self.signals:
            shape = self.plan.machine.events.get(name, {}) if self.plan.machine is not None else {}
            yield Signal(name, {key: zero(type_) for key, type_ in shape.items()}), f"signal {name}"

    def _find(self, code: str, message: str, place: _Place) -> None:
        self.findings.setdefault(code, Finding(code, message, place.trace()))

    # -- what follows --------------------------------------------------------------------------------------------

    def explored(self, limit: str) -> Explored:
        """The result, once the search is over; ``limit`` says what was left out."""
        if not limit:
            self._ends()
        longest = None if limit else heaviest(self.edges, 0)
        return Explored(len(self.places) - 1, not limit, limit, tuple(self.findings.values()), longest)

    def _ends(self) -> None:
        """Whether a final state (for a tree: any end) can be reached from everywhere, and success with the steps that
        there are."""
        over = [place for place in self.places if place.finish is not None]
        meant = {place.number for place in over if place.finish and self._is_meant(place.finish)}
        ending = leading_to(self.edges, meant)
        # Where only `visits` that are used up are in the way, the loop was bounded as its author meant it.
        fresh = {_identity(self.plan, place, counts=False) for place in self.places[1:] if place.number in ending}
        for place in self.places[1:]:
            if place.finish is None and _identity(self.plan, place, counts=False) not in fresh:
                self._find("no_end", "from here no final state can be reached", place)
        fewest = lightest(self.edges, 0, {place.number for place in over if place.finish and place.finish.ok})
        if fewest is None:
            self._find("no_success", "no run can succeed", self.places[0])
        elif fewest > self.fuel:
            message = f"limits.steps is {self.fuel}, but no run can succeed with fewer than {fewest} steps"
            self._find("fuel", message, self.places[0])

    def _is_meant(self, finish: Finish) -> bool:
        return finish.ok or self.plan.tree is not None or FAILURE_STATE in finish.reason


def _ended(step: int, task: Task, end: str) -> PlanEvent:
    if end == "done":
        return Completed(step, {name: zero(type_) for name, _, type_ in task.fields if name})
    if end == "timeout" and task.kind in AWAITED:
        return TimedOut(step)
    return Failed(step, "timeout" if end == "timeout" else "broken", "")


def _signals(machine: Machine) -> tuple[str, ...]:
    """The names that transitions listen to, and one that none of them names where one listens to any."""
    heard = {each.event for state in machine.states for each in transitions_of(state)} - OWN_EVENTS - {""}
    return tuple(sorted({"another" if name == ANY else name for name in heard}))


def _identity(plan: Plan, place: _Place, *, counts: bool = True) -> str:
    """What makes two places the same: what the planner holds, and what is under way as its commands say."""
    under_way = (sorted(place.steps.values()), sorted(place.timers.values()))
    if place.finish is not None:
        return json.dumps([place.finish.ok, FAILURE_STATE in place.finish.reason, under_way])
    return json.dumps([held(plan, place.state, counts=counts), under_way], sort_keys=True)
