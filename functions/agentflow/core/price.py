"""What things cost: a model's rate card, a tool's price, and the arithmetic upon both. Integers throughout.

Rates are micro-dollars per million: of tokens, or of seconds. That times a number of either is pico-dollars, so that
nothing is rounded before the end: once for each call, up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

MILLION = 1_000_000
_FEMTO = 1_000_000_000  # what is added up, in a micro-dollar: rates per million, times milliseconds

TENANT = "tenant"
"""Before the number of a price that a tenant was told."""

FROM_PLAN = "plan"
"""In place of a version: the workflow says the price itself."""


class Tier(NamedTuple):
    """The rates of calls whose input is longer than ``above`` tokens, for all of their tokens.

    ``cache_read`` and ``cache_write`` None: at the rate of input.
    """

    above: int
    input: int
    output: int
    cache_read: int | None = None
    cache_write: int | None = None

    @property
    def dearest_input(self) -> int:
        return max(self.input, self.cache_read or 0, self.cache_write or 0)


class Price(NamedTuple):
    """A model pinned to a run with what it costs, in micro-dollars per million tokens.

    What is None costs nothing of its own: tokens read from or written to a cache are input. Reasoning is output.
    ``micro_per_call`` is added to each call. ``bytes_per_100_tokens``: so many bytes of text are 100 tokens at most, a
    margin of safety included; None: each byte may be one.
    """

    provider: str
    model: str
    input_micro_per_mtok: int
    output_micro_per_mtok: int
    price_version: str
    cache_read_micro_per_mtok: int | None = None
    cache_write_micro_per_mtok: int | None = None
    micro_per_call: int | None = None
    micro_per_million_seconds: int | None = None
    tiers: tuple[Tier, ...] | None = None
    bytes_per_100_tokens: int | None = None

    def packed(self) -> tuple[Any, ...]:
        """As JSON: without what it does not have, which is most of it for most models."""
        values: tuple[Any, ...] = tuple(self)
        if self.tiers:
            plain = self._replace(tiers=tuple(tuple(tier) for tier in self.tiers))  # type: ignore[misc]
            values = tuple(plain)
        end = len(values)
        while values[end - 1] is None:
            end -= 1
        return values[:end]

    @classmethod
    def unpacked(cls, values: Sequence[Any]) -> Price:
        """What ``packed`` gave, by this version, an earlier one or a later one, whose list may be longer."""
        price = cls(*values[: len(cls._fields)])
        return price._replace(tiers=tuple(Tier(*tier) for tier in price.tiers)) if price.tiers else price

    @property
    def base(self) -> Tier:
        """The rates of short calls."""
        return Tier(
            -1,
            self.input_micro_per_mtok,
            self.output_micro_per_mtok,
            self.cache_read_micro_per_mtok,
            self.cache_write_micro_per_mtok,
        )


class ToolPrice(NamedTuple):
    """What a tool costs: per call, and per second of it."""

    micro_per_call: int = 0
    micro_per_million_seconds: int = 0
    price_version: str = FROM_PLAN


Told = Callable[[str], Price | None]
"""What a tenant was told that a model costs, by alias or by the model's own name; None: nothing."""

NOT_IN_CARDS = ("provider", "model", "price_version", "bytes_per_100_tokens")


def card_of(price: Price) -> dict[str, Any]:
    """A model's price as a card: what it costs, without which model it is."""
    card = {name: v for name, v in price._asdict().items() if v is not None and name not in NOT_IN_CARDS}
    if price.tiers:
        card["tiers"] = [{name: v for name, v in tier._asdict().items() if v is not None} for tier in price.tiers]
    return card


def told_price(card: Mapping[str, Any], version: int) -> Price:
    """The price in a card that a tenant was told, of a model that is still to be named."""
    tiers = tuple(Tier(**tier) for tier in card.get("tiers") or ()) or None
    return Price(provider="", model="", price_version=f"{TENANT} {version}", **{**card, "tiers": tiers})


def told_tool(card: Mapping[str, Any], version: int) -> ToolPrice:
    """The price in a card that a tenant was told of a tool."""
    return ToolPrice(**card, price_version=f"{TENANT} {version}")


class Used(NamedTuple):
    """The tokens of one call. Those read from a cache and written to it are part of the input."""

    input: int
    output: int
    cache_read: int = 0
    cache_write: int = 0


def llm_micro(price: Price, used: Used, ms: int = 0) -> int:
    """The price of a call that took so many milliseconds."""
    tier = _tier(price, used.input)
    plain = used.input - used.cache_read - used.cache_write
    pico = plain * tier.input + used.output * tier.output
    pico += used.cache_read * (tier.input if tier.cache_read is None else tier.cache_read)
    pico += used.cache_write * (tier.input if tier.cache_write is None else tier.cache_write)
    return _rounded(pico, price.micro_per_call or 0, price.micro_per_million_seconds or 0, ms)


def llm_bound(price: Price, most_input: int, most_output: int, ms: int) -> int:
    """The most that a call can cost which has at most so many tokens in and out and takes at most so long.

    Each tier that such a call can be in is looked at, at its longest: a tier may be cheaper than the one below it.
    """
    dearest = max(
        longest * tier.dearest_input + most_output * tier.output for tier, longest in _tiers(price, most_input)
    )
    return _rounded(dearest, price.micro_per_call or 0, price.micro_per_million_seconds or 0, ms)


def most_output(price: Price, most_input: int, ms: int, headroom_micro: int) -> int | None:
    """How many tokens a call may put out at most for ``llm_bound`` to stay within the headroom; None: as many as it
    likes. Negative: it does not fit whatever it puts out."""
    empty = llm_bound(price, most_input, 0, ms)
    if empty > headroom_micro:
        return -1
    fits: int | None = None
    for tier, longest in _tiers(price, most_input):
        if not tier.output:
            continue
        femto = 1000 * longest * tier.dearest_input + ms * (price.micro_per_million_seconds or 0)
        left = (headroom_micro - (price.micro_per_call or 0)) * _FEMTO - femto
        here = left // (1000 * tier.output)
        fits = here if fits is None else min(fits, here)
    return fits


def tool_micro(price: ToolPrice, ms: int, calls: int = 1) -> int:
    """The price of calls of a tool that took so many milliseconds together."""
    return _rounded(0, price.micro_per_call * calls, price.micro_per_million_seconds, ms)


def input_is_free(price: Price) -> bool:
    """Whether a call costs the same however long its request is, but for the tier that it may be in."""
    return not any(tier.dearest_input for tier in (price.base, *(price.tiers or ())))


def is_free(price: Price) -> bool:
    """Whether no call can cost anything."""
    return llm_bound(price, MILLION * MILLION, MILLION, MILLION) == 0


def _rounded(pico: int, micro_per_call: int, per_million_seconds: int, ms: int) -> int:
    return micro_per_call - (-(1000 * pico + per_million_seconds * ms) // _FEMTO)


def _tier(price: Price, input_tokens: int) -> Tier:
    found = price.base
    for tier in price.tiers or ():
        if input_tokens > tier.above:
            found = tier
    return found


def _tiers(price: Price, most_input: int) -> Iterator[tuple[Tier, int]]:
    """The tiers that an input of at most so many tokens can be in, each with the longest input that is in it."""
    reached = [price.base, *(tier for tier in price.tiers or () if tier.above < most_input)]
    for tier, following in pairwise(reached):
        yield tier, following.above
    yield reached[-1], most_input
