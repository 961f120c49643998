"""A turn: one decision while it is being made. Collects rows and messages; nothing here has an effect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from agentflow.core import spending
from agentflow.core.decide.ending import end
from agentflow.core.decide.goals import written
from agentflow.core.decide.holds import Fault, freed
from agentflow.core.decide.starts import begin, unwait
from agentflow.core.decision import (
    Decided,
    Decision,
    Facts,
    Left,
    Row,
    RunEnded,
    StepClosed,
    TimerCleared,
    TimerSet,
    Withdrawn,
)
from agentflow.core.message import Message
from agentflow.core.plan import Plan, Task
from agentflow.core.planner import (
    ClearTimer,
    Command,
    Ended,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    SetTimer,
    Start,
    advance,
)
from agentflow.core.run import EMPTY, OpenStep, Run, child_id
from agentflow.core.turn import FREE
from agentflow.core.waiting import RUN, Shortage

JSON = Any
MAX_RETRY_AFTER_MS = 300_000
UNCLAIMED = "unclaimed:"
"""What the timer of a halted call's hold is called that looks whether the call was ever claimed."""
MAX_LOST = 10
"""Calls of a step that may be lost with the life that made them; what is lost then is a failure like any other."""


class Turn:
    """The decision in the making: the run as it was, what becomes of it, and what has to be written and sent.

    ``state`` and ``open`` are the planner's state and the open steps as they are by now; ``run`` has what else has
    changed. They are folded into one value at the end.
    """

    __slots__ = (
        "_changed", "_ended", "_given", "_left", "_line", "_messages", "_rows", "_short", "_started", "commands",
        "epoch", "facts", "frees", "headroom", "held_now", "holds", "open", "plan", "run", "state", "waited_for",
    )  # fmt: skip

    def __init__(self, run: Run, facts: Facts) -> None:
        assert facts.plan is not None
        self.run = self._given = run
        self.state = run.plan
        self.open = run.open
        self.holds = run.holds
        self.epoch = run.epoch
        self.facts = facts
        self.plan: Plan = facts.plan
        self._rows: list[Row] = []
        self._messages: list[Message] = []
        self.commands: list[Command] = []
        self._changed: list[JSON] = []
        self._line: tuple[str, Mapping[str, JSON]] | None = None
        self._started: list[dict[str, JSON]] = []
        self._ended: list[dict[str, JSON]] = []  # by the planner
        self._short: list[int] = []  # steps that wait for money from now on
        self.held_now = 0
        self.frees = False  # whether steps that wait for the run's own limit may go on
        self._left: set[str] = set()  # accounts that a step has stopped waiting for
        self.waited_for: Shortage | None = None  # of the step that is begun
        self.headroom = facts.headroom

    def rest_on(self, state: PlanState | None, base: JSON) -> None:
        """Begin with another run's state; ``base`` says it as a change."""
        self.state = state
        self._changed.append(base)

    def note(self, name: str, data: Mapping[str, JSON]) -> None:
        """Say for the history what is being decided upon."""
        self._line = (name, data)

    def decision(self) -> Decision:
        if self._line is None:
            return Decision(run=self.run if self.run is not self._given else None, rows=tuple(self._rows))
        name, data = self._line
        if self._started:
            data = {**data, "started": self._started}
        if self._ended:
            data = {**data, "ended": self._ended}
        if self._short:
            data = {**data, "short": self._short}
        run = self.run.but(
            plan=self.state,
            seq=self.run.seq + 1,
            epoch=self.epoch,
            open=EMPTY if self.run.terminal else self.open,
            holds=self.holds,
            held_micro=self.run.held_micro + self.held_now,
        )
        line = Decided(name, data, tuple(self.commands), tuple(self._changed))
        rows = (line, *self._rows, *map(Left, sorted(self._left)))
        if run.short and (self.frees or run.held_micro == 0):  # nothing is held whose end would wake those that wait
            rows += freed(run)
        return Decision(run, rows, tuple(self._messages))

    # -- what the planner commands ------------------------------------------------------------------

    def obey(self, event: PlanEvent, fixed: Mapping[str, JSON] = FREE) -> list[PlanEvent]:
        """Advance the planner by one event and carry out its commands; returns the refusals as new events."""
        moved = advance(self.plan, self.state, event, fixed)
        self.state = moved.state
        self._changed.append(moved.changed)
        return self.carry_out(moved.commands)

    def advance(self, *events: PlanEvent) -> None:
        """Let the planner run to completion; a step that is refused at once (budget) is its next event."""
        pending = list(events)
        while pending and not self.run.terminal:
            pending += self.obey(pending.pop(0))

    def carry_out(self, commands: Sequence[Command]) -> list[PlanEvent]:
        """Do what the planner says; returns the refusals as new events."""
        self.commands += commands
        refused: list[PlanEvent] = []
        for command in commands:
            if isinstance(command, Start):
                fault = self._start(command)
                if fault:
                    refused.append(Failed(command.step, *fault))
            elif isinstance(command, Halt):
                self.halt(command.step)
            elif isinstance(command, Ended):
                self._end_inner(command)
            elif isinstance(command, SetTimer):
                key = f"after:{command.timer}"
                self._rows.append(TimerSet(key, "after", command.after_ms, command.timer))
            elif isinstance(command, ClearTimer):
                self._rows.append(TimerCleared(f"after:{command.timer}"))
            elif isinstance(command, Finish):
                self._finish(command)
        return refused

    def _end_inner(self, command: Ended) -> None:
        """End a step that the planner has carried out itself."""
        opened = self.open.get(command.step)
        if opened is None:  # a fork's first decision may end what was open where it comes from
            return
        status = "failed" if command.result is None else "succeeded"
        self.finish(command.step, opened, status, command.result, code=command.code, message=command.message)
        self._ended.append({"step": command.step, "task": opened.task, "status": status})
        self._rows += written(self.plan, self.plan.tasks[opened.task], opened.input or {}, command.result or {})

    def _start(self, command: Start) -> Fault | None:
        task = self.plan.tasks[command.task]
        started: dict[str, JSON] = {"step": command.step, "task": task.name, "kind": task.kind}
        if task.part_of and task.kind == "llm":
            started["turn"] = command.input["turn"]
        self._started.append(started)
        return begin(self, command.step, task, command.input, 1)

    def _finish(self, command: Finish) -> None:
        if command.ok:
            self.end("succeeded", output=command.output)
        elif self.run.cancel_reason is not None:
            self.end("cancelled")
        else:
            path, _, _ = command.reason.partition(":")
            self.fail("plan_failed", command.reason, path if " " not in path else "")

    # -- steps ----------------------------------------------------------------------------------------

    def row(self, row: Row) -> None:
        """One more row to write."""
        self._rows.append(row)

    def rows(self, *rows: Row) -> None:
        """Some more rows to write."""
        self._rows += rows

    def send(self, name: str, key: str, data: dict[str, JSON], *, run: UUID | None = None) -> None:
        """One more message, about this run or another."""
        self._messages.append(Message(name, self.run.tenant, run or self.run.id, key, data, self.run.trace))

    def opened(
        self, step: int, task: Task, waits: str, attempt: int, given: Mapping[str, JSON] | None
    ) -> OpenStep:
        """The step is open from now on, and waits for that. ``given`` None: its request says what it was given. What is
        kept for all attempts stays as it is."""
        before = self.open.get(step)
        opened = OpenStep(task.name, attempt, self.epoch, waits, self.facts.now_ms, given)
        if before is not None:
            opened = opened._replace(used_micro=before.used_micro, key=before.key, lost=before.lost)
        self.open = self.open.set(step, opened)
        return opened

    def keyed(self, step: int, key: str) -> None:
        """Keep the idempotency key of an open step for its further attempts."""
        self.open = self.open.set(step, self.open[step]._replace(key=key))

    def close(self, step: int) -> None:
        """The step has its result: it is no longer open."""
        self.open = self.open.delete(step)
        self.fund(step)

    def fund(self, step: int) -> None:
        """The step does not wait for money any more. What it was woken for, and does not take, is for others."""
        if (shortage := self.run.short.get(step)) is not None:
            self.run = self.run.but(short=self.run.short.delete(step))
            if shortage.scope != RUN:
                self._left.add(shortage.scope)

    def funded(self, shortage: Shortage) -> None:
        """The step that has waited for this has its hold."""
        self._left.discard(shortage.scope)

    def finish(
        self,
        step: int,
        opened: OpenStep,
        status: str,
        output: Mapping[str, JSON] | None,
        *,
        code: str = "",
        message: str = "",
        cost_micro: int = 0,
        retryable: bool | None = None,
    ) -> None:
        """End a step that nobody else has recorded the result of. ``retryable``: whether what it waited for may succeed
        another time, where that has failed."""
        error: dict[str, JSON] | None = {"code": code, "message": message} if code else None
        if error is not None and retryable is not None:
            error["retryable"] = retryable
        self._rows.append(self._closed(step, opened, status, output, error)._replace(cost_micro=cost_micro))
        self._rows += unwait(step, opened.waits)
        if opened.waits == "child" and code == "timeout":
            self._cancel_child(step, opened)
        self.close(step)

    def retry(self, step: int, opened: OpenStep, at_least_ms: int) -> None:
        """Wait before the next attempt; the jitter is derived from the step's name, so that it is the same again."""
        retry = self.plan.tasks[opened.task].retry
        digest = hashlib.blake2b(f"{self.run.id}:{step}.{opened.attempt}".encode(), digest_size=2).digest()
        delay = retry.after_ms(opened.attempt, int.from_bytes(digest) / 65_536)
        delay = max(delay, min(at_least_ms, MAX_RETRY_AFTER_MS))
        self.open = self.open.set(step, opened._replace(waits="retry"))
        self._rows.append(TimerSet(f"retry:{step}", "retry", delay, step, opened.attempt))

    def make_again(self, step: int, opened: OpenStep) -> None:
        """Make a call anew that was lost with the life that made it, at once; the attempt does not count."""
        self.open = self.open.set(step, opened._replace(waits="retry", lost=opened.lost + 1))
        self._rows.append(TimerSet(f"retry:{step}", "retry", 0, step, opened.attempt))

    def _closed(
        self,
        step: int,
        opened: OpenStep,
        status: str,
        output: Mapping[str, JSON] | None = None,
        error: Mapping[str, JSON] | None = None,
    ) -> StepClosed:
        kind = self.plan.tasks[opened.task].kind
        held = self.holds.get(f"{step}.{opened.attempt}", 0)
        return StepClosed(
            step, opened.attempt, opened, kind, status, opened.input, output, error, held_micro=held
        )

    def halt(self, step: int) -> None:
        """Nobody waits for this step any more; what it may yet cost stays held until it reports or expires."""
        opened = self.open.get(step)
        if opened is None:
            return
        if opened.waits == "call":
            once = self.plan.tasks[opened.task].calls_once(self.plan.tools)
            key = f"{step}.{opened.attempt}"
            held = key in self.holds
            self._rows += [self._closed(step, opened, "halted"), Withdrawn(key, once and not held)]
            if held:
                self.run = self.run.but(halted=self.run.halted.set(key, opened.task))
                self._rows.append(TimerSet(f"{UNCLAIMED}{key}", "hold", 0, step, opened.attempt))
        elif opened.waits != "decision":
            if opened.waits != "retry":
                self._rows.append(self._closed(step, opened, "halted"))
            self._rows += unwait(step, opened.waits)
            if opened.waits == "child":
                self._cancel_child(step, opened)
        self.close(step)
        self.epoch += 1

    def halt_all(self) -> None:
        for step in sorted(self.open):
            self.halt(step)

    def _cancel_child(self, step: int, opened: OpenStep) -> None:
        """What the run that was started may spend stays held until it has ended, and says so."""
        if (key := f"{step}.{opened.attempt}") in self.holds:
            self.run = self.run.but(halted=self.run.halted.set(key, opened.task))
        child = child_id(self.run.id, step, opened.attempt)
        data = {"run": str(child), "reason": f"run {self.run.id} does not wait for it any more", "by_parent": True}
        self.send("run.cancel_requested", f"cancel:{self.run.id}", data, run=child)

    def children(self) -> list[UUID]:
        """The runs that this one has started and waits for."""
        waiting = ((step, opened) for step, opened in sorted(self.open.items()) if opened.waits == "child")
        return [child_id(self.run.id, step, opened.attempt) for step, opened in waiting]

    # -- money ------------------------------------------------------------------------------------------

    def is_short(self, step: int) -> None:
        """The step waits for money: its line says so, for whoever decides it again."""
        self._short.append(step)

    # -- the end ------------------------------------------------------------------------------------------

    def wall(self) -> None:
        self._rows.append(TimerSet("wall", "wall", self.plan.limits.wall_ms))

    def fail(self, code: str, message: str, path: str = "") -> None:
        self.end("failed", error={"code": code, "message": message, "path": path})

    def end(
        self,
        status: str,
        *,
        output: Mapping[str, JSON] | None = None,
        error: Mapping[str, JSON] | None = None,
    ) -> None:
        so_far = self.run.but(plan=self.state)
        self.run, facts = end(so_far, self.facts, status, output=output, error=error)
        self._rows += (RunEnded(), *spending.ended(self.plan, self.run))
        self._messages += facts
