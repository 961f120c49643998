"""Handlers: what was spent, by what, and when; as JSON, or as CSV with the columns of FOCUS."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from datetime import UTC, date, timedelta
from typing import Any
from urllib.parse import urlencode

from starlette.responses import Response

from agentflow.control import cursors, shapes
from agentflow.control.bodies import read_query
from agentflow.control.call import Call, page
from agentflow.errors import Rejected
from agentflow.store.control import CostKey

DAYS, MONTHS = 31, 12
"""What is reported where no day is named."""
FIRST, LAST = date(2000, 1, 1), date(2200, 1, 1)
EVER = "-infinity"
MILLION = 1_000_000
OURS = "AgentFlow"

Row = Mapping[str, Any]

COLUMNS = (
    "BillingAccountId", "BillingCurrency", "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory",
    "ChargeFrequency", "ServiceCategory", "ServiceName", "ProviderName", "ResourceType", "ResourceName",
    "BilledCost", "EffectiveCost", "ConsumedQuantity", "ConsumedUnit", "x_Workflow", "x_Calls", "x_InputTokens",
    "x_OutputTokens", "x_CacheReadTokens", "x_CacheWriteTokens", "x_ReasoningTokens", "x_Seconds",
    "x_PriceVersions", "x_CorrectedCost", "x_ChildrenCost", "x_Runs", "x_RunsSucceeded", "x_RunMeanCost",
    "x_EstimatedRuns", "x_EstimatedCost", "x_EstimatedRunsCost", "x_StartsOn", "x_EndsOn",
)  # fmt: skip


async def list_costs(call: Call) -> Response:
    """Sums of what the caller's tenant has spent. A settlement counts on the day on which it is made."""
    query = read_query(call.request, shapes.CostsQuery)
    period = query.period or ("total" if query.since or query.until else "day")
    after = cursors.decode(query.cursor, _key) if query.cursor else None
    since, until = await _days(call, query, period)
    rows = await call.services.store.costs(
        call.tenant, query.by, period, since, until, query.workflow, after, query.limit + 1
    )
    items = [_item(call, query.by, row) for row in rows[: query.limit]]
    following = _cursor(rows[query.limit - 1]) if len(rows) > query.limit else None
    if query.format == "csv" or (query.format is None and _wants_csv(call)):
        return _csv(call, query.by, items, following)
    return page(shapes.Costs, items, following)


async def _days(call: Call, query: shapes.CostsQuery, period: str) -> tuple[date | None, date | None]:
    for name, day in (("from", query.since), ("to", query.until)):
        if day is not None and not FIRST <= day <= LAST:
            raise _bad(name, "is out of reach", f"name a day from {FIRST} to {LAST}")
    if query.since and query.until and query.since >= query.until:
        raise _bad("to", "is not after `from`", "name the day after the last one that counts")
    if query.since or query.until or period == "total":
        return query.since, query.until
    today = await call.services.store.today(call.tenant)
    if period == "day":
        return today - timedelta(days=DAYS - 1), None
    year, month = divmod(today.year * 12 + today.month - MONTHS, 12)
    return date(year, month + 1, 1), None


def _bad(name: str, message: str, mend: str) -> Rejected:
    return Rejected(message, code="bad_query", path=name, mend=mend)


def _wants_csv(call: Call) -> bool:
    """Whether CSV is asked for, and JSON is not."""
    accepted = call.request.headers.get("accept", "").lower()
    return "text/csv" in accepted and "application/json" not in accepted


def _item(call: Call, by: str, row: Row) -> dict[str, Any]:
    runs = row["runs"] if by in ("tenant", "workflow") else None
    return {
        **row,
        "tenant": call.tenant,
        "workflow": row["by_workflow"] if by in ("workflow", "step") else None,
        "task": row["by_task"] if by == "step" else None,
        "agent": row["by_agent"] if by == "agent" else None,
        "provider": row["by_provider"] if by == "model" else None,
        "model": row["by_name"] if by == "model" else None,
        "tool": row["by_name"] if by == "tool" else None,
        "budget": row["by_name"] if by == "budget" else None,
        "seconds": row["ms"] / 1000,
        "prices": row["prices"] or [],
        "runs": runs,
        "runs_succeeded": row["succeeded"] if runs is not None else None,
        "run_mean_micro": max(0, round(row["runs_micro"] / runs)) if runs else None,
        "estimated": _estimated(row) if row["expected_runs"] else None,
    }


def _estimated(row: Row) -> dict[str, Any]:
    expected, cost = row["expected_micro"], row["expected_cost_micro"]
    ratio = round(cost / expected, 4) if expected else None
    return {"runs": row["expected_runs"], "expected_micro": expected, "cost_micro": cost, "ratio": ratio}


def _cursor(row: Row) -> str:
    return cursors.encode(row["place"], *(row[f"by_{name}"] for name in CostKey._fields[1:]))


def _key(place: str, *where: str) -> CostKey:
    if place != EVER:
        date.fromisoformat(place)
    if any(type(each) is not str for each in where):
        raise ValueError
    return CostKey(place, *where)


# -- as CSV -------------------------------------------------------------------------------------------------


def _csv(call: Call, by: str, items: Iterable[Row], following: str | None) -> Response:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(_focus(by, item) for item in items)
    headers = {}
    if following is not None:
        asked = [(key, value) for key, value in call.request.query_params.multi_items() if key != "cursor"]
        headers["link"] = f'</v1/costs?{urlencode([*asked, ("cursor", following)])}>; rel="next"'
    return Response(text.getvalue(), 200, headers, media_type="text/csv")


def _focus(by: str, item: Row) -> dict[str, Any]:
    """One row in the terms of FOCUS 1.2; what that does not have has the prefix that it asks for."""
    tokens = item["input_tokens"] + item["output_tokens"]
    what = next((item[name] for name in ("model", "tool", "budget", "agent", "task", "workflow") if item[name]), "")
    estimated = item["estimated"] or {}
    return {
        "BillingAccountId": item["tenant"],
        "BillingCurrency": "USD",
        "ChargePeriodStart": item["starts_at"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ChargePeriodEnd": item["ends_at"].astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "ChargeCategory": "Usage",
        "ChargeFrequency": "Usage-Based",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": item["model"] or OURS,
        "ProviderName": item["provider"] or OURS,
        "ResourceType": by,
        "ResourceName": what,
        "BilledCost": dollars(item["cost_micro"]),
        "EffectiveCost": dollars(item["cost_micro"]),
        "ConsumedQuantity": tokens if by == "model" else item["calls"],
        "ConsumedUnit": "Tokens" if by == "model" else "Calls",
        "x_Workflow": item["workflow"] or "",
        "x_Calls": item["calls"],
        "x_InputTokens": item["input_tokens"],
        "x_OutputTokens": item["output_tokens"],
        "x_CacheReadTokens": item["cache_read_tokens"],
        "x_CacheWriteTokens": item["cache_write_tokens"],
        "x_ReasoningTokens": item["reasoning_tokens"],
        "x_Seconds": item["seconds"],
        "x_PriceVersions": " ".join(each.replace(" ", "_") for each in item["prices"]),
        "x_CorrectedCost": dollars(item["corrected_micro"]),
        "x_ChildrenCost": dollars(item["children_micro"]),
        "x_Runs": _or_empty(item["runs"]),
        "x_RunsSucceeded": _or_empty(item["runs_succeeded"]),
        "x_RunMeanCost": "" if item["run_mean_micro"] is None else dollars(item["run_mean_micro"]),
        "x_EstimatedRuns": _or_empty(estimated.get("runs")),
        "x_EstimatedCost": dollars(estimated["expected_micro"]) if estimated else "",
        "x_EstimatedRunsCost": dollars(estimated["cost_micro"]) if estimated else "",
        "x_StartsOn": item["starts_on"],
        "x_EndsOn": item["ends_on"],
    }


def dollars(micro: int) -> str:
    """Micro-dollars as a decimal number of dollars, with no digit lost."""
    return f"{'-' if micro < 0 else ''}{abs(micro) // MILLION}.{abs(micro) % MILLION:06d}"


def _or_empty(value: Any) -> Any:
    return "" if value is None else value

