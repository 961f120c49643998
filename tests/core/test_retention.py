"""How long things are kept: what may be set, what follows from it, and when a week goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agentflow.core.retention import Ages, age_text, cutoff, parse_age, released, waits_for_week, week_of
from agentflow.errors import Rejected

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.mark.parametrize(("text", "days"), [("1d", 1), ("90d", 90), ("99999d", 99999), ("forever", None)])
def test_an_age_is_days_or_forever(text: str, days: int | None) -> None:
    assert parse_age(text) == days
    assert age_text(days) == text


@pytest.mark.parametrize(
    "text", ["", "90", "0d", "-1d", "1.5d", "1w", "d", "100000d", "Forever", "90d ", "٩d"]
)
def test_anything_else_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(Rejected, match=r"--runs.*90d"):
        parse_age(text, "--runs")


def test_a_tenant_s_word_counts_and_where_it_is_silent_the_installation_s() -> None:
    ages = Ages(runs=90, ledger=400, inbox=30, parked=400)
    assert ages.with_own({"runs": "30d", "inbox": None}) == Ages(30, 400, 30, 400)
    assert ages.with_own({"inbox": "forever"}).inbox is None
    assert ages.with_own({}) == ages


def test_money_and_parked_messages_are_never_kept_shorter_than_runs() -> None:
    assert Ages(90, 30, 30, 30).with_own({}) == Ages(90, 90, 30, 90)
    assert Ages(None, 30, 30, 30).with_own({}) == Ages(None, None, 30, None)
    assert Ages(90, None, 30, None).with_own({}) == Ages(90, None, 30, None)


def test_sums_of_money_are_never_kept_shorter_than_the_ledger() -> None:
    assert Ages(90, 30, 30, 30, 60).with_own({}).spend == 90
    assert Ages(90, 400, 30, 30, 60).with_own({"spend": "500d"}).spend == 500
    assert Ages(None, 400, 30, 30, 1200).with_own({}).spend is None
    assert Ages(90, 400, 30, 400).with_own({"runs": "500d"}) == Ages(500, 500, 30, 500)


def test_by_default_nothing_but_ids_of_events_is_ever_given_up() -> None:
    assert Ages().with_own({}) == Ages(None, None, 30, None)
    assert cutoff(NOW, Ages().runs) is None
    assert cutoff(NOW, 30) == NOW - 30 * DAY


@pytest.mark.parametrize(
    "at", [datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 22, 23, 59, 59, 999999, tzinfo=UTC)]
)
def test_a_week_is_from_monday_to_monday(at: datetime) -> None:
    assert week_of(at) == (datetime(2026, 11, 16, tzinfo=UTC), datetime(2026, 11, 23, tzinfo=UTC))


def test_a_week_is_released_by_whoever_keeps_it_longest() -> None:
    assert released(NOW, [30, 90]) == NOW + 90 * DAY
    assert released(NOW, [30, None]) is None
    assert released(NOW, []) == NOW


@pytest.mark.parametrize(
    ("release", "waits"),
    [
        (None, False),
        (NOW - DAY, False),
        (NOW, False),
        (NOW + DAY, True),
        (NOW + 8 * DAY, True),
        (NOW + 9 * DAY, False),
    ],
)
def test_rows_wait_for_a_week_that_goes_soon(release: datetime | None, waits: bool) -> None:
    assert waits_for_week(NOW, release) is waits
    assert waits_for_week(NOW, release, timedelta(0)) is False
