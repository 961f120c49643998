"""A batch being decided: every item in turn, pure functions of the same host fused into one transaction.

No I/O here. What an item leads to is added to the changes only when the whole item has been decided, so a
bad item leaves no trace in its neighbours' transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

from agentflow.core.decision import Decision, Facts, Headroom, LedgerEntry
from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.runtime import spans
from agentflow.store.changes import Changes, Twin, dump
from agentflow.wire.catalogue import CATALOGUE
from agentflow.wire.claim import INLINE_LIMIT, blob_ref

Decide = Callable[[Run | None, Message, Facts], Decision]
EFFECTS = frozenset({"invoke_llm", "run_tool"})
FACTS = "facts"  # the consumer of public facts: whoever subscribed on the bus
UNLIMITED = Headroom()
SOON_MS = 3_000  # a message that a crash left behind is sent again after this long
FACT_MS = 30_000  # a public fact, where nothing waits for it


@dataclass(slots=True, eq=False)
class Item:
    """One message for one function. ``twin`` is its durable copy, consumed with it; ``once`` marks messages
    that have no other protection against being handled twice."""

    consumer: str
    message: Message
    twin: Twin | None = None
    once: str | None = None
    done: asyncio.Future[Run | None] | None = None


@dataclass(frozen=True, slots=True)
class Leaving:
    """A message for a function that is not in this transaction; sent after commit."""

    consumer: str
    message: Message
    data: str
    tries: int = 0  # how often it has been sent again

    @property
    def twin(self) -> Twin:
        return (self.message.tenant, self.message.run, self.message.key, self.consumer)

    @property
    def blob(self) -> tuple[str, bytes] | None:
        """Where the data is left (reference, content) when it is too large to travel inside the event."""
        if len(self.data) * 4 <= INLINE_LIMIT:  # at most four bytes a character
            return None
        content = self.data.encode()
        return (blob_ref(content), content) if len(content) > INLINE_LIMIT else None


@dataclass(slots=True)
class Batch:
    """What a transaction knows and what it will do."""

    functions: Mapping[str, Decide]
    runs: dict[UUID, Run]
    headroom: dict[UUID, Headroom]
    facts: Callable[[Item, Run | None, Headroom], Facts]
    changes: Changes = field(default_factory=Changes)
    leaving: list[Leaving] = field(default_factory=list)
    decided: list[tuple[Item, Run | None]] = field(default_factory=list)
    refused: list[tuple[Item, Exception]] = field(default_factory=list)
    reached: set[UUID] = field(default_factory=set)  # runs that have come to another status

    def decide(self, item: Item) -> None:
        """Decide upon an item and all that follows from it within this host; a refusal is kept with the item."""
        before = self.runs.get(item.message.run)
        try:
            run, decisions, leaving = self._fuse(item, before)
        except Exception as refusal:
            self.refused.append((item, refusal))
            return
        changes = self.changes
        if run is not None and run is not before:
            changes.run(run, new=before is None)
            if before is None or before.status != run.status:
                self.reached.add(run.id)
            self.runs[run.id] = run
        for after, decision in decisions:
            for row in decision.rows:
                changes.row(after, row)
                if row.__class__ is LedgerEntry:
                    self._charge(after.tenant, row)
        for leave in leaving:
            self._keep(leave)
        if item.twin is not None:
            changes.consume(item.twin)
        self.decided.append((item, run))

    def _fuse(
        self, item: Item, run: Run | None
    ) -> tuple[Run | None, list[tuple[Run, Decision]], list[Leaving]]:
        queue = deque([(item.consumer, item.message)])
        decisions: list[tuple[Run, Decision]] = []
        leaving: list[Leaving] = []
        facts = self.facts(item, run, self.headroom.get(item.message.tenant, UNLIMITED))
        while queue:
            consumer, message = queue.popleft()
            with spans.deciding(consumer, message) as trace:
                decision = self.functions[consumer](run, message, facts)
            if decision.run is not None:
                run = decision.run
            if decision.rows:
                assert run is not None
                decisions.append((run, decision))
            for out in decision.messages:
                self._direct(out if trace is None else replace(out, trace=trace), item, queue, leaving)
        return run, decisions, leaving

    def _direct(
        self, out: Message, item: Item, queue: deque[tuple[str, Message]], leaving: list[Leaving]
    ) -> None:
        """Fuse what a pure function here consumes about the same run; everything else leaves."""
        entry = CATALOGUE[out.name]
        away: list[str] = [FACTS] if entry.public else []
        for consumer in entry.consumers:
            # Another run is not locked here: locks are taken in order, at the start.
            if consumer in self.functions and out.run == item.message.run and consumer not in EFFECTS:
                queue.append((consumer, out))
            else:
                away.append(consumer)
        if away:
            data = dump(out.data)
            assert data is not None
            leaving += [Leaving(consumer, out, data) for consumer in away]

    def _keep(self, leave: Leaving) -> None:
        message = leave.message
        due_ms = FACT_MS if leave.consumer == FACTS else SOON_MS
        self.changes.request(message, leave.consumer, leave.data, due_ms)
        if (blob := leave.blob) is not None:
            self.changes.add("insert_blobs", (message.tenant, *blob))
        self.leaving.append(leave)

    def _charge(self, tenant: UUID, entry: LedgerEntry) -> None:
        """What one item of the batch holds is no longer there for the next."""
        seen = self.headroom.get(tenant)
        if seen is None:
            return
        spent = entry.amount_micro if entry.entry == "settle" else 0
        self.headroom[tenant] = replace(
            seen, held_micro=seen.held_micro + entry.held_micro, spent_micro=seen.spent_micro + spent
        )
