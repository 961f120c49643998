"""Receiving: from a message on the bus or an HTTP request to an item for the reactor or a call to perform."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import orjson

from agentflow.bus.jetstream import sent_again
from agentflow.core.decide.api import CORRECT
from agentflow.core.message import Message
from agentflow.errors import Conflict, Invalid, Problem, Rejected, RetryLater
from agentflow.runtime.batch import Item
from agentflow.runtime.envelope import incoming, opened
from agentflow.runtime.outcomes import status_of
from agentflow.runtime.performer import Performer
from agentflow.runtime.reactor import Reactor
from agentflow.store.changes import Twin
from agentflow.store.postgres import PostgresStore
from agentflow.wire.catalogue import tenant_of_subject
from agentflow.wire.event import Event
from agentflow.wire.json_format import to_dict
from agentflow.wire.nats import from_nats
from agentflow.wire.streams import ACK_WAIT_S, IN_ACK_WAIT_S

if TYPE_CHECKING:
    from agentflow.bus.parts import Delivered

FRESH_S = 2.0  # the relay repeats what is older; nobody can have answered a repetition of what is younger


class Receiver:
    """Takes in events for one function of a host, by either door."""

    def __init__(
        self, name: str, reactor: Reactor, store: PostgresStore, performer: Performer | None
    ) -> None:
        self.name = name
        self._reactor = reactor
        self._store = store
        self._performer = performer

    async def pull(self, msg: Delivered) -> None:
        """Handle a JetStream message; whatever is raised, the parking attendant knows what to do."""
        event = delivered(msg)
        item = await self._item(event)
        if self._performer is None:
            if item.twin is not None:
                await self._reactor.handle(item)
            else:  # a client's event: the relay does not know it, so JetStream is to send it again soon
                await minding(msg, self._reactor.handle(item))
            return
        waited = event.time is not None and (datetime.now(UTC) - event.time).total_seconds() > FRESH_S
        await self._perform(item, msg, doubtful=waited or sent_again(msg))

    async def receive(self, event: Event) -> None:
        """Handle an event that came over HTTP."""
        item = await self._item(event)
        if self._performer is None:
            await self._reactor.handle(item)
        else:
            await self._performer.finish(item.message)

    async def push(self, cloud_event: Any) -> None:
        """Handle the CloudEvent that functions-framework hands over; faults become HTTP statuses."""
        from starlette.exceptions import HTTPException

        from agentflow.wire.http import from_sdk

        try:
            await self.receive(from_sdk(cloud_event))
        except (RetryLater, Rejected, Conflict) as fault:
            after = {"Retry-After": str(max(1, round(fault.after)))} if isinstance(fault, RetryLater) else None
            raise HTTPException(status_of(fault), str(fault), after) from fault

    async def _perform(self, item: Item, msg: Delivered, *, doubtful: bool) -> None:
        """Perform a request while telling JetStream that it is being worked on."""
        assert self._performer is not None
        if doubtful and item.twin is not None and not await self._store.has_twin(item.twin):
            return  # it has been done: this is a repetition, or another one was faster
        await minding(msg, self._performer.finish(item.message))

    async def _item(self, event: Event) -> Item:
        tenant = event.tenant
        if tenant is None:
            raise Invalid([Problem("tenantid", "names no tenant", "publish on agentflow.<tenant>.in.<name>")])
        if not event.ours:
            if self.name != "plan":
                raise Invalid(
                    [Problem("type", f"{event.type} is for plan", "see events/README.md", "wrong_function")]
                )
            message = foreign(event, tenant)
            return Item(self.name, message, None, f"{event.source}\n{event.id}")
        message = await opened(event, tenant, self.name, self._store)
        twin: Twin = (tenant, message.run, message.key, self.name)
        return Item(self.name, message, twin, once(message))


def delivered(msg: Delivered) -> Event:
    """The event in a message of JetStream; ``Invalid`` where a client has published what only we say."""
    event = from_nats(msg.headers, msg.data, tenant_of_subject(msg.subject))
    if event.ours and incoming(msg.subject):
        mend = "use a type of your own, e.g. com.example.order.placed"
        raise Invalid([Problem("type", f"{event.type} may not be published by clients", mend, "reserved_type")])
    return event


async def minding(msg: Delivered, work: Coroutine[Any, Any, Any]) -> None:
    """Do ``work`` while telling JetStream now and then that the message is being worked on."""
    every_s = (IN_ACK_WAIT_S if incoming(msg.subject) else ACK_WAIT_S) / 3
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait([working], timeout=every_s))[0]:
            await msg.in_progress()
    finally:
        working.cancel()
    working.result()


def once(message: Message) -> str | None:
    """The inbox key of a message that nothing else protects from being handled twice."""
    return message.id if message.name in ("signal.received", CORRECT) else None


def foreign(event: Event, tenant: UUID) -> Message:
    """A client's CloudEvent as a message for plan: the same source and id give the same message."""
    document = orjson.loads(orjson.dumps(to_dict(event.with_tenant(tenant))))
    run = uuid5(tenant, f"{event.source}\n{event.id}")
    return Message("event.received", tenant, run, "event", {"event": document}, event.traceparent)
