"""The report of costs: sums by what is asked for, in the tenant's own days, and of nobody else's money."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from .world import Tenant, World, problem

TODAY = datetime.now(UTC).date()
LAST_MONTH = TODAY.replace(day=1) - timedelta(days=1)
SPEND = """
insert into agentflow.spend (tenant_id, day, workflow, version, task, kind, provider, name, price, shard, agent, calls,
  input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens, ms, cost_micro, held_micro,
  budget)
values (%s, %s, %s, 1, %s, %s, %s, %s, 'v 1', %s, %s, 2, 100, 10, 40, 5, 3, 1500, %s, 900, %s)"""
RUNS = """
insert into agentflow.run_spend (tenant_id, day, workflow, version, task, shard, runs, succeeded, starts, calls,
  input_tokens, output_tokens, cost_micro, expected_runs, expected_micro, expected_cost_micro)
values (%s, %s, %s, 1, '', 0, %s, 1, 1, 1, 1, 1, %s, %s, %s, %s)"""


async def fill(world: World, tenant: Tenant) -> None:
    """Two days of two workflows: an agent with a model and a tool, a plain call of a model, and a child run."""
    rows: list[tuple[Any, ...]] = []
    for day, times in ((TODAY, 1), (LAST_MONTH, 10)):
        rows += [
            (day, "audit", "find", "llm", "acme", "big-1", 0, "clerk", 300 * times, "team"),
            (day, "audit", "find", "llm", "acme", "big-1", 7, "clerk", 200 * times, "team"),  # another shard
            (day, "audit", "find", "tool", "", "search", 0, "clerk", 40 * times, ""),
            (day, "audit", "tell", "workflow", "workflow", "notify", 0, "", 25 * times, "team"),
            (day, "notify", "say", "llm", "acme", "small-1", 0, "", 25 * times, "team"),
        ]
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        for row in rows:
            await conn.execute(SPEND, (tenant.id, *row))
        await conn.execute(RUNS, (tenant.id, TODAY, "audit", 3, 565, 2, 400, 500))
        await conn.execute(RUNS, (tenant.id, LAST_MONTH, "audit", 1, 5650, 0, 0, 0))


async def costs(tenant: Tenant, **params: Any) -> list[dict[str, Any]]:
    answer = await tenant.http.get("/v1/costs", params=params)
    assert answer.status_code == 200, answer.text
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


@pytest.mark.parametrize(
    ("by", "names", "expected"),
    [
        ("tenant", (), {(): 565 * 11}),
        ("workflow", ("workflow",), {("audit",): 540 * 11, ("notify",): 25 * 11}),
        ("agent", ("agent",), {("clerk",): 540 * 11}),
        ("model", ("provider", "model"), {("acme", "big-1"): 500 * 11, ("acme", "small-1"): 25 * 11}),
        ("tool", ("tool",), {("search",): 40 * 11}),
        ("step", ("workflow", "task"), {("audit", "find"): 540 * 11, ("audit", "tell"): 0, ("notify", "say"): 275}),
        ("budget", ("budget",), {("team",): 525 * 11}),
    ],
)
async def test_sums_by(world: World, by: str, names: tuple[str, ...], expected: dict[tuple[str, ...], int]) -> None:
    await fill(world, world.a)
    await fill(world, world.b)
    items = await costs(world.a, by=by, period="total")
    assert {tuple(item[name] for name in names): item["cost_micro"] for item in items} == expected
    assert {item["tenant"] for item in items} == {str(world.a.id)}


async def test_what_children_cost_is_said_beside_and_counted_once(world: World) -> None:
    await fill(world, world.a)
    found = {item["workflow"]: item for item in await costs(world.a, period="total")}
    assert (found["audit"]["children_micro"], found["notify"]["children_micro"]) == (275, 0)
    (whole,) = await costs(world.a, by="tenant", period="total")
    assert (whole["cost_micro"], whole["children_micro"]) == (565 * 11, 0)


async def test_a_child_runs_calls_time_and_money_count_once_whatever_is_added_up(world: World) -> None:
    await fill(world, world.a)
    for by in ("tenant", "workflow", "step"):
        items = await costs(world.a, by=by, period="total")
        sums = {name: sum(item[name] for item in items) for name in ("calls", "seconds", "cost_micro")}
        assert sums == {"calls": 16, "seconds": 12.0, "cost_micro": 6215}, by
        assert {price for item in items for price in item["prices"]} == {"v 1"}
    (tell,) = [item for item in items if item["task"] == "tell"]
    assert (tell["calls"], tell["seconds"], tell["cost_micro"], tell["children_micro"]) == (0, 0.0, 0, 275)


async def test_a_tenants_run_costs_at_the_mean_what_its_own_calls_have_cost(world: World) -> None:
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        for row in (("audit", "find", "llm", 300), ("audit", "tell", "workflow", 100), ("notify", "say", "llm", 100)):
            workflow, task, kind, micro = row
            await conn.execute(SPEND, (world.a.id, TODAY, workflow, task, kind, "", "", 0, "", micro, ""))
        await conn.execute(RUNS, (world.a.id, TODAY, "audit", 1, 400, 0, 0, 0))
        await conn.execute(RUNS, (world.a.id, TODAY, "notify", 1, 100, 0, 0, 0))
    means = {item["workflow"]: item["run_mean_micro"] for item in await costs(world.a, by="workflow")}
    assert means == {"audit": 400, "notify": 100}
    (whole,) = await costs(world.a, by="tenant")
    assert (whole["cost_micro"], whole["runs"], whole["run_mean_micro"]) == (400, 2, 200)


async def test_tokens_calls_time_runs_and_estimates(world: World) -> None:
    await fill(world, world.a)
    (model, _) = await costs(world.a, by="model", period="total")
    assert {name: model[name] for name in ("calls", "input_tokens", "output_tokens", "seconds", "prices")} == {
        "calls": 8, "input_tokens": 400, "output_tokens": 40, "seconds": 6.0, "prices": ["v 1"],
    }  # fmt: skip
    assert [model[name] for name in ("cache_read_tokens", "cache_write_tokens", "reasoning_tokens")] == [160, 20, 12]
    assert (model["runs"], model["estimated"]) == (None, None)
    audit = (await costs(world.a, period="total"))[0]
    assert (audit["runs"], audit["runs_succeeded"], audit["run_mean_micro"]) == (4, 2, round(6215 / 4))
    assert audit["estimated"] == {"runs": 2, "expected_micro": 400, "cost_micro": 500, "ratio": 1.25}


async def test_periods(world: World) -> None:
    await fill(world, world.a)
    days = await costs(world.a, by="tenant")
    near = (TODAY - LAST_MONTH).days < 31
    assert [item["cost_micro"] for item in days] == ([565, 5650] if near else [565])
    months = await costs(world.a, by="tenant", period="month")
    assert [item["starts_at"] for item in months] == [
        f"{TODAY:%Y-%m}-01T00:00:00Z", f"{LAST_MONTH:%Y-%m}-01T00:00:00Z"
    ]  # fmt: skip
    assert months[1]["ends_at"] == months[0]["starts_at"]
    (some,) = await costs(world.a, by="tenant", **{"from": str(LAST_MONTH), "to": str(TODAY)})
    assert (some["cost_micro"], some["starts_at"][:10], some["ends_at"][:10]) == (5650, str(LAST_MONTH), str(TODAY))
    (one,) = await costs(world.a, by="workflow", period="day", workflow="notify", **{"from": str(TODAY)})
    assert (one["workflow"], one["cost_micro"]) == ("notify", 25)
    assert await costs(world.b, period="total") == []


async def test_days_are_the_tenants_own(world: World) -> None:
    await fill(world, world.a)
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        await conn.execute(
            "update agentflow.tenants set zone = 'America/New_York' where tenant_id = %s", (world.a.id,)
        )
    item = (await costs(world.a, by="tenant", period="day", **{"from": "2026-11-01", "to": "2199-01-01"}))[-1]
    began = datetime.fromisoformat(item["starts_at"]).astimezone(UTC)
    assert began.hour in (4, 5), "midnight there, in summer or winter"


async def test_east_of_utc_a_day_and_a_month_are_told_as_the_tenants_own(world: World) -> None:
    await fill(world, world.a)
    async with await psycopg.AsyncConnection.connect(world.database.admin) as conn:
        await conn.execute("update agentflow.tenants set zone = 'Asia/Tokyo' where tenant_id = %s", (world.a.id,))
    given = {"by": "tenant", "from": str(LAST_MONTH), "to": str(TODAY + timedelta(days=1))}
    days = await costs(world.a, period="day", **given)
    assert [(item["starts_on"], item["ends_on"]) for item in days] == [
        (str(day), str(day + timedelta(days=1))) for day in (TODAY, LAST_MONTH)
    ]
    assert days[0]["starts_at"] == f"{TODAY - timedelta(days=1)}T15:00:00Z"
    months = await costs(world.a, period="month", **given)
    assert [item["starts_on"] for item in months] == [f"{TODAY:%Y-%m}-01", f"{LAST_MONTH:%Y-%m}-01"]
    answer = await world.a.http.get("/v1/costs", params={**given, "period": "month", "format": "csv"})
    row = next(csv.DictReader(io.StringIO(answer.text)))
    assert (row["x_StartsOn"], row["x_EndsOn"]) == (months[0]["starts_on"], months[0]["ends_on"])


async def test_pages_follow_each_other_without_a_gap(world: World) -> None:
    await fill(world, world.a)
    for by, period in (("step", "day"), ("workflow", "month"), ("model", "total"), ("workflow", "total")):
        whole = await costs(world.a, by=by, period=period)
        found, cursor = [], None
        while True:
            more = {"cursor": cursor} if cursor else {}
            params = {"by": by, "period": period, "limit": 1, **more}
            answer = (await world.a.http.get("/v1/costs", params=params)).json()
            found += answer["items"]
            if not (cursor := answer["next"]):
                break
        assert found == whole


@pytest.mark.parametrize("how", [{"params": {"format": "csv"}}, {"headers": {"accept": "text/csv"}}])
async def test_as_csv_with_the_names_of_focus(world: World, how: dict[str, Any]) -> None:
    await fill(world, world.a)
    params = {"by": "model", "period": "total", "limit": 1} | how.get("params", {})
    answer = await world.a.http.get("/v1/costs", params=params, headers=how.get("headers"))
    assert answer.headers["content-type"].startswith("text/csv")
    (row,) = csv.DictReader(io.StringIO(answer.text))
    assert (row["BilledCost"], row["BillingCurrency"], row["ConsumedQuantity"]) == ("0.005500", "USD", "440")
    assert (row["ConsumedUnit"], row["ServiceName"], row["ProviderName"]) == ("Tokens", "big-1", "acme")
    assert row["ChargePeriodStart"] == f"{LAST_MONTH}T00:00:00Z"
    assert all(name.startswith("x_") or name in FOCUS for name in row)
    following = answer.headers["link"].partition(">")[0].lstrip("<")
    (row,) = csv.DictReader(io.StringIO((await world.a.http.get(following, headers=how.get("headers"))).text))
    assert row["ServiceName"] == "small-1"


# Columns of the FOCUS specification, version 1.2, that are used here.
FOCUS = {
    "BillingAccountId", "BillingCurrency", "ChargePeriodStart", "ChargePeriodEnd", "ChargeCategory", "ChargeFrequency",
    "ServiceCategory", "ServiceName", "ProviderName", "ResourceType", "ResourceName", "BilledCost", "EffectiveCost",
    "ConsumedQuantity", "ConsumedUnit",
}  # fmt: skip


@pytest.mark.parametrize(
    ("params", "path"),
    [
        ({"by": "task"}, "by"),
        ({"period": "week"}, "period"),
        ({"from": "yesterday"}, "from"),
        ({"from": "2026-13-01"}, "from"),
        ({"from": "0001-01-01"}, "from"),
        ({"from": "2026-02-01", "to": "2026-02-01"}, "to"),
        ({"workflow": "No Name"}, "workflow"),
        ({"limit": "0"}, "limit"),
        ({"cursor": "x"}, "cursor"),
        ({"cursor": "WyIyMDI2Il0"}, "cursor"),
        ({"format": "xml"}, "format"),
        ({"tenant": "other"}, "tenant"),
    ],
)
async def test_nonsense_is_refused_with_its_path(world: World, params: dict[str, str], path: str) -> None:
    document = problem(await world.a.http.get("/v1/costs", params=params), 400, "bad_query")
    assert [fault["path"] for fault in document["errors"]] == [path]
