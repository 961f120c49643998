"""Rate cards as people write them: what is refused, where, and how to mend it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.price import card_of, told_price, told_tool
from agentflow.errors import Invalid
from agentflow.models.card import read_card

GOOD = {"input_usd_per_mtok": 1, "output_usd_per_mtok": 2}
NAN, ENDLESS = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("card", "path", "says", "mend"),
    [
        ({**GOOD, "input_usd_per_mtok": -1}, "input_usd_per_mtok", "greater than or equal to 0", "from 0 to 1000000"),
        ({**GOOD, "input_usd_per_mtok": 1e7}, "input_usd_per_mtok", "less than or equal to 1000000", "from 0 to"),
        ({**GOOD, "output_usd_per_mtok": NAN}, "output_usd_per_mtok", "finite", "US dollars"),
        ({**GOOD, "output_usd_per_mtok": ENDLESS}, "output_usd_per_mtok", "finite", "US dollars"),
        ({**GOOD, "output_usd_per_mtok": True}, "output_usd_per_mtok", "is not a number", "US dollars"),
        ({**GOOD, "output_usd_per_mtok": "2 EUR"}, "output_usd_per_mtok", "valid decimal", "US dollars"),
        ({**GOOD, "output_usd_per_mtok": "1_0"}, "output_usd_per_mtok", "is not a number", "US dollars"),
        ({**GOOD, "output_usd_per_mtok": 0.0000015}, "output_usd_per_mtok", "6 decimal", "at most 6 decimals"),
        ({**GOOD, "usd_per_call": "0.0000001"}, "usd_per_call", "6 decimal", "at most 6 decimals"),
        ({"usd_per_second": "0.0000000000001"}, "usd_per_second", "12 decimal", "at most 12 decimals"),
        ({**GOOD, "currency": "EUR"}, "currency", "'USD'", "give prices in US dollars: USD"),
        ({**GOOD, "cached_usd": 1}, "cached_usd", "not permitted", "remove it"),
        ({**GOOD, "tiers": [{"above": 0, **GOOD}]}, "tiers[0].above", "greater than or equal to 1", "number of tokens"),
        ({**GOOD, "tiers": [{"above": 9.5, **GOOD}]}, "tiers[0].above", "valid integer", "number of tokens"),
        ({**GOOD, "tiers": [{"above": 9, "input_usd_per_mtok": 1}]}, "tiers[0].output_usd_per_mtok", "required", "add"),
        ({**GOOD, "tiers": [{"above": 9, **GOOD}] * 2}, "", "in the order of `above`, each once", ""),
        ({**GOOD, "tiers": [{"above": n + 1, **GOOD} for n in range(17)]}, "tiers", "at most 16", "at most 16"),
        ({"input_usd_per_mtok": 1}, "", "give both", ""),
        ({"cache_read_usd_per_mtok": 1, "usd_per_call": 1}, "", "beside prices of caches", ""),
        ({}, "", "says no price", "0 when it is free"),
    ],
)
def test_a_bad_card_is_refused_with_its_place_and_the_mend(card: Any, path: str, says: str, mend: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_card(card, "prices")
    (problem,) = caught.value.problems
    assert problem.path == ".".join(filter(None, ("prices", path)))
    assert says in problem.message and mend in problem.mend


@pytest.mark.parametrize(("card", "path"), [(GOOD, "prices.input_usd_per_mtok"), ({}, "prices")])
def test_a_tool_has_no_tokens(card: Any, path: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_card(card, "prices", tool=True)
    assert caught.value.problems[0].path == path
    assert "usd_per_call" in caught.value.problems[0].mend


def test_a_tool_costs_by_the_call_and_by_the_second() -> None:
    card = read_card({"usd_per_call": 0.0025, "usd_per_second": "0.0001"}, "prices", tool=True)
    assert card.tool("tenant 1") == told_tool({"micro_per_call": 2_500, "micro_per_million_seconds": 100_000_000}, 1)


usd = st.decimals(0, 1_000_000, places=6)
rates = st.fixed_dictionaries({"input_usd_per_mtok": usd, "output_usd_per_mtok": usd})
tiers = st.dictionaries(st.integers(1, 2**31 - 1), rates, max_size=5).map(
    lambda by_start: [{"above": start, **by_start[start]} for start in sorted(by_start)]
)


@given(
    st.fixed_dictionaries(
        {"input_usd_per_mtok": usd, "output_usd_per_mtok": usd, "tiers": tiers},
        optional={"cache_read_usd_per_mtok": usd, "cache_write_usd_per_mtok": usd, "usd_per_call": usd},
    )
)
def test_a_card_is_kept_to_the_last_micro_dollar(written: dict[str, Any]) -> None:
    price = read_card(written, "prices").price("p", "m", "tenant 5")
    assert price.input_micro_per_mtok == written["input_usd_per_mtok"] * 1_000_000
    kept = told_price(card_of(price), 5)
    assert kept._replace(provider="p", model="m") == price
