"""Commands about prices: what is in force, telling a tenant another price, taking it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from agentflow.config import Settings
from agentflow.errors import AgentFlowError, Invalid, Problem
from agentflow.terminal import output
from agentflow.terminal.administration import admin_dsn, tenant_named
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.running import quoted

_SCOPE = re.compile(r"(model:[^\s\x00-\x1f]{1,200}|tool:[A-Za-z0-9_.-]{1,128})")
_MILLION = 1_000_000


async def list_prices(settings: Settings, *, as_json: bool) -> None:
    """List what is in force, by scope."""
    async with api(settings) as client:
        items = await all_pages(client, "/v1/prices")
    if as_json:
        output.print_json(items)
        return
    rows = [
        [item["scope"], item["model"] or "", *_cells(item["price"]), item["price_version"] or "not known"]
        for item in items
    ]
    titles = ("scope", "model", "in $/Mtok", "out $/Mtok", "cached $/Mtok", "$/call", "$/s", "tiers", "price")
    output.print_table(titles, rows, "no model has a name, and no price was set")


async def show_price(settings: Settings, scope: str, *, as_json: bool) -> None:
    """Print what is in force, and what was."""
    async with api(settings) as client:
        found = await call(client, "GET", f"/v1/prices/{quoted(scope)}")
    if as_json:
        output.print_json(found)
        return
    print(f"{found['scope']}: {_said(found['price'])}, {found['price_version'] or found['unknown']}")
    for tier in (found["price"] or {}).get("tiers", []):
        rates = (f"{name} {_dollars(value)}" for name, value in tier.items() if name != "above")
        print(f"  above {tier['above']:,} tokens: {', '.join(rates)}")
    for told in found["versions"]:
        print(f"  tenant {told['version']}, {told['set_at'][:19]}: {_said(told['card'], 'taken back')}")


async def set_price(
    settings: Settings,
    database: str,
    tenant: str,
    scope: str,
    said: Mapping[str, str],
    file: Path | None,
    *,
    as_json: bool,
) -> None:
    """Keep a card as the next version of a tenant's price."""
    from agentflow.core.price import card_of
    from agentflow.models.card import read_card

    is_tool = _checked(scope).startswith("tool:")
    card = read_card({**(_content(file) if file else {}), **said}, scope, tool=is_tool)
    if is_tool:
        price = card.tool("")._asdict()
        del price["price_version"]
    else:
        price = card_of(card.price("", "", ""))
    await _tell(settings, database, tenant_named(tenant), scope, price, as_json=as_json)


async def remove_price(settings: Settings, database: str, tenant: str, scope: str, *, as_json: bool) -> None:
    """Keep as the next version that there is none."""
    await _tell(settings, database, tenant_named(tenant), _checked(scope), None, as_json=as_json)


async def _tell(
    settings: Settings, database: str, tenant: UUID, scope: str, price: Mapping[str, Any] | None, *, as_json: bool
) -> None:
    from agentflow.store import admin

    async with admin_dsn(settings, database) as dsn:
        version = await admin.set_price(dsn, tenant, scope, price)
    at_once = await _reloaded(settings, tenant)
    if as_json:
        told = {"tenant": str(tenant), "scope": scope, "version": version, "price": price, "at_once": at_once}
        output.print_json(told)
        return
    print(f"{scope}: {_said(price, 'as everybody pays')}, tenant {version}")
    print(f"counts for runs that are planned {'from now on' if at_once else 'half a minute from now, or later'}")


async def _reloaded(settings: Settings, tenant: UUID) -> bool:
    """Whether the hosts were told to read the price at once: that takes an API that runs, and a key of the tenant."""
    from agentflow.store.api_keys import parse

    try:
        async with api(settings) as client:
            key = parse(client.headers.get("authorization", "").removeprefix("Bearer "))
            if key is None or key.tenant != tenant:
                return False
            await call(client, "POST", "/v1/prices/reload")
    except AgentFlowError:
        return False
    return True


def _checked(scope: str) -> str:
    if _SCOPE.fullmatch(scope):
        return scope
    mend = "name a model (model:small, model:gpt-5-mini) or a tool (tool:search)"
    raise Invalid([Problem("SCOPE", f"{scope[:80]!r} is neither a model nor a tool", mend, "bad_scope")])


def _content(file: Path) -> dict[str, Any]:
    from agentflow.wire.document_bounds import MAX_BYTES
    from agentflow.wire.document_text import load

    try:
        with file.open("rb") as opened:
            return load(opened.read(MAX_BYTES + 1))
    except OSError as fault:
        raise Invalid([Problem(str(file), f"cannot be read: {fault.strerror}", code="bad_price")]) from None


def _cells(price: Mapping[str, Any] | None) -> list[str]:
    names = ("input_micro_per_mtok", "output_micro_per_mtok", "cache_read_micro_per_mtok", "micro_per_call")
    cells = [_dollars((price or {}).get(name)) for name in names]
    seconds = _per_second((price or {}).get("micro_per_million_seconds"))
    return [*cells, seconds, str(len((price or {}).get("tiers", ())) or "")]


def _said(price: Mapping[str, Any] | None, otherwise: str = "not known") -> str:
    if price is None:
        return otherwise
    parts = []
    if "input_micro_per_mtok" in price:
        parts.append(f"{_dollars(price['input_micro_per_mtok'])} in, {_dollars(price['output_micro_per_mtok'])} out")
    for name, meaning in _MEANINGS.items():
        if price.get(name):
            parts.append(f"{_dollars(price[name])} {meaning}")
    if price.get("micro_per_million_seconds"):
        parts.append(f"{_per_second(price['micro_per_million_seconds'])} per second")
    return ", ".join(parts) or "free"


_MEANINGS = {
    "cache_read_micro_per_mtok": "from a cache",
    "cache_write_micro_per_mtok": "to a cache",
    "micro_per_call": "per call",
}


def _dollars(micro: int | None) -> str:
    return "" if micro is None else f"${(Decimal(micro) / _MILLION).normalize():f}"


def _per_second(rate: int | None) -> str:
    return "" if rate is None else f"${(Decimal(rate) / _MILLION**2).normalize():f}"
