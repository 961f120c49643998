"""The keeper of one host: sees to partitions and removes what is old, if no other host is at it.

Every host that carries the relay has one. They look once an hour, at times of their own; whoever gets the lock does
what is due, which is once a day. It sleeps without a connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import structlog

from agentflow.archive import open_archive
from agentflow.config import Settings
from agentflow.core.retention import Ages, parse_age
from agentflow.errors import AgentFlowError
from agentflow.observe import retention as metrics
from agentflow.runtime.archiving import Archiver
from agentflow.runtime.pruning import prune
from agentflow.runtime.sweep import HURRY, Report, Sweep
from agentflow.store.retention import Locked, RetentionStore, keeping
from agentflow.store.run_rows import reading

log = structlog.get_logger(__name__)
WEEKS_AHEAD = 4
LOOK_S = 3600.0
SOON_S = 300.0  # when something was left to do, or a fault came between
SWEEP_S = 900.0  # the longest that one sweep takes
EVERY = timedelta(hours=22)
BEHIND = timedelta(
    days=2
)  # without a sweep that left nothing to do: from then on with less regard for others


class Keeper:
    """Keeps house for as long as its host runs. ``keeper_dsn`` logs in as agentflow_keeper, ``engine_dsn`` as
    agentflow_engine, whose eyes the archive reads with."""

    def __init__(self, settings: Settings, keeper_dsn: str, engine_dsn: str) -> None:
        self._settings = settings
        self._default = installation(settings)
        self._keeper_dsn = keeper_dsn
        self._engine_dsn = engine_dsn
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: partitions at once, the rest when it is due."""
        self._task = asyncio.create_task(self._run(), name="keeper")

    async def stop(self) -> None:
        """Leave whatever is going on; the next sweep goes on with it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            pause = LOOK_S
            try:
                if not await self.keep():
                    pause = SOON_S
            except Exception as fault:
                metrics.failed()
                pause = SOON_S
                if isinstance(fault, AgentFlowError | Locked):
                    log.warning("retention will be tried again", reason=str(fault))
                else:
                    log.exception("retention failed")
            await asyncio.sleep(pause * random.uniform(0.7, 1.3))

    async def keep(self) -> bool:
        """Do what is due; whether all is in order. Another host being at it is in order."""
        async with keeping(self._keeper_dsn) as store:
            now, leads = await store.lead()
            if not leads:
                return True
            if made := await store.provide(WEEKS_AHEAD):
                log.info("partitions provided", partitions=made)
            metrics.provided()
            done = await store.last_done("prune")
            if done is not None and now - done[0] < EVERY:
                return True
            await store.mark_done("archive", self._settings.archive)
            behind = done is not None and now - done[0] > BEHIND
            report = await self._prune(store, now, HURRY if behind else None)
            if report.complete:
                await store.mark_done("prune")
                metrics.succeeded()
            return report.complete

    async def _prune(self, store: RetentionStore, now: datetime, rest: float | None) -> Report:
        deadline = asyncio.get_running_loop().time() + SWEEP_S
        async with sweep_of(self._settings, store, self._engine_dsn, now, deadline) as sweep:
            report = await prune(sweep if rest is None else replace(sweep, rest=rest))
        log.info(
            "swept", complete=report.complete, rows=report.total, bytes=sum(report.bytes.values()),
            partitions=[week.name for week in report.dropped], archived_bytes=report.archived_bytes,
        )  # fmt: skip
        return report


def installation(settings: Settings) -> Ages:
    """How long things are kept where a tenant has not said; ``Rejected`` names the setting that is malformed."""
    return Ages(
        parse_age(settings.retention, "AGENTFLOW_RETENTION"),
        parse_age(settings.retention_ledger, "AGENTFLOW_RETENTION_LEDGER"),
        parse_age(settings.retention_inbox, "AGENTFLOW_RETENTION_INBOX"),
        parse_age(settings.retention_parked, "AGENTFLOW_RETENTION_PARKED"),
        parse_age(settings.retention_spend, "AGENTFLOW_RETENTION_SPEND"),
    )


@asynccontextmanager
async def sweep_of(
    settings: Settings, store: RetentionStore, engine_dsn: str, now: datetime, deadline: float
) -> AsyncIterator[Sweep]:
    """A sweep by the installation's settings, with its archive and what it reads with."""
    archive = open_archive(
        settings.archive, endpoint=settings.archive_endpoint, encryption=settings.archive_encryption
    )
    async with reading(engine_dsn) as rows:
        archiver = Archiver(rows, archive) if archive is not None else None
        yield Sweep(store, rows, archiver, installation(settings), now, deadline)
