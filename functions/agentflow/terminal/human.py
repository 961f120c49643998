"""Commands for people: what waits for them, and their answers."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.core.types import parse
from agentflow.errors import Conflict
from agentflow.terminal import output
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.running import quoted


async def show_tasks(settings: Settings, run_id: str, *, as_json: bool) -> None:
    """List the steps that wait for a person, of one run or of all."""
    async with api(settings) as client:
        items = await all_pages(client, "/v1/tasks", {"run": run_id} if run_id else {})
    if as_json:
        output.print_json(items)
        return
    rows = [
        (
            item["run"], item["step"], f"{item['workflow']}@{item['version']}", item["task"], item["use"],
            ", ".join(f"{name}: {kind}" for name, kind in (item["out"] or {}).items()),
            item["asked_at"][:19].replace("T", " "), (item["due_at"] or "")[:19].replace("T", " "),
        )
        for item in items
    ]  # fmt: skip
    heads = ("run", "step", "workflow", "task", "for", "answer", "asked", "due")
    output.print_table(heads, rows, "nothing waits for a person")


async def answer_task(
    settings: Settings, run_id: str, step: int, given: list[str], by: str, *, as_json: bool
) -> None:
    """Answer one step; each value is read as the type the task declares for it."""
    async with api(settings) as client:
        waiting = await all_pages(client, "/v1/tasks", {"run": run_id})
        asked = next((item for item in waiting if item["step"] == step), None)
        if asked is None:
            await call(client, "GET", f"/v1/runs/{quoted(run_id)}")  # says so when there is no such run
            raise Conflict(f"step {step} does not wait for a person (see: agentflow tasks)", code="not_waiting")
        types = {name: parse(kind) for name, kind in (asked["out"] or {}).items()}
        result: dict[str, Any] = read_inputs(given, types, option="--result", of="task")
        body = {"result": result} | ({"by": by} if by else {})
        done = await call(client, "POST", f"/v1/runs/{quoted(run_id)}/steps/{step}/answer", json=body)
    output.print_json(done) if as_json else print(f"answered step {step} ({asked['task']}) of {done['id']}")
