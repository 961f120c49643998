"""What models cost, from a public price list that travels with the program (genai-prices)."""

from __future__ import annotations

import math
from decimal import Decimal
from importlib.metadata import version
from typing import Any

Price = tuple[int, int, str]
"""Micro-dollars per million input tokens, per million output tokens, and the price list's version."""


def known_price(model: str, base_url: str) -> Price | None:
    """The price of a model of the provider that serves ``base_url``; None when the list does not know it.

    Where a price depends on the length of the prompt or the time of day, the dearest counts: what is held for a
    call must cover it.
    """
    from genai_prices import Usage, calc_price

    try:
        found = calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_api_url=base_url)
    except LookupError:
        return None
    prices = [found.model_price]
    if isinstance(found.model.prices, list):
        # Another hour may have another price; another date has been left behind.
        prices += [p.prices for p in found.model.prices if hasattr(p.constraint, "start_time")]
    given = [micro_per_mtok(_dearest(prices, kind)) for kind in ("input_mtok", "output_mtok")]
    if not all(given):
        return None
    return given[0], given[1], f"genai-prices {version('genai-prices')}"


def micro_per_mtok(usd: Decimal) -> int:
    """Dollars per million tokens in micro-dollars, rounded up."""
    return math.ceil(usd * 1_000_000)


def _dearest(prices: list[Any], kind: str) -> Decimal:
    """The highest of a kind of price in all tiers; 0 when it has none."""
    found = [Decimal(0)]
    for price in prices:
        value = getattr(price, kind, None)
        if value is None:
            continue
        found += [value] if isinstance(value, Decimal) else [value.base, *(t.price for t in value.tiers)]
    return max(found)
