"""A rate card as people write it: US dollars, per million tokens, per call, per second.

    input_usd_per_mtok: 1.25
    output_usd_per_mtok: 10
    cache_read_usd_per_mtok: 0.125                # without it: as input
    cache_write_usd_per_mtok: 1.5625              # without it: as input
    usd_per_call: 0.005                           # added to each call
    usd_per_second: 0.0006                        # of a machine of one's own, while a call takes
    tiers:                                        # all tokens of calls whose input is longer
      - {above: 200000, input_usd_per_mtok: 2.5, output_usd_per_mtok: 15, cache_read_usd_per_mtok: 0.25}

A model needs both of the first two, or a price per call or second: its tokens are free then. 0 is a price.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agentflow.core.price import Price, Tier, ToolPrice
from agentflow.errors import Invalid, Problem
from agentflow.wire.catalogue import problems_of

MOST_USD = 1_000_000
MOST_TIERS = 16
LONGEST = 2**31 - 1


def _number(value: Any) -> Any:
    if isinstance(value, bool) or (isinstance(value, str) and "_" in value):
        raise ValueError("is not a number")
    return value


# Dollars, as finely as integers of ours can tell: to a micro-dollar per million tokens, per call, per million seconds.
_Usd = Annotated[Decimal, Field(ge=0, le=MOST_USD, allow_inf_nan=False), BeforeValidator(_number)]
PerMtok = Annotated[_Usd, Field(decimal_places=6)]
PerCall = Annotated[_Usd, Field(decimal_places=6)]
PerSecond = Annotated[_Usd, Field(decimal_places=12)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CardTier(Part):
    """What tokens cost in calls whose input is longer than ``above`` tokens."""

    above: Annotated[int, Field(ge=1, le=LONGEST, strict=True)]
    input_usd_per_mtok: PerMtok
    output_usd_per_mtok: PerMtok
    cache_read_usd_per_mtok: PerMtok | None = None
    cache_write_usd_per_mtok: PerMtok | None = None

    def tier(self) -> Tier:
        return Tier(
            self.above,
            micro(self.input_usd_per_mtok),
            micro(self.output_usd_per_mtok),
            _if_given(self.cache_read_usd_per_mtok),
            _if_given(self.cache_write_usd_per_mtok),
        )


class Card(Part):
    """A rate card. What is not given costs nothing of its own."""

    currency: Literal["USD"] = "USD"
    input_usd_per_mtok: PerMtok | None = None
    output_usd_per_mtok: PerMtok | None = None
    cache_read_usd_per_mtok: PerMtok | None = None
    cache_write_usd_per_mtok: PerMtok | None = None
    usd_per_call: PerCall | None = None
    usd_per_second: PerSecond | None = None
    tiers: Annotated[list[CardTier], Field(max_length=MOST_TIERS)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.input_usd_per_mtok is None) != (self.output_usd_per_mtok is None):
            raise ValueError("give both input_usd_per_mtok and output_usd_per_mtok, or neither")
        cached = self.cache_read_usd_per_mtok is not None or self.cache_write_usd_per_mtok is not None
        if self.input_usd_per_mtok is None and (cached or self.tiers):
            raise ValueError("give input_usd_per_mtok and output_usd_per_mtok beside prices of caches and tiers")
        starts = [tier.above for tier in self.tiers]
        if starts != sorted(set(starts)):
            raise ValueError("give tiers in the order of `above`, each once")
        return self

    @property
    def says_price(self) -> bool:
        """Whether it says what a call costs."""
        return any(v is not None for v in (self.input_usd_per_mtok, self.usd_per_call, self.usd_per_second))

    def price(self, provider: str, model: str, version: str) -> Price:
        """The card as the price of a model."""
        return Price(
            provider,
            model,
            micro(self.input_usd_per_mtok or Decimal(0)),
            micro(self.output_usd_per_mtok or Decimal(0)),
            version,
            _if_given(self.cache_read_usd_per_mtok),
            _if_given(self.cache_write_usd_per_mtok),
            _if_given(self.usd_per_call) or None,
            _if_given(self.usd_per_second, 1_000_000) or None,
            tuple(tier.tier() for tier in self.tiers) or None,
        )

    def tool(self, version: str) -> ToolPrice:
        """The card as the price of a tool."""
        seconds = _if_given(self.usd_per_second, 1_000_000) or 0
        return ToolPrice(_if_given(self.usd_per_call) or 0, seconds, version)


def read_card(given: Mapping[str, Any], path: str, *, tool: bool = False) -> Card:
    """A card that somebody has written; ``Invalid`` names each fault, where it is, and the mend."""
    try:
        card = Card.model_validate(dict(given))
    except ValidationError as fault:
        raise Invalid(card_problems(fault, path), code="bad_price") from None
    misplaced = [name for name in Card.model_fields if name.endswith("_mtok") and getattr(card, name) is not None]
    if tool and (misplaced or card.tiers):
        mend = "give usd_per_call, usd_per_second or both"
        named = misplaced[0] if misplaced else "tiers"
        raise Invalid([Problem(f"{path}.{named}", "a tool has no tokens", mend, "bad_price")], code="bad_price")
    if not card.says_price:
        mend = "give usd_per_call, usd_per_second or both"
        if not tool:
            mend = "give input_usd_per_mtok and output_usd_per_mtok (0 when it is free), or what a call or second costs"
        raise Invalid([Problem(path, "says no price", mend, "bad_price")], code="bad_price")
    return card


def card_problems(fault: ValidationError, path: str) -> list[Problem]:
    """What is wrong with a card (or with what holds cards), each with its mend."""
    mends = {problem.path: problem for problem in problems_of(fault, path)}
    return [replace(problem, mend=problem.mend or _mend(problem)) for problem in mends.values()]


def _mend(problem: Problem) -> str:
    name = problem.path.rpartition(".")[2]
    if name == "currency":
        return "give prices in US dollars: USD"
    if name == "usd_per_second":
        return f"give US dollars, from 0 to {MOST_USD}, with at most 12 decimals"
    if "usd" in name:
        return f"give US dollars, from 0 to {MOST_USD}, with at most 6 decimals"
    if name == "above":
        return f"give a number of tokens, from 1 to {LONGEST}"
    return f"give at most {MOST_TIERS}" if name == "tiers" else ""


def micro(usd: Decimal, of: int = 1) -> int:
    """Dollars in micro-dollars, or in parts of those."""
    return int(usd * 1_000_000 * of)


def _if_given(usd: Decimal | None, of: int = 1) -> int | None:
    return None if usd is None else micro(usd, of)
