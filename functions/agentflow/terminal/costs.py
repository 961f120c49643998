"""``agentflow costs``: what was spent, as a table, JSON or CSV."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agentflow.config import Settings
from agentflow.terminal import output
from agentflow.terminal.client import all_pages, api, refusal, unreachable
from agentflow.terminal.progress import dollars

if TYPE_CHECKING:
    from httpx import AsyncClient

NAMES = ("workflow", "task", "agent", "provider", "model", "tool", "budget")
PAGE = 1000


async def show_costs(
    settings: Settings, by: str, period: str, since: str, until: str, workflow: str, *, as_json: bool, as_csv: bool
) -> None:
    """Print what the key's tenant has spent."""
    asked = {"by": by, "period": period, "from": since, "to": until, "workflow": workflow, "limit": PAGE}
    params = {name: value for name, value in asked.items() if value}
    async with api(settings) as client:
        if as_csv:
            await _copy(client, params)
            return
        items = await all_pages(client, "/v1/costs", params)
    if as_json:
        output.print_json(items)
        return
    names = [name for name in NAMES if any(item[name] for item in items)]
    columns = ["from", *names, "cost", "calls", "tokens in", "out", "time"]
    runs = any(item["runs"] for item in items)
    if runs:
        columns += ["runs", "a run", "expected"]
    rows = [_row(item, names, period, runs=runs) for item in items]
    output.print_table(columns, rows, "nothing was spent")
    if len(items) > 1:
        print(f"in all: {dollars(sum(item['cost_micro'] for item in items))}")


def _row(item: dict[str, Any], names: list[str], period: str, *, runs: bool) -> list[Any]:
    begins = item.get("starts_on", item["starts_at"])  # an API of before gives the instant alone
    row = [begins[: 7 if period == "month" else 10], *(item[name] or "" for name in names)]
    row += [dollars(item["cost_micro"]), f"{item['calls']:,}", f"{item['input_tokens']:,}"]
    row += [f"{item['output_tokens']:,}", f"{item['seconds']:,.1f} s"]
    if runs:
        mean, estimated = item["run_mean_micro"], item["estimated"]
        row += [f"{item['runs'] or 0:,}", "" if mean is None else dollars(mean), _ratio(estimated)]
    return row


def _ratio(estimated: dict[str, Any] | None) -> str:
    """How far off the estimates were, as far as there were any."""
    if estimated is None:
        return ""
    expected = dollars(round(estimated["expected_micro"] / estimated["runs"]))
    return expected if estimated["ratio"] is None else f"{expected} (came to {estimated['ratio']:.0%})"


async def _copy(client: AsyncClient, params: dict[str, Any]) -> None:
    """All pages of the CSV, with one head."""
    import httpx

    path, first = "/v1/costs", True
    more: dict[str, Any] | None = {**params, "format": "csv"}
    while path:
        try:
            response = await client.get(path, params=more)
        except httpx.TransportError as fault:
            raise unreachable(client, fault) from None
        if response.status_code >= 400:
            raise refusal(response)
        sys.stdout.write(response.text if first else response.text.split("\n", 1)[1])
        path = response.links.get("next", {}).get("url", "")
        first, more = False, None
