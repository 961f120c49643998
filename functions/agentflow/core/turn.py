"""One turn of a planner: the working copies of an advance, and the rules both planners share.

A turn evaluates expressions, assigns variables, collects starts and halts, and closes into an ``Advance``. A step
that is started and preempted in the same turn never existed: numbers are given when the turn closes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NoReturn

from agentflow.core.expr import CelFault, Expr
from agentflow.core.moves import Advance, ClearTimer, Command, Finish, Halt, PlanState, SetTimer, Start
from agentflow.core.plan import Plan, Task
from agentflow.core.types import JSON

MAX_REASON = 500
FREE: Mapping[str, JSON] = MappingProxyType({})
"""No variable is fixed."""


class Ends(Exception):
    """The run ends here; raised inside a turn, never seen outside the planners."""

    def __init__(self, ok: bool, reason: str = "") -> None:
        super().__init__(reason)
        self.ok = ok
        self.reason = reason


class Unvalued(Ends):
    """An expression has no value; where the plan has no way to go on with that, the run ends."""


class Turn:
    """The mutable side of one advance. ``starts`` maps a planner's own key to (task, input), ``alarms`` one to
    milliseconds: timers that are set; ``cleared`` are those that are not waited for any more. ``fixed``: variables that
    have been given these values and keep them for this turn, whatever it assigns."""

    __slots__ = ("alarms", "assigned", "cleared", "fixed", "halts", "plan", "starts", "steps", "vars")

    def __init__(
        self, plan: Plan, variables: dict[str, JSON], steps: int, fixed: Mapping[str, JSON] = FREE
    ) -> None:
        self.plan = plan
        self.vars = variables
        self.steps = steps
        self.starts: dict[str, tuple[str, dict[str, JSON]]] = {}
        self.halts: list[int] = []
        self.alarms: dict[str, int] = {}
        self.cleared: list[int] = []
        self.fixed = fixed
        self.assigned: dict[str, JSON] = dict(fixed)

    def value(
        self, expr: Expr, local: Mapping[str, JSON], path: str, names: Mapping[str, JSON] | None = None
    ) -> Any:
        """The value of ``expr`` over ``names`` (None: the run's variables); the run ends with ``path`` in its reason
        when it has none."""
        try:
            return expr.value(self.vars if names is None else names, local)
        except CelFault as fault:
            raise Unvalued(False, reason(path, f"`{expr.source}`: {fault.message}")) from None

    def assign(
        self, sets: tuple[tuple[str, Expr], ...], local: Mapping[str, JSON], path: str, key: str = "set"
    ) -> None:
        """Set variables all at once: every expression sees the values from before. For one that is fixed none is
        looked at."""
        self.keep({
            name: self.value(expr, local, f"{path}.{key}.{name}")
            for name, expr in sets
            if name not in self.fixed
        })

    def keep(self, values: Mapping[str, JSON]) -> None:
        """Set variables of the run, but for those that are fixed."""
        new = {name: value for name, value in values.items() if name not in self.fixed} if self.fixed else values
        self.vars = {**self.vars, **new}
        self.assigned |= new

    def start(self, key: str, task: Task, inputs: Mapping[str, Expr], local: Mapping[str, JSON]) -> None:
        """Note that ``task`` starts for ``key``; the run ends when that is one step too many."""
        self.starts[key] = self.started(task, inputs, local)

    def started(
        self,
        task: Task,
        inputs: Mapping[str, Expr],
        local: Mapping[str, JSON],
        names: Mapping[str, JSON] | None = None,
    ) -> tuple[str, dict[str, JSON]]:
        """A task and its input as it starts now; the run ends when that is one step too many."""
        number = self.steps + len(self.starts) + 1
        if number > self.plan.limits.steps:
            self.fault(
                "limits.steps", f"step {number} would start {task.name!r}, but {number - 1} steps are allowed"
            )
        path = f"tasks.{task.name}.in"
        return task.name, {name: self.value(expr, local, f"{path}.{name}", names) for name, expr in inputs.items()}

    def fault(self, path: str, message: str) -> NoReturn:
        """End the run: something in the plan went wrong at ``path``."""
        raise Ends(False, reason(path, message))

    def numbered(self) -> dict[str, int]:
        """The step number of every key that starts in this turn."""
        first = self.steps + 1
        return {key: first + i for i, key in enumerate(self.starts)}

    def timed(self, last: int) -> dict[str, int]:
        """The number of every timer that is set in this turn, where ``last`` was the last one before."""
        return {key: last + 1 + i for i, key in enumerate(self.alarms)}

    def close(self, cursor: dict[str, JSON], moved: dict[str, JSON], last_timer: int = 0) -> Advance:
        """The advance of a run that goes on; ``moved`` is what of the cursor has changed."""
        commands: list[Command] = [Halt(step) for step in sorted(self.halts)]
        step = self.steps
        for task, input_ in self.starts.values():
            step += 1
            commands.append(Start(step, task, input_))
        commands += [ClearTimer(timer) for timer in sorted(self.cleared)]
        commands += [SetTimer(last_timer + 1 + i, ms) for i, ms in enumerate(self.alarms.values())]
        changed = {"vars": self.assigned, "cursor": moved}
        return Advance(PlanState(self.vars, cursor, step), tuple(commands), changed)

    def end(self, running: list[int], ends: Ends) -> Advance:
        """The advance that finishes: what runs is halted, what would have started does not."""
        output: dict[str, JSON] = {}
        if ends.ok:
            try:
                output = self._output()
            except Ends as fault:
                ends = fault
        halts = sorted({*self.halts, *running})
        finish = Finish(ends.ok, output, ends.reason)
        cursor: dict[str, JSON] = {"ended": "ok" if ends.ok else "failed"}
        changed = {"vars": self.assigned, "cursor": cursor}
        return Advance(PlanState(self.vars, cursor, self.steps), (*map(Halt, halts), finish), changed)

    def _output(self) -> dict[str, JSON]:
        if self.plan.output is None:
            return {name: self.vars[name] for name in self.plan.vars}
        return {name: self.value(expr, {}, f"output.{name}") for name, expr in self.plan.output}


def reason(path: str, message: str) -> str:
    """A path-addressed sentence, bounded."""
    text = f"{path}: {message}"
    return text if len(text) <= MAX_REASON else text[: MAX_REASON - 1] + "…"
