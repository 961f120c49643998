"""Replay: decide a run's recorded history again, line by line, and compare what each comes to with what was recorded.

The same plan, the same results and the same signals have to lead to the same hashes: whatever process decides, and
whatever version of this code, as long as it is meant to finish runs that an earlier one began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from agentflow.core import fork
from agentflow.core.plan import Plan
from agentflow.core.planner import (
    Advance,
    Begin,
    ClearTimer,
    Command,
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
    advance,
)
from agentflow.store.changes import decision_hash

JSON = Any
Row = Mapping[str, JSON]
AT_ONCE = frozenset({"budget_exhausted", "bad_time", "bad_key"})
"""Codes of steps that were refused by the decision that would have started them."""

CARRIED = frozenset({"agent", "compensate", "judge", "keep"})
"""Kinds of tasks whose steps begin in any case: they can only end by what becomes of their inner steps."""

HISTORY, RESULT, HALTED = "history", "result", "halted"


class Divergence(NamedTuple):
    """Where a replay went another way: the line, what it is ``about`` (history, result or halted), and what differs."""

    seq: int
    name: str
    about: str
    what: str

    def __str__(self) -> str:
        return f"line {self.seq} ({self.name}): {self.what}"


class Replay:
    """One run, decided again. ``input``: the run's own; ``attempts``: its rows of steps by (step, attempt).

    ``started`` and ``halted`` say in which line each step was, ``state`` and ``status`` what the lines so far come to,
    ``open`` what has been started and not ended, ``cancelled`` why it is to stop, ``found`` where it went another way.
    """

    def __init__(self, plan: Plan, given: Row, attempts: Mapping[tuple[int, int], Row]) -> None:
        self.plan = plan
        self.status = "requested"
        self.state: PlanState | None = None
        self.epoch = 0
        self.started: dict[int, tuple[int, int]] = {}  # step -> (line that started it, epoch)
        self.halted: dict[int, int] = {}  # step -> line that halted it
        self.timers: dict[
            int, tuple[int, int]
        ] = {}  # the planner's, pending -> (line that set it, milliseconds)
        self.fired: dict[int, tuple[int, int]] = {}  # line -> the timer that fired there
        self.finished_at: int | None = None
        self.output: Row | None = None
        self.seq = 0
        self._given = given
        self._attempts = attempts
        self.cancelled: str | None = None
        self.open: dict[int, Start] = {}
        self._kept: dict[int, int] = {}  # step -> attempt that was not started, because the run was paused
        self._commands: list[Command] = []
        self._changed: list[JSON] = []
        self._short: Sequence[int] = ()  # steps that wait for money from this line on
        self.found: Divergence | None = None
        self._name = ""

    def run(self, lines: Iterable[Row]) -> Divergence | None:
        """Decide lines (seq, name, data, hash) again; the first that differs, None when none does."""
        for line in lines:
            if not self.line(line):
                break
        return self.found

    def line(self, line: Row) -> bool:
        """Decide one more line; False when it differs, and it makes no sense to go on."""
        self.seq += 1
        self._name, data = line["name"], line["data"]
        if line["seq"] != self.seq:
            self._find(HISTORY, f"it is missing: the next one is {line['seq']}")
            return False
        self._commands, self._changed = [], []
        self._short = data.get("short", ())
        if not self._decide(self._name, data):
            return False
        self._compare(data)
        if self.found is None and decision_hash(self.status, self._changed, self._commands) != bytes(
            line["hash"]
        ):
            # What was started is as recorded: it is the state, or what steps were given or ended with.
            self._find(HISTORY, f"it comes to another state than was recorded; now {self._said()}")
        return self.found is None

    def _compare(self, data: Row) -> None:
        """What can be told apart in words: the steps that were started, and what they were given."""
        starts = {each.step: each for each in self._commands if isinstance(each, Start)}
        recorded = {each["step"]: each["task"] for each in data.get("started", ())}
        if recorded != {step: each.task for step, each in starts.items()}:
            now = ", ".join(f"{step} {each.task}" for step, each in starts.items()) or "nothing"
            then = ", ".join(f"{step} {task}" for step, task in recorded.items()) or "nothing"
            self._find(HISTORY, f"it started {then}; now it starts {now}")
            return
        for step, each in starts.items():
            row = self._attempts.get((step, 1))
            if row is not None and row["input"] is not None and row["input"] != each.input:
                self._find(
                    HISTORY,
                    f"step {step} ({each.task}) was given {row['input']}; now it is given {each.input}",
                )
                return

    def _said(self) -> str:
        variables = self.state.vars if self.state else None
        return f"{self.status}, vars {variables}, commands {self._commands}"

    def _find(self, about: str, what: str) -> None:
        if self.found is None:
            self.found = Divergence(self.seq, self._name, about, what)

    # -- one line -----------------------------------------------------------------------------------------

    def _decide(self, name: str, data: Row) -> bool:
        expired = (name == "timer.fired" and data["kind"] == "hold") or data.get("late", False)
        if self.finished_at is not None and not expired:
            self._find(HALTED, f"it comes after the end in line {self.finished_at}")
            return False
        step = data.get("step")
        if step in self.halted and not expired:
            self._find(HALTED, f"it is about step {step}, which line {self.halted[step]} halted")
            return False
        handler = HANDLERS.get(name)
        if handler is None:
            self._find(HISTORY, "no function decides upon that")
            return False
        for event in handler(self, data):
            self._advance([event])
        return self.found is None

    def _planned(self, data: Row) -> Iterator[PlanEvent]:
        self.status = "planned"
        if data["plan_hash"] != self.plan.hash:
            self._find(HISTORY, f"it pinned plan {data['plan_hash'][:12]}; this one is {self.plan.hash[:12]}")
        self._given = {**self._given, **data.get("goal", {})}
        yield from ()

    def _failed(self, data: Row) -> Iterator[PlanEvent]:
        self._end("failed")
        yield from ()

    def _started(self, data: Row) -> Iterator[PlanEvent]:
        self.status = "running"
        yield Begin(dict(self._given))

    def _forked(self, data: Row) -> Iterator[PlanEvent]:
        from_there = fork.read(data, self._given)
        self.status = "running"
        self.cancelled = from_there.cancelled
        self.state = from_there.state
        self._changed.append(from_there.base)
        pending = self._moved(advance(self.plan, self.state, from_there.event, from_there.sets))
        if self.finished_at is None:
            pending += self._carry_out(from_there.again(self._commands))
        self._advance(pending)
        yield from ()

    def _completed(self, data: Row) -> Iterator[PlanEvent]:
        step, attempt = data["step"], data["attempt"]
        row = self._attempts.get((step, attempt))
        if row is None or row["status"] != data["status"]:
            self._find(
                RESULT,
                f"step {step}.{attempt} is {data['status']} here, and {row and row['status']} in steps",
            )
            return
        if data["status"] == "succeeded":
            self.open.pop(step, None)
            yield Completed(step, row["output"])
            return
        error = row["error"]
        passes = error["code"] != "cancelled" if "child" in data else error["retryable"]
        if data.get("again"):
            return  # it was lost with the life that made it, and does not count
        counts = attempt - data.get("lost", 0)
        if self.plan.tasks[data["task"]].retry.again(counts, error["code"], may_pass=passes):
            return
        self.open.pop(step, None)
        yield Failed(step, error["code"], error["message"])

    def _child(self, data: Row) -> Iterator[PlanEvent]:
        if data["late"]:
            return
        yield from self._completed(data)

    def _timer(self, data: Row) -> Iterator[PlanEvent]:
        kind, step = data["kind"], data.get("step", 0)
        if kind == "wall":
            self._halt_all()
            self._end("failed")
        elif kind == "retry":
            yield from self._begun(step, data["attempt"] + 1)
        elif kind == "budget":
            yield from self._begun(step, data["attempt"])
        elif kind == "wait":
            self.open.pop(step, None)
            yield Completed(step, {})
        elif kind == "after":
            if data["timer"] not in self.timers:
                self._find(HALTED, f"it is about timer {data['timer']}, which is not set")
                return
            self.fired[self.seq] = self.timers.pop(data["timer"])
            yield Elapsed(data["timer"])
        elif kind == "timeout":
            self.open.pop(step, None)
            yield TimedOut(step)

    def _signal(self, data: Row) -> Iterator[PlanEvent]:
        step = data.get("step")
        if step is None:
            yield Signal(data["name"], data.get("data"))
            return
        row = self._attempts.get((step, 1))
        if row is None:
            self._find(RESULT, f"step {step} has its event here, and no result in steps")
            return
        self.open.pop(step, None)
        yield Completed(step, row["output"])

    def _answered(self, data: Row) -> Iterator[PlanEvent]:
        if "approve" not in data:
            yield from self._signal(data)
        elif data["approve"]:
            yield from self._begun(data["step"], data["attempt"])
        else:
            self.open.pop(data["step"], None)
            error = (self._attempts.get((data["step"], data["attempt"])) or {}).get("error") or {}
            yield Failed(data["step"], error.get("code", ""), error.get("message", ""))

    def _pause(self, data: Row) -> Iterator[PlanEvent]:
        self.status = "paused"
        yield from ()

    def _resume(self, data: Row) -> Iterator[PlanEvent]:
        self.status = "running"
        kept, self._kept = self._kept, {}
        for step, attempt in sorted(kept.items()):
            if step in self.open:
                yield from self._begun(step, attempt)

    def _cancel(self, data: Row) -> Iterator[PlanEvent]:
        asked_before, self.cancelled = self.cancelled is not None, data["reason"]
        if self.status in ("running", "paused") and not asked_before:
            before, self.status = self.state, "running"
            yield Signal("cancel", {"reason": data["reason"]})
            if self.finished_at is not None or self.state != before:
                if self.finished_at is None:
                    yield from self._resume(data)
                return
        self._halt_all()
        self._end("cancelled")

    # -- what follows from it -----------------------------------------------------------------------------

    def _advance(self, pending: list[PlanEvent]) -> None:
        while pending and self.finished_at is None:
            pending += self._moved(advance(self.plan, self.state, pending.pop(0)))

    def _moved(self, moved: Advance) -> list[PlanEvent]:
        self.state = moved.state
        self._changed.append(moved.changed)
        return self._carry_out(moved.commands)

    def _carry_out(self, commands: Sequence[Command]) -> list[PlanEvent]:
        """Note what the commands come to; the refusals among them are the next events."""
        self._commands += commands
        refused: list[PlanEvent] = []
        for command in commands:
            if isinstance(command, Start):
                self.started[command.step] = (self.seq, self.epoch)
                self.open[command.step] = command
                if self.plan.tasks[command.task].kind not in CARRIED:
                    refused += self._begun(command.step, 1)
            elif isinstance(command, Halt):
                if self.open.pop(command.step, None) is not None:
                    self.epoch += 1
                self.halted[command.step] = self.seq
            elif isinstance(command, Ended):
                self.open.pop(command.step, None)
            elif isinstance(command, SetTimer):
                self.timers[command.timer] = (self.seq, command.after_ms)
            elif isinstance(command, ClearTimer):
                self.timers.pop(command.timer, None)
            elif isinstance(command, Finish):
                cancelled = "cancelled" if self.cancelled is not None else "failed"
                self.output = command.output if command.ok else None
                self._end("succeeded" if command.ok else cancelled)
        return refused

    def _begun(self, step: int, attempt: int) -> Iterator[PlanEvent]:
        """The refusal of an attempt that there was no money for: known by its row, which nobody has reported (what a
        tool, a model or another run has come to says whether it may pass)."""
        if self.status == "paused":
            self._kept[step] = attempt
            return
        if step in self._short:
            return  # it waits for money: the refusal, if there is one, comes later
        row = self._attempts.get((step, attempt))
        error = (row or {}).get("error") or {}
        if error.get("code") in AT_ONCE and "retryable" not in error:
            self.open.pop(step, None)
            yield Failed(step, error["code"], error["message"])

    def _halt_all(self) -> None:
        self.epoch += len(self.open)
        for each in self.open:
            self.halted[each] = self.seq

    def _end(self, status: str) -> None:
        self.status = status
        self.open.clear()
        self.finished_at = self.seq


HANDLERS: Mapping[str, Callable[[Replay, Row], Iterator[PlanEvent]]] = {
    "run.planned": Replay._planned,
    "run.failed": Replay._failed,
    "run.started": Replay._started,
    fork.ENTRY: Replay._forked,
    "step.completed": Replay._completed,
    "timer.fired": Replay._timer,
    "signal.received": Replay._signal,
    "step.answered": Replay._answered,
    "child.ended": Replay._child,
    "run.paused": Replay._pause,
    "run.resumed": Replay._resume,
    "run.cancel_requested": Replay._cancel,
}
