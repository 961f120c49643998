"""Posting events to a function: one by one, or what has arrived meanwhile together with the next request.

Nothing waits for a batch to fill: the first event leaves at once, and those that come while requests are out leave with
the next. So a batch is as large as the function is busy. What each event came to is told by itself.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import structlog

from agentflow.errors import RetryLater
from agentflow.runtime.outcomes import LATER, batch_outcomes, fault_of
from agentflow.wire.event import Event
from agentflow.wire.http import to_http, to_http_batch
from agentflow.wire.json_format import MAX_BATCH_BYTES

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)
MOST = 256
"""Events in a batch; the function decides upon as many in one transaction."""
ROOM = MAX_BATCH_BYTES // 2
"""Bytes of events in a batch, as far as they can be told before."""
UNKNOWN_KEY = 401
AGAIN_S, LONGEST_S = 0.5, 15.0  # between two tries of an event, while the function does not know the key
REMIND_S = 60.0


class _Waiting(NamedTuple):
    event: Event
    size: int
    done: asyncio.Future[None]


class Posts:
    """One function's requests, at most ``at_once`` out at a time; ``most`` events in each (1: no batches).

    ``key`` is the one to the function's push door (empty: there is none); None: this is a sink, no function.
    """

    def __init__(
        self, client: httpx.AsyncClient, url: str, *, at_once: int, most: int = MOST, key: str | None = None
    ) -> None:
        self._client = client
        self._url = url
        self._at_once = at_once
        self._most = most
        self._key = key
        self._headers = {"authorization": f"Bearer {key}"} if key else {}
        self._refused_at: float | None = None  # since when, by the monotonic clock
        self._told_at = -REMIND_S
        self._waiting: deque[_Waiting] = deque()
        self._out: set[asyncio.Task[None]] = set()

    async def post(self, event: Event, size: int) -> None:
        """Have the function handle an event of ``size`` bytes, about; done when it has. Else raises what outcomes.py
        makes of the answer."""
        waiting = _Waiting(event, size, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._go()
        await waiting.done

    def _go(self) -> None:
        while self._waiting and len(self._out) < self._at_once:
            batch = [self._waiting.popleft()]
            room = ROOM - batch[0].size
            while self._waiting and len(batch) < self._most and (room := room - self._waiting[0].size) >= 0:
                batch.append(self._waiting.popleft())
            task = asyncio.create_task(self._send(batch))
            self._out.add(task)
            task.add_done_callback(self._back)

    def _back(self, task: asyncio.Task[None]) -> None:
        self._out.discard(task)
        self._go()

    async def _send(self, batch: list[_Waiting]) -> None:
        outcomes: Sequence[Exception | None]
        batch = [each for each in batch if not each.done.done()]  # given up meanwhile
        if not batch:
            return
        try:
            outcomes = await self._outcomes([each.event for each in batch])
        except Exception as fault:
            outcomes = [fault] * len(batch)
        for each, outcome in zip(batch, outcomes, strict=True):
            if each.done.done():
                continue
            if outcome is None:
                each.done.set_result(None)
            else:
                each.done.set_exception(outcome)

    async def _outcomes(self, events: list[Event]) -> Sequence[Exception | None]:
        import httpx

        headers, body = to_http(events[0], "binary") if len(events) == 1 else to_http_batch(events)
        try:
            answer = await self._client.post(self._url, headers={**headers, **self._headers}, content=body)
        except httpx.HTTPError as fault:
            raise RetryLater(f"{self._url}: {fault or type(fault).__name__}", after=0.5) from fault
        if answer.status_code == UNKNOWN_KEY and self._key is not None:
            raise self._refused()
        self._refused_at = None
        if answer.is_success:
            return [None] * len(events)
        if len(events) > 1:
            told = batch_outcomes(answer.content, len(events))
            if told is not None:
                return told
            if answer.status_code not in LATER:
                # Refused as a whole: one that can't be read, or a size. The others are not to be parked for it.
                return [await self._alone(event) for event in events]
        raise fault_of(answer.status_code, answer.text, answer.headers.get("retry-after", ""))

    async def _alone(self, event: Event) -> Exception | None:
        try:
            return (await self._outcomes([event]))[0]
        except Exception as fault:
            return fault

    def _refused(self) -> RetryLater:
        """No fault of any event's: all of them wait until both sides have the same key, with growing pauses."""
        now = time.monotonic()
        if self._refused_at is None:
            self._refused_at = now
        fault = "refuses the bridge's key" if self._key else "asks for a key, and the bridge has none"
        reason = f"{self._url} {fault}"
        if now - self._told_at >= REMIND_S:
            log.error("events wait", reason=reason, mend="give both the same AGENTFLOW_PUSH_KEY; nothing is lost")
            self._told_at = now
        return RetryLater(reason, after=min(max(AGAIN_S, now - self._refused_at), LONGEST_S))
