"""Steps that the planner carries out itself, by means of other steps: compensations and agents.

A carrier does that for the tasks of one kind. When one of its steps starts, it starts inner steps; it is told how they
ended, and says in the end how its own step did. Everything else is the planner's, which knows of none of this: it
starts a step, and is told that it has ended. Inner steps may be carried out by inner steps in their turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agentflow.core.moves import (
    Advance,
    Command,
    Completed,
    Ended,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    Start,
    TimedOut,
    changed_twice,
)
from agentflow.core.plan import Plan, Task
from agentflow.core.types import JSON

Planner = Callable[[Plan, "PlanState | None", PlanEvent], Advance]
Where = Callable[[Plan, PlanState, int, dict[str, JSON]], "tuple[str, Task, dict[str, JSON]] | None"]
"""Where a step runs: its place, its task and what expressions see there besides the run's variables when its result has
been kept; None: nowhere."""

StepEvent = Completed | Failed | TimedOut


class Carrier(Protocol):
    """Carries out the steps of one ``kind`` of task."""

    kind: str

    def begin(self, start: Start) -> None:
        """One of its steps starts."""

    def owns(self, step: int) -> bool:
        """Whether that is an inner step of one of its steps."""

    def take(self, event: StepEvent) -> None:
        """An inner step has ended."""

    def done(self, event: Completed, place: str, task: Task, local: dict[str, JSON]) -> None:
        """A step of the planner's, whoever carries it out, has ended well."""

    def halt(self, step: int) -> list[int]:
        """One of its steps is halted: the inner steps that are halted with it."""

    def halt_all(self) -> list[int]:
        """The run ends: the inner steps that still run."""

    @property
    def moved(self) -> bool:
        """Whether its state has changed."""

    def changes(self) -> JSON:
        """How its state has changed, for ``Advance.changed``."""

    def stored(self) -> Mapping[str, JSON] | None:
        """Its state, None when there is nothing to keep."""


Make = Callable[["Inner", Mapping[str, Any]], Carrier]
"""A carrier for one advance, of the state that it has kept."""


class Inner:
    """A run while one event moves it on. ``carriers``: by the field of ``PlanState`` that is theirs."""

    def __init__(
        self,
        plan: Plan,
        planner: Planner,
        where: Where,
        state: PlanState | None,
        carriers: Mapping[str, Make],
    ) -> None:
        self.plan = plan
        self.state = state or PlanState({}, {}, 0)
        self.commands: list[Command] = []
        self._planner = planner
        self._where = where
        self._before = state
        self._changed: dict[str, Any] = {}  # by the planner
        self._todo: deque[Start | PlanEvent] = deque()
        self._carriers = {name: make(self, getattr(self.state, name) or {}) for name, make in carriers.items()}

    def advance(self, event: PlanEvent) -> Advance:
        """Take one event, and what follows from it at once."""
        self._todo.append(event)
        while self._todo:
            self._do(self._todo.popleft())
        return self._close()

    # -- for carriers --------------------------------------------------------------------------------------

    def start(self, task: str, given: dict[str, JSON]) -> int:
        """Start an inner step; its number."""
        number = self.state.steps + 1
        self.state = PlanState(self.state.vars, self.state.cursor, number)
        self._start(Start(number, task, given))
        return number

    def halt(self, step: int) -> None:
        """Halt an inner step, and what is inside it."""
        self.commands.append(Halt(step))
        self._halted(step)

    def end(self, step: int, result: dict[str, JSON] | None, code: str = "", message: str = "") -> None:
        """A step that was carried out has ended: with this result, or failed."""
        self.commands.append(Ended(step, result, code, message))
        self._todo.appendleft(Failed(step, code, message) if result is None else Completed(step, result))

    # -- one after the other -------------------------------------------------------------------------------

    def _do(self, item: Start | PlanEvent) -> None:
        if isinstance(item, Start):
            self._carrier_of(item).begin(item)  # type: ignore[union-attr]
            return
        if isinstance(item, StepEvent):
            for carrier in self._carriers.values():
                if carrier.owns(item.step):
                    carrier.take(item)
                    return
        self._plan(item)

    def _carrier_of(self, start: Start) -> Carrier | None:
        kind = self.plan.tasks[start.task].kind
        return next((each for each in self._carriers.values() if each.kind == kind), None)

    def _plan(self, event: PlanEvent) -> None:
        began = self._before is None and not self._changed
        ran = None
        if isinstance(event, Completed):
            ran = self._where(self.plan, self.state, event.step, event.result)
        moved = self._planner(self.plan, None if began else self.state, event)
        self.state = moved.state
        self._changed = changed_twice(self._changed, moved.changed)
        if ran is not None and isinstance(event, Completed):
            for carrier in self._carriers.values():
                carrier.done(event, *ran)
        for command in moved.commands:
            self._obey(command)

    def _obey(self, command: Command) -> None:
        if isinstance(command, Start):
            self._start(command)
            return
        if isinstance(command, Finish):
            self.commands += [Halt(step) for carrier in self._carriers.values() for step in carrier.halt_all()]
        self.commands.append(command)
        if isinstance(command, Halt):
            self._halted(command.step)

    def _start(self, start: Start) -> None:
        self.commands.append(start)
        if self._carrier_of(start) is not None:
            self._todo.append(start)

    def _halted(self, step: int) -> None:
        """What is inside a halted step is halted, too; what has not begun does not begin."""
        self._todo = deque(item for item in self._todo if not (isinstance(item, Start) and item.step == step))
        for carrier in self._carriers.values():
            for inner in carrier.halt(step):
                self.halt(inner)

    def _close(self) -> Advance:
        """What has come of it; the very same state when that is nothing."""
        nothing = not (self.commands or self._changed or any(carrier.moved for carrier in self._carriers.values()))
        if self._before is not None and nothing:
            return Advance(self._before, ())
        state = self.state
        kept = {name: carrier.stored() for name, carrier in self._carriers.items()}
        changed = {**self._changed, **{name: carrier.changes() for name, carrier in self._carriers.items()}}
        return Advance(PlanState(state.vars, state.cursor, state.steps, **kept), tuple(self.commands), changed)

