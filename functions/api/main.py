"""api: accept what comes from outside, durably, and show what has become of it.

HTTP in (see schemas/openapi.json); emits run.requested, requests to cancel, pause and resume, signal.received,
step.answered and event.received.
"""

from agentflow.core.decide.api import decide
from agentflow.runtime.function import Function

function = Function("api", decide)


async def api(request):  # type: ignore[no-untyped-def]
    """Target of functions-framework: one HTTP request."""
    return await function.push(request)
