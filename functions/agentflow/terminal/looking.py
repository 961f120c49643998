"""Commands that look: runs, one run, its history, and what is parked."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.core.plan import UNKNOWN
from agentflow.terminal import output
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.progress import PARTS, Progress, dollars, named, seconds_between
from agentflow.terminal.running import quoted
from agentflow.terminal.sse import LAST, run_events


async def show_runs(
    settings: Settings, *, status: str | None, workflow: str | None, limit: int, as_json: bool
) -> None:
    """List runs, newest first."""
    params: dict[str, Any] = {"limit": limit}
    params |= {name: value for name, value in (("status", status), ("workflow", workflow)) if value}
    async with api(settings) as client:
        page = await call(client, "GET", "/v1/runs", params=params)
        while page["next"] and len(page["items"]) < limit:  # a filter's page may be short
            params["cursor"] = page["next"]
            more = await call(client, "GET", "/v1/runs", params=params)
            page = {"items": (page["items"] + more["items"])[:limit], "next": more["next"]}
    if as_json:
        output.print_json(page["items"])
        return
    rows = [
        (
            run["id"], f"{run['workflow']}@{run['version']}", run["status"], run["steps"], dollars(run["spent_micro"]),
            f"{seconds_between(run['created_at'], run['finished_at'] or run['updated_at']):.1f} s",
            run["created_at"][:19].replace("T", " "),
        )
        for run in page["items"]
    ]  # fmt: skip
    output.print_table(("run", "workflow", "status", "steps", "cost", "time", "started"), rows, "no runs")


async def show_run(settings: Settings, run_id: str, *, as_json: bool) -> None:
    """Show a run and all its steps."""
    async with api(settings) as client:
        run = await call(client, "GET", f"/v1/runs/{quoted(run_id)}")
        steps = await all_pages(client, f"/v1/runs/{quoted(run_id)}/steps")
    if as_json:
        output.print_json(run | {"step_list": steps})
        return
    from rich.json import JSON

    out = output.console()
    out.print(
        f"{run['workflow']}@{run['version']}  {run['status']}  {run['id']}", markup=False, soft_wrap=True
    )
    out.print(
        f"{run['steps']} steps, {run['tokens']:,} tokens, {dollars(run['spent_micro'])} "
        f"of {dollars(run['limit_micro'])}, started {run['created_at'][:19].replace('T', ' ')}",
        markup=False,
    )
    if origin := run.get("forked_from"):
        out.print(f"forked from {origin['run']} before step {origin['at']}", markup=False, soft_wrap=True)
    rows = [
        (
            step["step"], step["attempt"], _name(step), step["kind"],
            _status(step), dollars(step["cost_micro"]),
            f"{seconds_between(step['requested_at'], step['completed_at']):.2f} s" if step["completed_at"] else "",
            (step["error"] or {}).get("message", "")[:80],
        )
        for step in steps
    ]  # fmt: skip
    output.print_table(
        ("step", "attempt", "task", "kind", "status", "cost", "time", "error"), rows, "no steps yet"
    )
    for name in ("input", "output", "error"):
        if run[name]:
            out.print(f"{name}:", markup=False)
            out.print(JSON.from_data(run[name]), soft_wrap=True)


def _status(step: dict[str, Any]) -> str:
    unknown = (step["error"] or {}).get("code") == UNKNOWN
    return ("outcome unknown" if unknown else str(step["status"])) + (", reused" if step.get("reused") else "")


def _name(step: dict[str, Any]) -> str:
    given = step["input"] if step["kind"] == "llm" and PARTS in step["task"] else None
    return named(step["task"], (given or {}).get("turn"))


async def print_logs(settings: Settings, run_id: str, *, follow: bool, as_json: bool) -> None:
    """Print a run's history, a line per event; with ``follow`` until it has ended."""
    progress = Progress(run_id)
    async with api(settings) as client:
        async for event in run_events(client, quoted(run_id), follow=follow):
            if as_json:
                last = event.id == LAST
                at, data = ("finished_at", event.data) if last else ("at", event.data["data"])
                output.print_json({"id": event.id, "name": event.name, "at": event.data[at], "data": data})
                continue
            lines = progress.apply(event)
            for line in lines or [event.name]:
                print(f"{progress.seconds:8.2f} s  {line}", flush=True)


async def show_parked(settings: Settings, *, as_json: bool) -> None:
    """List messages that could not be handled."""
    async with api(settings) as client:
        page = await call(client, "GET", "/v1/parked", params={"limit": 100})
    if as_json:
        output.print_json(page["items"])
        return
    rows = [
        (
            item["id"],
            item["consumer"],
            item["tries"],
            item["parked_at"][:19].replace("T", " "),
            item["reason"],
        )
        for item in page["items"]
    ]
    output.print_table(("id", "function", "tries", "parked", "reason"), rows, "nothing is parked")
    if page["next"]:
        print("there are more: retry or see GET /v1/parked")


async def retry_parked(settings: Settings, parked_id: str, *, as_json: bool) -> None:
    """Give a parked message to its function again."""
    async with api(settings) as client:
        done = await call(client, "POST", f"/v1/parked/{quoted(parked_id)}/retry")
    if as_json:
        output.print_json(done)
    else:
        print(f"{parked_id} is on its way again")
