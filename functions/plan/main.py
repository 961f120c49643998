"""plan: turn a request into a plan that is pinned to its run, and route events to whom they concern.

Consumes run.requested, event.received and the CloudEvents that clients publish; emits run.planned,
run.requested (by trigger) and signal.received.
"""

from agentflow.core.decide.plan import decide
from agentflow.runtime.function import Function

function = Function("plan", decide)


async def plan(event):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one CloudEvent over HTTP."""
    await function.push(event)
