"""Publishing after commit. If this process dies before it is done, the relay goes on: the twins are still there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from agentflow.bus.jetstream import JetStream
from agentflow.errors import RetryLater
from agentflow.runtime.batch import EFFECTS, FACTS, Leaving
from agentflow.runtime.envelope import envelope
from agentflow.store.changes import Twin
from agentflow.wire.event import Event

log = structlog.get_logger(__name__)
FIRST_PAUSE_S = 0.1
LAST_PAUSE_S = 5.0
PARCEL_EVENTS = 64
PARCEL_BYTES = 256 * 1024  # of data; a message may have four times as much


class Publisher:
    """Publishes in the background; ``acknowledged(twin)`` is told of public facts that the stream has."""

    def __init__(self, bus: JetStream, acknowledged: Callable[[Twin], None]) -> None:
        self._bus = bus
        self._acknowledged = acknowledged
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def send(self, leaving: Sequence[Leaving]) -> None:
        self.background(self.publish(leaving))

    def background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something that nobody waits for, and let ``close`` wait for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def publish(self, leaving: Sequence[Leaving]) -> None:
        """Publish until the stream has acknowledged all; between tries the bus gets time to come back."""
        pause = FIRST_PAUSE_S
        parcels = packed(leaving)
        while parcels := await self._publish(parcels):
            if self._closing:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_PAUSE_S)

    async def _publish(self, parcels: list[Parcel]) -> list[Parcel]:
        """Publish once; returns what the stream did not acknowledge."""
        failed: list[Parcel] = []
        sent: list[tuple[Parcel, asyncio.Future[Any]]] = []
        reason = ""
        for parcel in parcels:
            try:
                sent.append((parcel, await self._bus.send(parcel.events, parcel.subject, tries=parcel.tries)))
            except RetryLater as fault:
                failed.append(parcel)
                reason = str(fault)
        for parcel, acknowledged in sent:
            try:
                await acknowledged
            except Exception as fault:
                failed.append(parcel)
                reason = str(fault) or type(fault).__name__
                continue
            if parcel.fact is not None:
                self._acknowledged(parcel.fact)
        if failed:
            log.warning("not published yet", parcels=len(failed), reason=reason)
        return failed

    async def close(self) -> None:
        """Give what is under way a moment; the relay sees to the rest."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=5)


@dataclass(slots=True, eq=False)
class Parcel:
    """What travels in one message. ``fact``: the twin of a public fact, which goes when the stream has it."""

    subject: str
    events: list[Event]
    tries: int = 0
    fact: Twin | None = None
    size: int = 0


def packed(leaving: Sequence[Leaving]) -> list[Parcel]:
    """Messages for pure functions share parcels; all others travel alone.

    Pure functions handle whole batches, and a message costs more than the event in it. Requests of effects are dealt
    out one by one, so that a slow call waits for no other and work spreads over all processes; facts are for the
    public, which expects one event in a message; what is sent again has to be told apart.
    """
    parcels: list[Parcel] = []
    filling: dict[str, Parcel] = {}
    roads: set[tuple[str, str]] = set()
    for leave in leaving:
        event, subject = envelope(leave)
        if (event.id, subject) in roads:
            continue  # two functions consume it: one message reaches both
        roads.add((event.id, subject))
        if leave.consumer == FACTS or leave.consumer in EFFECTS or leave.tries:
            fact = leave.twin if leave.consumer == FACTS else None
            parcels.append(Parcel(subject, [event], leave.tries, fact))
            continue
        parcel = filling.get(subject)
        size = len(leave.data) if event.dataref is None else 0
        if parcel is None or len(parcel.events) == PARCEL_EVENTS or parcel.size + size > PARCEL_BYTES:
            parcel = filling[subject] = Parcel(subject, [])
            parcels.append(parcel)
        parcel.events.append(event)
        parcel.size += size
    return parcels
