"""A batch being decided: every item in turn, pure functions of the same host fused into one transaction.

No I/O here. What an item leads to is added to the changes only when the whole item has been decided, so a
bad item leaves no trace in its neighbours' transaction.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from agentflow.core.budgets import UNLIMITED, Headroom, scopes
from agentflow.core.decision import CHILD, Decision, Facts, LedgerEntry
from agentflow.core.limits import GATED
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.run import Run
from agentflow.observe import traces
from agentflow.runtime import spans
from agentflow.runtime.gating import Gating
from agentflow.store.changes import Changes, Twin, dump
from agentflow.wire.catalogue import CATALOGUE
from agentflow.wire.claim import INLINE_LIMIT, blob_ref

Decide = Callable[[Run | None, Message, Facts], Decision]
EFFECTS = frozenset({"invoke_llm", "run_tool"})
FACTS = "facts"  # the consumer of public facts: whoever subscribed on the bus
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
    claimed: bool = False  # the report of a call that was claimed: the claim goes with the twin
    done: asyncio.Future[Run | None] | None = None


class Leaving(NamedTuple):
    """A message for a function that is not in this transaction; sent after commit."""

    consumer: str
    message: Message
    data: bytes
    tries: int = 0  # how often it has been sent again
    gate: str | None = None  # what it has to wait before; the gatekeeper sends it

    @property
    def twin(self) -> Twin:
        return (self.message.tenant, self.message.run, self.message.key, self.consumer)

    @property
    def blob(self) -> tuple[str, bytes] | None:
        """Where the data is left (reference, content) when it is too large to travel inside the event."""
        return (blob_ref(self.data), self.data) if len(self.data) > INLINE_LIMIT else None


class Routes:
    """Where messages go from a host that carries some functions: decided upon at once, or away."""

    def __init__(self, functions: Mapping[str, Decide]) -> None:
        self.functions = functions
        self._routes: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {}
        for name, entry in CATALOGUE.items():
            public = (FACTS,) if entry.public else ()
            pure = tuple(c for c in entry.consumers if c in functions and c not in EFFECTS)
            away = tuple(c for c in entry.consumers if c not in pure)
            self._routes[name] = (pure, public + away, public + tuple(entry.consumers))

    def of(self, name: str, *, same_run: bool) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Who decides upon a message in the same transaction, and whom it leaves for.

        Another run is not locked in this transaction: locks are taken in order, at the start.
        """
        fused, away, everybody = self._routes[name]
        return (fused, away) if same_run else ((), everybody)


@dataclass(slots=True)
class Batch:
    """What a transaction knows and what it will do."""

    routes: Routes
    runs: dict[UUID, Run]
    headroom: dict[UUID, Headroom]
    facts: Callable[[Item, Run | None, Headroom], Facts]
    gating: Gating | None = None  # where something may have to wait
    changes: Changes = field(default_factory=Changes)
    leaving: list[Leaving] = field(default_factory=list)
    decided: list[tuple[Item, Run | None]] = field(default_factory=list)
    refused: list[tuple[Item, Exception]] = field(default_factory=list)
    reached: set[UUID] = field(default_factory=set)  # runs that have come to another status

    def decide(self, item: Item) -> bool:
        """Decide upon an item and all that follows from it within this host. False: it was refused, which is kept with
        the item."""
        before = self.runs.get(item.message.run)
        try:
            run, decisions, leaving, plan = self._fuse(item, before)
        except Exception as refusal:
            self.refused.append((item, refusal))
            return False
        changes = self.changes
        if run is not None and run is not before:
            changes.run(run, new=before is None)
            if before is None or before.status != run.status:
                self.reached.add(run.id)
            self.runs[run.id] = run
        for after, decision in decisions:
            for row in decision.rows:
                changes.row(after, row)
                if row.__class__ is LedgerEntry and after is not None:
                    self._charge(after, row)
        for leave in leaving:
            self._keep(leave, run)
        if item.twin is not None:
            changes.consume(item.twin)
            if item.claimed:
                changes.add("release_claims", item.twin[:3])
            if self._frees(item, plan):
                changes.freed.append(item.twin[1:3])
        self.decided.append((item, run))
        return True

    def _fuse(
        self, item: Item, run: Run | None
    ) -> tuple[Run | None, list[tuple[Run | None, Decision]], list[Leaving], Plan | None]:
        first = item.message
        queue = deque([(item.consumer, first)])
        decisions: list[tuple[Run | None, Decision]] = []
        leaving: list[Leaving] = []
        facts = self.facts(item, run, self.headroom.get(first.tenant, UNLIMITED))
        functions = self.routes.functions
        gating = self.gating
        if gating is not None and run is None and first.name == "run.requested" and item.consumer == "plan":
            # A run that another one waits for goes under that one's place: two of them must not wait for each other.
            facts = facts._replace(waits=not first.data.get("parent") and gating.must_wait_new(first))
        traced = traces.recording(first.trace)
        while queue:
            consumer, message = queue.popleft()
            trace = None
            if traced:
                with spans.deciding(consumer, message) as trace:
                    decision = functions[consumer](run, message, facts)
            else:
                decision = functions[consumer](run, message, facts)
            if decision.run is not None:
                run = decision.run
            if decision.rows:
                decisions.append((run, decision))
            for out in decision.messages:
                sent = out if trace is None else out._replace(trace=trace)
                same = out.run is first.run or out.run == first.run
                fused, away = self.routes.of(out.name, same_run=same)
                gate = None
                if gating is not None and same and run is not None:
                    gate = gating.gate(sent, run, facts.plan, leaves=bool(away))
                if gate is not None and run is not None:
                    if sent.name == "run.requested":
                        run, sent = run.but(slot=True), sent._replace(key=GATED)
                    leaving.append(Leaving((fused or away)[0], sent, dump(sent.data) or b"", gate=gate))
                    continue
                for function in fused:
                    queue.append((function, sent))
                if away:
                    data = dump(sent.data)
                    assert data is not None
                    leaving += [Leaving(function, sent, data) for function in away]
        return run, decisions, leaving, facts.plan

    def _keep(self, leave: Leaving, run: Run | None) -> None:
        message = leave.message
        if (blob := leave.blob) is not None:
            self.changes.add("insert_blobs", (message.tenant, *blob))
        if leave.gate is not None and run is not None:
            self.changes.wait(message, leave.consumer, leave.data, leave.gate, run.priority)
            return
        due_ms = FACT_MS if leave.consumer == FACTS else SOON_MS
        self.changes.request(message, leave.consumer, leave.data, due_ms)
        self.leaving.append(leave)

    def _frees(self, item: Item, plan: Plan | None) -> bool:
        """Whether the gatekeeper counts the call that is reported with this item."""
        return self.gating is not None and item.consumer in EFFECTS and self.gating.counts(item.message, plan)

    def _charge(self, run: Run, entry: LedgerEntry) -> None:
        """What one item of the batch holds is no longer there for the next."""
        seen = self.headroom.get(run.tenant)
        if seen is None:
            return
        spent = entry.amount_micro if entry.entry in ("settle", "correct") else 0
        self.headroom[run.tenant] = seen.charged(scopes(run, child=entry.price == CHILD), entry.held_micro, spent)
