"""Amounts that are given as options: dollars, as micro-dollars or as the API takes them, and other numbers."""

from __future__ import annotations

from decimal import ROUND_FLOOR, Decimal
from math import isfinite

from agentflow.errors import Rejected

LEAST_USD, MOST_USD = 0.000001, 1_000_000
"""What a run's own limit may be, as the API says."""
MOST_MICRO = 10**15
"""As core.budgets has it, which is too much to import for this."""


def micro(usd: float | None, path: str = "--usd") -> int | None:
    """Dollars as whole micro-dollars; ``Rejected`` where they are none, as something so small would become nothing."""
    if usd is None:
        return None
    if isfinite(usd):
        amount = Decimal(str(usd)) * 1_000_000
        if 0 <= amount <= MOST_MICRO and amount == amount.to_integral_value(ROUND_FLOOR):
            return int(amount)
    mend = f"give dollars with six decimals at most, e.g. 12.50, and no more than {MOST_MICRO // 1_000_000:,}"
    raise Rejected(f"{usd} is not an amount", code="bad_amount", path=path, mend=mend)


def budget(usd: float | None) -> float | None:
    """What a run may spend, in dollars, as --budget says it."""
    if usd is None or LEAST_USD <= usd <= MOST_USD:
        return usd
    mend = f"give dollars from {LEAST_USD:f} to {MOST_USD:,}, e.g. 0.05"
    raise Rejected(f"{usd} is not an amount", code="bad_amount", path="--budget", mend=mend)


def budget_micro(usd: float) -> int:
    """The same in whole micro-dollars, rounded down as the API does."""
    budget(usd)
    return int((Decimal(str(usd)) * 1_000_000).to_integral_value(ROUND_FLOOR))


def finite(number: float | None, path: str) -> float | None:
    """A number that JSON has."""
    if number is None or isfinite(number):
        return number
    raise Rejected(f"{number} is not a number to count with", code="bad_amount", path=path, mend="give a number")
