"""Commands about limits: what is set, setting and removing it."""

from __future__ import annotations

from agentflow.config import Settings
from agentflow.terminal import output
from agentflow.terminal.amounts import finite
from agentflow.terminal.client import all_pages, api, call
from agentflow.terminal.running import quoted


async def show_limits(settings: Settings, *, as_json: bool) -> None:
    """List what is set, by scope."""
    async with api(settings) as client:
        items = await all_pages(client, "/v1/limits")
    if as_json:
        output.print_json(items)
        return
    rows = [
        [item["scope"], *(_shown(item[name]) for name in COLUMNS), item["updated_at"][:19]] for item in items
    ]
    titles = ("scope", "at once", "per second", "burst", "weight", "set at")
    output.print_table(titles, rows, "nothing is limited")


COLUMNS = ("concurrency", "per_second", "burst", "weight")


async def set_limit(
    settings: Settings,
    scope: str,
    *,
    concurrency: int | None,
    per_second: float | None,
    burst: int | None,
    weight: int,
    as_json: bool,
) -> None:
    """Set a scope's limit, as a whole: what is not given is unlimited."""
    rate = finite(per_second, "--per-second")
    body = {"concurrency": concurrency, "per_second": rate, "burst": burst, "weight": weight}
    async with api(settings) as client:
        made = await call(client, "PUT", f"/v1/limits/{quoted(scope)}", json=body)
    if as_json:
        output.print_json(made)
        return
    said = [
        f"{made['concurrency']} at once" if made["concurrency"] is not None else "",
        f"{made['per_second']:g} per second" if made["per_second"] is not None else "",
        f"weight {made['weight']}" if made["weight"] != 1 else "",
    ]
    print(f"{made['scope']}: {', '.join(filter(None, said))}")


async def remove_limit(settings: Settings, scope: str, *, as_json: bool) -> None:
    """Limit a scope no longer."""
    async with api(settings) as client:
        await call(client, "DELETE", f"/v1/limits/{quoted(scope)}")
    if as_json:
        output.print_json({"scope": scope, "removed": True})
    else:
        print(f"{scope} is not limited any more")


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
