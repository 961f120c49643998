"""What models cost, from a public price list that travels with the program (genai-prices).

Where a price depends on the time of day the dearest counts: what is held for a call must cover it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from importlib.metadata import version
from typing import Any

from agentflow.core.price import Price, Tier

Rates = Mapping[str, Any]
"""By the list's own names: a price, or one that depends on how long the input is."""

LIST = "genai-prices"


def known_price(provider: str, model: str, base_url: str, at: date, service_tier: str = "") -> Price | None:
    """The price on a date of a model of the provider that serves ``base_url``; None when the list does not know it."""
    found = _find(model, base_url)
    if found is None:
        return None
    candidates = [_tiers_of(rates) for rates in _in_force(found, at, service_tier)]
    starts = sorted({start for tiers in candidates for start in tiers})
    base, *above = (_dearest(start, candidates) for start in starts)
    if not (base.input and base.output):
        return None  # the list knows the model, and not what it costs
    fees = [rates["requests_kcount"] for rates in _in_force(found, at, service_tier) if "requests_kcount" in rates]
    return Price(
        provider,
        model,
        base.input,
        base.output,
        f"{LIST} {version(LIST)} @{at.isoformat()}",
        base.cache_read,
        base.cache_write,
        math.ceil(max(map(_highest, fees)) * 1000) if fees else None,
        None,
        tuple(above) or None,
    )


def known_window(model: str, base_url: str) -> int | None:
    """How many tokens a model can be told at most, as far as the list knows."""
    found = _find(model, base_url)
    window: int | None = found.context_window if found is not None else None
    return window


def _find(model: str, base_url: str) -> Any:
    from genai_prices import Usage, calc_price

    try:
        return calc_price(Usage(input_tokens=1, output_tokens=1), model, provider_api_url=base_url).model
    except LookupError:
        return None


def _in_force(model: Any, at: date, service_tier: str) -> list[Rates]:
    """The prices that a day has: one, or several by the time of day."""
    if not isinstance(model.prices, list):
        standard = [model.prices]
    else:
        standard = []
        for entry in reversed(model.prices):  # a later entry goes before an earlier one
            hours = hasattr(entry.constraint, "start_time")
            since = getattr(entry.constraint, "start_date", None)
            if since is None or since <= at:
                standard.append(entry.prices)
                if not hours:
                    break
        else:
            standard.append(model.prices[0].prices)
    changed: dict[str, Any] = {}
    for variant in model.price_variants or ():
        since = getattr(variant.constraint, "start_date", None)
        if variant.when == {"service_tier": service_tier} and (since is None or since <= at):
            changed = {**_given(variant.prices), **changed}
    return [{**_given(prices), **changed} for prices in standard]


def _given(prices: Any) -> dict[str, Any]:
    return {name: price for name, price in vars(prices).items() if price is not None and not name.startswith("_")}


def _tiers_of(rates: Rates) -> dict[int, Tier]:
    """The rates by where each tier starts; the first, which has no start, at -1."""
    starts = {-1} | {tier.start for price in rates.values() for tier in getattr(price, "tiers", ())}
    return {
        start: Tier(
            start,
            _rate(rates, ("input_mtok",), start) or 0,
            # A kind of output is not told apart: all of it at the rate of the dearest.
            _rate(rates, ("output_mtok", "output_reasoning_mtok", "output_citation_mtok"), start) or 0,
            _rate(rates, ("cache_read_mtok",), start),
            _rate(rates, ("cache_write_mtok",), start) or _rate(rates, ("cache_write_5m_mtok",), start),
        )
        for start in starts
    }


def _rate(rates: Rates, names: Iterable[str], start: int) -> int | None:
    given = [rates[name] for name in names if name in rates]
    return max(_micro_per_mtok(_at(price, start)) for price in given) if given else None


def _at(price: Any, start: int) -> Decimal:
    """A price for input that is longer than ``start`` by one token."""
    if isinstance(price, Decimal):
        return price
    reached: list[Decimal] = [price.base, *(tier.price for tier in price.tiers if tier.start <= start)]
    return reached[-1]


def _dearest(start: int, candidates: list[dict[int, Tier]]) -> Tier:
    """The highest rate of each kind among several prices, where a tier starts."""
    here = [tiers[max(known for known in tiers if known <= start)] for tiers in candidates]
    return Tier(
        start,
        max(tier.input for tier in here),
        max(tier.output for tier in here),
        _highest_of([tier.cache_read for tier in here], [tier.input for tier in here]),
        _highest_of([tier.cache_write for tier in here], [tier.input for tier in here]),
    )


def _highest_of(rates: list[int | None], otherwise: list[int]) -> int | None:
    if all(rate is None for rate in rates):
        return None
    return max(o if rate is None else rate for rate, o in zip(rates, otherwise, strict=True))


def _highest(price: Any) -> Decimal:
    rates: list[Decimal] = [_at(price, -1), *(tier.price for tier in getattr(price, "tiers", ()))]
    return max(rates)


def _micro_per_mtok(usd: Decimal) -> int:
    return math.ceil(usd * 1_000_000)
