"""Compensation: what a run has done, and can undo, is undone in reverse order.

A task may name the task that undoes it. When it succeeds, what that one would be given is worked out and kept in the
run's state, so that it does not depend on what becomes of the variables later. A compensate task then is a step that
this module carries out: it starts the undoing tasks of its scope one after the other, the last first. What has been
undone is forgotten; what could not be stays, for another try, and the compensation fails when it is through.

``PlanState.undo`` holds ``done``: what can be undone, by its step: [its order, where it ran, the undoing task, what
that is given]; ``count``: the last order; ``now``: by compensating step, [the steps to undo, the next one last; the
step that undoes now; the one it undoes; how many have been undone; those that could not].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from immutables import Map

from agentflow.core.expr import CelFault
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
    changed_twice,
)
from agentflow.core.plan import Plan, Task
from agentflow.core.turn import reason
from agentflow.core.types import JSON, Mismatch

Planner = Callable[[Plan, "PlanState | None", PlanEvent], Advance]
Where = Callable[[Plan, PlanState, int], "tuple[str, Task, dict[str, JSON]] | None"]
"""Where a step runs: its place, its task and what expressions see there besides variables; None: nowhere."""


def advance(plan: Plan, planner: Planner, where: Where, state: PlanState | None, event: PlanEvent) -> Advance:
    """Move a run on whose plan compensates: what the planner does, and what follows from it here."""
    ledger = _Ledger(plan, planner, where, state)
    ledger.take(event)
    return ledger.close()


class _Ledger:
    """What can be undone, while one event changes it."""

    def __init__(self, plan: Plan, planner: Planner, where: Where, state: PlanState | None) -> None:
        self.plan = plan
        self.planner = planner
        self.where = where
        self.before = state
        self.state = state or PlanState({}, {}, 0)
        known = self.state.undo or {}
        self.done: Map[str, list[Any]] = Map(known.get("done", {}))
        self.count: int = known.get("count", 0)
        self.now: dict[str, list[Any]] = dict(known.get("now", {}))
        self.commands: list[Command] = []
        self.changed: dict[str, Any] = {}  # by the planner
        self.undone: dict[str, JSON] = {}  # changes of done: None where it is gone

    def take(self, event: PlanEvent) -> None:
        """One event, and what follows from it at once."""
        step = getattr(event, "step", None)
        mine = next((key for key, (_, undoing, *_) in self.now.items() if undoing == step and step), None)
        if mine is None:
            self._plan(event)
        else:
            self._undone(mine, event)

    def close(self) -> Advance:
        """What has come of it; the very same state when that is nothing."""
        if self.before is not None and not (self.commands or self.changed or self.undone):
            return Advance(self.before, ())
        undo = {"done": self.done, "count": self.count, "now": self.now} if self.count or self.now else None
        state = PlanState(self.state.vars, self.state.cursor, self.state.steps, undo)
        changed = {**self.changed, "undo": {"done": self.undone, "now": self.now}}
        return Advance(state, tuple(self.commands), changed)

    # -- the planner ---------------------------------------------------------------------------------------

    def _plan(self, event: PlanEvent) -> None:
        began = self.before is None and not self.changed
        ran = self.where(self.plan, self.state, event.step) if isinstance(event, Completed) else None
        moved = self.planner(self.plan, None if began else self.state, event)
        self.state = moved.state
        self.changed = changed_twice(self.changed, moved.changed)
        if ran is not None and isinstance(event, Completed):
            self._keep(event, *ran)
        begun = []
        for command in moved.commands:
            if isinstance(command, Finish):
                self.commands += [Halt(undoing) for _, undoing, *_ in self.now.values() if undoing]
                self.now = {}
            self.commands.append(command)
            if isinstance(command, Halt) and (entry := self.now.pop(str(command.step), None)) and entry[1]:
                self.commands.append(Halt(entry[1]))
            if isinstance(command, Start) and self.plan.tasks[command.task].kind == "compensate":
                begun.append(command)
        for command in begun:
            self._begin(command)

    def _keep(self, event: Completed, place: str, task: Task, local: dict[str, JSON]) -> None:
        """Note how what has just been done is undone."""
        if task.undo is None or self.state.ended:
            return
        try:
            seen = {**local, **task.bind(event.result)}
            given = {name: expr.value(self.state.vars, seen) for name, expr in task.undo.inputs.items()}
        except (CelFault, Mismatch):
            # It has been done all the same. Without what it needs the undoing task is going to fail, and say so.
            given = {}
        self.count += 1
        self._set(str(event.step), [self.count, place, task.undo.task, given])

    def _set(self, key: str, entry: list[Any] | None) -> None:
        self.done = self.done.delete(key) if entry is None else self.done.set(key, entry)
        self.undone[key] = entry

    # -- compensating --------------------------------------------------------------------------------------

    def _begin(self, command: Start) -> None:
        scope = self.plan.tasks[command.task].scope
        within = self._within(scope)
        entries = sorted((entry[0], key) for key, entry in self.done.items() if within(entry[1]))
        self.now = {**self.now, str(command.step): [[key for _, key in entries], 0, "", 0, []]}
        self._next(str(command.step))

    def _within(self, scope: str) -> Callable[[str], bool]:
        """Whether a place is in the scope."""
        plan = self.plan
        if not scope or scope == plan.name:
            return lambda place: True
        if plan.machine is not None:
            around, states = plan.machine.by_name[scope].index, plan.machine.by_name
            return lambda place: around in states[place].chain
        assert plan.tree is not None
        first, last = plan.tree.labels[scope]
        return lambda place: first <= int(place) <= last

    def _undone(self, mine: str, event: PlanEvent) -> None:
        """An undoing step has ended."""
        left, _, undoes, count, failed = self.now[mine]
        if isinstance(event, Completed):
            count += 1
            if undoes in self.done:
                self._set(undoes, None)
        else:
            code, message = (event.code, event.message) if isinstance(event, Failed) else ("timeout", "")
            failed = [*failed, f"{self.done[undoes][2]} (for step {undoes}): {code}: {message}"]
        self.now = {**self.now, mine: [left, 0, "", count, failed]}
        self._next(mine)

    def _next(self, mine: str) -> None:
        """Start the next undoing step, or end the compensation."""
        left, _, _, count, failed = self.now[mine]
        busy = {undoes for _, _, undoes, *_ in self.now.values()}
        while left:
            *left, key = left
            entry = self.done.get(key)
            if entry is None or key in busy:  # another compensation was faster
                continue
            number = self.state.steps + 1
            state = self.state
            self.state = PlanState(state.vars, state.cursor, number, state.undo)
            self.commands.append(Start(number, entry[2], entry[3]))
            self.now = {**self.now, mine: [left, number, key, count, failed]}
            return
        self.now = {key: entry for key, entry in self.now.items() if key != mine}
        step = int(mine)
        if not failed:
            result: dict[str, JSON] = {"undone": count}
            self.commands.append(Ended(step, result))
            self._plan(Completed(step, result))
            return
        message = reason("undo", f"{count} undone, {len(failed)} could not be: " + "; ".join(failed))
        self.commands.append(Ended(step, None, "undo_failed", message))
        self._plan(Failed(step, "undo_failed", message))
