"""The public price list: what it says on a date, in tiers and by the time of day."""

from __future__ import annotations

from datetime import date, time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from agentflow.core.price import Tier
from agentflow.models import prices
from agentflow.models.prices import known_price

OPENAI = "https://api.openai.com/v1"
TODAY = date(2026, 11, 1)


def rates(**given: float) -> SimpleNamespace:
    return SimpleNamespace(**{name: Decimal(str(usd)) for name, usd in given.items()})


def entry(prices: Any, **constraint: Any) -> SimpleNamespace:
    return SimpleNamespace(prices=prices, constraint=SimpleNamespace(**constraint) if constraint else None)


def listed(monkeypatch: pytest.MonkeyPatch, prices_of_it: Any, variants: Any = None) -> None:
    model = SimpleNamespace(prices=prices_of_it, price_variants=variants)
    monkeypatch.setattr(prices, "_find", lambda name, url: model)


def test_a_real_model_has_its_cache_and_the_day_it_was_looked_up() -> None:
    found = known_price("openai", "gpt-5", OPENAI, TODAY, "default")
    assert found is not None
    assert found[:4] == ("openai", "gpt-5", 1_250_000, 10_000_000)
    assert (found.cache_read_micro_per_mtok, found.tiers) == (125_000, None)
    assert found.price_version.startswith("genai-prices ") and found.price_version.endswith(" @2026-11-01")


def test_another_tier_of_service_has_another_price() -> None:
    found = known_price("openai", "gpt-5", OPENAI, TODAY, "priority")
    assert found is not None
    assert (found.input_micro_per_mtok, found.output_micro_per_mtok) == (2_500_000, 20_000_000)
    before = known_price("openai", "gpt-5", OPENAI, date(2026, 10, 1), "priority")  # not in the list yet
    assert before is not None and before.input_micro_per_mtok == 1_250_000


def test_historic_prices_are_those_of_the_day(monkeypatch: pytest.MonkeyPatch) -> None:
    first, later = rates(input_mtok=10, output_mtok=30), rates(input_mtok=2.5, output_mtok=10)
    listed(monkeypatch, [entry(first), entry(later, start_date=date(2024, 10, 2))])
    for day, dollars in ((date(2024, 10, 1), 10), (date(2024, 10, 2), 2.5), (TODAY, 2.5)):
        found = known_price("p", "m", OPENAI, day)
        assert found is not None and found.input_micro_per_mtok == dollars * 1_000_000


def test_of_the_hours_of_a_day_the_dearest_counts_and_what_a_date_left_behind_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hours = {"start_time": time(0, 30), "end_time": time(16, 30)}
    day = entry(rates(input_mtok=0.27, output_mtok=1.1, cache_read_mtok=0.07))
    night = entry(rates(input_mtok=0.135, output_mtok=2), **hours)
    listed(monkeypatch, [day, night])
    found = known_price("p", "m", OPENAI, TODAY)
    assert found is not None
    assert (found.input_micro_per_mtok, found.output_micro_per_mtok) == (270_000, 2_000_000)
    assert found.cache_read_micro_per_mtok == 135_000  # at night a cached token is an input token
    listed(monkeypatch, [day, night, entry(rates(input_mtok=0.1, output_mtok=0.2), start_date=date(2025, 9, 5))])
    found = known_price("p", "m", OPENAI, TODAY)
    assert found is not None and found.input_micro_per_mtok == 100_000


def test_tiers_with_different_starts_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    def tiered(base: float, *tiers: tuple[int, float]) -> SimpleNamespace:
        steps = [SimpleNamespace(start=start, price=Decimal(str(usd))) for start, usd in tiers]
        return SimpleNamespace(base=Decimal(str(base)), tiers=steps)

    given = SimpleNamespace(
        input_mtok=tiered(1, (100, 2), (200, 3)), output_mtok=tiered(5, (200, 6)), cache_write_mtok=Decimal("1.25")
    )
    listed(monkeypatch, given)
    found = known_price("p", "m", OPENAI, TODAY)
    assert found is not None
    million = 1_000_000
    assert found.tiers == (
        Tier(100, 2 * million, 5 * million, None, 1_250_000),
        Tier(200, 3 * million, 6 * million, None, 1_250_000),
    )


def test_a_fee_per_request_and_dearer_reasoning_count(monkeypatch: pytest.MonkeyPatch) -> None:
    listed(monkeypatch, rates(input_mtok=1, output_mtok=2, output_reasoning_mtok=3, requests_kcount=5))
    found = known_price("p", "m", OPENAI, TODAY)
    assert found is not None
    assert (found.output_micro_per_mtok, found.micro_per_call) == (3_000_000, 5_000)


@pytest.mark.parametrize("given", [{}, {"input_mtok": 1}, {"input_mtok": 0, "output_mtok": 0}, {"input_audio_mtok": 1}])
def test_a_model_whose_price_the_list_does_not_have_is_unknown(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, float]
) -> None:
    listed(monkeypatch, rates(**given))
    assert known_price("p", "m", OPENAI, TODAY) is None


def test_every_model_of_the_list_has_a_price_or_none() -> None:
    """No entry of the real list is one that the reading of it does not know."""
    from genai_prices.data import providers

    read = dearer = 0
    for provider in providers:
        for model in provider.models:
            for day in (date(2024, 1, 1), TODAY):
                found = prices._in_force(model, day, "")
                assert found
                for given in found:
                    for start, tier in prices._tiers_of(given).items():
                        assert start >= -1 and tier.input >= 0
                        read += 1
                        dearer += tier.dearest_input > tier.input
    assert read > 3_000 and dearer > 100
