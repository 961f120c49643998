"""Compensation: what a run has done, and can undo, is undone in reverse order.

A task may name the task that undoes it. When it succeeds, what that one would be given is worked out and kept in the
run's state, so that it does not depend on what becomes of the variables later. A compensate task is then carried out
by inner steps (``core.inner``): the undoing tasks of its scope, one after the other, the last first. What has been
undone is forgotten; what could not be stays, for another try, and the compensation fails when it is through.

``PlanState.undo`` holds ``done``: what can be undone, by its step: [its order, where it ran, the undoing task, what
that is given]; ``count``: the last order; ``now``: by compensating step, [the steps to undo, the next one last; the
step that undoes now; the one it undoes; how many have been undone; those that could not].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from immutables import Map

from agentflow.core.expr import CelFault
from agentflow.core.inner import Inner, StepEvent
from agentflow.core.moves import Completed, Failed, Start
from agentflow.core.plan import Task
from agentflow.core.turn import reason
from agentflow.core.types import JSON, Mismatch


class Undoing:
    """What can be undone, while one event changes it."""

    kind = "compensate"

    def __init__(self, run: Inner, known: Mapping[str, Any]) -> None:
        self.run = run
        self.plan = run.plan
        self.known: Map[str, list[Any]] = Map(known.get("done", {}))
        self.count: int = known.get("count", 0)
        self.now: dict[str, list[Any]] = dict(known.get("now", {}))
        self.undone: dict[str, JSON] = {}  # changes of what is known: None where it is gone
        self.moved = False

    def stored(self) -> Mapping[str, JSON] | None:
        if not self.count and not self.now:
            return None
        return {"done": self.known, "count": self.count, "now": self.now}

    def changes(self) -> JSON:
        return {"done": self.undone, "now": self.now}

    def owns(self, step: int) -> bool:
        return self._compensation_of(step) is not None

    def _compensation_of(self, step: int) -> str | None:
        return next((key for key, (_, undoing, *_) in self.now.items() if undoing == step), None)

    def halt(self, step: int) -> list[int]:
        entry = self.now.pop(str(step), None)
        return [entry[1]] if entry and entry[1] else []

    def halt_all(self) -> list[int]:
        undoing = [entry[1] for entry in self.now.values() if entry[1]]
        self.now = {}
        return undoing

    def done(self, event: Completed, place: str, task: Task, local: dict[str, JSON]) -> None:
        """Note how what has just been done is undone."""
        if task.undo is None or self.run.state.ended:
            return
        variables = self.run.state.vars
        try:
            seen = {**local, **task.bind(event.result)}
            given = {name: expr.value(variables, seen) for name, expr in task.undo.inputs.items()}
        except (CelFault, Mismatch):
            # It has been done all the same. Without what it needs the undoing task is going to fail, and say so.
            given = {}
        self.count += 1
        self._set(str(event.step), [self.count, place, task.undo.task, given])

    def _set(self, key: str, entry: list[Any] | None) -> None:
        self.known = self.known.delete(key) if entry is None else self.known.set(key, entry)
        self.undone[key] = entry
        self.moved = True

    # -- compensating --------------------------------------------------------------------------------------

    def begin(self, start: Start) -> None:
        within = self._within(self.plan.tasks[start.task].scope)
        entries = sorted((entry[0], key) for key, entry in self.known.items() if within(entry[1]))
        self.now = {**self.now, str(start.step): [[key for _, key in entries], 0, "", 0, []]}
        self._next(str(start.step))

    def _within(self, scope: str) -> Callable[[str], bool]:
        """Whether a place is in the scope."""
        plan = self.plan
        if not scope or scope == plan.name:
            return lambda place: True
        if plan.machine is not None:
            around, states = plan.machine.by_name[scope].index, plan.machine.by_name
            return lambda place: around in states[place].chain
        assert plan.tree is not None
        ranges = plan.tree.labels[scope]
        return lambda place: any(first <= int(place) <= last for first, last in ranges)

    def take(self, event: StepEvent) -> None:
        mine = self._compensation_of(event.step)
        assert mine is not None, "it is told of its own steps"
        left, _, undoes, count, failed = self.now[mine]
        if isinstance(event, Completed):
            count += 1
            if undoes in self.known:
                self._set(undoes, None)
        else:
            code, message = (event.code, event.message) if isinstance(event, Failed) else ("timeout", "")
            failed = [*failed, f"{self.known[undoes][2]} (for step {undoes}): {code}: {message}"]
        self.now = {**self.now, mine: [left, 0, "", count, failed]}
        self._next(mine)

    def _next(self, mine: str) -> None:
        """Start the next undoing step, or end the compensation."""
        left, _, _, count, failed = self.now[mine]
        busy = {undoes for _, _, undoes, *_ in self.now.values()}
        while left:
            *left, key = left
            entry = self.known.get(key)
            if entry is None or key in busy:  # another compensation was faster
                continue
            number = self.run.start(entry[2], entry[3])
            self.now = {**self.now, mine: [left, number, key, count, failed]}
            return
        self.now = {key: entry for key, entry in self.now.items() if key != mine}
        if not failed:
            self.run.end(int(mine), {"undone": count})
            return
        message = reason("undo", f"{count} undone, {len(failed)} could not be: " + "; ".join(failed))
        self.run.end(int(mine), None, "undo_failed", message)
