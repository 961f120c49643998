"""What becomes of a message on the bus: acknowledged once handled, tried again, or parked with its reason.

What can never be handled is parked at once, what may be is tried again, what keeps failing is parked after
``TRIES`` deliveries. Others go on meanwhile, and nothing is dropped.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import NAMESPACE_OID, uuid5

import structlog

from agentflow.bus.parts import place
from agentflow.control.ports import ParkedMessage
from agentflow.errors import AgentFlowError, Conflict, Rejected, RetryLater
from agentflow.observe import metrics
from agentflow.runtime.batch import Leaving
from agentflow.runtime.envelope import envelope, identity, incoming, opened
from agentflow.store.changes import Twin, dump
from agentflow.store.postgres import SYSTEM, Parcel, PostgresStore
from agentflow.wire.catalogue import CATALOGUE, incoming_subject, tenant_of_subject
from agentflow.wire.event import Event
from agentflow.wire.nats import from_nats, to_nats

if TYPE_CHECKING:
    from agentflow.bus.parts import Delivered

log = structlog.get_logger(__name__)
KNATIVE_ERRORS = ("knativeerrorcode", "knativeerrordest", "knativeerrordata")
TRIES = 5  # deliveries after which a message that keeps failing is parked
BACKOFF_S = (0.2, 1.0, 3.0, 10.0)


class Parking:
    """Stands between the bus and the handlers of one host."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    def guard(
        self, consumer: str, work: Callable[[Delivered], Awaitable[None]]
    ) -> Callable[[Delivered], Awaitable[None]]:
        """``work(message)`` as a handler of the bus that sees to the message's end."""

        async def handle(msg: Delivered) -> None:
            tries = msg.metadata.num_delivered or 1
            try:
                await work(msg)
            except RetryLater as fault:
                await msg.nak(delay=fault.after)
            except Exception as fault:
                if isinstance(fault, Rejected | Conflict) or tries >= TRIES:
                    await self._park(consumer, msg, fault, tries)
                    return
                log.warning("will be tried again", consumer=consumer, tries=tries, reason=str(fault))
                await msg.nak(delay=BACKOFF_S[min(tries, len(BACKOFF_S)) - 1])
            else:
                await msg.ack()

        return handle

    async def park_message(self, leave: Leaving, fault: Exception) -> None:
        """Park a message that never was on the bus; it can be retried from there like any other."""
        event, subject = envelope(leave)
        headers, payload = to_nats(event)
        parked_id = uuid5(NAMESPACE_OID, f"{leave.message.id}:{leave.consumer}")
        tenant = leave.message.tenant
        parcel = Parcel(
            tenant, parked_id, leave.consumer, subject, _reason(fault), headers, payload, 1, leave.twin
        )
        await self._keep(parcel)

    async def park_event(self, consumer: str, event: Event) -> None:
        """Park an event that something before us (a Broker of Knative) has given up on; ``RetryLater`` when it can't be
        kept now. What that says of why goes into the reason."""
        said = dict(event.extensions)
        why = [str(said.pop(name)) for name in KNATIVE_ERRORS if name in said]
        event = replace(event, extensions=said)
        tenant = event.tenant or SYSTEM
        entry = CATALOGUE.get(event.name)
        subject = entry.subject(tenant) if entry is not None else incoming_subject(tenant, "event")
        headers, payload = to_nats(event)
        parked_id = uuid5(NAMESPACE_OID, f"{event.source}\n{event.id}:{consumer}")
        reason = f"was not delivered: {' '.join(why) or 'no reason was given'}"[:2000]
        if not await self._keep(Parcel(tenant, parked_id, consumer, subject, reason, headers, payload, 1, None)):
            raise RetryLater("PostgreSQL is not there")

    async def _park(self, consumer: str, msg: Delivered, fault: Exception, tries: int) -> None:
        tenant = tenant_of_subject(msg.subject) or SYSTEM
        headers = {name: text.replace("\0", "\ufffd") for name, text in (msg.headers or {}).items()}
        twin = _twin(msg, consumer)
        # The same message parks under the same id, however often it was sent or is delivered before it is gone.
        where = place(msg) if twin is None else f"{twin[1]}:{twin[2]}"
        parked_id = uuid5(NAMESPACE_OID, f"{where}:{consumer}")
        parcel = Parcel(
            tenant, parked_id, consumer, msg.subject, _reason(fault), headers, msg.data, tries, twin
        )
        if await self._keep(parcel):
            await msg.term()
        else:
            await msg.nak(delay=1.0)

    async def _keep(self, parcel: Parcel) -> bool:
        try:
            await self._store.park(parcel)
        except RetryLater:
            return False  # on the bus it is delivered again; off the bus, its twin brings it back
        metrics.parked(parcel.consumer)
        log.error(
            "parked",
            consumer=parcel.consumer,
            subject=parcel.subject,
            reason=parcel.reason,
            tries=parcel.tries,
        )
        return True


async def restored(parked: ParkedMessage, store: PostgresStore) -> Leaving | None:
    """A parked message of ours as it was before it left; None for a client's event, or what can't be read."""
    if incoming(parked.subject):
        return None
    try:
        event = from_nats(parked.headers, parked.payload, parked.tenant)
        message = await opened(event, parked.tenant, parked.consumer, store)
    except Rejected:
        return None
    return Leaving(parked.consumer, message, dump(message.data) or b"", tries=1)


def _reason(fault: Exception) -> str:
    text = str(fault).replace("\0", "\ufffd")
    return text if isinstance(fault, AgentFlowError) else f"{type(fault).__name__}: {text}"


def _twin(msg: Delivered, consumer: str) -> Twin | None:
    """The durable twin of a message of ours, as far as it can be read."""
    try:
        event = from_nats(msg.headers, msg.data, tenant_of_subject(msg.subject))
        if event.tenant is None or event.name not in CATALOGUE:
            return None
        return (event.tenant, *identity(event), consumer)
    except Rejected:
        return None
