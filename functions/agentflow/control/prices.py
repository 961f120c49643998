"""Handlers: what models and tools cost a tenant. What they cost is set by administrators: agentflow prices set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read, read_query
from agentflow.control.call import Call, answer, page
from agentflow.control.limits import Listening
from agentflow.control.registry import MODEL, told_models
from agentflow.core.price import card_of
from agentflow.errors import Rejected
from agentflow.store.control import Row


async def list_prices(call: Call) -> Response:
    """What each model of the alias table costs, and whatever else this tenant was told a price of."""
    query = read_query(call.request, shapes.PageQuery)
    after = cursors.decode(query.cursor, str) if query.cursor else ""
    rows = {row["scope"]: row for row in await call.services.store.prices(call.tenant)}
    scopes = {f"{MODEL}{alias}" for alias in call.services.registry.models.aliases()}
    scopes |= {scope for scope, row in rows.items() if row["card"] is not None}
    found = sorted(scope for scope in scopes if scope > after)
    shown = found[: query.limit]
    items = [_in_force(call, scope, list(rows.values())) for scope in shown]
    return page(shapes.Prices, items, cursors.encode(shown[-1]) if len(found) > len(shown) else None)


async def get_price(call: Call) -> Response:
    """What a model (`model:<alias>`) or a tool (`tool:<name>`) costs, and every price this tenant was told."""
    scope = call.path("scope")
    if not scope.startswith((MODEL, "tool:")):
        mend = "name a model (model:small) or a tool (tool:search)"
        raise Rejected("is neither a model nor a tool", code="bad_scope", path="scope", mend=mend)
    versions = await call.services.store.price_versions(call.tenant, scope)
    in_force = _in_force(call, scope, await call.services.store.prices(call.tenant))
    if in_force["price"] is None and not versions and scope.startswith("tool:"):
        raise Rejected(
            "nobody has set a price of this tool: it costs what the workflow says", code="not_found", path="scope",
            mend="list what is set with GET /v1/prices",
        )  # fmt: skip
    return answer(shapes.PriceHistory, in_force | {"versions": versions})


async def reload_prices(call: Call) -> Response:
    """Have every host read this tenant's prices again now, instead of within half a minute."""
    await read(call.request, 0)
    engine = call.services.engine
    if isinstance(engine, Listening):
        engine.limits_changed(call.tenant)
    return Response(status_code=204)


def _in_force(call: Call, scope: str, rows: Sequence[Row]) -> dict[str, Any]:
    own = next((row for row in rows if row["scope"] == scope and row["card"] is not None), None)
    shown: dict[str, Any] = {"scope": scope, "provider": None, "model": None, "price": None, "price_version": None}
    shown |= {"set_at": own["set_at"] if own else None, "unknown": None}
    if own is not None:
        shown |= {"price": own["card"], "price_version": f"tenant {own['version']}"}
    if scope.startswith(MODEL):
        try:
            price = call.services.registry.models.resolve(scope.removeprefix(MODEL), told_models(rows))
        except Rejected as refusal:
            return shown | {"unknown": None if own else f"{refusal.problem.message} ({refusal.problem.mend})"}
        shown |= {"provider": price.provider, "model": price.model, "price": card_of(price)}
        shown["price_version"] = price.price_version
    return shown
