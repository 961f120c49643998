"""Replay: decide a run's stored history again with the pure core, and compare what each line came to.

Results are not in the history but in steps; a run's own input is in runs. What a signal carried is stored nowhere
(a line says its name only), so the harness gives the data that it knows it has sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any
from uuid import UUID

import orjson

from agentflow.core.plan import Plan
from agentflow.core.planner import (
    Begin,
    Command,
    Completed,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    Signal,
    Start,
    TimedOut,
    advance,
)
from agentflow.store.changes import decision_hash, dump
from chaos.books import Attempt
from chaos.statements import Row
from chaos.violation import Violation

JSON = Any


class Replay:
    """One run, decided again line by line. ``violations`` says where the stored run went another way."""

    def __init__(self, run: Row, plan: Plan, attempts: Mapping[Attempt, Row], signal_data: JSON) -> None:
        self.violations: list[Violation] = []
        self.started: dict[int, tuple[int, int]] = {}  # step -> (line that started it, epoch)
        self.halted: dict[int, int] = {}  # step -> line that halted it
        self.finished_at: int | None = None
        self.state: PlanState | None = None
        self.epoch = 0
        self._id: UUID = run["run_id"]
        self._row = run
        self._plan = plan
        self._attempts = attempts
        self._signal_data = signal_data
        self._status = "requested"
        self._cancelled: str | None = None
        self._open: set[int] = set()
        self._commands: list[Command] = []
        self._changed: list[JSON] = []
        self._seq = 0

    def run(self, lines: list[Row]) -> list[Violation]:
        """Decide every line again; stops at the first that differs."""
        for line in lines:
            self._seq += 1
            if line["seq"] != self._seq:
                self._find(8, f"line {self._seq} of its history is missing (the next is {line['seq']})")
                break
            self._commands, self._changed = [], []
            if not self._decide(line["name"], line["data"]):
                break
            if decision_hash(self._status, self._changed, self._commands) != bytes(line["hash"]):
                what = f"line {self._seq} ({line['name']}) comes to another state: {self._status}, "
                self._find(
                    8, what + f"vars {self.state.vars if self.state else None}, commands {self._commands}"
                )
                break
        else:
            self._compare()
        return self.violations

    def _compare(self) -> None:
        """The end of the history is the state of the run."""
        if self._status != self._row["status"]:
            self._find(8, f"its history ends {self._status}, the run is {self._row['status']}")
        if self.epoch != self._row["epoch"]:
            self._find(4, f"its history comes to epoch {self.epoch}, the run is at {self._row['epoch']}")
        stored = self._row["state"] or {}
        if self.state is not None and (stored.get("vars"), stored.get("cursor")) != (
            self.state.vars,
            orjson.loads(dump(self.state.cursor) or b""),
        ):
            self._find(8, f"its history comes to {self.state}, the run's state is {stored}")

    def _find(self, invariant: int, what: str) -> None:
        self.violations.append(Violation(invariant, what, self._id))

    # -- one line -----------------------------------------------------------------------------------------

    def _decide(self, name: str, data: Mapping[str, JSON]) -> bool:
        if self.finished_at is not None and not (name == "timer.fired" and data["kind"] == "hold"):
            self._find(4, f"line {self._seq} ({name}) comes after its end in line {self.finished_at}")
            return False
        step = data.get("step")
        if step in self.halted and not (name == "timer.fired" and data["kind"] == "hold"):
            self._find(
                4, f"line {self._seq} ({name}) is about step {step}, halted in line {self.halted[step]}"
            )
            return False
        handler = HANDLERS.get(name)
        if handler is None:
            self._find(8, f"line {self._seq} is a {name}, which no function decides upon")
            return False
        for event in handler(self, data):
            self._advance(event)
        return True

    def _planned(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        self._status = "planned"
        yield from ()

    def _failed(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        self._end("failed")
        yield from ()

    def _started(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        self._status = "running"
        yield Begin(dict(self._row["input"]))

    def _completed(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        step, attempt = data["step"], data["attempt"]
        row = self._attempts.get((self._id, step, attempt))
        if row is None or row["status"] != data["status"]:
            self._find(
                3,
                f"step {step}.{attempt} is {data['status']} in line {self._seq}, {row and row['status']} in steps",
            )
            return
        if data["status"] == "succeeded":
            self._open.discard(step)
            yield Completed(step, row["output"])
            return
        error = row["error"]
        if error["retryable"] and attempt < self._plan.tasks[data["task"]].retry_max:
            return
        self._open.discard(step)
        yield Failed(step, error["code"], error["message"])

    def _timer(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        kind, step = data["kind"], data.get("step", 0)
        if kind == "wall":
            self.epoch += len(self._open)
            for each in self._open:
                self.halted[each] = self._seq
            self._end("failed")
        elif kind == "retry":
            yield from self._refused(step, data["attempt"] + 1)
        elif kind == "wait":
            self._open.discard(step)
            yield Completed(step, {})
        elif kind == "timeout":
            self._open.discard(step)
            yield TimedOut(step)

    def _signal(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        step = data.get("step")
        if step is None:
            yield Signal(data["name"], self._signal_data)
            return
        row = self._attempts.get((self._id, step, 1))
        if row is None:
            self._find(3, f"step {step} has its event in line {self._seq} and no result")
            return
        self._open.discard(step)
        yield Completed(step, row["output"])

    def _cancel(self, data: Mapping[str, JSON]) -> Iterator[PlanEvent]:
        asked_before, self._cancelled = self._cancelled is not None, data["reason"]
        if self._status == "running" and not asked_before:
            before = self.state
            yield Signal("cancel", {"reason": data["reason"]})
            if self.finished_at is not None or self.state != before:
                return
        self.epoch += len(self._open)
        for each in self._open:
            self.halted[each] = self._seq
        self._end("cancelled")

    # -- what follows from it -----------------------------------------------------------------------------

    def _advance(self, event: PlanEvent) -> None:
        pending = [event]
        while pending and self.finished_at is None:
            moved = advance(self._plan, self.state, pending.pop(0))
            self.state = moved.state
            self._commands += moved.commands
            self._changed.append(moved.changed)
            for command in moved.commands:
                if isinstance(command, Start):
                    self.started[command.step] = (self._seq, self.epoch)
                    self._open.add(command.step)
                    pending += self._refused(command.step, 1)
                elif isinstance(command, Halt):
                    if command.step in self._open:
                        self._open.discard(command.step)
                        self.epoch += 1
                    self.halted[command.step] = self._seq
                elif isinstance(command, Finish):
                    ended = (
                        "succeeded"
                        if command.ok
                        else "cancelled"
                        if self._cancelled is not None
                        else "failed"
                    )
                    self._end(ended)

    def _refused(self, step: int, attempt: int) -> Iterator[PlanEvent]:
        """The refusal of an attempt that there was no money for: known by its row, which nobody has reported."""
        row = self._attempts.get((self._id, step, attempt))
        error = (row or {}).get("error") or {}
        if error.get("code") == "budget_exhausted":
            self._open.discard(step)
            yield Failed(step, error["code"], error["message"])

    def _end(self, status: str) -> None:
        self._status = status
        self._open.clear()
        self.finished_at = self._seq


HANDLERS: Mapping[str, Callable[[Replay, Mapping[str, JSON]], Iterator[PlanEvent]]] = {
    "run.planned": Replay._planned,
    "run.failed": Replay._failed,
    "run.started": Replay._started,
    "step.completed": Replay._completed,
    "timer.fired": Replay._timer,
    "signal.received": Replay._signal,
    "run.cancel_requested": Replay._cancel,
}
