"""Following a run: live in a terminal, in lines elsewhere, over connections that break."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from agentflow.errors import RetryLater
from agentflow.runtime.serve import http_server
from agentflow.terminal import progress, sse
from agentflow.terminal.progress import Progress, dollars, follow, report, table
from agentflow.terminal.sse import Event, run_events

RUN = {
    "id": "r", "workflow": "triage", "version": 2, "status": "succeeded", "steps": 3, "tokens": 1_309,
    "spent_micro": 137,
    "limit_micro": 10_000, "held_micro": 0, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:04Z",
    "finished_at": "2026-01-01T00:00:04.500000Z", "input": {}, "output": {"answer": 42}, "error": None,
}  # fmt: skip
USAGE = {"input_tokens": 1_000, "output_tokens": 309, "cached_tokens": 0, "calls": 1}


def line(seq: int, name: str, second: float, **data: Any) -> dict[str, Any]:
    return {"seq": seq, "name": name, "at": f"2026-01-01T00:00:{second:09.6f}Z", "data": data}


def started(step: int, task: str, kind: str) -> list[dict[str, Any]]:
    return [{"step": step, "task": task, "kind": kind}]


HISTORY = [
    line(1, "run.planned", 0, workflow="triage", version=2, plan_hash="x"),
    line(2, "run.started", 0, started=started(1, "parse", "tool")),
    line(3, "step.completed", 1, step=1, attempt=1, task="parse", status="succeeded", cost_micro=0, duration_ms=990,
         usage=None, started=started(2, "classify", "llm")),
    line(4, "step.completed", 2, step=2, attempt=1, task="classify", status="failed", cost_micro=0, duration_ms=800,
         usage=None, error={"code": "timeout", "message": "no [bold]answer[/bold]"}),
    line(5, "timer.fired", 3, kind="retry", step=2, attempt=1, task="classify"),
    line(6, "step.completed", 4, step=2, attempt=2, task="classify", status="succeeded", cost_micro=137,
         duration_ms=700, usage=USAGE, started=started(3, "paid", "event")),
]  # fmt: skip


def seen(upto: int = 6, final: bool = False) -> Progress:
    view = Progress("r")
    for item in HISTORY[:upto]:
        view.apply(Event(str(item["seq"]), item["name"], item))
    if final:
        view.apply(Event("end", "run.completed", RUN))
    return view


def rendered(view: Progress, passed: float = 5.0, height: int = 20) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(table(view, passed, height))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_shows_step_task_state_attempts_tokens_cost_and_time() -> None:
    head, _, parse, classify, paid = rendered(seen()).splitlines()
    assert head.split() == ["triage@2", "running", "1,309", "tokens", "$0.000137", "5.0", "s"]
    assert parse.split() == ["1", "parse", "tool", "succeeded", "1", "0.99", "s"]
    assert classify.split() == ["2", "classify", "llm", "succeeded", "2", "1,309", "$0.000137", "0.70", "s"]
    assert paid.split() == ["3", "paid", "event", "waiting", "1", "1.00", "s"]


def test_between_attempts_a_step_has_failed_and_then_runs_again() -> None:
    assert "failed timeout: no [bold]answer[/bold]" in rendered(seen(4))
    assert rendered(seen(5)).splitlines()[3].split()[2:5] == ["llm", "running", "2"]


def lines_of(*history: dict[str, Any]) -> tuple[Progress, list[str]]:
    """What is seen of a run whose first step asks a model, after this, and the last event's lines."""
    view, said = Progress("r"), []
    first = line(1, "run.started", 0, started=started(1, "ask", "llm"), short=[1])
    for item in (first, *history):
        said = view.apply(Event(str(item["seq"]), item["name"], item))
    return view, said


def test_a_step_that_is_short_waits_for_money_and_then_runs() -> None:
    view, said = lines_of()
    assert said == ["step 1 ask (llm) waiting for money"]
    assert "waiting for money" in rendered(view)
    woken = {"kind": "budget", "step": 1, "attempt": 1, "task": "ask"}
    assert lines_of(line(2, "timer.fired", 3, **woken))[1] == ["step 1 ask running"]
    view, said = lines_of(line(2, "timer.fired", 3, **woken, short=[1]))
    assert said[-1] == "step 1 ask waiting for money"
    assert (view.steps[1].state, view.steps[1].took) == ("waiting for money", None)


def test_a_step_that_is_refused_when_it_is_woken_has_failed() -> None:
    fault = {"code": "budget_exhausted", "message": "no more"}
    told = {"step": 1, "attempt": 1, "task": "ask", "error": fault}
    for event in (line(2, "timer.fired", 3, **told, kind="budget"),
                  line(2, "step.answered", 3, **told, by="ann", approve=True)):  # fmt: skip
        view, said = lines_of(event)
        assert (view.steps[1].state, said) == ("failed", ["step 1 ask failed in 3.00 s: budget_exhausted: no more"])


def test_what_is_held_for_a_halted_call_says_nothing_of_its_step() -> None:
    for more in ({}, {"released": 7}):
        view, said = lines_of(line(2, "timer.fired", 3, kind="hold", step=1, attempt=1, **more))
        assert (view.steps[1].state, said) == ("waiting for money", [])


def test_what_a_person_approves_is_yet_to_be_done() -> None:
    told = {"step": 1, "attempt": 1, "task": "ask", "by": "ann"}
    view, said = lines_of(line(2, "step.answered", 3, **told, approve=True, limit_micro=500_000))
    assert (view.steps[1].state, said) == ("running", ["step 1 ask running, approved by ann, the run may spend $0.50"])
    assert lines_of(line(2, "step.answered", 3, **told, approve=True))[1] == ["step 1 ask running, approved by ann"]
    assert lines_of(line(2, "step.answered", 3, **told, approve=True, short=[1]))[0].steps[1].state == (
        "waiting for money"
    )
    view, said = lines_of(line(2, "step.answered", 3, **told, approve=False))
    assert (view.steps[1].state, said) == ("failed", ["step 1 ask failed in 3.00 s: not approved by ann"])


def test_what_ends_with_the_run_is_halted() -> None:
    view = seen(final=True)
    assert view.steps[3].state == "halted"
    assert rendered(view).splitlines()[0].split()[:2] == ["triage@2", "succeeded"]


def test_only_the_last_steps_are_kept_and_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_LINES", 50)
    view = Progress("r")
    for step in range(1, 201):
        item = line(step, "run.started", 0, started=started(step, f"task-{step}", "tool"))
        view.apply(Event(str(step), "run.started", item))
    assert len(view.steps) == 50
    text = rendered(view, height=10)
    assert "190 earlier" in text
    assert "task-200" in text
    assert len(text.splitlines()) == 13


@pytest.mark.parametrize(
    ("micro", "text"),
    [(0, "$0.00"), (137, "$0.000137"), (10_000, "$0.01"), (1_500_000, "$1.50"), (12_345_678, "$12.345678")],
)
def test_dollars_lose_no_digit(micro: int, text: str) -> None:
    assert dollars(micro) == text


def test_the_report_has_the_result_and_what_it_cost() -> None:
    out = io.StringIO()
    report(RUN, Console(file=out, width=80))
    assert json.loads(out.getvalue()[: out.getvalue().rindex("}") + 1]) == {"answer": 42}
    assert "succeeded in 4.50 s: 3 steps, 1,309 tokens, $0.000137" in out.getvalue()
    failed = RUN | {
        "status": "failed",
        "error": {"code": "plan_failed", "message": "no [red]luck[/red]", "path": "states.a"},
    }
    report(failed, Console(file=out, width=80))
    assert "plan_failed: no [red]luck[/red]" in out.getvalue()
    assert "at states.a" in out.getvalue()


def frames(events: Sequence[dict[str, Any]], last: bool) -> str:
    text = "".join(f"id: {e['seq']}\nevent: {e['name']}\ndata: {json.dumps(e)}\n\n" for e in events)
    return text + (f"id: end\nevent: run.completed\ndata: {json.dumps(RUN)}\n\n" if last else "")


class Flaky:
    """An API whose stream breaks off after two events each time, and which is busy now and then."""

    def __init__(self) -> None:
        self.positions: list[str] = []
        self.app = Starlette(routes=[Route("/v1/runs/{run}/events", self.events)])

    async def events(self, request: Request) -> Response:
        position = request.headers.get("last-event-id", "")
        self.positions.append(position)
        if len(self.positions) == 2:
            problem = {
                "detail": "too many clients are waiting",
                "code": "too_many_waits",
                "mend": "",
                "errors": [],
            }
            return JSONResponse(problem, 503)
        done = int(position or 0)
        rest = HISTORY[done : done + 2]

        async def body() -> AsyncIterator[str]:
            yield "retry: 1000\n\n: alive\n\n"
            yield frames(rest, last=done + 2 > len(HISTORY))
            if len(self.positions) == 3:
                raise ConnectionError("pulled the plug")

        return StreamingResponse(body(), media_type="text/event-stream")


@pytest.mark.parametrize("terminal", [False, True])
async def test_a_broken_stream_is_resumed_where_it_was(
    monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setattr(sse, "PAUSE_S", 0.01)
    flaky = Flaky()
    out = io.StringIO()
    console = Console(file=out, force_terminal=terminal, width=120, height=40)
    async with (
        http_server(flaky.app, "127.0.0.1", 0) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
    ):
        run = await follow(client, "r", console)
    assert run == RUN
    assert flaky.positions == ["", "2", "2", "4", "6"]
    if terminal:
        assert "\x1b[" in out.getvalue()
        assert "classify" in out.getvalue()
    else:
        assert "\x1b[" not in out.getvalue()
        lines = [text.split("s  ", 1)[1] for text in out.getvalue().splitlines()]
        assert lines == [
            "triage@2 planned",
            "step 1 parse (tool) running",
            "step 1 parse succeeded in 0.99 s",
            "step 2 classify (llm) running",
            "step 2 classify failed in 0.80 s: timeout: no [bold]answer[/bold]",
            "step 2 classify running, attempt 2",
            "step 2 classify succeeded in 0.70 s, 1309 tokens, $0.000137",
            "step 3 paid (event) waiting",
            "triage@2 succeeded",
        ]


async def test_an_api_that_goes_away_and_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "PAUSE_S", 0.001)
    flaky = Flaky()
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(http_server(flaky.app, "127.0.0.1", 0))
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            events = run_events(client, "r")
            assert (await anext(events)).id == "1"
            await stack.aclose()
            assert (await anext(events)).id == "2"
            with pytest.raises(RetryLater, match="does not answer"):
                await anext(events)
