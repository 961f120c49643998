"""The sealer of one host: seals what has been noted, a few seconds after it was, if no other host is at it.

Every host that carries the relay has one. It is woken by what changes, holds no connection while it waits, and logs how
far each chain has come: logs that are kept elsewhere show when a chain's end was cut off.
"""

from __future__ import annotations

import asyncio

import structlog

from agentflow.errors import AgentFlowError
from agentflow.store.chain import ChainKeys
from agentflow.store.sealing import seal

log = structlog.get_logger(__name__)
SOON_S = 2.0  # how long something that happened may be unsealed where it is heard of
IDLE_S = 60.0  # the same where it is not: what an administrator does by hand


class Sealer:
    """Seals for as long as its host runs. ``relay_dsn`` logs in as agentflow_relay."""

    def __init__(self, relay_dsn: str, keys: ChainKeys) -> None:
        self._dsn = relay_dsn
        self._keys = keys
        self._wake = asyncio.Event()
        self._later: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with what others have left."""
        self._task = asyncio.create_task(self._run(), name="sealer")

    async def stop(self) -> None:
        """Leave; what is noted is sealed by whoever comes next."""
        if self._later is not None:
            self._later.cancel()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def work_seen(self) -> None:
        """Something has changed: seal soon."""
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(SOON_S, self._wake.set)

    async def _run(self) -> None:
        while True:
            self._wake.clear()
            self._later = None
            try:
                for made in await seal(self._dsn, self._keys):
                    log.info("sealed", tenant=str(made.tenant), entry=made.number, link=made.link)
            except AgentFlowError as fault:
                log.warning("sealing will be tried again", reason=str(fault))
            except Exception:
                log.exception("sealing failed")
            try:
                async with asyncio.timeout(IDLE_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
