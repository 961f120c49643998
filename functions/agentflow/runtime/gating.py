"""Gating: what a host knows of limits, and so which of its messages have to wait before a gate.

Limits are read when a tenant is first seen, again when a hint says that they have changed, and every half a minute in
case the hint was lost. A host that sends run requests over the bus also minds how many of a tenant's are on their way:
the bus hands them out in the order they came, so what is more waits where the gatekeeper can be fair, and so does what
comes after it until the last of it has gone its way.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from time import monotonic
from uuid import UUID

from agentflow.core.limits import OPERATOR, Limit, Limits
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.run import Run

KNOWN_S = 30.0
WINDOW = 64  # a tenant's run requests on their way from this host to plan
LOST_S = 10.0  # after this long, a hint that a run has been planned is taken for lost
CALLS = {"llm.requested": "model", "tool.requested": "tool"}

Read = Callable[[Sequence[UUID]], Awaitable[list[tuple[UUID, str, Limit]]]]
Also = Callable[[set[UUID]], Awaitable[None]]


class Gating:
    """``read`` gives the limits of tenants; ``also`` reads what else is to be known of them, and goes stale with those.
    ``sends_requests``: whether run requests leave this host by the bus."""

    def __init__(self, read: Read, *, sends_requests: bool, also: Also | None = None) -> None:
        self.limits = Limits()
        self._read = read
        self._also = also
        self._known: set[UUID] = set()
        self._until = 0.0
        self._sends_requests = sends_requests
        self._under_way: OrderedDict[UUID, tuple[UUID, float]] = OrderedDict()  # run -> tenant, since when
        self._count: Counter[UUID] = Counter()
        # Tenants of which runs wait, with the last of them; a hint about it that is lost is made up for by the next.
        self._last: dict[UUID, UUID] = {}
        self._tenant_of: dict[UUID, UUID] = {}  # by the last run

    @property
    def idle(self) -> bool:
        """Whether nothing here could have to wait."""
        return not (self.limits.any or self._sends_requests)

    # -- what is known -----------------------------------------------------------------------------------

    def unknown(self, tenants: Iterable[UUID]) -> set[UUID]:
        """Of these tenants, those whose limits must be read before anything of theirs is decided."""
        if monotonic() > self._until:
            self._known.clear()
        missing = set(tenants) - self._known
        return missing | {OPERATOR} - self._known if missing else missing

    async def learn(self, tenants: set[UUID]) -> None:
        """Read the limits of tenants. ``RetryLater`` when the store can't be reached."""
        if OPERATOR in tenants:
            self._until = monotonic() + KNOWN_S
        self._known |= tenants  # a hint that comes while they are read has them read again
        try:
            found = await self._read(sorted(tenants))
            if self._also is not None:
                await self._also(tenants)
        except BaseException:
            self._known -= tenants
            raise
        self.limits.tell(tenants, found)

    def changed(self, tenant: UUID) -> None:
        """A tenant's limits are not what they were."""
        self._known.discard(tenant)
        if tenant == OPERATOR:
            self._known.clear()

    def planned(self, runs: Iterable[UUID]) -> None:
        """Runs have changed elsewhere: their requests have arrived."""
        if self._under_way or self._last:
            for run in runs:
                self._arrived(run)

    # -- what has to wait --------------------------------------------------------------------------------

    def gate(self, message: Message, run: Run, plan: Plan | None, *, leaves: bool) -> str | None:
        """What a message about a run has to wait before, if anything; ``leaves``: whether it leaves by the bus."""
        kind = CALLS.get(message.name)
        if kind is not None and plan is not None:
            gate = f"{kind}:{plan.tasks[message.data['task']].use}"
            return gate if self.limits.bind(message.tenant, gate) else None
        if message.name != "run.requested":
            return None
        gate = f"workflow:{run.workflow}"
        if self.limits.bind(run.tenant, gate):
            return gate
        return gate if leaves and self._sends_requests and self._is_crowded(run.tenant, run.id) else None

    def must_wait_new(self, request: Message) -> bool:
        """Whether a run that nobody has recorded yet (an event has started it) has to wait."""
        return self.limits.bind(request.tenant, f"workflow:{request.data['workflow']}")

    def counts(self, report: Message, plan: Plan | None) -> bool:
        """Whether the call that is reported is one that a limit counts."""
        if plan is None or not self.limits.any:
            return False
        task = plan.tasks[report.data["task"]]
        kind = "model" if task.kind == "llm" else "tool"
        return self.limits.bind(report.tenant, f"{kind}:{task.use}")

    def _is_crowded(self, tenant: UUID, run: UUID) -> bool:
        now = monotonic()
        under_way = self._under_way
        while under_way:
            oldest, (_, since) = next(iter(under_way.items()))
            if now - since < LOST_S:
                break
            self._arrived(oldest)
        if run in under_way:
            return False
        if tenant in self._last or self._count[tenant] >= WINDOW:
            # What comes later is not to go past what waits.
            self._tenant_of.pop(self._last.get(tenant, run), None)
            self._last[tenant] = run
            self._tenant_of[run] = tenant
            return True
        under_way[run] = (tenant, now)
        self._count[tenant] += 1
        return False

    def _arrived(self, run: UUID) -> None:
        if (waited := self._tenant_of.pop(run, None)) is not None:
            del self._last[waited]
        entry = self._under_way.pop(run, None)
        if entry is None:
            return
        tenant = entry[0]
        self._count[tenant] -= 1
        if not self._count[tenant]:
            del self._count[tenant]
