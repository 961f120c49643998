"""The token bucket: never more than its rate and burst allow, over any stretch of time, whatever happens to it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.core.bucket import Bucket

PAUSES = st.lists(st.floats(0, 3), min_size=1, max_size=60)


@given(st.floats(0.1, 50), st.integers(1, 20), st.booleans(), PAUSES)
def test_no_stretch_of_time_sees_more_than_burst_and_rate(
    rate: float, burst: int, full: bool, pauses: list[float]
) -> None:
    now = 1000.0
    bucket = Bucket(rate, burst, now, full=full)
    taken = [] if full else [now] * burst  # who starts empty may have spent a burst just before
    for pause in pauses:
        now += pause
        while not bucket.wait(now):
            bucket.take(now)
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            stretch = taken[last] - taken[first]
            assert last - first + 1 <= burst + stretch * rate + 1e-6


@given(st.floats(0.1, 50), st.integers(1, 20))
def test_what_it_says_to_wait_is_enough_and_not_more(rate: float, burst: int) -> None:
    bucket = Bucket(rate, burst, 0.0, full=False)
    wait = bucket.wait(0.0)
    assert wait == pytest.approx(1 / rate)
    assert bucket.wait(wait * 0.99) > 0
    assert bucket.wait(wait) == 0


def test_it_keeps_its_rate_when_asked_often() -> None:
    bucket = Bucket(100, 1, 0.0, full=True)
    taken = []
    for tick in range(100_000):
        now = tick / 10_000
        if not bucket.wait(now):
            bucket.take(now)
            taken.append(now)
    assert len(taken) == pytest.approx(1001, abs=2)
    assert min(b - a for a, b in pairwise(taken)) >= 0.01 - 1e-6


def test_a_token_taken_for_nothing_goes_back_but_never_over_the_burst() -> None:
    bucket = Bucket(1, 2, 0.0, full=True)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(1)
    bucket.give()
    assert bucket.wait(0.0) == 0
    for _ in range(10):
        bucket.give()
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.wait(0.0) > 0


def test_another_rate_takes_effect_at_once_and_gives_nothing_away() -> None:
    bucket = Bucket(1, 10, 0.0, full=True)
    bucket.change(100, 2, 0.0)
    bucket.take(0.0)
    bucket.take(0.0)
    assert bucket.wait(0.0) == pytest.approx(0.01)
    bucket.change(0.5, 2, 0.0)
    assert bucket.wait(0.0) == pytest.approx(2)


def test_a_clock_that_goes_back_makes_no_tokens() -> None:
    bucket = Bucket(10, 1, 100.0, full=False)
    assert bucket.wait(50.0) == pytest.approx(0.1)
    assert bucket.wait(100.0) == pytest.approx(0.1)
