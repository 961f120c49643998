"""How long things are kept: what was set, by whom, and what follows for a week that is over. Values only.

Ages are whole days; None means for ever. Money and parked messages are never kept shorter than the runs they are
about, and sums of money never shorter than what they are the sums of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from agentflow.errors import Rejected

FOREVER = "forever"
PATIENCE = timedelta(days=8)
"""How much longer rows may stay when their whole week goes then: dropping a table costs nothing, deleting does."""

_AGE = re.compile(r"[1-9][0-9]{0,4}d")


class Ages(NamedTuple):
    """Days that each kind of row is kept: finished runs (with steps and history) from their end, entries of the
    ledger from when they were made, ids of clients' events from their receipt, parked messages from their parking, sums
    of what was spent from their day."""

    runs: int | None = None
    ledger: int | None = None
    inbox: int | None = 30
    parked: int | None = None
    spend: int | None = None

    def with_own(self, own: Mapping[str, str | None]) -> Ages:
        """These ages where a tenant's own row (texts by kind) says nothing else."""
        said = {kind: parse_age(text) for kind in self._fields if (text := own.get(kind)) is not None}
        ages = self._replace(**said)
        ages = ages._replace(ledger=_longer(ages.ledger, ages.runs), parked=_longer(ages.parked, ages.runs))
        return ages._replace(spend=_longer(ages.spend, ages.ledger))


def parse_age(text: str, path: str = "") -> int | None:
    """``90d`` as 90, ``forever`` as None; ``Rejected`` for anything else."""
    if text == FOREVER:
        return None
    if _AGE.fullmatch(text) is None:
        mend = f"write days, e.g. 90d (at most 99999d), or {FOREVER}"
        raise Rejected(f"{text[:40]!r} is not an age", code="bad_age", path=path, mend=mend)
    return int(text[:-1])


def age_text(days: int | None) -> str:
    """What ``parse_age`` reads."""
    return FOREVER if days is None else f"{days}d"


def week_of(at: datetime) -> tuple[datetime, datetime]:
    """The week (since, until) of a time in UTC, as the database's partitions have it: from Monday to Monday."""
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    since = day - timedelta(days=day.weekday())
    return since, since + timedelta(weeks=1)


def cutoff(now: datetime, days: int | None) -> datetime | None:
    """What is older than this goes; None: nothing does."""
    return None if days is None else now - timedelta(days=days)


def released(week_end: datetime, ages: Iterable[int | None]) -> datetime | None:
    """When nobody of these keeps anything of a week any more; None: never."""
    longest = timedelta(0)
    for days in ages:
        if days is None:
            return None
        longest = max(longest, timedelta(days=days))
    return week_end + longest


def waits_for_week(now: datetime, release: datetime | None, patience: timedelta = PATIENCE) -> bool:
    """Whether rows whose time has come stay a little, because their whole week can go soon."""
    return release is not None and now < release <= now + patience


def _longer(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else max(one, other)
