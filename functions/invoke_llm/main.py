"""invoke_llm: call a language model for one attempt of a step, and record its one result.

Consumes llm.requested; emits step.completed.
"""

from agentflow.core.decide.record import decide
from agentflow.models.effect import open_effect
from agentflow.runtime.function import Function

function = Function("invoke_llm", decide, open_effect)


async def invoke_llm(event):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one CloudEvent over HTTP."""
    await function.push(event)
