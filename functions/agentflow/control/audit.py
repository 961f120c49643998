"""Handlers: the tenant's audit chain, entry by entry."""

from __future__ import annotations

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read_query
from agentflow.control.call import Call, page


async def list_audit(call: Call) -> Response:
    """What has been sealed, oldest first. Keep the last entry's number and link elsewhere, and it can be shown later
    that nothing before it was changed: `agentflow audit verify --known NUMBER:LINK`."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, cursors.number) if query.cursor else 0
    rows = await call.services.store.audit(call.tenant, after, query.limit + 1)
    items = rows[: query.limit]
    return page(shapes.AuditPage, items, cursors.encode(items[-1]["n"]) if len(rows) > len(items) else None)
