"""dispatch: advance the plan by what has happened and request what comes next.

Consumes run.planned, step.completed, timer.fired, signal.received, step.answered, child.ended and requests to cancel,
pause and resume; emits llm.requested, tool.requested, run.requested (of a child) and how the run ended.
"""

from agentflow.core.decide.dispatch import decide
from agentflow.runtime.function import Function

function = Function("dispatch", decide)


async def dispatch(event):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one CloudEvent over HTTP."""
    await function.push(event)
