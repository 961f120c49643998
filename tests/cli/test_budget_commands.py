"""Budgets and zones from the command line."""

from __future__ import annotations

import pytest

from .conftest import HELLO, PEPPER, Served, run
from .test_main import one_line


async def test_budgets_are_set_by_an_administrator_and_seen_by_their_tenant(
    environment: pytest.MonkeyPatch, served: Served
) -> None:
    environment.setenv("AGENTFLOW_KEY_PEPPER", PEPPER)
    database = ("--database", served.database.admin)
    tenant = (await run("tenant", "create", "acme", *database, "--json")).json["tenant"]
    key = (await run("key", "create", "--tenant", tenant, *database)).out.strip()
    environment.setenv("AGENTFLOW_API_URL", served.url)
    environment.setenv("AGENTFLOW_API_KEY", key)
    assert "no budgets" in (await run("budgets")).out
    mine = ("--tenant", tenant, *database)
    done = await run("tenant", "zone", "Europe/Berlin", *mine)
    assert done.out.strip() == "days and months are those of Europe/Berlin"
    done = await run("budgets", "set", "budget:support", "--usd", "12.5", "--period", "day", "--soft", "10", *mine)
    assert done.out.strip() == "budget:support: $12.50 per day"
    done = await run("budgets", "set", "tenant", *mine)
    assert done.out.strip() == "tenant: counted in total, without a limit"
    (one,) = (await run("budgets", "show", "budget:support", "--json")).json
    assert (one["limit_micro"], one["soft_micro"], one["remaining_micro"]) == (12_500_000, 10_000_000, 12_500_000)
    assert one["resets_at"].endswith(("T22:00:00Z", "T23:00:00Z"))  # midnight in Berlin
    table = (await run("budgets", "list")).out
    assert "$12.50" in table
    assert f"{one['resets_at'][:10]} {one['resets_at'][11:19]} UTC" in table
    assert "tenant" in table
    one_line(await run("budgets", "show", "nope"), "'nope' is not a budget's scope", "budget:NAME")
    one_line(await run("budgets", "show", "budget:nope"), "budget:nope has no budget", "agentflow budgets")
    assert (await run("budgets", "remove", "budget:support", "--period", "day", *mine)).code == 0
    assert [each["scope"] for each in (await run("budgets", "--json")).json] == ["tenant"]


async def test_what_is_no_budget_is_said_in_one_line(environment: pytest.MonkeyPatch, served: Served) -> None:
    environment.setenv("AGENTFLOW_KEY_PEPPER", PEPPER)
    database = ("--database", served.database.admin)
    mine = ("--tenant", (await run("tenant", "create", "acme", *database)).out.strip(), *database)
    one_line(await run("budgets", "set", "team", "--usd", "1", *mine), "scope", "budget:NAME")
    one_line(await run("budgets", "set", "tenant", "--usd", "1", "--period", "week", *mine), "period", "month")
    one_line(await run("budgets", "set", "tenant", "--usd", "1", "--soft", "2", *mine), "soft", "limit")
    assert (await run("budgets", "set", "tenant", "--usd", "nan", *mine)).code == 2
    one_line(await run("budgets", "set", "tenant", "--usd", "1e12", *mine), "--usd", "1,000,000,000")
    for amount in ("inf", "0.0000001", "1.2345678"):
        one_line(await run("budgets", "set", "tenant", "--usd", amount, *mine), "--usd", "six decimals")
        one_line(await run("budgets", "set", "tenant", "--usd", "5", "--soft", amount, *mine), "--soft", "six decimals")
    one_line(await run("budgets", "remove", "budget:none", *mine), "budget:none")
    one_line(await run("tenant", "zone", "Mars/Olympus", *mine), "time zone", "Europe/Berlin")


async def test_corrections_are_made_by_an_administrators_key(environment: pytest.MonkeyPatch, served: Served) -> None:
    environment.setenv("AGENTFLOW_KEY_PEPPER", PEPPER)
    database = ("--database", served.database.admin)
    tenant = (await run("tenant", "create", "acme", *database)).out.strip()
    environment.setenv("AGENTFLOW_API_URL", served.url)
    environment.setenv("AGENTFLOW_API_KEY", (await run("key", "create", "--tenant", tenant, *database)).out.strip())
    correct = ("budgets", "correct", "--reason", "invoice 7", "--usd")
    one_line(await run(*correct, "1"), "administrator", "key create --admin")
    admin = (await run("key", "create", "--admin", "--tenant", tenant, *database)).out.strip()
    environment.setenv("AGENTFLOW_API_KEY", admin)
    for amount in ("1EUR", "nan", "Infinity", "0", "0.0000001", "1e12", "1e999999", "1e-999999"):
        one_line(await run(*correct, amount), "--usd", "-12.50")
    done = await run(*correct, "2.5", "--key", "i7")
    assert done.out.strip() == "tenant: $2.50 more was spent (key i7)"
    assert (await run(*correct, "2.5", "--key", "i7")).out == done.out
    one_line(await run(*correct, "2.6", "--key", "i7"), "Idempotency-Key")
    done = await run(*correct, "-1.000001", "--scope", "tenant")
    assert "tenant: $1.000001 was given back" in done.out
    one_line(await run(*correct, "-1.5"), "of 1499999 that were spent")
    one_line(await run(*correct, "1", "--run", "nonsense"), "run")
    one_line(await run(*correct, "1", "--scope", "team"), "scope")
    for amount in ("1", "-1"):
        one_line(await run(*correct, amount, "--scope", "budget:nothere"), "no budget 'nothere'", "/v1/budgets")
        one_line(await run(*correct, amount, "--scope", "workflow:nothere"), "there is no workflow 'nothere'")
    assert (await run("budgets", "set", "budget:team", "--tenant", tenant, *database)).code == 0
    assert (await run("run", str(HELLO), "-i", "name=Ann")).code == 0
    for scope in ("budget:team", "workflow:hello"):
        assert f"{scope}: $0.25 more was spent" in (await run(*correct, "0.25", "--scope", scope)).out
    table = (await run("budgets", "corrections")).out
    assert "-$1.000001" in table
    assert "invoice 7" in table
    listed = (await run("budgets", "corrections", "--json")).json
    assert sum(each["amount_micro"] for each in listed) == 1_999_999
    (item,) = (await run("costs", "--by", "tenant", "--period", "total", "--json")).json
    assert item["corrected_micro"] == 1_999_999
