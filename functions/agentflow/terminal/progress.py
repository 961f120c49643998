"""A run, live: a table that moves in a terminal, a line per event elsewhere."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from agentflow.terminal.sse import Event, run_events

if TYPE_CHECKING:
    from httpx import AsyncClient
    from rich.console import Console, RenderableType

MAX_LINES = 500
"""Most steps kept for showing; older ones count in the totals only."""
PARTS = "--"
"""Between the names of an agent's task and of a part of it (core.plan, which is too much to import for this)."""
SHORT = "waiting for money"
STYLES = {
    "running": "cyan", "waiting": "cyan", SHORT: "yellow", "succeeded": "green", "failed": "red", "halted": "yellow",
}  # fmt: skip
ENDED = ("run.completed", "run.failed", "run.cancelled")
TIMERS = ("retry", "wait", "timeout", "budget")
"""Timers that change what a step does. Others are the run's and the tree's, or of money held for what was halted."""


@dataclass(slots=True)
class Step:
    """A step as it stands: times in seconds since the run's first event, money in micro-dollars."""

    number: int
    task: str
    kind: str
    state: str = "running"
    attempts: int = 1
    tokens: int = 0
    cost_micro: int = 0
    began: float = 0.0
    took: float | None = None
    fault: str = ""


@dataclass(slots=True)
class Progress:
    """What the events seen so far say about a run."""

    run: str
    title: str = ""
    status: str = "requested"
    steps: OrderedDict[int, Step] = field(default_factory=OrderedDict)
    hidden: int = 0
    tokens: int = 0
    cost_micro: int = 0
    seconds: float = 0.0
    first: datetime | None = None
    final: dict[str, Any] | None = None

    def apply(self, event: Event) -> list[str]:
        """Take in an event; the lines that say what it changed."""
        if event.name in ENDED:
            return self._end(event.data)
        data = event.data["data"]
        self._clock(event.data["at"])
        lines = []
        if event.name == "run.planned":
            self.title, self.status = f"{data['workflow']}@{data['version']}", "planned"
            lines.append(f"{self.title} planned")
        elif event.name == "run.started":
            self.status = "running"
        elif event.name == "run.forked":
            self.status = "running"
            lines.append(f"forked from {data['run']} before step {data['at']}")
        elif event.name == "step.completed":
            lines.append(self._completed(data))
        elif event.name == "timer.fired" and data["kind"] in TIMERS:
            lines.append(self._timer(data))
        elif event.name == "signal.received":
            if data.get("step"):
                lines.append(self._close(data["step"], data["task"], "succeeded"))
            else:
                lines.append(f"signal {data['name']}")
        elif event.name == "step.answered":
            lines.append(self._answered(data))
        elif event.name == "child.ended" and not data["late"]:
            self.cost_micro += data["cost_micro"]
            lines.append(self._close(data["step"], data["task"], data["status"]) + f", run {data['child']}")
        elif event.name in ("run.paused", "run.resumed"):
            self.status = "paused" if event.name == "run.paused" else "running"
            lines.append(f"{self.status}: {data['reason']}")
        elif event.name == "run.cancel_requested":
            lines.append(f"cancel requested: {data['reason']}")
        lines += [self._close(each["step"], each["task"], each["status"]) for each in data.get("ended", ())]
        short = set(data.get("short", ()))
        for started in data.get("started", ()):
            state = "waiting" if started["kind"] in ("wait", "event", "human") else "running"
            name = named(started["task"], started.get("turn"))
            step = self._step(started["step"], name, started["kind"])
            step.state, step.began = SHORT if step.number in short else state, self.seconds
            short.discard(step.number)
            lines.append(f"step {step.number} {step.task} ({step.kind}) {step.state}")
        # Others begin again with what has happened, and are no further than they were.
        lines += [self._goes_on(number, data.get("task", ""), SHORT) for number in sorted(short)]
        return lines

    def _completed(self, data: dict[str, Any]) -> str:
        usage = data.get("usage") or {}
        tokens = usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        self.tokens += tokens
        self.cost_micro += data["cost_micro"]
        step = self._step(data["step"], data["task"])
        step.attempts = data["attempt"]
        step.tokens += tokens
        step.cost_micro += data["cost_micro"]
        error = data.get("error")
        step.fault = f"{error['code']}: {error['message']}" if error else ""
        line = self._close(step.number, step.task, data["status"], data["duration_ms"] / 1000)
        if tokens:
            line += f", {tokens} tokens"
        if data["cost_micro"]:
            line += f", {dollars(data['cost_micro'])}"
        return f"{line}: {step.fault}" if step.fault else line

    def _timer(self, data: dict[str, Any]) -> str:
        number, task, kind = data["step"], data["task"], data["kind"]
        if kind == "retry":
            attempt = self._step(number, task).attempts = data["attempt"] + 1
            return f"{self._goes_on(number, task, 'running')}, attempt {attempt}"
        if kind == "budget":
            return self._refused(data) or self._goes_on(number, task, "running")
        return self._close(number, task, "succeeded" if kind == "wait" else "failed")

    def _answered(self, data: dict[str, Any]) -> str:
        """What a person has answered to a task, or to whether a step may spend more: then it is yet to be done."""
        number, task, approve = data["step"], data["task"], data.get("approve")
        if approve is None:
            return f"{self._close(number, task, 'succeeded')}, answered by {data['by']}"
        if not approve:
            return f"{self._close(number, task, 'failed')}: not approved by {data['by']}"
        if refused := self._refused(data):
            return refused
        more = f", the run may spend {dollars(data['limit_micro'])}" if "limit_micro" in data else ""
        return f"{self._goes_on(number, task, 'running')}, approved by {data['by']}{more}"

    def _refused(self, data: dict[str, Any]) -> str:
        """The end of a step that has waited for money, and may not have it; '' where it may."""
        if (error := data.get("error")) is None:
            return ""
        fault = self._step(data["step"], data["task"]).fault = f"{error['code']}: {error['message']}"
        return f"{self._close(data['step'], data['task'], 'failed')}: {fault}"

    def _goes_on(self, number: int, task: str, state: str) -> str:
        step = self._step(number, task)
        step.state, step.took = state, None
        return f"step {number} {step.task} {state}"

    def _close(self, number: int, task: str, state: str, took: float | None = None) -> str:
        step = self._step(number, task)
        step.state = state
        step.took = took if took is not None else self.seconds - step.began
        return f"step {number} {step.task} {state} in {step.took:.2f} s"

    def _end(self, run: dict[str, Any]) -> list[str]:
        self.final = run
        self.status = run["status"]
        self.title = f"{run['workflow']}@{run['version']}" if run["version"] else run["workflow"]
        self.tokens, self.cost_micro = run["tokens"], run["spent_micro"]
        if run["finished_at"]:
            self.seconds = seconds_between(run["created_at"], run["finished_at"])
        for step in self.steps.values():
            if step.took is None:
                step.state, step.took = "halted", max(0.0, self.seconds - step.began)
        return [f"{self.title} {self.status}"]

    def _step(self, number: int, task: str, kind: str = "") -> Step:
        if number not in self.steps:
            self.steps[number] = Step(number, named(task), kind, began=self.seconds)
            if len(self.steps) > MAX_LINES:
                self.steps.popitem(last=False)
                self.hidden += 1
        return self.steps[number]

    def _clock(self, at: str) -> None:
        moment = _moment(at)
        self.first = self.first or moment
        self.seconds = max(self.seconds, (moment - self.first).total_seconds())


async def follow(client: AsyncClient, run_id: str, console: Console) -> dict[str, Any]:
    """Show a run until it has ended and return it, as GET /v1/runs/{id} gives it.

    ``client`` is an httpx.AsyncClient that authenticates; a broken connection is resumed. In a terminal a
    table is kept up to date, elsewhere each event is a line.
    """
    progress = Progress(run_id)
    if console.is_terminal:
        await _follow_live(client, progress, console)
    else:
        async for event in run_events(client, run_id):
            for line in progress.apply(event):
                console.print(
                    f"{progress.seconds:8.2f} s  {line}", markup=False, highlight=False, soft_wrap=True
                )
    assert progress.final is not None
    return progress.final


async def _follow_live(client: AsyncClient, progress: Progress, console: Console) -> None:
    from time import monotonic

    from rich.live import Live

    began = monotonic()

    def now() -> RenderableType:
        passed = progress.seconds if progress.final else max(progress.seconds, monotonic() - began)
        return table(progress, passed, max(5, console.height - 6))

    with Live(console=console, get_renderable=now, refresh_per_second=10, transient=False) as live:
        async for event in run_events(client, progress.run):
            progress.apply(event)
        live.refresh()


def table(progress: Progress, passed: float, height: int) -> RenderableType:
    """The run as a table of its last ``height`` steps, ``passed`` seconds after it began."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    head = Text.assemble(
        (progress.title or progress.run, "bold"),
        "  ",
        (progress.status, STYLES.get(progress.status, "cyan")),
        f"  {progress.tokens:,} tokens  {dollars(progress.cost_micro)}  {passed:.1f} s",
    )
    grid = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("step", "task", "kind", "state", "attempts", "tokens", "cost", "time"):
        grid.add_column(name, justify="left" if name in ("task", "kind", "state") else "right", no_wrap=True)
    shown = list(progress.steps.values())[-height:]
    earlier = progress.hidden + len(progress.steps) - len(shown)
    if earlier:
        grid.add_row("", Text(f"… {earlier} earlier", "dim"))
    for step in shown:
        took = step.took if step.took is not None else max(0.0, passed - step.began)
        state = Text(step.state, STYLES.get(step.state, ""))
        if step.fault and step.state == "failed":
            state.append(f" {step.fault}"[:60], "dim")
        grid.add_row(
            str(step.number), Text(step.task), step.kind, state, str(step.attempts),
            f"{step.tokens:,}" if step.tokens else "", dollars(step.cost_micro) if step.cost_micro else "",
            f"{took:.2f} s",
        )  # fmt: skip
    return Group(head, grid)


def report(run: dict[str, Any], console: Console) -> None:
    """Print how a run ended: its result or its error, what it cost and how long it took."""
    from rich.json import JSON
    from rich.text import Text

    if run["status"] == "succeeded":
        console.print(JSON.from_data(run["output"] or {}), soft_wrap=True)
    elif run["error"]:
        where = run["error"].get("path") or ""
        console.print(Text(f"{run['error']['code']}: {run['error']['message']}", "red"), soft_wrap=True)
        if where and not str(run["error"]["message"]).startswith(where):
            console.print(Text(f"at {where}", "dim"))
    took = seconds_between(run["created_at"], run["finished_at"])
    steps = f"{run['steps']} step{'' if run['steps'] == 1 else 's'}"
    cost = (
        f"{run['status']} in {took:.2f} s: {steps}, {run['tokens']:,} tokens, {dollars(run['spent_micro'])}"
    )
    console.print(Text(cost, STYLES.get(run["status"], "")))


def named(task: str, turn: int | None = None) -> str:
    """A task's name; of a part of an agent in words: research turn 2, research search."""
    name = task.replace(PARTS, " ", 1)
    return name if turn is None else f"{name} {turn}"


def dollars(micro: int) -> str:
    """Micro-dollars as dollars with no digit lost."""
    whole, rest = divmod(abs(micro), 1_000_000)
    digits = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{'-' if micro < 0 else ''}${whole}.{digits}"


def seconds_between(earlier: str, later: str) -> float:
    """Seconds between two of the API's timestamps."""
    return (_moment(later) - _moment(earlier)).total_seconds()


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
