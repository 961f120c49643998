"""account_cost: turn what a step has used into spend, exactly once, and give back what was held for it.

Consumes step.completed; writes the ledger.
"""

from agentflow.core.decide.account_cost import decide
from agentflow.runtime.function import Function

function = Function("account_cost", decide)


async def account_cost(event):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one CloudEvent over HTTP."""
    await function.push(event)
