"""The reactor: messages in, one transaction per batch, messages out after commit.

    drain what is there -> decide (pure, fused) -> write, fenced by each run's rev -> answer and send

A batch is whatever has arrived while the last one was being written: no linger, no timer. Runs are spread
over a few writers by id, so that one decides while another's commit is on its way to the disk and no two
writers ever want the same run.

A run that this process wrote last is decided upon from memory and written in one round trip; the rev in its row
says whether anybody was faster. Whatever else there is (and whatever the fence, a budget or a bad item refuses)
goes the long way: lock the runs, read them, decide, write.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import structlog

from agentflow.core.budgets import Headroom
from agentflow.core.decision import Facts
from agentflow.core.run import Run
from agentflow.errors import AgentFlowError, RetryLater
from agentflow.runtime import observed
from agentflow.runtime.batch import Batch, Decide, Item, Leaving, Routes
from agentflow.runtime.gating import Gating
from agentflow.runtime.known import Known, looks_for_claim
from agentflow.runtime.lane import Lane
from agentflow.runtime.memory import Memory
from agentflow.runtime.plans import Plans
from agentflow.runtime.pricing import Pricing
from agentflow.store.changes import Changes, Twin
from agentflow.store.postgres import PostgresStore, Raced

log = structlog.get_logger(__name__)
MAX_RACES = 20
SHORT_S = 0.5  # how long nothing is held without looking after a budget has refused
PLANNED = frozenset({"run.requested"})  # the messages whose decisions may pin prices
FORGET_S = 0.05  # how long the twins of facts that the bus has wait for a transaction to go with


class Outlet(Protocol):
    """Where messages go after commit, and who is told that runs have changed."""

    def send(self, leaving: Sequence[Leaving]) -> None: ...

    def changed(self, changes: Changes) -> None: ...

    def refused(self, item: Item, fault: Exception) -> None: ...


class Reactor:
    """Handles messages for the pure functions of one host. See the module for how.

    ``remember``: how many runs are kept in memory at most; 0 where runs are mostly written by other processes.
    """

    def __init__(
        self,
        functions: Mapping[str, Decide],
        store: PostgresStore,
        plans: Plans,
        pricing: Pricing,
        outlet: Outlet,
        *,
        batch: int = 256,
        writers: int = 2,
        max_queue: int = 50_000,
        remember: int = 0,
        gating: Gating,
    ) -> None:
        self._routes = Routes(functions)
        self._store = store
        self._plans = plans
        self._pricing = pricing
        self._outlet = outlet
        self._batch = batch
        self._max_queue = max_queue
        self._memory = Memory(remember, plans)
        self._gating = gating
        self._lanes = [Lane() for _ in range(writers)]
        self._acknowledged: deque[Twin] = deque()
        self._forgetting: asyncio.TimerHandle | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        self._short: dict[UUID, float] = {}  # tenants whose budgets have just refused something, until when

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
        if self._closing or lane.full(item.message.tenant, self._max_queue):
            self._refuse(item, RetryLater("the host is stopping" if self._closing else "too much is queued"))
            return
        lane.items.push(item.message.tenant, item)
        lane.wake.set()

    def acknowledged(self, twin: Twin) -> None:
        """The bus has a public fact: its twin goes with the next transaction."""
        self._acknowledged.append(twin)
        if self._forgetting is None:
            self._forgetting = asyncio.get_running_loop().call_later(FORGET_S, self._nothing_else_came)

    def _nothing_else_came(self) -> None:
        self._forgetting = None
        self._lanes[0].wake.set()

    @property
    def queued(self) -> int:
        return sum(len(lane.items) for lane in self._lanes)

    # -- one writer ------------------------------------------------------------------------------------

    async def _drain(self, lane: Lane) -> None:
        while True:
            if not lane.items:
                if self._closing:
                    return
                lane.wake.clear()
                await lane.wake.wait()
                if not lane.items and self._acknowledged and self._forgetting is None:
                    await self.forget()
                continue
            # One trip round the loop lets everything that is ready to be queued join the batch.
            await asyncio.sleep(0)
            batch = lane.take(self._batch)
            if len(lane.items) > self._batch and (more := self._memory.widest(batch) // 8 - len(batch)) > 0:
                batch += lane.take(more)  # a run of 10,000 open steps is written out with every batch: not 40 times
            try:
                if unheard := self._gating.unknown([item.message.tenant for item in batch]):
                    await self._gating.learn(unheard)
                    for each in self._lanes:
                        each.items.weights(self._gating.limits.weights())
                known, others = self._memory.split(batch)
                if self._short:
                    known, others = self._look_first(known, others)
                if known:
                    others = await self._from_memory(known) + others
                if others:
                    await self._settle(others)
            except RetryLater as fault:
                for item in batch:
                    self._refuse(item, fault)
            except Exception as fault:  # a fault of ours: this batch suffers, the writer goes on
                log.exception("writer failed", items=len(batch))
                for item in batch:
                    self._refuse(item, fault)

    async def _from_memory(self, items: list[Item]) -> list[Item]:
        """Decide upon runs as this process knows them; returns the items that have to go the long way.

        Nothing is concluded from memory but what the fence confirms: an item that changes nothing, or is refused,
        is looked at again with its run locked.
        """
        began = time.perf_counter()
        batch = self._batch_of(self._memory.runs(items), {}, self._facts_from_memory())
        for item in items:
            batch.decide(item)
        written = batch.changes.runs
        if batch.refused or len(written) < len(batch.runs):
            doubtful = {item.message.run for item, _ in batch.refused}
            doubtful.update(item.message.run for item in items if item.message.run not in written)
            # Another item of the same run may rest on the doubtful one: they go together.
            certain = [item for item in items if item.message.run not in doubtful]
            rest = [item for item in items if item.message.run in doubtful]
            self._memory.forget(doubtful)
            return (await self._from_memory(certain) if certain else []) + rest
        forgotten = self._take_acknowledged()
        for twin in forgotten:
            batch.changes.consume(twin)
        tenants = {item.message.tenant for item in items}
        tenants.update(twin[0] for twin in forgotten)
        try:
            await self._store.commit(tenants, batch.changes)
        except Exception as fault:
            self._acknowledged.extendleft(forgotten)
            self._memory.forget(batch.runs)
            until = time.monotonic() + SHORT_S
            self._short |= {tenant: until for tenant, _ in batch.changes.budgets}
            if not isinstance(fault, Raced):
                log.info("batch failed, taking the long way", items=len(items), reason=str(fault))
            return items
        self._done(batch, began)
        return []

    def _look_first(self, known: list[Item], others: list[Item]) -> tuple[list[Item], list[Item]]:
        """Where a budget has just refused something, the database is looked at before it is asked again."""
        now = time.monotonic()
        self._short = {tenant: until for tenant, until in self._short.items() if until > now}
        short = self._short
        looking = [item for item in known if item.message.tenant in short]
        return [item for item in known if item.message.tenant not in short], others + looking

    async def _settle(self, items: list[Item]) -> None:
        """Handle a batch; if it fails as a whole for one item's fault, handle its halves, until that one is alone."""
        try:
            await self._transact(items)
        except RetryLater as fault:
            for item in items:
                self._refuse(item, fault)
        except Exception as fault:
            if len(items) == 1:
                log.warning(
                    "message failed",
                    name=items[0].message.name,
                    event_id=items[0].message.id,
                    reason=str(fault),
                )
                self._refuse(items[0], fault)
                return
            log.info("batch failed, looking for the item at fault", items=len(items), reason=str(fault))
            half = len(items) // 2
            await self._settle(items[:half])
            await self._settle(items[half:])

    async def _transact(self, items: list[Item]) -> None:
        began = time.perf_counter()
        for tries in range(MAX_RACES):
            try:
                batch = await self._attempt(items, firmly=tries > 0)
                break
            except Raced:
                continue
        else:
            raise RetryLater("lost too many races for the same rows")
        self._done(batch, began)

    def _done(self, batch: Batch, began: float) -> None:
        """A batch has been committed: remember its runs, answer, send, tell."""
        self._memory.keep(batch.changes.runs, batch.changes.chains)
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

    async def _attempt(self, items: list[Item], *, firmly: bool) -> Batch:
        """Decide upon runs as the database has them. ``firmly``: others have been faster once, and are not again."""
        tenants = {item.message.tenant for item in items}
        forgotten = self._take_acknowledged()
        tenants.update(twin[0] for twin in forgotten)
        try:
            async with self._store.transaction(list(tenants)) as tx:
                loaded = await tx.load({(item.message.tenant, item.message.run) for item in items}, firmly=firmly)
                self._store.heard(loaded)
                known = await Known.read(tx, items, loaded.runs, self._plans)
                batch = self._batch_of(loaded.runs, loaded.headroom, self._facts(loaded.now_ms, known))
                fresh = known.fresh
                for item in items:
                    if item.once is None:
                        batch.decide(item)
                        continue
                    once = (item.message.tenant, item.consumer, item.once)
                    if once not in fresh:
                        batch.decided.append((item, batch.runs.get(item.message.run)))
                        if item.twin is not None:
                            batch.changes.consume(item.twin)
                    elif batch.decide(item):
                        fresh.discard(once)  # its repetition may be in the same batch
                for once in fresh:  # not handled: it may come again
                    batch.changes.add("leave_inbox", once)
                for twin in forgotten:
                    batch.changes.consume(twin)
                await tx.save(batch.changes)
        except BaseException:
            self._acknowledged.extendleft(forgotten)
            raise
        return batch

    def _batch_of(
        self,
        runs: dict[UUID, Run],
        headroom: dict[UUID, Headroom],
        facts: Callable[[Item, Run | None, Headroom], Facts],
    ) -> Batch:
        gating = None if self._gating.idle else self._gating
        return Batch(self._routes, runs, headroom, facts, gating, Changes(self._store.keys))

    # -- what decisions may know -----------------------------------------------------------------------

    def _facts(self, now_ms: int, known: Known) -> Callable[[Item, Run | None, Headroom], Facts]:
        pricing = self._pricing

        def facts(item: Item, run: Run | None, headroom: Headroom) -> Facts:
            message = item.message
            plan, version = known.plan(message, run)
            return Facts(
                now_ms=now_ms,
                plan=plan,
                version=version,
                price=pricing.price(message.tenant) if message.name in PLANNED else None,
                tool_price=pricing.tool_price(message.tenant) if message.name in PLANNED else None,
                tokens=pricing.tokens,
                window=pricing.window,
                headroom=headroom,
                step_input=known.step_inputs.get((message.run, message.data.get("step", 0))),
                triggered=known.triggered.get(message.run, ()),
                subscribers=known.subscribers.get(message.run, ()),
                claimed=looks_for_claim(message)
                and (message.run, f"{message.data['step']}.{message.data['attempt']}") in known.claimed,
                template=known.templates.get(message.run),
            )

        return facts

    def _facts_from_memory(self) -> Callable[[Item, Run | None, Headroom], Facts]:
        """Tenants' budgets are not looked at: the database refuses what does not fit, and the long way says why."""
        now_ms, plan_for, tokens = self._store.now_ms(), self._memory.plan, self._pricing.tokens
        pricing = self._pricing

        def facts(item: Item, run: Run | None, _: Headroom) -> Facts:
            message = item.message
            plan, version = plan_for(message, run)
            if message.name not in PLANNED:
                return Facts(now_ms, plan, version, tokens=tokens)
            price, tool_price = pricing.price(message.tenant), pricing.tool_price(message.tenant)
            return Facts(
                now_ms, plan, version, price, tool_price=tool_price, tokens=tokens, window=pricing.window
            )

        return facts

    # -- twins of public facts ---------------------------------------------------------------------------

    def _take_acknowledged(self) -> list[Twin]:
        taken = list(self._acknowledged)
        self._acknowledged.clear()
        return taken

    async def forget(self) -> None:
        """Drop the twins of facts that the bus has by now, where no other transaction does it."""
        forgotten = self._take_acknowledged()
        if not forgotten:
            return
        try:
            await self._store.consume(forgotten)
        except Exception as fault:  # they are published: at worst the relay publishes them once more
            log.warning("twins of facts are still there", twins=len(forgotten), reason=str(fault))
