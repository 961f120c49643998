"""The command that has a plan written."""

from __future__ import annotations

from typing import Any

from agentflow.config import Settings
from agentflow.terminal import output
from agentflow.terminal.client import api, call
from agentflow.terminal.inputs import read_inputs
from agentflow.terminal.running import compile_file, is_file, register, registered


async def write_plan(
    settings: Settings, workflow: str, goal: str, use: str, given: list[str], *, as_json: bool
) -> int:
    """Have a plan written and print it; 0 when there is one."""
    import yaml

    from agentflow.terminal.progress import follow, report

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
    output.print_json(document) if as_json else print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
    return 0
