"""Handlers: a tenant's limits; with a key of the operator's tenant, those that bind all tenants together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Protocol, runtime_checkable
from uuid import UUID

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read, read_json, read_query
from agentflow.control.call import Call, answer, page
from agentflow.core.limits import MAX_COUNT, MAX_RATE, MAX_WEIGHT, MIN_RATE, Limit, check, checked_scope
from agentflow.errors import Invalid, Rejected

MENDS = defaultdict(
    str,
    concurrency=f"give a whole number from 0 to {MAX_COUNT}, or null for no limit",
    per_second=f"give a number from {MIN_RATE} to {MAX_RATE:.0f}, or null for no limit",
    burst=f"give a whole number from 1 to {MAX_COUNT}, or null for one second's worth",
    weight=f"give a whole number from 1 to {MAX_WEIGHT}",
)


@runtime_checkable
class Listening(Protocol):
    """An engine that is told of changes; one that is not reads limits again within half a minute."""

    def limits_changed(self, tenant: UUID) -> None: ...


async def list_limits(call: Call) -> Response:
    """By scope: `tenant`, `workflow:<name>`, `model:<alias>`, `tool:<name>`, or `model:*` and `tool:*` for all."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, str) if query.cursor else ""
    rows = await call.services.store.limits(call.tenant, after, query.limit + 1)
    items = rows[: query.limit]
    return page(shapes.Limits, items, cursors.encode(items[-1]["scope"]) if len(rows) > len(items) else None)


async def get_limit(call: Call) -> Response:
    """What is set for a scope."""
    row = await call.services.store.limit(call.tenant, _scope(call))
    if row is None:
        raise _none()
    return answer(shapes.ScopeLimit, row)


async def put_limit(call: Call) -> Response:
    """Limit how much of a scope is in progress at once and starts per second. It counts at once, for what waits too."""
    scope = _scope(call)
    try:
        asked = await read_json(call.request, shapes.LimitRequest)
    except Invalid as fault:
        problems = [replace(problem, mend=problem.mend or MENDS[problem.path]) for problem in fault.problems]
        raise Invalid(problems, code=fault.code) from None
    limit = Limit(**asked.model_dump())
    check(scope, call.tenant, limit)
    row = await call.services.store.set_limit(call.tenant, scope, limit)
    _tell(call)
    return answer(shapes.ScopeLimit, row)


async def delete_limit(call: Call) -> Response:
    """Limit a scope no longer; what waited for it goes on."""
    await read(call.request, 0)
    if not await call.services.store.remove_limit(call.tenant, _scope(call)):
        raise _none()
    _tell(call)
    return Response(status_code=204)


def _scope(call: Call) -> str:
    return checked_scope(call.path("scope"), call.tenant)


def _tell(call: Call) -> None:
    engine = call.services.engine
    if isinstance(engine, Listening):
        engine.limits_changed(call.tenant)


def _none() -> Rejected:
    mend = "list what is set with GET /v1/limits"
    return Rejected("this scope has no limit", code="not_found", path="scope", mend=mend)
