"""run_tool: run a tool in its sandbox for one attempt of a step, and record its one result.

Consumes tool.requested; emits step.completed.
"""

from agentflow.core.decide.record import decide
from agentflow.runtime.function import Function
from agentflow.tools.effect import open_effect

function = Function("run_tool", decide, open_effect)


async def run_tool(event):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one CloudEvent over HTTP."""
    await function.push(event)
