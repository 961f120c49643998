"""Admission: which of the requests that wait may go now. Pure: rows in, rows out, time as an argument (seconds).

Requests wait in *lines*, one for each gate of a tenant. Of a line only the first few rows are known here, the
*heads*; the rest is in the outbox. Between the tenants that want the same thing (a model, a tool, a run) the order
is that of a fair queue; a line whose tenant, workflow or the like is at its limit stands aside until something of
that scope is free again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from uuid import UUID

from agentflow.core.bucket import Bucket
from agentflow.core.fair import Fair
from agentflow.core.limits import GATED, OPERATOR, RUNS, SLOT, Limit, Limits, Scope, scopes_of

ROOM: Scope = (OPERATOR, "room")  # what runs wait for that nothing but the system's load keeps waiting

PREFETCH = 256  # most lines whose heads are asked for at once
READ_AHEAD = 512  # rows asked for at once, over all lines

Key = tuple[UUID, str]  # run, key
Gate = tuple[UUID, str]  # tenant, gate


class Waiting(NamedTuple):
    """A row that waits: its key in the outbox."""

    tenant: UUID
    gate: str
    run: UUID
    key: str
    consumer: str
    priority: int


class Line:
    """What waits before one gate of one tenant.

    It has at most one place in its queue: where it was ``placed`` (a priority) with its ``ticket``. Entries of older
    tickets are void and dropped when they come up.
    """

    __slots__ = (
        "aside", "gate", "heads", "limits", "more", "own", "placed", "priority", "resource", "shared", "tenant",
        "ticket",
    )  # fmt: skip

    def __init__(self, tenant: UUID, gate: str) -> None:
        self.tenant = tenant
        self.gate = gate
        self.resource, self.own, self.shared = scopes_of(tenant, gate)
        self.heads: deque[Waiting] = deque()
        self.more = False  # whether there may be rows behind the heads
        self.priority = 0  # of the first row, as far as known
        self.placed: int | None = None
        self.ticket = 0
        self.aside: Scope | None = None
        self.limits: tuple[tuple[Scope, int | None, Bucket | None], ...] = ()

    @property
    def empty(self) -> bool:
        return not self.heads and not self.more


class Admission:
    """Counts what is in use and picks what goes next. A new one is conservative: its buckets start empty.

    ``room``: how many runs may start now without the system having more under way than is good for anybody; a tenant
    that has none in progress does not wait for that.
    """

    def __init__(self, limits: Limits, now: float) -> None:
        self.room = 0
        self.short_of_room = False
        """Whether the last pick left runs behind for want of room alone."""
        self._lines: dict[Gate, Line] = {}
        self._queues: dict[str, Fair[tuple[Line, int]]] = {}
        self._used: Counter[Scope] = Counter()
        self._held: dict[Key, tuple[Scope, ...]] = {}
        self._aside: dict[Scope, list[Line]] = {}
        self._alarms: dict[Scope, float] = {}  # when a bucket that somebody waits for has a token again
        self._buckets: dict[Scope, Bucket] = {}
        self._headless: dict[Line, None] = {}  # lines in a queue whose heads must be read
        self._weights: dict[UUID, int] = {}
        self._limits = Limits()
        self._set(limits, now, full=False)

    # -- what is known -----------------------------------------------------------------------------------

    def limits(self, limits: Limits, now: float) -> None:
        """The limits have changed. Buckets that are new start full: nothing was limited until now."""
        self._set(limits, now, full=True)

    def counted(self, rows: Iterable[tuple[UUID, str, UUID, str]]) -> None:
        """All admitted rows there are: (tenant, gate, run, key). Replaces what was counted before."""
        self._held.clear()
        self._used.clear()
        lines: dict[Gate, Line] = {}
        for tenant, gate, run, key in rows:
            line = lines.get((tenant, gate))
            if line is None:
                line = lines[tenant, gate] = Line(tenant, gate)
            self._hold(line, run, key)
        for idle in [known for known, line in self._lines.items() if line.empty]:
            del self._lines[idle]
        for resource in [resource for resource, queue in self._queues.items() if not queue]:
            del self._queues[resource]
        for scope in list(self._aside):
            self._return(scope)

    def found(self, tenant: UUID, gate: str, priority: int) -> None:
        """Something waits before a gate, the first of it with this priority."""
        line = self._lines.get((tenant, gate))
        if line is None:
            line = self._lines[tenant, gate] = Line(tenant, gate)
            self._bind(line)
        if line.empty:
            line.more = True
            self._enter(line, priority)
            return
        line.more = True
        if line.heads and priority > line.heads[-1].priority:
            line.heads.clear()  # it belongs before some of those that are known
        self._enter(line, max(priority, line.priority))

    def read(self, tenant: UUID, gate: str, rows: Sequence[Waiting], *, more: bool) -> None:
        """The first rows that wait before a gate, in order; ``more``: perhaps not all."""
        line = self._lines.get((tenant, gate))
        if line is None:
            return
        line.heads = deque(rows)
        line.more = more and bool(rows)
        if rows:
            self._enter(line, rows[0].priority)
        else:
            self._leave(line)

    def freed(self, run: UUID, key: str) -> None:
        """An admitted row is gone: what it held is free again. Saying it twice changes nothing."""
        for scope in self._held.pop((run, key), ()):
            self._used[scope] -= 1
            if scope in self._aside:
                self._return(scope)

    @property
    def waiting(self) -> bool:
        """Whether anything waits, as far as known."""
        return any(not line.empty for line in self._lines.values())

    # -- what may go -------------------------------------------------------------------------------------

    def pick(self, now: float, most: int) -> list[Waiting]:
        """The rows that go now, at most so many; what they need is held for them.

        Stops at a line whose heads are not known: ask ``unread``, ``read`` them and pick again.
        """
        for scope in [scope for scope, at in self._alarms.items() if at <= now]:
            del self._alarms[scope]
            self._return(scope)
        self.short_of_room = False
        picked: list[Waiting] = []
        queues = list(self._queues)
        while queues and len(picked) < most:
            # One of each in turn: a long queue for one model is no reason to keep those for another waiting.
            queues = [resource for resource in queues if self._pick_one(resource, now, picked)]
        return picked

    def unread(self) -> list[Gate]:
        """The gates whose first rows must be known before more can be picked."""
        first = [line for resource in self._queues if (line := self._first(resource)) and not line.heads]
        if not first:
            return []
        wanted = dict.fromkeys(first) | self._headless
        return [(line.tenant, line.gate) for line in list(wanted)[:PREFETCH]]

    def missed(self, row: Waiting) -> None:
        """A row that was picked is not there any more: what was held for it is free again."""
        line = self._lines.get((row.tenant, row.gate))
        for _, _, bucket in line.limits if line is not None else ():
            if bucket is not None:
                bucket.give()
        self.freed(row.run, SLOT if row.key == GATED else row.key)

    def next_time(self) -> float | None:
        """When to pick again even if nothing happens; None: only when something happens."""
        return min(self._alarms.values(), default=None)

    # -- lines and their places --------------------------------------------------------------------------

    def _pick_one(self, resource: str, now: float, picked: list[Waiting]) -> bool:
        queue = self._queues[resource]
        while (line := self._first(resource)) is not None:
            obstacle = self._obstacle(line, now)
            if obstacle in line.shared or obstacle is ROOM:
                return False  # nobody who wants this can go
            if obstacle is not None:
                queue.drop()
                self._leave(line)
                line.aside = obstacle
                self._aside.setdefault(obstacle, []).append(line)
                continue
            if not line.heads:
                return False
            queue.pop()
            line.placed = None
            row = line.heads.popleft()
            self._hold(line, row.run, row.key)
            self.room -= line.resource == RUNS
            for _, _, bucket in line.limits:
                if bucket is not None:
                    bucket.take(now)
            picked.append(row)
            if not line.empty:
                self._enter(line, line.heads[0].priority if line.heads else row.priority)
            return True
        return False

    def _first(self, resource: str) -> Line | None:
        queue = self._queues[resource]
        while queue:
            line, ticket = queue.peek()
            if ticket == line.ticket:
                return line
            queue.drop()
        return None

    def _obstacle(self, line: Line, now: float) -> Scope | None:
        """The scope that a line has to wait for; None: it may go."""
        for scope, concurrency, bucket in line.limits:
            if concurrency is not None and self._used[scope] >= concurrency:
                return scope
            if bucket is not None and (wait := bucket.wait(now)):
                self._alarms[scope] = now + wait
                return scope
        if line.resource == RUNS and self.room <= 0 and self._used[line.tenant, "tenant"]:
            self.short_of_room = True
            return ROOM
        return None

    def _enter(self, line: Line, priority: int) -> None:
        """Give a line its place in the queue, unless it stands aside; the place it had elsewhere is void."""
        line.priority = priority
        if line.aside is not None:
            return
        if line.placed != priority:
            queue = self._queues.get(line.resource)
            if queue is None:
                queue = self._queues[line.resource] = Fair()
                queue.weights(self._weights)
            line.ticket += 1
            line.placed = priority
            queue.push(line.tenant, (line, line.ticket), priority)
        if line.heads:
            self._headless.pop(line, None)
        else:
            self._headless[line] = None

    def _leave(self, line: Line) -> None:
        """The line has no place in the queue."""
        line.ticket += 1
        line.placed = None
        self._headless.pop(line, None)

    def _return(self, scope: Scope) -> None:
        """Lines that stood aside for a scope take part again."""
        for line in self._aside.pop(scope, ()):
            line.aside = None
            if not line.empty:
                self._enter(line, line.priority)

    # -- what is in use ----------------------------------------------------------------------------------

    def _hold(self, line: Line, run: UUID, key: str) -> None:
        key = (
            SLOT if key == GATED else key
        )  # the request for a run, and what stands for the run when it is planned
        if (run, key) in self._held:
            return
        self._held[run, key] = scopes = (*line.own, *line.shared)
        for scope in scopes:
            self._used[scope] += 1

    def _set(self, limits: Limits, now: float, *, full: bool) -> None:
        self._limits = limits
        rates: dict[Scope, Limit] = {s: limit for s, limit in limits.items() if limit.per_second is not None}
        for gone in self._buckets.keys() - rates.keys():
            del self._buckets[gone]
        for scope, limit in rates.items():
            assert limit.per_second is not None
            if (bucket := self._buckets.get(scope)) is not None:
                bucket.change(limit.per_second, limit.depth, now)
            else:
                self._buckets[scope] = Bucket(limit.per_second, limit.depth, now, full=full)
        self._weights = limits.weights()
        for queue in self._queues.values():
            queue.weights(self._weights)
        self._alarms.clear()
        for line in self._lines.values():
            self._bind(line)
        for scope in list(self._aside):
            self._return(scope)

    def _bind(self, line: Line) -> None:
        found: list[tuple[Scope, int | None, Bucket | None]] = []
        for scope in (*line.shared, *line.own):
            limit = self._limits.get(scope)
            if limit is not None and limit.binds:
                found.append((scope, limit.concurrency, self._buckets.get(scope)))
        line.limits = tuple(found)
