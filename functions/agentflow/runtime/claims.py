"""Claims: a call that costs money, or must never be repeated blindly, is written down before it is made.

Who makes it claims it in a transaction of its own, and keeps the claim alive while at work. A repetition of the request
finds the claim and does not make the call: while the claimant is at work it leaves it alone, and is sent again later;
when nothing has been heard of the claimant in time nobody knows whether the call was made, and that is its outcome.

Calls that are asked for while a claim is being written are claimed together, by the next statement.
"""

from __future__ import annotations

import asyncio
import time
from typing import NamedTuple
from uuid import UUID, uuid4

import structlog

from agentflow.core.message import Message
from agentflow.errors import UnknownOutcome
from agentflow.runtime.patience import until_taken
from agentflow.store.postgres import Claimed, ClaimRow, PostgresStore

log = structlog.get_logger(__name__)
LEASE_S = 6.0  # how long a claim holds that nobody renews; while the call goes on it is renewed every second
SAFE_S = 2.0  # what must be left of it when the call begins
MOST = 500  # claims of one statement
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
        self._asked: list[tuple[ClaimRow, asyncio.Future[Claimed | None]]] = []
        self._writer: asyncio.Task[None] | None = None

    async def take(self, request: Message) -> bool:
        """Claim the call. False: not ours to make, and nothing is to be reported (nobody asks for it any more, or
        somebody works on it). ``UnknownOutcome``: somebody else has claimed it and has not been heard of since."""
        claimant = uuid4()
        twin = (request.tenant, request.run, request.key, self._function)
        at = 0.0

        async def ask() -> Claimed | None:
            nonlocal at
            at = time.monotonic()
            return await self._ask((*twin, request.data["epoch"], claimant, int(LEASE_S * 1000)))

        found = await until_taken(ask)  # if it has been written all the same, it is found to be ours
        if found is None:
            return False
        if found.mine:
            self._held[request.run, request.key] = Claim(request.tenant, claimant, at)
            return True
        if found.alive:
            log.info("somebody else makes this call", event_id=request.id)
            return False
        raise UnknownOutcome("whoever made this call has not been heard of since")

    async def _ask(self, row: ClaimRow) -> Claimed | None:
        """What becomes of one claim, made together with all that are asked for meanwhile."""
        answer: asyncio.Future[Claimed | None] = asyncio.get_running_loop().create_future()
        self._asked.append((row, answer))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name=f"claims-{self._function}")
        return await answer

    async def _write(self) -> None:
        await asyncio.sleep(0)  # whatever is ready to be claimed joins
        while self._asked:
            asked, self._asked = self._asked[:MOST], self._asked[MOST:]
            open_ = [(row, answer) for row, answer in asked if not answer.done()]  # nobody waits for the others
            try:
                found = await self._store.claim([row for row, _ in open_]) if open_ else {}
            except Exception as fault:
                for _, answer in open_:
                    if not answer.done():
                        answer.set_exception(fault)
                continue
            for row, answer in open_:
                if not answer.done():
                    answer.set_result(found.get((row[1], row[2])))
        self._writer = None

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
