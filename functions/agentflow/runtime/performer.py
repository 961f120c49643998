"""The performer: external calls, made with no transaction open, reported in one.

At-least-once call, exactly one accepted result: the report goes to the reactor, which takes the first one an
attempt gets. A call whose process dies is requested again by the relay, because its twin is still there. One that
must not be repeated blindly is claimed before it is made (``claims``): found claimed, it is not made.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from uuid import UUID

import structlog

from agentflow.core.message import Message
from agentflow.core.money import LOST, NOT_CALLED
from agentflow.core.performed import Begins, Effect, Performed
from agentflow.core.plan import UNKNOWN
from agentflow.errors import AgentFlowError, RetryLater, UnknownOutcome
from agentflow.observe import metrics, traces
from agentflow.runtime import spans
from agentflow.runtime.batch import Item
from agentflow.runtime.claims import LEASE_S, Claims
from agentflow.runtime.patience import until_taken
from agentflow.runtime.reactor import Reactor
from agentflow.store.postgres import PostgresStore

log = structlog.get_logger(__name__)
MINDED_AFTER_S = 1.0  # the relay sends again after three seconds; a call is at most two old when it is told
LANDING_MS = 3_000
CANCELLED_S = 8.0  # for what a call holds to be given back; the process driver takes five seconds at most


class Performer:
    """Calls in flight for one effect function, at most ``limit``, each request once at a time."""

    def __init__(
        self, function: str, effect: Effect, reactor: Reactor, store: PostgresStore, *, limit: int
    ) -> None:
        self.function = function
        self._effect = effect
        self._reactor = reactor
        self._store = store
        self._limit = limit
        self._flights: dict[tuple[UUID, str], asyncio.Task[None]] = {}
        self._young: dict[
            tuple[UUID, str], Message
        ] = {}  # flights whose requests the relay has not been told of
        self._minder: asyncio.Task[None] | None = None
        self._claims = Claims(function, store)
        self._closing = False

    @property
    def in_flight(self) -> int:
        return len(self._flights)

    def offer(self, request: Message) -> bool:
        """Take a request if there is room and this is not the end; one that is already in flight counts as taken."""
        ready = self._at_once(request)
        if ready is not None:
            self._reactor.offer(ready)  # not taken: its twin brings the request back
            return True
        key = (request.run, request.key)
        if key in self._flights:
            return True
        if self._closing or len(self._flights) >= self._limit:
            return False
        self._fly(key, request)
        return True

    async def finish(self, request: Message) -> None:
        """Perform a request and return once its result is committed (or another's was). ``RetryLater`` at the end."""
        ready = self._at_once(request)
        if ready is not None:
            await self._reactor.handle(ready)
            return
        key = (request.run, request.key)
        flight = self._flights.get(key)
        if flight is None and self._closing:
            raise RetryLater("the host is stopping", after=0.2)
        flight = flight or self._fly(key, request)
        await asyncio.wait([flight])
        if not flight.cancelled() and (fault := flight.exception()) is not None:
            raise fault

    def withdraw(self, run: UUID, key: str) -> None:
        """Nobody waits for this request any more: stop working on it."""
        flight = self._flights.get((run, key))
        if flight is not None:
            flight.cancel()

    async def close(self, *, grace_s: float = 20.0) -> None:
        """Begin no more calls, let those in flight end, cancel what is left: the relay sends their requests again."""
        self._closing = True
        if self._flights:
            await asyncio.wait(list(self._flights.values()), timeout=grace_s)
        if left := list(self._flights.values()):
            for flight in left:
                flight.cancel()
            await asyncio.wait(left, timeout=CANCELLED_S)
        if self._minder is not None:
            self._minder.cancel()
        await self._effect.close()

    def _at_once(self, request: Message) -> Item | None:
        """The report of a call that takes no waiting; None for all others."""
        try:
            performed = self._effect.at_once(request)
        except AgentFlowError as fault:
            performed = failure(fault)
        return self._item(request, performed, 0) if performed is not None else None

    def _fly(self, key: tuple[UUID, str], request: Message) -> asyncio.Task[None]:
        flight = asyncio.create_task(self._perform(request))
        self._flights[key] = flight
        self._young[key] = request
        flight.add_done_callback(lambda _: self._landed(key))
        if self._minder is None:
            self._minder = asyncio.create_task(self._mind(), name=f"mind-{self.function}")
        return flight

    def _landed(self, key: tuple[UUID, str]) -> None:
        self._flights.pop(key, None)
        self._young.pop(key, None)
        self._claims.leave(key)

    async def _mind(self) -> None:
        """Tell the relay of calls that take longer than a moment: it would take them for left behind.

        Short calls, the most, cost nothing for it. Of those that are claimed it is told every time: when their
        process dies nobody else makes them, so that it should be known soon.
        """
        while self._flights:
            old = set(self._young)
            await asyncio.sleep(MINDED_AFTER_S)
            still = {key: self._young.pop(key) for key in old & self._young.keys()}
            if not still:
                continue
            calls = [(m.tenant, m.run, m.key, self.function, self._patience_ms(m)) for m in still.values()]
            renewals = self._claims.renewals(set(still))
            self._young |= {(run, key): still[run, key] for _, run, key, *_ in renewals if (run, key) in self._flights}
            try:
                await self._store.postpone(calls, renewals)
            except RetryLater:
                self._young |= still
        self._minder = None

    def _patience_ms(self, request: Message) -> int:
        """How long a request that is being worked on is not sent again."""
        claimed = self._claims.holds((request.run, request.key))
        return int(LEASE_S * 1000) if claimed else request.data["timeout_ms"] + LANDING_MS

    async def _perform(self, request: Message) -> None:
        claims = claimed(request)
        try:
            if claims and not await self._claims.take(request):
                return
        except UnknownOutcome as fault:
            outcome = failure(fault) if request.data.get("once") else _failed(LOST, str(fault), retryable=True)
            await self._report(self._item(request, outcome, 0))
            return
        began = time.perf_counter()
        metrics.in_flight(self.function, 1)
        try:
            with spans.performing(self.function, request) as span:
                if claims and not self._claims.fresh((request.run, request.key)):
                    performed = _failed(NOT_CALLED, "its claim was over before it began", retryable=True)
                else:
                    performed = await attempt(self._effect.perform, request)
                if span is not None:
                    span.set(traces.tokens(performed.usage))
                    if performed.error:
                        span.fail(performed.error["code"])
                    request = request._replace(trace=span.traceparent)
        finally:
            metrics.in_flight(self.function, -1)
        spent_ms = int((time.perf_counter() - began) * 1000)
        await self._report(self._item(request, performed, spent_ms))

    def _item(self, request: Message, performed: Performed, spent_ms: int) -> Item:
        asked = request.data
        data = {
            "run": asked["run"],
            "step": asked["step"],
            "attempt": asked["attempt"],
            "epoch": asked["epoch"],
            "task": asked["task"],
            "status": "failed" if performed.error else "succeeded",
            "output": performed.output,
            "error": performed.error,
            "usage": performed.usage,
            "cost_micro": 0,
            "duration_ms": spent_ms,
            "late": False,
        }
        if "alias" in asked:
            data["alias"] = asked["alias"]
        report = Message(
            "step.completed", request.tenant, request.run, f"{request.key}:done", data, request.trace
        )
        twin = (request.tenant, request.run, request.key, self.function)
        return Item(self.function, report, twin, claimed=claimed(request))

    async def _report(self, item: Item) -> None:
        """The call has been made and paid for: its result is kept until the store takes it."""
        await until_taken(lambda: self._reactor.handle(item))


def claimed(request: Message) -> bool:
    """Whether a call is claimed before it is made: one that costs money, or must not be repeated blindly."""
    return bool(request.data.get("once")) or request.data["hold_micro"] > 0


async def attempt(perform: Callable[[Message, Begins], Awaitable[Performed]], request: Message) -> Performed:
    """Make one call within its time; every way it can fail becomes a result that dispatch can decide upon.

    A call that may be made once only and was given up after it had begun has an unknown outcome.
    """
    timeout_s = request.data["timeout_ms"] / 1000
    begun = False

    def begins() -> None:
        nonlocal begun
        begun = request.data.get("once", False)

    try:
        async with asyncio.timeout(timeout_s):
            return await perform(request, begins)
    except TimeoutError:
        code, said = "timeout", f"no answer within {timeout_s:g} s"
    except AgentFlowError as fault:
        return failure(fault)
    except Exception as fault:
        log.exception("call failed in a way of our own", task=request.data["task"], event_id=request.id)
        code, said = "internal", f"{type(fault).__name__}: {fault}"
    return failure(UnknownOutcome(f"{code}: {said}")) if begun else _failed(code, said, retryable=True)


def failure(fault: AgentFlowError) -> Performed:
    """What a refusal means for the attempt: only what may pass is worth another."""
    code = getattr(fault, "code", "failed")
    if isinstance(fault, RetryLater):
        return _failed(code, str(fault), retryable=True, retry_after_ms=int(fault.after * 1000))
    said = f"{fault}; it may have had its effect, or not" if code == UNKNOWN else str(fault)
    return _failed(code, said, retryable=False)


def _failed(code: str, message: str, *, retryable: bool, retry_after_ms: int | None = None) -> Performed:
    error = {
        "code": code,
        "message": message[:4000],
        "retryable": retryable,
        "retry_after_ms": retry_after_ms,
    }
    return Performed(output=None, error=error)
