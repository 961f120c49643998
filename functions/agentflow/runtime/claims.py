"""Claims: a call that must never be repeated blindly is written down before it is made.

Who makes it claims it in a transaction of its own, and keeps the claim alive while at work. A repetition of the request
finds the claim and does not make the call: while the claimant is at work it leaves it alone, and is sent again later;
when nothing has been heard of the claimant in time nobody knows whether the call was made, and that is its outcome.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog

from agentflow.core.message import Message
from agentflow.errors import RetryLater, UnknownOutcome
from agentflow.store.postgres import PostgresStore

log = structlog.get_logger(__name__)
LEASE_S = 6.0  # how long a claim holds that nobody renews; while the call goes on it is renewed every second
SAFE_S = 2.0  # what must be left of it when the call begins
Key = tuple[UUID, str]  # run, key


class Claim(NamedTuple):
    """A claim that was made, and when it was asked for."""

    tenant: UUID
    claimant: UUID
    at: float


class Claims:
    """The claims of one effect function in this process."""

    def __init__(self, function: str, store: PostgresStore) -> None:
        self._function = function
        self._store = store
        self._held: dict[Key, Claim] = {}

    async def take(self, request: Message) -> bool:
        """Claim the call. False: not ours to make, and nothing is to be reported (nobody asks for it any more, or
        somebody works on it). ``UnknownOutcome``: somebody else has claimed it and has not been heard of since."""
        claimant = uuid4()
        twin = (request.tenant, request.run, request.key, self._function)
        pause = 0.05
        while True:
            at = time.monotonic()
            try:
                found = await self._store.claim(twin, request.data["epoch"], claimant, int(LEASE_S * 1000))
                break
            except RetryLater:  # if it has been written all the same, it is found to be ours
                await asyncio.sleep(pause)
                pause = min(pause * 2, 2.0)
        if found is None:
            return False
        if found.mine:
            self._held[request.run, request.key] = Claim(request.tenant, claimant, at)
            return True
        if found.alive:
            log.info("somebody else makes this call", event_id=request.id)
            return False
        raise UnknownOutcome("whoever made this call has not been heard of since")

    def fresh(self, key: Key) -> bool:
        """Whether a claim that was just made is certain to hold yet: its process may have been stopped since."""
        return time.monotonic() - self._held[key].at < LEASE_S - SAFE_S

    def holds(self, key: Key) -> bool:
        return key in self._held

    def leave(self, key: Key) -> None:
        """The call is over, one way or the other. Its row goes with the report."""
        self._held.pop(key, None)

    def renewals(self, keys: set[Key]) -> list[tuple[UUID, UUID, str, UUID, int]]:
        """Rows that renew the claims among these."""
        return [
            (claim.tenant, run, key, claim.claimant, int(LEASE_S * 1000))
            for (run, key), claim in self._held.items()
            if (run, key) in keys
        ]
