"""A turn: one decision while it is being made. Collects rows and messages; nothing here has an effect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from agentflow.core.chat import chat, output_schema
from agentflow.core.decide.ending import end
from agentflow.core.decision import (
    Decided,
    Decision,
    Facts,
    LedgerEntry,
    Row,
    RunEnded,
    StepClosed,
    Subscribed,
    TimerCleared,
    TimerSet,
    Unsubscribed,
    Withdrawn,
)
from agentflow.core.message import Message
from agentflow.core.money import input_tokens_bound, llm_micro, tool_micro
from agentflow.core.plan import Plan, Task
from agentflow.core.planner import ClearTimer, Failed, Finish, Halt, PlanEvent, SetTimer, Start, advance
from agentflow.core.run import EMPTY, OpenStep, Run, without

JSON = Any
MAX_BACKOFF_MS = 300_000
HOLD_GRACE_MS = 60_000
Fault = tuple[str, str]  # code, message


class Turn:
    """The decision in the making: the run as it was, what becomes of it, and what has to be written and sent.

    ``state`` and ``open`` are the planner's state and the open steps as they are by now; ``run`` has what else has
    changed. They are folded into one value at the end.
    """

    __slots__ = (
        "_changed", "_commands", "_epoch", "_held_now", "_holds", "_line", "_messages", "_rows", "_started", "facts",
        "open", "plan", "run", "state",
    )  # fmt: skip

    def __init__(self, run: Run, facts: Facts) -> None:
        assert facts.plan is not None
        self.run = run
        self.state = run.plan
        self.open = run.open
        self._holds = run.holds
        self._epoch = run.epoch
        self.facts = facts
        self.plan: Plan = facts.plan
        self._rows: list[Row] = []
        self._messages: list[Message] = []
        self._commands: list[Any] = []
        self._changed: list[JSON] = []
        self._line: tuple[str, Mapping[str, JSON]] | None = None
        self._started: list[dict[str, JSON]] = []
        self._held_now = 0

    def note(self, name: str, data: Mapping[str, JSON]) -> None:
        """Say for the history what is being decided upon."""
        self._line = (name, data)

    def decision(self) -> Decision:
        if self._line is None:
            return Decision(rows=tuple(self._rows)) if self._rows else Decision()
        name, data = self._line
        if self._started:
            data = {**data, "started": self._started}
        run = self.run.but(
            plan=self.state,
            seq=self.run.seq + 1,
            epoch=self._epoch,
            open=EMPTY if self.run.terminal else self.open,
            holds=self._holds,
            held_micro=self.run.held_micro + self._held_now,
        )
        line = Decided(name, data, tuple(self._commands), tuple(self._changed))
        return Decision(run, (line, *self._rows), tuple(self._messages))

    # -- what the planner commands ------------------------------------------------------------------

    def obey(self, event: PlanEvent) -> list[PlanEvent]:
        """Advance the planner by one event and carry out its commands; returns the refusals as new events."""
        moved = advance(self.plan, self.state, event)
        self.state = moved.state
        self._commands += moved.commands
        self._changed.append(moved.changed)
        refused: list[PlanEvent] = []
        for command in moved.commands:
            if isinstance(command, Start):
                fault = self._start(command)
                if fault:
                    refused.append(Failed(command.step, *fault))
            elif isinstance(command, Halt):
                self.halt(command.step)
            elif isinstance(command, SetTimer):
                key = f"after:{command.timer}"
                self._rows.append(TimerSet(key, "after", command.after_ms, command.timer))
            elif isinstance(command, ClearTimer):
                self._rows.append(TimerCleared(f"after:{command.timer}"))
            elif isinstance(command, Finish):
                self._finish(command)
        return refused

    def _start(self, command: Start) -> Fault | None:
        task = self.plan.tasks[command.task]
        self._started.append({"step": command.step, "task": task.name, "kind": task.kind})
        if task.kind in ("llm", "tool"):
            return self.request(command.step, task.name, command.input, 1)
        waits = "timer" if task.kind == "wait" else "event"
        opened = OpenStep(task.name, 1, self._epoch, waits, self.facts.now_ms, command.input)
        self.open = self.open.set(command.step, opened)
        if task.kind == "wait":
            self._rows.append(TimerSet(f"wait:{command.step}", "wait", task.for_ms or 0, command.step, 1))
            return None
        self._rows.append(Subscribed(command.step, task.use))
        if task.timeout_ms:
            self._rows.append(
                TimerSet(f"timeout:{command.step}", "timeout", task.timeout_ms, command.step, 1)
            )
        return None

    def _finish(self, command: Finish) -> None:
        if command.ok:
            self.end("succeeded", output=command.output)
        elif self.run.cancel_reason is not None:
            self.end("cancelled")
        else:
            path, _, _ = command.reason.partition(":")
            self.fail("plan_failed", command.reason, path if " " not in path else "")

    # -- steps ----------------------------------------------------------------------------------------

    def request(self, step: int, task_name: str, given: Mapping[str, JSON], attempt: int) -> Fault | None:
        """Ask for one attempt of an llm or tool step, with its worst price held; a refusal is returned."""
        task = self.plan.tasks[task_name]
        data: dict[str, JSON] = {
            "run": str(self.run.id),
            "step": step,
            "attempt": attempt,
            "epoch": self._epoch,
            "task": task.name,
        }
        if task.kind == "llm":
            price = self.run.models[task.use]
            messages, schema = chat(task, given), output_schema(task)
            bound = input_tokens_bound(messages, len(str(schema)) if schema else 0)
            held, version = llm_micro(price, bound, task.max_tokens), price.price_version
            data |= {
                "model": {"provider": price.provider, "model": price.model},
                "messages": messages,
                "input": dict(given),
                "max_output_tokens": task.max_tokens,
                "output_schema": schema,
            }
        else:
            held, version = tool_micro(self.plan, task), "plan"
            data |= {
                "tool": task.use,
                "workflow": self.run.workflow,
                "version": self.run.version,
                "input": dict(given),
                "key": None,
            }
        data |= {"timeout_ms": task.timeout_ms or 60_000, "hold_micro": held}
        refusal = self._hold(step, attempt, task, held, version)
        opened = OpenStep(task.name, attempt, self._epoch, "call", self.facts.now_ms)
        self.open = self.open.set(step, opened)
        if refusal:
            code, message = refusal
            error = {"code": code, "message": message}
            self._rows.append(StepClosed(step, attempt, opened, task.kind, "failed", given, error=error))
            self._drop(step)
            return refusal
        self._messages.append(
            Message(
                f"{task.kind}.requested",
                self.run.tenant,
                self.run.id,
                f"{step}.{attempt}",
                data,
                self.run.trace,
            )
        )
        return None

    def close(self, step: int) -> None:
        """The step has its result (recorded before): it is no longer open."""
        self._drop(step)

    def finish(
        self,
        step: int,
        opened: OpenStep,
        status: str,
        output: Mapping[str, JSON] | None,
        *,
        code: str = "",
        message: str = "",
    ) -> None:
        """End a step that waited for a timer or an event."""
        error = {"code": code, "message": message} if code else None
        self._rows.append(self._closed(step, opened, status, output, error))
        self._unwait(step, opened)
        self._drop(step)

    def retry(self, step: int, opened: OpenStep, at_least_ms: int) -> None:
        """Wait before the next attempt: exponential, capped, spread by a jitter derived from the step's name."""
        task = self.plan.tasks[opened.task]
        delay = min(task.backoff_ms * 2 ** (opened.attempt - 1), MAX_BACKOFF_MS)
        spread = hashlib.blake2b(f"{self.run.id}:{step}.{opened.attempt}".encode(), digest_size=2).digest()
        delay += delay * int.from_bytes(spread) // (4 * 65_536)
        delay = max(delay, min(at_least_ms, MAX_BACKOFF_MS))
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
            self._rows += [self._closed(step, opened, "halted"), Withdrawn(f"{step}.{opened.attempt}")]
            if f"{step}.{opened.attempt}" in self._holds:
                self.run = self.run.but(halted=self.run.halted.set(f"{step}.{opened.attempt}", True))
                after = (self.plan.tasks[opened.task].timeout_ms or 0) + HOLD_GRACE_MS
                self._rows.append(
                    TimerSet(f"hold:{step}.{opened.attempt}", "hold", after, step, opened.attempt)
                )
        elif opened.waits != "decision":
            if opened.waits != "retry":
                self._rows.append(self._closed(step, opened, "halted"))
            self._unwait(step, opened)
        self._drop(step)
        self._epoch += 1

    def halt_all(self) -> None:
        for step in sorted(self.open):
            self.halt(step)

    def _unwait(self, step: int, opened: OpenStep) -> None:
        if opened.waits == "retry":
            self._rows.append(TimerCleared(f"retry:{step}"))
        elif opened.waits == "timer":
            self._rows.append(TimerCleared(f"wait:{step}"))
        elif opened.waits == "event":
            self._rows += [Unsubscribed(step), TimerCleared(f"timeout:{step}")]

    def _drop(self, step: int) -> None:
        self.open = self.open.delete(step)

    # -- money ------------------------------------------------------------------------------------------

    def _hold(self, step: int, attempt: int, task: Task, amount: int, price: str) -> Fault | None:
        if amount == 0:
            return None
        run = self.run
        held = run.held_micro + self._held_now
        run_headroom = 0 if run.frozen else run.limit_micro - run.spent_micro - held
        short_of = None
        if amount > run_headroom:
            short_of = ("run", run.limit_micro, run.spent_micro, held)
        elif not self.facts.headroom.admits(self._held_now + amount):
            scope = self.facts.headroom
            short_of = ("tenant", scope.limit_micro or 0, scope.spent_micro, scope.held_micro)
        if short_of:
            scope_name, limit, spent, held = short_of
            data = {
                "run": str(run.id),
                "step": step,
                "scope": scope_name,
                "limit_micro": limit,
                "spent_micro": spent,
                "held_micro": held,
                "needed_micro": amount,
            }
            key = f"{step}.{attempt}:budget"
            self._messages.append(Message("budget.exhausted", run.tenant, run.id, key, data, run.trace))
            mend = "raise limits.usd" if scope_name == "run" else "raise the tenant's limit"
            return "budget_exhausted", (
                f"tasks.{task.name}: may cost up to {amount} micro-dollars, but the {scope_name} has "
                f"{limit - spent - held} left of {limit} ({mend} or lower max_tokens)"
            )
        self._held_now += amount
        self._holds = self._holds.set(f"{step}.{attempt}", amount)
        self._rows.append(LedgerEntry(step, attempt, "hold", amount, amount, price))
        return None

    def settle_whole(self, step: int, attempt: int, held: int) -> None:
        """Count a whole hold as spent (late, after the run's end or not)."""
        key = f"{step}.{attempt}"
        self._holds = self._holds.delete(key)
        self.run = self.run.but(
            spent_micro=self.run.spent_micro + held,
            held_micro=self.run.held_micro - held,
            halted=without(self.run.halted, key),
        )
        self._rows.append(LedgerEntry(step, attempt, "settle", held, -held, "expired"))
        self.note("timer.fired", {"kind": "hold", "step": step, "attempt": attempt})

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
        self.run, fact = end(so_far, self.facts, status, output=output, error=error)
        self._rows.append(RunEnded())
        self._messages.append(fact)
