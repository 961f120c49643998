"""Handlers: messages that could not be handled, and another try for them."""

from __future__ import annotations

from uuid import UUID

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read, read_query
from agentflow.control.call import Call, answer, page
from agentflow.control.ports import ParkedMessage
from agentflow.errors import Rejected

FIRST = UUID(int=0)


async def list_parked(call: Call) -> Response:
    """What could not be handled, and why."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, UUID) if query.cursor else FIRST
    rows = await call.services.store.parked(call.tenant, after, query.limit + 1)
    items = [row | {"id": row["parked_id"]} for row in rows[: query.limit]]
    return page(
        shapes.ParkedPage, items, cursors.encode(items[-1]["id"].hex) if len(rows) > len(items) else None
    )


async def retry_parked(call: Call) -> Response:
    """Give the message to its function again; if that fails again, it is parked anew."""
    await read(call.request, 0)
    try:
        parked = UUID(call.path("parked"))
    except ValueError:
        raise _none() from None
    # Taken and sent in one transaction: it is either still parked or on its way, never neither.
    async with call.services.store.taking_parked(call.tenant, parked) as row:
        if row is None:
            raise _none()
        await call.services.engine.redeliver(
            ParkedMessage(call.tenant, row["consumer"], row["subject"], row["headers"], bytes(row["payload"]))
        )
    return answer(shapes.Retried, {"id": parked}, 202)


def _none() -> Rejected:
    return Rejected("there is no such parked message", code="not_found", mend="list them with GET /v1/parked")
