"""Commands that make something happen: run, cancel, pause and resume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentflow.config import Settings
from agentflow.terminal import amounts, output
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.loading import compile_file, is_file

if TYPE_CHECKING:
    from httpx import AsyncClient

    from agentflow.core.plan import Plan


async def run_workflow(
    settings: Settings,
    workflow: str,
    given: list[str],
    *,
    budget: float | None,
    key: str | None,
    charge_to: str | None = None,
    priority: int | None = None,
    wait: bool,
    as_json: bool,
) -> int:
    """Start a run of a file or of a registered workflow; 0 when it was accepted and, followed, succeeded."""
    amounts.budget(budget)
    local = is_file(workflow)
    async with api(settings) as client:
        plan = compile_file(workflow) if local else await registered(client, workflow)
        inputs = read_inputs(given, {**plan.vars, **plan.input})
        reference = await register(client, plan) if local else workflow
        accepted = await start(
            client, reference, inputs, budget=budget, charge_to=charge_to, key=key, priority=priority
        )
        if not wait:
            output.print_json(accepted) if as_json else print(accepted["id"])
            return 0
        return await follow_to_end(client, accepted["id"], as_json=as_json)


async def register(client: AsyncClient, plan: Plan) -> str:
    """Register a compiled workflow; its ``name@version``."""
    made = await call(client, "POST", "/v1/workflows", json=plan.document)
    return f"{made['name']}@{made['version']}"


async def start(
    client: AsyncClient,
    reference: str,
    inputs: dict[str, Any],
    *,
    budget: float | None = None,
    charge_to: str | None = None,
    key: str | None = None,
    priority: int | None = None,
) -> Any:
    """Start a run; what the API accepted."""
    body: dict[str, Any] = {"workflow": reference, "input": inputs}
    if budget is not None:
        body["budget_usd"] = budget
    if charge_to is not None:
        body["budget"] = charge_to
    if priority is not None:
        body["priority"] = priority
    headers = {"idempotency-key": key} if key else {}
    return await call(client, "POST", "/v1/runs", json=body, headers=headers)


async def follow_to_end(client: AsyncClient, run_id: str, *, as_json: bool = False) -> int:
    """Follow a run, print how it ended; 0 when it succeeded."""
    from agentflow.terminal.progress import follow, report

    # The way there goes to stderr where stdout is for a machine.
    run = await follow(client, run_id, output.console(stderr=as_json))
    if as_json:
        output.print_json(run)
    else:
        report(run, output.console())
    return 0 if run["status"] == "succeeded" else 1


async def tell_run(settings: Settings, run_id: str, verb: str, reason: str, *, as_json: bool) -> None:
    """Ask a run to cancel, pause or resume."""
    async with api(settings) as client:
        body = {"reason": reason} if reason else {}
        done = await call(client, "POST", f"/v1/runs/{quoted(run_id)}/{verb}", json=body)
    if as_json:
        output.print_json(done)
    else:
        print(f"run {run_id} will {FOLLOWS[verb]}")


FOLLOWS = {"cancel": "stop", "pause": "start nothing more", "resume": "go on"}


def quoted(part: str) -> str:
    """A path segment with nothing in it that could leave the segment."""
    from urllib.parse import quote

    return quote(part, safe="")


async def registered(client: AsyncClient, reference: str) -> Plan:
    """The plan of a registered workflow, ``name`` or ``name@version``."""
    from agentflow.wire.document import compile_stored

    name, _, version = reference.partition("@")
    params = {"version": version} if version else {}
    found = await call(client, "GET", f"/v1/workflows/{quoted(name)}", params=params)
    return compile_stored(found["document"])
