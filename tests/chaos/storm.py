"""A storm: faults one after another, singly, two at once, and while the system recovers from one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import psycopg

from agentflow.errors import AgentFlowError
from chaos.faults import FAULTS, MEASURED, NATS, NOT_REACHED, POSTGRES, Fault, Scene

APART_S = 5.0


class Storm:
    """Strikes until it is cancelled. ``without``: faults to leave out, by the names of their functions. ``singly``:
    one at a time, with peace between them.
    """

    def __init__(
        self,
        scene: Scene,
        *,
        every_s: float = 1.2,
        without: frozenset[str] = frozenset(),
        singly: bool = False,
    ) -> None:
        chosen = MEASURED if singly else FAULTS
        self._faults = {fault: weight for fault, weight in chosen.items() if fault.__name__ not in without}
        self._scene = scene
        self._singly = singly
        self._every_s = every_s
        self._under_way: set[asyncio.Task[None]] = set()
        self._locks = {POSTGRES: asyncio.Lock(), NATS: asyncio.Lock()}
        self.counts: Counter[str] = Counter()
        self.together: Counter[str] = Counter()
        self.story: list[str] = []  # what was done when, for the report
        self.errors: list[str] = []
        self._began = time.monotonic()

    async def rage(self) -> None:
        """Until cancelled."""
        chance = self._scene.chance
        while self._singly:  # each in peace, so that its recovery can be measured
            self.together["alone"] += 1
            self._strike()
            await asyncio.sleep(APART_S)
        while True:
            how = chance.choices(("alone", "two at once", "during recovery"), (6, 2, 2))[0]
            self.together[how] += 1
            self._strike()
            if how == "two at once":
                self._strike()
            elif how == "during recovery":
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                self._strike()
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self._every_s)

    async def calm(self) -> None:
        """Let what is under way come to its end, and heal everything. A fault that fails or hangs is ours: raise."""
        stuck: set[asyncio.Task[None]] = set()
        if self._under_way:
            _, stuck = await asyncio.wait(self._under_way, timeout=60)
        self._scene.fleet.heal()
        if stuck or self.errors:
            raise RuntimeError(
                f"faults that hang: {[task.get_name() for task in stuck]}, that failed: {self.errors}"
            )

    def _strike(self) -> None:
        (fault,) = self._scene.chance.choices(list(self._faults), list(self._faults.values()))
        task = asyncio.create_task(self._inflict(fault), name=fault.__name__)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _inflict(self, fault: Fault) -> None:
        lock = next((lock for family, lock in self._locks.items() if fault in family), None)
        at = time.monotonic() - self._began
        if lock is not None and lock.locked():
            return
        async with lock or asyncio.Lock():
            span, kind = self._scene.recovery.begin(), NOT_REACHED
            try:
                kind = await fault(self._scene)
            except (psycopg.Error, AgentFlowError, OSError):
                pass  # what it was to strike is down already
            except Exception as error:
                self.errors.append(repr(error))
                raise
            finally:
                self._scene.recovery.end(span, reached=kind != NOT_REACHED)
        self.counts[kind] += 1
        self.story.append(f"{at:6.2f} s {kind}")
