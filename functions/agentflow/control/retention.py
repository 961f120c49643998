"""Handlers: how long a tenant's things are kept."""

from __future__ import annotations

from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.bodies import read_json
from agentflow.control.call import Call, answer

UNSET = {"runs": None, "ledger": None, "inbox": None, "parked": None, "spend": None, "fixed": False}


async def get_retention(call: Call) -> Response:
    """What is set for the tenant. Finished runs are removed after that time, running ones never."""
    return answer(shapes.Retention, await call.services.store.retention(call.tenant) or UNSET)


async def put_retention(call: Call) -> Response:
    """Set it all; what is left out is as the installation says. It counts from the next sweep, once a day."""
    asked = await read_json(call.request, shapes.RetentionRequest)
    await call.services.store.set_retention(call.tenant, asked.model_dump())
    return answer(shapes.Retention, UNSET | asked.model_dump())
