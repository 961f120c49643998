"""Handlers: register, check and look up workflows."""

from __future__ import annotations

import re
from typing import Any

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import JSON_TYPES, YAML_TYPES, media_type, read, read_query, unsupported
from agentflow.control.call import Call, answer, no_workflow, page
from agentflow.control.children import check_children
from agentflow.errors import Invalid
from agentflow.wire.document import Checked

_NAME = re.compile(shapes.NAME)


async def register_workflow(call: Call) -> Response:
    """The same content again gives the same version (200), new content the next one (201)."""
    checked = await _document(call)
    plan = checked.plan
    trigger = plan.trigger.type if plan.trigger else None
    version, new = await call.services.store.register(
        call.tenant, plan.name, plan.hash, plan.document, trigger
    )
    headers = {"location": f"/v1/workflows/{plan.name}?version={version}"}
    return answer(shapes.Registered, _summary(checked) | {"version": version}, 201 if new else 200, headers)


async def validate_workflow(call: Call) -> Response:
    """Checks as registration does, and registers nothing."""
    return answer(shapes.Checked, _summary(await _document(call)))


async def list_workflows(call: Call) -> Response:
    """The newest version of each, by name."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, _name) if query.cursor else ""
    rows = await call.services.store.workflows(call.tenant, after, query.limit + 1)
    items = rows[: query.limit]
    return page(
        shapes.Workflows, items, cursors.encode(items[-1]["name"]) if len(rows) > len(items) else None
    )


async def get_workflow(call: Call) -> Response:
    """One version, with the document as it was registered."""
    query = read_query(call.request, shapes.VersionQuery)
    name = call.workflow(query.version)
    row = await call.services.store.workflow(call.tenant, name, query.version)
    if row is None:
        raise no_workflow(name, query.version)
    return answer(shapes.WorkflowDocument, row)


async def _document(call: Call) -> Checked:
    media = media_type(call.request)
    if media not in JSON_TYPES and media not in YAML_TYPES:
        raise unsupported(media, ("application/yaml", *JSON_TYPES))
    body = await read(call.request, call.services.registry.limits.bytes)
    checked = await call.services.registry.check(call.tenant, body, yaml=media in YAML_TYPES)
    if problems := await check_children(call.services.registry, call.tenant, checked.plan):
        raise Invalid(problems, code="invalid_plan")
    return checked


def _summary(checked: Checked) -> dict[str, Any]:
    plan = checked.plan
    warnings = [{"path": w.path, "message": w.message, "mend": w.mend, "code": w.code} for w in checked.warnings]
    return {"name": plan.name, "kind": plan.kind, "hash": plan.hash, "warnings": warnings}


def _name(name: str) -> str:
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise ValueError
    return name
