"""The disk beside a measurement: how long it takes to have one small write on it, as every commit must."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

EVERY_S = 0.05


@asynccontextmanager
async def flushes(folder: Path) -> AsyncIterator[list[float]]:
    """Milliseconds of one flush after the other, in a file of their own, for as long as this is open."""
    took: list[float] = []
    file = os.open(folder / "flushed", os.O_CREAT | os.O_WRONLY)

    def flush() -> float:
        began = time.perf_counter()
        os.pwrite(file, b"x" * 512, 0)
        os.fdatasync(file)
        return (time.perf_counter() - began) * 1000

    async def look() -> None:
        while True:
            took.append(await asyncio.to_thread(flush))
            await asyncio.sleep(EVERY_S)

    looking = asyncio.create_task(look())
    try:
        yield took
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        os.close(file)
