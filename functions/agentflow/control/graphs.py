"""Handlers: the picture of a workflow's plan, and of a run with where it is."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.responses import Response

from agentflow.control import shapes
from agentflow.control.bodies import read_query
from agentflow.control.call import Call, no_run
from agentflow.core.plan import Plan
from agentflow.errors import Rejected
from agentflow.picture.diagram import Mark
from agentflow.picture.printing import NO_MARKS, Format, picture

MEDIA = {"svg": "image/svg+xml", "mermaid": "text/plain; charset=utf-8"}
# Names and conditions in it are the tenant's: opened by itself it may run nothing and load nothing.
HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}


async def draw_workflow(call: Call) -> Response:
    """One version's plan."""
    query = read_query(call.request, shapes.WorkflowGraphQuery)
    _, plan = await call.services.registry.plan(call.tenant, call.workflow(query.version), query.version)
    return await _drawn(plan, query.format, NO_MARKS)


async def draw_run(call: Call) -> Response:
    """The plan of the run's version, with where the run is and what its steps have come to: decided again from its
    history, which takes as long as that is."""
    query = read_query(call.request, shapes.GraphQuery)
    row = await call.services.store.run(call.tenant, call.run_id())
    if row is None:
        raise no_run()
    if row["version"] is None:
        said = "the run has not been planned, so that it has no plan to be drawn"
        raise Rejected(said, code="not_planned", path="run", mend="ask again once it is planned")
    _, plan = await call.services.registry.plan(call.tenant, row["workflow"], row["version"])
    with call.services.waits.hold():
        marks = await call.services.origins.marks(call.tenant, row, plan)
        return await _drawn(plan, query.format, marks)


async def _drawn(plan: Plan, form: Format, marks: Mapping[str, Mark]) -> Response:
    # A large plan takes seconds to lay out; other requests go on meanwhile.
    drawn = await asyncio.to_thread(picture, plan, form, marks)
    return Response(drawn, headers=HEADERS, media_type=MEDIA[form])
