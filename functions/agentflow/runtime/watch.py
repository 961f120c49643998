"""Watchers: who waits for news of a run in this process. Woken after commit; nothing is polled."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from types import TracebackType
from uuid import UUID


class Watch:
    """One watcher of one run. Use as ``async with``; news that comes between two waits is not missed."""

    def __init__(self, watchers: Watchers, run: UUID) -> None:
        self._watchers = watchers
        self._run = run
        self._news = asyncio.Event()

    async def __aenter__(self) -> Watch:
        self._watchers.add(self._run, self._news)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watchers.remove(self._run, self._news)

    async def changed(self, timeout_s: float) -> bool:
        """Wait until the run may have changed; False when ``timeout_s`` seconds pass without news."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True


class Watchers:
    """All watchers of a process, by run."""

    def __init__(self) -> None:
        self._by_run: dict[UUID, set[asyncio.Event]] = {}

    def watch(self, run: UUID) -> Watch:
        return Watch(self, run)

    def wake(self, runs: Iterable[UUID]) -> None:
        if not self._by_run:
            return
        for run in runs:
            for news in self._by_run.get(run, ()):
                news.set()

    def add(self, run: UUID, news: asyncio.Event) -> None:
        self._by_run.setdefault(run, set()).add(news)

    def remove(self, run: UUID, news: asyncio.Event) -> None:
        waiting = self._by_run.get(run, set())
        waiting.discard(news)
        if not waiting:
            self._by_run.pop(run, None)
