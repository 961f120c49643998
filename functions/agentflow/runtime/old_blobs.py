"""Parked messages and blobs whose time is over."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import structlog

from agentflow.core.retention import cutoff
from agentflow.runtime.sweep import Sweep
from agentflow.wire.claim import INLINE_LIMIT

log = structlog.get_logger(__name__)
SPARE = timedelta(days=8)
"""How long a blob stays that nothing refers to: longer than a message that names it is on its way."""


async def remove_parked(sweep: Sweep) -> None:
    """Give up messages that nobody has retried for longer than runs are kept, and say so."""
    for tenant in sweep.tenants:
        before = cutoff(sweep.now, sweep.age(tenant).parked)
        if before is None:
            continue
        rows, total = -1, 0
        while rows:
            async with sweep.turn():
                if sweep.dry:
                    sweep.went(tenant, "parked", await sweep.store.count_parked(tenant, before))
                    break
                rows = await sweep.store.delete_parked(tenant, before)
            sweep.went(tenant, "parked", rows)
            total += rows
        if total:
            log.warning(
                "parked messages given up", tenant=str(tenant), messages=total, before=before.isoformat()
            )


async def remove_blobs(sweep: Sweep) -> None:
    """Remove blobs that no run, workflow or message refers to and nobody has asked for in a week."""
    before = sweep.now - SPARE
    for tenant in sweep.tenants:
        await _remove_unused(sweep, tenant, before)


async def _remove_unused(sweep: Sweep, tenant: UUID, before: datetime) -> None:
    place: tuple[datetime | str, str] = ("-infinity", "")
    on_the_road: set[str] | None = None
    while found := await sweep.store.unused_blobs(tenant, before, place):
        if on_the_road is None:
            on_the_road = await sweep.rows.refs_on_the_road(tenant, INLINE_LIMIT)
        unused = [ref for ref, _ in found if ref not in on_the_road]
        rows = len(unused)
        if not sweep.dry:
            async with sweep.turn():
                rows = await sweep.store.delete_blobs(tenant, before, unused)
        sweep.went(tenant, "blobs", rows)
        ref, used_at = found[-1]
        place = (used_at, ref)
