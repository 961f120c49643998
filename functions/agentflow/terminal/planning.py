"""The command that has a plan written."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.terminal import output
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.loading import compile_file, is_file
from agentflow.terminal.running import register, registered


async def write_plan(
    settings: Settings, workflow: str, goal: str, use: str, given: list[str], *, as_json: bool
) -> int:
    """Have a plan written and print it; 0 when there is one."""
    from agentflow.core.short import shorten
    from agentflow.terminal.progress import follow, report
    from agentflow.wire.document_notes import Notes
    from agentflow.wire.document_print import printed

    local = is_file(workflow)
    async with api(settings) as client:
        plan = compile_file(workflow) if local else await registered(client, workflow)
        inputs = read_inputs(given, {**plan.vars, **plan.input})
        reference = await register(client, plan) if local else workflow
        body: dict[str, Any] = {"workflow": reference, "input": inputs}
        body |= {name: value for name, value in (("goal", goal), ("use", use)) if value}
        accepted = await call(client, "POST", "/v1/plans", json=body)
        run = await follow(client, accepted["id"], output.console(stderr=True))
        if run["status"] != "succeeded":
            report(run, output.console(stderr=True))
            return 1
        written = await registered(client, run["output"]["planning_workflow"])
    document = written.document
    output.print_json(document) if as_json else print(printed(shorten(document), Notes()), end="")
    return 0
