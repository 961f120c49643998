"""Rates, bills and holds. Above all: what is held is never less than what is billed."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core import money
from agentflow.core.price import (
    Price,
    Tier,
    ToolPrice,
    Used,
    is_free,
    llm_bound,
    llm_micro,
    most_output,
    tool_micro,
)
from agentflow.core.run import Run, unpack_state
from agentflow.store.changes import dump

M = 1_000_000

rate = st.one_of(st.just(0), st.integers(0, 100 * M), st.integers(0, 10**12))
part = st.none() | rate


@st.composite
def cards(draw: st.DrawFn) -> Price:
    starts = sorted(draw(st.sets(st.integers(1, 2_000), max_size=4)))
    tiers = tuple(Tier(start, draw(rate), draw(rate), draw(part), draw(part)) for start in starts)
    return Price(
        "p", "m", draw(rate), draw(rate), "v", draw(part), draw(part), draw(part), draw(part), tiers or None
    )


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, int, int, Used, int]:
    """The most tokens in and out and milliseconds of a call, and what it has used of them."""
    most_in, most_out, most_ms = (draw(st.integers(0, bound)) for bound in (3_000, 3_000, 600_000))
    asked = draw(st.integers(0, most_in))
    read = draw(st.integers(0, asked))
    used = Used(asked, draw(st.integers(0, most_out)), read, draw(st.integers(0, asked - read)))
    return most_in, most_out, most_ms, used, draw(st.integers(0, most_ms))


@given(cards(), calls())
def test_what_is_held_is_never_less_than_what_is_billed(price: Price, call: tuple[int, int, int, Used, int]) -> None:
    most_in, most_out, most_ms, used, ms = call
    assert llm_micro(price, used, ms) <= llm_bound(price, most_in, most_out, most_ms)


@given(cards(), st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 600_000))
def test_no_more_is_held_than_some_call_costs(price: Price, most_in: int, most_out: int, ms: int) -> None:
    edges = {0, most_in, *(tier.above for tier in price.tiers or () if tier.above <= most_in)}
    dearest = max(
        llm_micro(price, Used(asked, most_out, *split), ms)
        for asked in edges
        for split in ((0, 0), (asked, 0), (0, asked))
    )
    assert llm_bound(price, most_in, most_out, ms) == dearest


@given(cards(), st.integers(0, 3_000), st.integers(0, 600_000), st.integers(0, 10**10))
def test_the_output_that_fits_a_headroom_is_the_longest(price: Price, most_in: int, ms: int, left: int) -> None:
    fits = most_output(price, most_in, ms, left)
    if fits is None:
        assert llm_bound(price, most_in, 10**9, ms) <= left
    elif fits < 0:
        assert llm_bound(price, most_in, 0, ms) > left
    else:
        assert llm_bound(price, most_in, fits, ms) <= left < llm_bound(price, most_in, fits + 1, ms)


@given(cards(), calls())
def test_a_bill_is_the_sum_of_its_parts_rounded_up_once(price: Price, call: tuple[int, int, int, Used, int]) -> None:
    *_, used, ms = call
    tier = [t for t in (price.base, *(price.tiers or ())) if used.input > t.above][-1]
    exact = Fraction(price.micro_per_call or 0) + Fraction((price.micro_per_million_seconds or 0) * ms, 1000 * M)
    for tokens, per_mtok in (
        (used.input - used.cache_read - used.cache_write, tier.input),
        (used.cache_read, tier.input if tier.cache_read is None else tier.cache_read),
        (used.cache_write, tier.input if tier.cache_write is None else tier.cache_write),
        (used.output, tier.output),
    ):
        exact += Fraction(tokens * per_mtok, M)
    assert exact <= llm_micro(price, used, ms) < exact + 1


def test_all_tokens_of_a_call_are_billed_at_the_tier_of_its_input() -> None:
    price = Price("p", "m", M, 2 * M, "v", tiers=(Tier(1000, 3 * M, 4 * M),))
    assert llm_micro(price, Used(1000, 10)) == 1000 + 20
    assert llm_micro(price, Used(1001, 10)) == 3003 + 40


def test_a_cheaper_tier_above_does_not_lower_what_is_held() -> None:
    price = Price("p", "m", 5 * M, M, "v", tiers=(Tier(1000, M, M),))
    assert llm_bound(price, 1500, 0, 0) == 5000


def test_a_tier_is_held_for_as_soon_as_one_token_may_be_in_it() -> None:
    price = Price("p", "m", M, M, "v", tiers=(Tier(1000, 3 * M, M),))
    assert [llm_bound(price, most, 0, 0) for most in (1000, 1001)] == [1000, 3003]


def test_a_tool_costs_by_the_call_and_by_the_second() -> None:
    price = ToolPrice(500, 100 * M)  # a hundred micro-dollars a second
    assert [tool_micro(price, ms) for ms in (0, 1, 1_000, 1_501)] == [500, 501, 600, 651]
    assert tool_micro(price, 1_000, calls=0) == 100


def test_free_is_what_nothing_makes_cost() -> None:
    assert is_free(Price("p", "m", 0, 0, "v", 0, 0, 0, 0))
    for change in ("input_micro_per_mtok", "micro_per_call", "micro_per_million_seconds", "cache_write_micro_per_mtok"):
        assert not is_free(Price("p", "m", 0, 0, "v")._replace(**{change: 1})), change
    assert not is_free(Price("p", "m", 0, 0, "v", tiers=(Tier(900, 0, 1),)))


# -- states of runs ----------------------------------------------------------------------------------------


def test_a_price_of_an_earlier_version_is_read_and_a_plain_one_stays_as_short() -> None:
    assert Price.unpacked(["p", "m", 1, 2, "v"]) == Price("p", "m", 1, 2, "v")
    assert Price("p", "m", 1, 2, "v").packed() == ("p", "m", 1, 2, "v")


@given(cards())
def test_pinned_prices_are_read_as_they_were_written(price: Price) -> None:
    run = Run(uuid4(), uuid4(), "w", 1, models={"small": price}, tools={"search": ToolPrice(3, 4, "tenant 2")})
    kept = unpack_state(orjson.loads(dump(run.state_json()) or b""), 0)
    assert kept["models"] == run.models
    assert kept["tools"] == run.tools


# -- bills of attempts -------------------------------------------------------------------------------------

PRICE = Price("p", "m", M, 2 * M, "v", cache_read_micro_per_mtok=M // 10, cache_write_micro_per_mtok=M * 5 // 4)
TASK: Any = SimpleNamespace(kind="llm", use="small", timeout_ms=2_000, name="t", max_tokens=10)
PLAN: Any = SimpleNamespace(tools={})


def billed(held: int = 10_000, price: Price = PRICE, error: str = "", ms: int = 0, **usage: Any) -> money.Bill:
    run = Run(uuid4(), uuid4(), "w", 1, models={"small": price})
    used = {"input_tokens": 1_000, "output_tokens": 100, "cached_tokens": 0, "calls": 1} | usage
    report = {"usage": used, "error": {"code": error} if error else None, "duration_ms": ms}
    return money.bill(run, PLAN, TASK, report, held)


def test_each_kind_of_token_has_its_rate() -> None:
    assert billed() == money.Bill(1_200)
    assert billed(cached_tokens=400, cache_write_tokens=200, reasoning_tokens=60) == money.Bill(400 + 40 + 250 + 200)


@pytest.mark.parametrize(
    ("usage", "says"),
    [
        ({"fault": "no usage was told"}, "no usage was told"),
        ({"cached_tokens": 900, "cache_write_tokens": 101}, "900 tokens read from a cache and 101 written"),
        ({"reasoning_tokens": 101}, "101 tokens of reasoning are more than all 100"),
    ],
)
def test_what_cannot_be_right_costs_all_that_was_held_and_is_a_violation(usage: dict[str, Any], says: str) -> None:
    bill = billed(**usage)
    assert bill.micro == 10_000
    assert says in (bill.violation or "")
    # What was told may be more than was held all the same.
    assert billed(held=7, **usage).micro >= 1_000
    free = billed(held=0, price=Price("p", "m", 0, 0, "v"), **usage)
    assert free == money.Bill(0)


def test_more_than_was_held_is_billed_in_full_and_said() -> None:
    bill = billed(held=1_199)
    assert bill == money.Bill(1_200, "1200 micro-dollars were billed, 1199 had been held")


def test_a_call_without_a_word_of_usage_costs_what_was_held_where_it_may_have_been_billed() -> None:
    for code in ("timeout", "connection_lost", "bad_response"):
        assert billed(calls=0, error=code) == money.Bill(10_000)
    assert billed(calls=0, error="model_unreachable") == money.Bill(0)


def test_seconds_are_billed_up_to_the_time_that_a_call_has() -> None:
    price = Price("p", "m", 0, 0, "v", micro_per_million_seconds=500 * M)
    assert [billed(price=price, ms=ms).micro for ms in (0, 1_000, 2_000, 2_400)] == [0, 500, 1_000, 1_000]
    assert money.llm_hold(price, TASK, 100) == 1_000


def test_a_tool_costs_what_the_tenant_was_told_else_what_the_workflow_says() -> None:
    spec = SimpleNamespace(price_micro=30, micro_per_million_seconds=2 * M)
    plan: Any = SimpleNamespace(tools={"search": spec})
    task: Any = SimpleNamespace(kind="tool", use="search", timeout_ms=1_000, price_cap_micro=None)
    run = Run(uuid4(), uuid4(), "w", 1)
    assert money.tool_price(run, plan, task) == ToolPrice(30, 2 * M, "plan")
    told = run.but(tools={"search": ToolPrice(7, 0, "tenant 1")})
    assert money.tool_price(told, plan, task).price_version == "tenant 1"
    report = {"usage": {"calls": 1}, "error": None, "duration_ms": 400}
    assert money.bill(run, plan, task, report, 32) == money.Bill(31)
    assert money.bill(told, plan, task, report, 32) == money.Bill(7)
    for code in ("outcome_unknown", "call_lost", "timeout", "internal"):
        silent = {"usage": {"calls": 0}, "error": {"code": code}, "duration_ms": 400}
        assert money.bill(run, plan, task, silent, 32) == money.Bill(32), "whom it has asked may bill it"
    failed = {"usage": {"calls": 0}, "error": {"code": "tool_failed"}, "duration_ms": 400}
    assert money.bill(run, plan, task, failed, 32) == money.Bill(1), "its seconds are over all the same"
    builtin: Any = SimpleNamespace(kind="tool", use="std.echo", timeout_ms=None, price_cap_micro=9)
    assert money.tool_price(run, plan, builtin) == ToolPrice(9)


def test_bytes_per_token_count_the_text_and_forms_count_by_the_byte() -> None:
    messages = [{"role": "user", "content": "é" * 100}]
    count = money.by_bytes(PRICE._replace(bytes_per_100_tokens=320))
    assert count is not None and count("é" * 100) == 63
    assert money.input_tokens_bound(messages, [], None) - money.input_tokens_bound(messages, [], None, count) == 137
    form = {"type": "object"}
    plain = money.input_tokens_bound(messages, [], None, count)
    assert money.input_tokens_bound(messages, [], form, count) - plain == 18
