"""Forking a run from the command line: a new run that goes on from a point of an old one."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.errors import Rejected
from agentflow.terminal import output
from agentflow.terminal.amounts import budget_micro
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.running import follow_to_end, quoted, registered


async def fork_run(
    settings: Settings,
    run_id: str,
    at: int,
    given: list[str],
    *,
    budget: float | None,
    key: str | None,
    wait: bool,
    as_json: bool,
) -> int:
    """Fork a run before its step ``at``; 0 when that was accepted and, followed, succeeded."""
    path = f"/v1/runs/{quoted(run_id)}"
    body: dict[str, Any] = {"at": at} | ({} if budget is None else {"budget_micro": budget_micro(budget)})
    async with api(settings) as client:
        if given:
            old = await call(client, "GET", path)
            if old["version"] is None:
                raise Rejected("the run has not been planned yet", code="not_planned", mend="fork it later")
            plan = await registered(client, f"{old['workflow']}@{old['version']}")
            body["set"] = read_inputs(given, {**plan.vars, **plan.input}, option="--set")
        headers = {"idempotency-key": key} if key else {}
        accepted = await call(client, "POST", f"{path}/fork", json=body, headers=headers)
        if not wait:
            output.print_json(accepted) if as_json else print(accepted["id"])
            return 0
        return await follow_to_end(client, accepted["id"], as_json=as_json)
