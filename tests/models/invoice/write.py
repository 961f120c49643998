"""Writes calls.csv: ten thousand calls and what each costs, worked out in fractions of a dollar.

It shares no code with agentflow: the rules are those of providers' price pages. Tokens read from a cache and written to
it are part of the input; reasoning is part of the output; a call whose input is longer than a tier's start is billed at
that tier for all of its tokens; what has no price of its own is input; a fee is added to each call, and each second;
each call is rounded up to a micro-dollar, once.

    python tests/models/invoice/write.py            # writes the file anew; the test compares
"""

from __future__ import annotations

import csv
import io
import json
import random
from fractions import Fraction
from pathlib import Path

HERE = Path(__file__).parent
CALLS = 10_000
NAMES = ("card", "input", "output", "cache_read", "cache_write", "reasoning", "ms", "count", "micro")

# Worked out by hand, as they stand here: each is the first of its card.
BY_HAND = [
    # 1,000 x 1.25 + 100 x 10 = 1,250 + 1,000 (dollars per million tokens are micro-dollars per token)
    ("plain", 1_000, 100, 0, 0, 0, 0, 2_250),
    # (1,000 - 600) x 1.25 + 600 x 0.125 + 100 x 10 = 500 + 75 + 1,000; the reasoning is in the 100
    ("plain", 1_000, 100, 600, 0, 90, 0, 1_575),
    # 200,000 are not above 200,000: 200,000 x 1.25 + 10 x 10 = 250,000 + 100
    ("tiered", 200_000, 10, 0, 0, 0, 0, 250_100),
    # one more: 200,001 x 2.5 + 10 x 15 = 500,002.5 + 150, rounded up
    ("tiered", 200_001, 10, 0, 0, 0, 0, 500_153),
    # (10,000 - 2,000 - 4,000) x 3 + 2,000 x 0.3 + 4,000 x 3.75 + 500 x 15 = 12,000 + 600 + 15,000 + 7,500
    ("written", 10_000, 500, 2_000, 4_000, 200, 0, 35_100),
    # in its tier: (300,000 - 100,000 - 50,000) x 6 + 100,000 x 0.6 + 50,000 x 7.5 + 500 x 22.5
    #   = 900,000 + 60,000 + 375,000 + 11,250
    ("written", 300_000, 500, 100_000, 50_000, 0, 0, 1_346_250),
    # the highest tier says nothing of caches, so what was read is input: 130,000 x 3 + 100 x 15
    ("stairs", 130_000, 100, 60_000, 0, 0, 0, 391_500),
    # 10 x 1 + 10 x 1 + 5,000
    ("fee", 10, 10, 0, 0, 0, 0, 5_020),
    # 1 x 0.0375 + 1 x 0.15 = 0.1875, rounded up
    ("small", 1, 1, 0, 0, 0, 0, 1),
    # 1.8 s x 555.555556 = 1,000.0000008, rounded up
    ("seconds", 5_000, 5_000, 0, 0, 0, 1_800, 1_001),
    # 1,000 x 0.1 + 1,000 x 0.4 + 2 + 0.5 s x 10 = 100 + 400 + 2 + 5
    ("mixed", 1_000, 1_000, 0, 0, 0, 500, 507),
    ("free", 999_999, 999_999, 0, 0, 0, 59_000, 0),
]


def worth(card: dict, asked: int, made: int, read: int, written: int, ms: int) -> Fraction:
    """Dollars."""
    rates = card
    for tier in card.get("tiers", ()):
        if asked > tier["above"]:
            rates = tier
    per_input = Fraction(rates.get("input_usd_per_mtok", "0"))
    per_read = Fraction(rates["cache_read_usd_per_mtok"]) if "cache_read_usd_per_mtok" in rates else per_input
    per_write = Fraction(rates["cache_write_usd_per_mtok"]) if "cache_write_usd_per_mtok" in rates else per_input
    tokens = (asked - read - written) * per_input + read * per_read + written * per_write
    tokens += made * Fraction(rates.get("output_usd_per_mtok", "0"))
    fixed = Fraction(card.get("usd_per_call", "0")) + Fraction(ms, 1000) * Fraction(card.get("usd_per_second", "0"))
    return tokens / 1_000_000 + fixed


def calls(cards: dict) -> list[tuple]:
    """The distinct calls, each with how often it was made and what it costs once."""
    chance = random.Random(20261123)
    made = [(*call[:7], 1, call[7]) for call in BY_HAND]
    left = CALLS - len(made)
    edges = [0, 1, 31_999, 32_000, 32_001, 128_000, 128_001, 199_999, 200_000, 200_001]
    while left:
        name = chance.choice(sorted(cards))
        asked = max(1, chance.choice([chance.choice(edges), chance.randrange(1, 5_000), chance.randrange(1, 400_000)]))
        output = chance.randrange(0, 9_000)
        read = chance.choice([0, 0, chance.randrange(0, asked + 1), asked])
        written = chance.choice([0, 0, chance.randrange(0, asked - read + 1)])
        ms = chance.randrange(0, 60_000)
        count = min(left, chance.choice([1, 1, 2, 5, 17, 60]))
        left -= count
        dollars = worth(cards[name], asked, output, read, written, ms)
        micro = -((-dollars * 1_000_000) // 1)
        made.append((name, asked, output, read, written, chance.randrange(0, output + 1), ms, count, int(micro)))
    return made


def text() -> str:
    """The whole file."""
    written = io.StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow(NAMES)
    lines.writerows(calls(json.loads((HERE / "cards.json").read_text())))
    return written.getvalue()


if __name__ == "__main__":
    (HERE / "calls.csv").write_text(text())
