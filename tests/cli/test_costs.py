"""What was spent, and what a run may cost, from the command line."""

from __future__ import annotations

import csv
import io
from uuid import UUID

import psycopg
import pytest

from agentflow.store.budgets import set_budget

from .conftest import HELLO, Command, Served
from .test_main import one_line


async def test_costs_are_shown_as_a_table_json_and_csv(agentflow: Command) -> None:
    assert (await agentflow("costs")).out.strip() == "nothing was spent"
    ended = [await agentflow("run", str(HELLO), "-i", "name=Ann", "--json") for _ in range(2)]
    spent = sum(each.json["spent_micro"] for each in ended)
    assert spent > 0
    (item,) = (await agentflow("costs", "--json")).json
    assert (item["workflow"], item["cost_micro"], item["runs"]) == ("hello", spent, 2)
    head, line = (await agentflow("costs", "--by", "model")).out.splitlines()
    assert "cost" in head.split() and "small" in line and f"{spent / 1e6:.6f}".rstrip("0") in line
    (row,) = csv.DictReader(io.StringIO((await agentflow("costs", "--by", "step", "--csv")).out))
    assert (row["BilledCost"], row["ResourceName"]) == (f"{spent / 1e6:.6f}", "greet")


async def test_days_and_months_are_those_of_the_tenants_zone(agentflow: Command, served: Served, key: str) -> None:
    """Midnight in Tokyo is the day before, and the month before, in UTC."""
    assert (await agentflow("run", str(HELLO), "-i", "name=Ann")).code == 0
    tenant = UUID(key.split("_")[1])
    async with await psycopg.AsyncConnection.connect(served.database.admin) as conn:
        await conn.execute("update agentflow.tenants set zone = 'Asia/Tokyo' where tenant_id = %s", (tenant,))
        await conn.execute("update agentflow.spend set day = '2026-03-01' where tenant_id = %s", (tenant,))
    for period, said in (("day", "2026-03-01"), ("month", "2026-03")):
        _, line = (await agentflow("costs", "--to", "2026-03-02", "--period", period)).out.splitlines()
        assert line.split()[0] == said


async def test_what_is_wrong_with_costs_is_said_in_one_line(agentflow: Command) -> None:
    one_line(await agentflow("costs", "--from", "soon"), "from")
    assert (await agentflow("costs", "--by", "colour")).code == 2


async def test_a_file_is_estimated_by_its_plan_and_a_registered_workflow_by_what_was_seen(agentflow: Command) -> None:
    guess = (await agentflow("estimate", str(HELLO), "-i", "name=Ann", "--json")).json
    assert (guess["runs_observed"], guess["bounded_by"], guess["version"]) == (0, "plan", None)
    shown = (await agentflow("estimate", str(HELLO), "-i", "name=Ann")).out
    assert "greet" in shown and "no runs observed yet" in shown and "it may spend $0.01" in shown
    ran = (await agentflow("run", str(HELLO), "-i", "name=Ann", "--json")).json
    known = (await agentflow("estimate", "hello", "-i", "name=Ann", "--json")).json
    assert known["runs_observed"] >= 1
    assert known["cost_micro"]["least"] <= ran["spent_micro"] <= known["cost_micro"]["most"]
    assert known["cost_micro"]["most"] == guess["cost_micro"]["most"]
    capped = (await agentflow("estimate", "hello", "-i", "name=Ann", "--budget", "0.00001")).out
    assert "the most is budget_usd, $0.00001: the plan may come to" in capped


async def test_a_missing_input_of_an_estimate_is_said(agentflow: Command) -> None:
    one_line(await agentflow("estimate", str(HELLO)), "input.name", "is missing")
    one_line(await agentflow("estimate", "nothing"), "no workflow")


@pytest.mark.parametrize("amount", ["-1", "0", "nan", "inf", "1e999", "1e7", "0.0000001"])
async def test_what_is_no_budget_is_said_in_one_line(agentflow: Command, amount: str) -> None:
    for command in (("estimate", str(HELLO)), ("estimate", "hello"), ("run", str(HELLO))):
        ended = await agentflow(*command, "-i", "name=A", "--budget", amount)
        one_line(ended, f"--budget: {float(amount)} is not an amount", "0.000001")
    one_line(await agentflow("fork", str(UUID(int=1)), "--at", "1", "--budget", amount), "--budget", "0.000001")


async def test_an_estimate_counts_the_account_that_a_run_would_be_charged_to(
    agentflow: Command, served: Served, key: str
) -> None:
    assert (await agentflow("run", str(HELLO), "-i", "name=Ann")).code == 0
    ask = ("estimate", "hello", "-i", "name=Ann")
    charged = (*ask, "--charge-to", "team")
    one_line(await agentflow(*charged), "there is no budget 'team'")
    for scope, micro in (("tenant", 900_000), ("budget:team", 30_000)):
        await set_budget(served.database.admin, UUID(key.split("_")[1]), scope, "total", limit_micro=micro)
    assert (await agentflow(*charged, "--json")).json["tenant_remaining_micro"] == 30_000
    assert (await agentflow(*ask, "--json")).json["tenant_remaining_micro"] > 30_000
    assert "have $0.03 left" in (await agentflow(*charged)).out
    of_a_file = await agentflow("estimate", str(HELLO), "-i", "name=A", "--charge-to", "team")
    one_line(of_a_file, "--charge-to", "registered")
