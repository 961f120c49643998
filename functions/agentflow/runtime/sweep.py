"""One sweep through the house, while it goes on: what it knows, what went, how it keeps out of others' way."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from agentflow.core.retention import PATIENCE, Ages, cutoff
from agentflow.observe import retention as metrics
from agentflow.runtime.archiving import Archiver
from agentflow.store.retention import RetentionStore, Week
from agentflow.store.run_rows import RunRows

REST = 3.0  # seconds that others have for each of ours
HURRY = 0.5  # the same, when we are behind
LONGEST_REST_S = 1.0


class OutOfTime(Exception):
    """The sweep's time is over; the next one goes on from here."""


@dataclass(slots=True)
class Report:
    """What went, or would go: rows by tenant and table, about how many bytes, whole partitions; ``complete`` unless
    something is left to do."""

    rows: dict[UUID, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    bytes: Counter[UUID] = field(default_factory=Counter)
    dropped: list[Week] = field(default_factory=list)
    archived_bytes: int = 0
    complete: bool = True

    @property
    def total(self) -> dict[str, int]:
        """Rows of all tenants, by table."""
        return dict(sum(self.rows.values(), start=Counter()))

    def json(self) -> dict[str, Any]:
        """The report for machines."""
        return {
            "tenants": [
                {"tenant": str(tenant), **dict(sorted(rows.items())), "bytes": self.bytes[tenant]}
                for tenant, rows in sorted(self.rows.items())
            ],
            "partitions": [{"name": week.name, "bytes": week.bytes} for week in self.dropped],
            "archived_bytes": self.archived_bytes,
            "complete": self.complete,
        }


@dataclass(slots=True)
class Sweep:
    """One sweep: whose rows, as of when, how old, and until when it may take (on the event loop's clock).

    ``before`` removes runs that had finished by then, whatever was set. ``patience`` is how long rows may wait for
    their week, ``rest`` the time others have for each second of ours. With ``dry`` nothing is changed, only counted.
    """

    store: RetentionStore
    rows: RunRows
    archiver: Archiver | None
    default: Ages
    now: datetime
    deadline: float
    only: UUID | None = None
    before: datetime | None = None
    dry: bool = False
    patience: timedelta = PATIENCE
    rest: float = field(default_factory=lambda: REST)
    ages: dict[UUID, Ages] = field(default_factory=dict)
    weeks: list[Week] = field(default_factory=list)
    row_bytes: dict[str, int] = field(default_factory=dict)
    report: Report = field(default_factory=Report)
    holders: dict[datetime, list[UUID]] = field(default_factory=dict)

    @property
    def tenants(self) -> list[UUID]:
        """Whose rows may go in this sweep."""
        return [tenant for tenant in self.ages if self.only in (None, tenant)]

    def age(self, tenant: UUID) -> Ages:
        """How long a tenant's rows are kept."""
        return self.ages.get(tenant) or self.default.with_own({})

    def runs_before(self, tenant: UUID) -> datetime | None:
        """Runs of a tenant that finished before then may go; None: none may."""
        return self.before or cutoff(self.now, self.age(tenant).runs)

    async def tenants_with_runs(self, since: datetime, until: datetime) -> list[UUID]:
        """Who keeps runs of a week; asked once, when the runs of this sweep are gone."""
        if since not in self.holders:
            self.holders[since] = await self.store.tenants_with_runs(since, until)
        return self.holders[since]

    def went(self, tenant: UUID, table: str, rows: int) -> None:
        """Note rows that went (or would)."""
        if not rows:
            return
        size = rows * self.row_bytes.get(table, 0)
        self.report.rows[tenant][table] += rows
        self.report.bytes[tenant] += size
        if not self.dry:
            metrics.removed(table, rows)
            metrics.freed(size)

    def removed_runs(self, tenant: UUID, runs: int, steps: int, lines: int) -> None:
        """Note runs that went (or would). Their rows go later, with their week or one by one: they are reported
        here, and only here."""
        self.went(tenant, "runs", runs)
        for table, rows in (("steps", steps), ("history", lines)):
            if rows:
                self.report.rows[tenant][table] += rows
                self.report.bytes[tenant] += rows * self.row_bytes.get(table, 0)

    def deleted(self, table: str, rows: int) -> None:
        """Count rows whose run was reported before."""
        metrics.removed(table, rows)
        metrics.freed(rows * self.row_bytes.get(table, 0))

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """A piece of work, and a rest after it that is longer. ``OutOfTime`` instead, when time is over."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if began > self.deadline:
            raise OutOfTime
        yield
        if not self.dry:
            await asyncio.sleep(min(LONGEST_REST_S, self.rest * (loop.time() - began)))
