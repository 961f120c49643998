"""The reactor: messages in, one transaction per batch, messages out after commit.

    drain what is there -> lock the runs -> decide (pure, fused) -> save -> answer and send

A batch is whatever has arrived while the last one was being written: no linger, no timer. Runs are spread
over a few writers by id, so that one decides while another's commit is on its way to the disk and no two
writers ever want the same run.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol
from uuid import UUID

import structlog

from agentflow.core.decision import Facts, Headroom
from agentflow.core.message import Message
from agentflow.core.run import Price, Run
from agentflow.errors import AgentFlowError, RetryLater
from agentflow.runtime import observed
from agentflow.runtime.batch import Batch, Decide, Item, Leaving
from agentflow.runtime.plans import Plans
from agentflow.store.changes import Changes, Twin
from agentflow.store.postgres import PostgresStore, Raced, Transaction

log = structlog.get_logger(__name__)
MAX_RACES = 20


class Outlet(Protocol):
    """Where messages go after commit, and who is told that runs have changed."""

    def send(self, leaving: Sequence[Leaving]) -> None: ...

    def changed(self, changes: Changes) -> None: ...

    def refused(self, item: Item, fault: Exception) -> None: ...


class Reactor:
    """Handles messages for the pure functions of one host. See the module for how."""

    def __init__(
        self,
        functions: Mapping[str, Decide],
        store: PostgresStore,
        plans: Plans,
        price: Callable[[str], Price],
        outlet: Outlet,
        *,
        batch: int = 256,
        writers: int = 2,
        max_queue: int = 50_000,
    ) -> None:
        self._functions = functions
        self._store = store
        self._plans = plans
        self._price = price
        self._outlet = outlet
        self._batch = batch
        self._max_queue = max_queue
        self._lanes = [_Lane() for _ in range(writers)]
        self._acknowledged: deque[Twin] = deque()
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._drain(lane), name="reactor") for lane in self._lanes]

    async def stop(self) -> None:
        """Finish what was accepted, then end."""
        self._closing = True
        for lane in self._lanes:
            lane.wake.set()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def handle(self, item: Item) -> Run | None:
        """Have one message decided upon; returns the run once that is committed.

        Raises ``Rejected`` or ``Conflict`` (decided: no), ``RetryLater`` (not decided: the store can't be
        reached, too much is queued or the host is stopping), or whatever a poisonous message provokes.
        """
        item.done = asyncio.get_running_loop().create_future()
        self.offer(item)
        return await item.done

    def offer(self, item: Item) -> None:
        """Queue a message without waiting for it."""
        lane = self._lanes[item.message.run.int % len(self._lanes)]
        if self._closing or len(lane.items) >= self._max_queue:
            self._refuse(item, RetryLater("the host is stopping" if self._closing else "too much is queued"))
            return
        lane.items.append(item)
        lane.wake.set()

    def acknowledged(self, twin: Twin) -> None:
        """The bus has a public fact: its twin goes with the next transaction."""
        self._acknowledged.append(twin)
        lane = self._lanes[0]
        if not lane.items:
            lane.wake.set()

    @property
    def queued(self) -> int:
        return sum(len(lane.items) for lane in self._lanes)

    # -- one writer ------------------------------------------------------------------------------------

    async def _drain(self, lane: _Lane) -> None:
        while True:
            if not lane.items:
                if self._closing:
                    return
                lane.wake.clear()
                await lane.wake.wait()
                if not lane.items and self._acknowledged:
                    await self._forget()
                continue
            # One trip round the loop lets everything that is ready to be queued join the batch.
            await asyncio.sleep(0)
            batch = [lane.items.popleft() for _ in range(min(len(lane.items), self._batch))]
            try:
                await self._settle(batch)
            except Exception as fault:  # a fault of ours: this batch suffers, the writer goes on
                log.exception("writer failed", items=len(batch))
                for item in batch:
                    self._refuse(item, fault)

    async def _settle(self, items: list[Item]) -> None:
        """Handle a batch; if it fails as a whole for one item's fault, handle each alone."""
        try:
            await self._transact(items)
        except RetryLater as fault:
            for item in items:
                self._refuse(item, fault)
        except Exception as fault:
            if len(items) == 1:
                log.warning(
                    "message failed", name=items[0].message.name, event_id=items[0].message.id, reason=str(fault)
                )
                self._refuse(items[0], fault)
                return
            log.info("batch failed, trying its items alone", items=len(items), reason=str(fault))
            for item in items:
                await self._settle([item])

    async def _transact(self, items: list[Item]) -> None:
        began = time.perf_counter()
        for _ in range(MAX_RACES):
            try:
                batch = await self._attempt(items)
                break
            except Raced:
                continue
        else:
            raise RetryLater("lost too many races for the same rows")
        for item, run in batch.decided:
            if item.done is not None and not item.done.done():
                item.done.set_result(run)
        for item, refusal in batch.refused:
            if not isinstance(refusal, AgentFlowError):
                log.error(
                    "decision failed", name=item.message.name, event_id=item.message.id, exc_info=refusal
                )
            self._refuse(item, refusal)
        if batch.changes.runs:
            self._outlet.changed(batch.changes)
        if batch.leaving:
            self._outlet.send(batch.leaving)
        observed.committed(batch, time.perf_counter() - began)

    def _refuse(self, item: Item, fault: Exception) -> None:
        """Tell whoever waits for the message, or the host when nobody does."""
        if item.done is None:
            self._outlet.refused(item, fault)
        elif not item.done.done():
            item.done.set_exception(fault)

    async def _attempt(self, items: list[Item]) -> Batch:
        tenants = {item.message.tenant for item in items}
        forgotten = self._take_acknowledged()
        tenants.update(twin[0] for twin in forgotten)
        try:
            async with self._store.transaction(list(tenants)) as tx:
                loaded = await tx.load({(item.message.tenant, item.message.run) for item in items})
                known = await _Known.read(tx, items, loaded.runs, self._plans)
                batch = Batch(
                    self._functions, loaded.runs, loaded.headroom, self._facts(loaded.now_ms, known)
                )
                for item in items:
                    if item.once is None or (item.message.tenant, item.consumer, item.once) in known.fresh:
                        batch.decide(item)
                    else:
                        batch.decided.append((item, batch.runs.get(item.message.run)))
                        if item.twin is not None:
                            batch.changes.consume(item.twin)
                for item, _ in batch.refused:
                    if item.once is not None:  # not handled: it may come again
                        batch.changes.add("leave_inbox", (item.message.tenant, item.consumer, item.once))
                for twin in forgotten:
                    batch.changes.consume(twin)
                await tx.save(batch.changes)
        except BaseException:
            self._acknowledged.extendleft(forgotten)
            raise
        return batch

    def _facts(self, now_ms: int, known: _Known) -> Callable[[Item, Run | None, Headroom], Facts]:
        def facts(item: Item, run: Run | None, headroom: Headroom) -> Facts:
            message = item.message
            plan, version = known.plan(message, run)
            return Facts(
                now_ms=now_ms,
                plan=plan,
                version=version,
                price=self._price,
                headroom=headroom,
                step_input=known.step_inputs.get((message.run, message.data.get("step", 0))),
                triggered=known.triggered.get(message.run, ()),
                subscribers=known.subscribers.get(message.run, ()),
            )

        return facts

    def _take_acknowledged(self) -> list[Twin]:
        taken = list(self._acknowledged)
        self._acknowledged.clear()
        return taken

    async def _forget(self) -> None:
        """Nothing to do: drop the twins of facts that the bus has."""
        forgotten = self._take_acknowledged()
        changes = Changes()
        for twin in forgotten:
            changes.consume(twin)
        try:
            async with self._store.transaction([*{twin[0] for twin in forgotten}]) as tx:
                await tx.load([])
                await tx.save(changes)
        except Exception as fault:  # they are published: at worst the relay publishes them once more
            log.warning("twins of facts are still there", twins=len(forgotten), reason=str(fault))


class _Lane:
    """One writer's queue."""

    __slots__ = ("items", "wake")

    def __init__(self) -> None:
        self.items: deque[Item] = deque()
        self.wake = asyncio.Event()


class _Known:
    """What some decisions need besides their run: plans, the inputs of retried steps, who waits for an event."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._newest: dict[tuple[UUID, str], int] = {}
        self.fresh: set[tuple[UUID, str, str]] = set()
        self.step_inputs: dict[tuple[UUID, int], Mapping[str, Any]] = {}
        self.triggered: dict[UUID, tuple[Any, ...]] = {}
        self.subscribers: dict[UUID, tuple[Any, ...]] = {}

    @classmethod
    async def read(cls, tx: Transaction, items: list[Item], runs: Mapping[UUID, Run], plans: Plans) -> _Known:
        known = cls(plans)
        once = [(item.message.tenant, item.consumer, item.once) for item in items if item.once is not None]
        if once:
            known.fresh = await tx.enter_inbox([(t, c, o) for t, c, o in once if o])
        retried = []
        for item in items:
            message = item.message
            run = runs.get(message.run)
            if message.name == "event.received":
                await known._route(tx, message)
                continue
            if message.name == "timer.fired" and message.data["kind"] == "retry":
                retried.append((message.tenant, message.run, message.data["step"], message.data["attempt"]))
            if run is not None and run.version is not None:
                await plans.ensure(tx, message.tenant, run.workflow, run.version)
            elif message.name == "run.requested":
                name, version = message.data["workflow"], message.data["version"]
                newest = await plans.ensure(tx, message.tenant, name, version)
                if newest is not None:
                    known._newest[message.tenant, name] = newest
        if retried:
            known.step_inputs = await tx.step_inputs(retried)
        return known

    async def _route(self, tx: Transaction, message: Message) -> None:
        event_type = message.data["event"]["type"]
        plans = []
        for name, version in await tx.triggers(message.tenant, event_type):
            await self._plans.ensure(tx, message.tenant, name, version)
            plan = self._plans.get(message.tenant, name, version)
            if plan is not None:
                plans.append((plan, version))
        self.triggered[message.run] = tuple(plans)
        self.subscribers[message.run] = tuple(await tx.subscribers(message.tenant, event_type))

    def plan(self, message: Message, run: Run | None) -> tuple[Any, int | None]:
        if run is not None and run.version is not None:
            return self._plans.get(message.tenant, run.workflow, run.version), run.version
        if message.name != "run.requested":
            return None, None
        version = message.data["version"] or self._newest.get((message.tenant, message.data["workflow"]))
        if version is None:
            return None, None
        return self._plans.get(message.tenant, message.data["workflow"], version), version
