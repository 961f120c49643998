"""A turn: one decision while it is being made. Collects rows and messages; nothing here has an effect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from agentflow.core.agents import around
from agentflow.core.decide.ending import end
from agentflow.core.decide.goals import written
from agentflow.core.decide.starts import Fault, begin, unwait
from agentflow.core.decision import (
    CHILD,
    Decided,
    Decision,
    Facts,
    LedgerEntry,
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
from agentflow.core.run import EMPTY, OpenStep, Run, child_id, without
from agentflow.core.turn import FREE

JSON = Any
MAX_RETRY_AFTER_MS = 300_000
HOLD_GRACE_MS = 60_000


class Turn:
    """The decision in the making: the run as it was, what becomes of it, and what has to be written and sent.

    ``state`` and ``open`` are the planner's state and the open steps as they are by now; ``run`` has what else has
    changed. They are folded into one value at the end.
    """

    __slots__ = (
        "_changed", "_ended", "_given", "_held_now", "_holds", "_line", "_messages", "_rows", "_started", "commands",
        "epoch", "facts", "open", "plan", "run", "state",
    )  # fmt: skip

    def __init__(self, run: Run, facts: Facts) -> None:
        assert facts.plan is not None
        self.run = self._given = run
        self.state = run.plan
        self.open = run.open
        self._holds = run.holds
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
        self._held_now = 0

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
        run = self.run.but(
            plan=self.state,
            seq=self.run.seq + 1,
            epoch=self.epoch,
            open=EMPTY if self.run.terminal else self.open,
            holds=self._holds,
            held_micro=self.run.held_micro + self._held_now,
        )
        line = Decided(name, data, tuple(self.commands), tuple(self._changed))
        return Decision(run, (line, *self._rows), tuple(self._messages))

    # -- what the planner commands ------------------------------------------------------------------

    def obey(self, event: PlanEvent, fixed: Mapping[str, JSON] = FREE) -> list[PlanEvent]:
        """Advance the planner by one event and carry out its commands; returns the refusals as new events."""
        moved = advance(self.plan, self.state, event, fixed)
        self.state = moved.state
        self._changed.append(moved.changed)
        return self.carry_out(moved.commands)

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

    def send(self, name: str, key: str, data: dict[str, JSON], *, run: UUID | None = None) -> None:
        """One more message, about this run or another."""
        self._messages.append(Message(name, self.run.tenant, run or self.run.id, key, data, self.run.trace))

    def opened(
        self, step: int, task: Task, waits: str, attempt: int, given: Mapping[str, JSON] | None
    ) -> OpenStep:
        """The step is open from now on, and waits for that. ``given`` None: its request says what it was given."""
        opened = OpenStep(task.name, attempt, self.epoch, waits, self.facts.now_ms, given)
        self.open = self.open.set(step, opened)
        return opened

    def keyed(self, step: int, key: str) -> None:
        """Keep the idempotency key of an open step for its further attempts."""
        self.open = self.open.set(step, self.open[step]._replace(key=key))

    def close(self, step: int) -> None:
        """The step has its result: it is no longer open."""
        self.open = self.open.delete(step)

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
    ) -> None:
        """End a step that nobody else has recorded the result of."""
        error = {"code": code, "message": message} if code else None
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

    def _closed(
        self,
        step: int,
        opened: OpenStep,
        status: str,
        output: Mapping[str, JSON] | None = None,
        error: Mapping[str, JSON] | None = None,
    ) -> StepClosed:
        kind = self.plan.tasks[opened.task].kind
        held = self._holds.get(f"{step}.{opened.attempt}", 0)
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
            self._rows += [self._closed(step, opened, "halted"), Withdrawn(f"{step}.{opened.attempt}", once)]
            if f"{step}.{opened.attempt}" in self._holds:
                self.run = self.run.but(halted=self.run.halted.set(f"{step}.{opened.attempt}", True))
                after = (self.plan.tasks[opened.task].timeout_ms or 0) + HOLD_GRACE_MS
                self._rows.append(
                    TimerSet(f"hold:{step}.{opened.attempt}", "hold", after, step, opened.attempt)
                )
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
        child = child_id(self.run.id, step, opened.attempt)
        data = {"run": str(child), "reason": f"run {self.run.id} does not wait for it any more", "by_parent": True}
        self.send("run.cancel_requested", f"cancel:{self.run.id}", data, run=child)

    def children(self) -> list[UUID]:
        """The runs that this one has started and waits for."""
        waiting = ((step, opened) for step, opened in sorted(self.open.items()) if opened.waits == "child")
        return [child_id(self.run.id, step, opened.attempt) for step, opened in waiting]

    # -- money ------------------------------------------------------------------------------------------

    def hold(self, step: int, attempt: int, task: Task, amount: int, price: str) -> Fault | None:
        """Reserve what an attempt may cost; why not, when a limit is in the way."""
        if amount == 0:
            return None
        run = self.run
        within = self._agent_of(step)
        if within is not None and (refusal := self._over_cap(step, attempt, *within, amount)) is not None:
            return refusal
        held = run.held_micro + self._held_now
        run_headroom = 0 if run.frozen else run.limit_micro - run.spent_micro - held
        short_of = None
        if amount > run_headroom:
            short_of = ("run", run.limit_micro, run.spent_micro, held)
        elif price != CHILD and not self.facts.headroom.admits(self._held_now + amount):
            scope = self.facts.headroom
            short_of = ("tenant", scope.limit_micro or 0, scope.spent_micro, scope.held_micro)
        if short_of:
            mend = "raise the tenant's limit"
            if short_of[0] == "run":
                mend = "raise usd of the task that runs it" if run.parent else "raise limits.usd"
            return self._exhausted(step, attempt, f"tasks.{task.part_of or task.name}", amount, *short_of, mend)
        if within is not None:
            agent, opened = within
            self.open = self.open.set(agent, opened._replace(used_micro=opened.used_micro + amount))
        self._held_now += amount
        self._holds = self._holds.set(f"{step}.{attempt}", amount)
        self._rows.append(LedgerEntry(step, attempt, "hold", amount, amount, price))
        return None

    def _agent_of(self, step: int) -> tuple[int, OpenStep] | None:
        """The open step of the agent that an inner step belongs to."""
        agent = around(self.state, step)
        opened = None if agent is None else self.open.get(agent)
        return None if agent is None or opened is None else (agent, opened)

    def _over_cap(self, step: int, attempt: int, agent: int, opened: OpenStep, amount: int) -> Fault | None:
        """Why an agent may not have that much more, if its task's ``usd`` is in the way."""
        cap, used = self.plan.tasks[opened.task].price_cap_micro, opened.used_micro
        if cap is None or used + amount <= cap:
            return None
        path = f"tasks.{opened.task}.usd"
        return self._exhausted(step, attempt, path, amount, "task", cap, used, 0, "raise it")

    def _exhausted(
        self, step: int, attempt: int, path: str, amount: int, scope: str, limit: int, spent: int, held: int, mend: str
    ) -> Fault:
        """The refusal of an attempt that may cost too much, and the fact that says so."""
        data = {
            "run": str(self.run.id),
            "step": step,
            "scope": scope,
            "limit_micro": limit,
            "spent_micro": spent,
            "held_micro": held,
            "needed_micro": amount,
        }
        self.send("budget.exhausted", f"{step}.{attempt}:budget", data)
        return "budget_exhausted", (
            f"{path}: may cost up to {amount} micro-dollars, but the {scope} has "
            f"{limit - spent - held} left of {limit} ({mend} or lower max_tokens)"
        )

    def settle_whole(self, step: int, attempt: int, held: int) -> None:
        """Count a whole hold as spent (late, after the run's end or not)."""
        self._settle(step, attempt, held, held, "expired")
        self.note("timer.fired", {"kind": "hold", "step": step, "attempt": attempt})

    def settle(self, step: int, attempt: int, cost: int) -> None:
        """Count what a child run has cost in place of what was held for it."""
        self._settle(step, attempt, self._holds.get(f"{step}.{attempt}", 0), cost, CHILD)

    def _settle(self, step: int, attempt: int, held: int, cost: int, price: str) -> None:
        key = f"{step}.{attempt}"
        self._holds = without(self._holds, key)
        self.run = self.run.but(
            spent_micro=self.run.spent_micro + cost,
            held_micro=self.run.held_micro - held,
            halted=without(self.run.halted, key),
            frozen=self.run.frozen or cost > held,
        )
        if held or cost:
            self._rows.append(LedgerEntry(step, attempt, "settle", cost, -held, price))

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
        self._rows.append(RunEnded())
        self._messages += facts
