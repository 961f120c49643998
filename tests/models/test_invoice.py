"""Ten thousand calls, priced to the micro-dollar as invoice/write.py has worked them out without us."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from agentflow.core import money
from agentflow.core.price import Price, llm_bound
from agentflow.core.run import Run
from agentflow.models import Request
from agentflow.models.card import read_card
from agentflow.models.effect import spent
from agentflow.models.openai_usage import read_usage

FOLDER = Path(__file__).parent / "invoice"
REQUEST = Request("p", "m", ({"role": "user", "content": "hello"},), 10_000, None, 60.0)
TASK: Any = SimpleNamespace(kind="llm", use="small", timeout_ms=60_000)
PLAN: Any = SimpleNamespace(tools={})


@pytest.fixture(scope="module")
def prices() -> dict[str, Price]:
    cards = json.loads((FOLDER / "cards.json").read_text())
    return {name: read_card(card, name).price("p", "m", "invoice") for name, card in cards.items()}


@pytest.fixture(scope="module")
def calls() -> list[dict[str, Any]]:
    with (FOLDER / "calls.csv").open() as file:
        lines = list(csv.DictReader(file))
    return [line | {name: int(line[name]) for name in line if name != "card"} for line in lines]


def said(call: dict[str, Any]) -> dict[str, Any]:
    """What a server tells of such a call."""
    return {
        "prompt_tokens": call["input"],
        "completion_tokens": call["output"],
        "total_tokens": call["input"] + call["output"],
        "prompt_tokens_details": {"cached_tokens": call["cache_read"], "cache_write_tokens": call["cache_write"]},
        "completion_tokens_details": {"reasoning_tokens": call["reasoning"]},
    }


def bill(price: Price, call: dict[str, Any], held: int) -> money.Bill:
    """From the server's word to the bill, as a step goes."""
    usage = spent(read_usage(said(call), REQUEST))
    run = Run(uuid4(), uuid4(), "w", 1, models={"small": price})
    return money.bill(run, PLAN, TASK, {"usage": usage, "error": None, "duration_ms": call["ms"]}, held)


def test_ten_thousand_calls_cost_what_was_worked_out(prices: dict[str, Price], calls: list[dict[str, Any]]) -> None:
    assert sum(call["count"] for call in calls) == 10_000
    wrong, ours, theirs = [], Counter[str](), Counter[str]()
    for call in calls:
        billed = bill(prices[call["card"]], call, held=10**12)
        if billed != money.Bill(call["micro"]):
            wrong.append((call, billed))
        ours[call["card"]] += billed.micro * call["count"]
        theirs[call["card"]] += call["micro"] * call["count"]
    assert wrong == []
    assert ours == theirs
    # A share of each that the invoice is about, so that it stays worth something.
    assert len(theirs) == 9
    for part in ("cache_read", "cache_write", "reasoning", "ms"):
        assert sum(call["count"] for call in calls if call[part]) > 1_500
    long = [call for call in calls if call["input"] > 200_000 and call["card"] in ("tiered", "written")]
    assert sum(call["count"] for call in long) > 300


def test_none_of_them_costs_more_than_was_held(prices: dict[str, Price], calls: list[dict[str, Any]]) -> None:
    for call in calls:
        price = prices[call["card"]]
        held = llm_bound(price, call["input"], call["output"], 60_000)
        assert bill(price, call, held).violation is None


def test_the_file_is_what_its_program_writes() -> None:
    spec = importlib.util.spec_from_file_location("invoice_write", FOLDER / "write.py")
    assert spec is not None and spec.loader is not None
    written = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(written)
    assert (FOLDER / "calls.csv").read_text() == written.text()
    cards = json.loads((FOLDER / "cards.json").read_text())
    for name, asked, made, read, cached, _, ms, micro in written.BY_HAND:
        dollars = written.worth(cards[name], asked, made, read, cached, ms)
        assert micro - 1 < dollars * 1_000_000 <= micro
    assert not any(name.startswith("agentflow") for name in vars(written))
