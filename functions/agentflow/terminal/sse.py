"""Server-sent events from the API, over as many connections as it takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agentflow.errors import RetryLater
from agentflow.terminal.client import refusal, unreachable

if TYPE_CHECKING:
    from httpx import AsyncClient, Response

SILENCE_S = 45.0
"""A stream says that it is alive every 15 s: one that is silent for longer is dead."""
TRIES = 8
PAUSE_S = 0.2
LAST = "end"


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a run's stream."""

    id: str
    name: str
    data: dict[str, Any]


async def run_events(client: AsyncClient, run: str, *, follow: bool = True) -> AsyncIterator[Event]:
    """The run's events from the first; goes on where it was when a connection breaks. Ends with the run.

    Without ``follow`` it ends with what there is. Raises what the API refuses with, and ``RetryLater`` when
    it stays away.
    """
    import httpx

    last = ""
    failures = 0
    reached = False
    while True:
        headers = {"last-event-id": last} if last else {}
        params = {} if follow else {"follow": "false"}
        timeout = httpx.Timeout(10.0, read=SILENCE_S)
        try:
            async with client.stream(
                "GET", f"/v1/runs/{run}/events", headers=headers, params=params, timeout=timeout
            ) as response:
                reached = True
                if response.status_code >= 400:
                    await response.aread()
                    fault = refusal(response)
                    if not isinstance(fault, RetryLater) or failures >= TRIES:
                        raise fault
                async for event in _events(response):
                    failures = 0
                    last = event.id
                    yield event
                    if last == LAST:
                        return
            if not follow or response.status_code == 204:
                return
        except httpx.TransportError as fault:
            if failures >= TRIES or not reached:
                raise unreachable(client, fault) from None
        failures += 1
        await asyncio.sleep(min(PAUSE_S * 2**failures, 5.0))


async def _events(response: Response) -> AsyncIterator[Event]:
    id_ = name = data = ""
    async for line in response.aiter_lines():
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                yield Event(id_, name, json.loads(data))
            name = data = ""
        elif field == "id":
            id_ = value
        elif field == "event":
            name = value
        elif field == "data":
            data += value
