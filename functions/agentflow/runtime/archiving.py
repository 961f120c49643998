"""Archiving: a chunk of runs is read as of one moment, sent away and looked at again. No transaction is open then."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from uuid import UUID

from agentflow.archive import Archive
from agentflow.archive.format import Manifest, Parcel, blob_name, send_blob
from agentflow.observe import retention as metrics
from agentflow.store.run_rows import RunRows

AT_ONCE = 500  # lines that are compressed together, away from the event loop


class Archiver:
    """Puts runs into the archive. When ``keep`` returns they may be removed."""

    def __init__(self, rows: RunRows, archive: Archive) -> None:
        self._rows = rows
        self._archive = archive

    async def keep(
        self, tenant: UUID, week: tuple[datetime, datetime], runs: Sequence[tuple[datetime, UUID]]
    ) -> Manifest:
        """Archive runs (creation time, id) of one week, with the files they refer to."""
        for ref in await self._rows.refs(tenant, [run for _, run in runs]):
            await self._keep_blob(tenant, ref)
        with Parcel(tenant, runs) as parcel:
            await self._fill(parcel, tenant, week, runs)
            manifest = await asyncio.to_thread(parcel.send, self._archive)
        metrics.archived(manifest.bytes)
        return manifest

    async def _fill(
        self,
        parcel: Parcel,
        tenant: UUID,
        week: tuple[datetime, datetime],
        runs: Sequence[tuple[datetime, UUID]],
    ) -> None:
        lines: list[tuple[str, bytes]] = []
        async with aclosing(self._rows.of(tenant, week, runs)) as rows:
            async for line in rows:
                lines.append(line)
                if len(lines) == AT_ONCE:
                    await asyncio.to_thread(parcel.add, lines)
                    lines = []
        await asyncio.to_thread(parcel.add, lines)

    async def _keep_blob(self, tenant: UUID, ref: str) -> None:
        if await asyncio.to_thread(self._archive.holds, blob_name(tenant, ref)):
            return
        content = await self._rows.blob(tenant, ref)
        if content is not None:
            await asyncio.to_thread(send_blob, self._archive, tenant, ref, content)
            metrics.archived(len(content))
