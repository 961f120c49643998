"""Prices from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentflow.store.api_keys import parse

from .conftest import HELLO, Command, Served
from .test_main import one_line

TIERED = """
input_usd_per_mtok: 1.25
output_usd_per_mtok: 10
tiers: [{above: 200000, input_usd_per_mtok: 2.5, output_usd_per_mtok: 15, cache_read_usd_per_mtok: 0.25}]
"""


@pytest.fixture
def admin(served: Served, key: str) -> tuple[str, ...]:
    known = parse(key)
    assert known is not None
    return ("--tenant", str(known.tenant), "--database", served.database.admin)


async def test_a_price_is_set_paid_shown_and_taken_back(agentflow: Command, admin: tuple[str, ...]) -> None:
    first = await agentflow("run", str(HELLO), "-i", "name=Ann", "--json")
    assert first.json["spent_micro"] > 0
    free = ("--input", "0", "--output", "0")
    made = await agentflow("prices", "set", "model:small", *free, "--per-call", "0.25", *admin)
    assert (made.code, made.out.splitlines()) == (0, [
        "model:small: $0 in, $0 out, $0.25 per call, tenant 1", "counts for runs that are planned from now on",
    ])  # fmt: skip
    refused = await agentflow("run", str(HELLO), "-i", "name=Ann", "--json")
    assert refused.json["error"]["code"] == "plan_failed", "a quarter of a dollar is more than limits.usd allows"
    assert "250000 micro-dollars" in refused.json["error"]["message"]
    listed = await agentflow("prices", "list")
    assert "model:small" in listed.out and "$0.25" in listed.out and "tenant 1" in listed.out
    taken = await agentflow("prices", "remove", "model:small", *admin)
    assert taken.out.splitlines()[0] == "model:small: as everybody pays, tenant 2"
    again = await agentflow("run", str(HELLO), "-i", "name=Ann", "--json")
    assert again.json["spent_micro"] == first.json["spent_micro"]
    shown = (await agentflow("prices", "show", "model:small")).out.splitlines()
    assert shown[0] == "model:small: $0.25 in, $2 out, scripted-1"
    assert "taken back" in shown[1] and "$0.25 per call" in shown[2]
    history = (await agentflow("prices", "show", "model:small", "--json")).json["versions"]
    assert [line["version"] for line in history] == [2, 1]


async def test_a_card_with_tiers_comes_from_a_file(agentflow: Command, admin: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "card.yaml").write_text(TIERED)
    made = await agentflow("prices", "set", "model:a/b:c", "--file", str(tmp_path / "card.yaml"), *admin, "--json")
    assert made.json["price"]["tiers"] == [
        {"above": 200_000, "input": 2_500_000, "output": 15_000_000, "cache_read": 250_000}
    ]
    shown = (await agentflow("prices", "show", "model:a/b:c")).out
    assert "above 200,000 tokens: input $2.5, output $15, cache_read $0.25" in shown


async def test_a_tools_price_is_per_call_and_per_second(agentflow: Command, admin: tuple[str, ...]) -> None:
    made = await agentflow("prices", "set", "tool:search", "--per-call", "0.01", "--per-second", "0.0006", *admin)
    assert made.out.splitlines()[0] == "tool:search: $0.01 per call, $0.0006 per second, tenant 1"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("model:small", "--input", "-1", "--output", "1"), ("model:small.input_usd_per_mtok", "from 0 to 1000000")),
        (("model:small", "--input", "nan", "--output", "1"), ("model:small.input_usd_per_mtok", "US dollars")),
        (("model:small", "--input", "1"), ("model:small", "give both")),
        (("model:small", "--input", "0.0000001", "--output", "1"), ("input_usd_per_mtok", "at most 6 decimals")),
        (("model:small",), ("says no price", "0 when it is free")),
        (("tool:search", "--input", "1", "--output", "1"), ("tool:search.input_usd_per_mtok", "usd_per_call")),
        (("everything", "--per-call", "1"), ("neither a model nor a tool", "tool:search")),
        (("model:small", "--file", "no/such/file"), ("no/such/file", "cannot be read")),
        (("model:small", "--per-call", "1", "--tenant", "x"), ("--tenant", "agentflow tenant create")),
    ],
)
async def test_what_is_no_price_is_said_in_one_line(
    agentflow: Command, served: Served, given: tuple[str, ...], says: tuple[str, str]
) -> None:
    one_line(await agentflow("prices", "set", *given, "--database", served.database.admin), *says)


async def test_a_tenant_that_is_not_there_has_no_price(agentflow: Command, served: Served) -> None:
    nobody = ("--tenant", "00000000-0000-4000-8000-000000000000", "--database", served.database.admin)
    one_line(await agentflow("prices", "set", "model:small", "--per-call", "1", *nobody), "no tenant", "tenant create")
