"""Envelopes: a leaving message as the CloudEvent that travels, and an event of ours as the message it carries."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from agentflow.core.message import Message
from agentflow.errors import Invalid, Problem
from agentflow.runtime.batch import FACTS, Leaving
from agentflow.wire.catalogue import CATALOGUE, make, parse
from agentflow.wire.claim import check_out
from agentflow.wire.event import Event

if TYPE_CHECKING:
    from agentflow.store.postgres import PostgresStore


def envelope(leave: Leaving) -> tuple[Event, str]:
    """The event and its subject. Data over the inline limit stays behind as the blob its dataref names."""
    message = leave.message
    entry = CATALOGUE[message.name]
    event = make(
        message.name,
        run=message.run if message.run.int else None,  # the nil one: it is of no run
        key=message.key,
        source_function=entry.producers[0],
        tenant=message.tenant,
        time=datetime.now(UTC),
        data=message.data,
        traceparent=message.trace,
    )
    if (blob := leave.blob) is not None:
        event = event.with_data(None, dataref=blob[0])
    subject = entry.public_subject if leave.consumer == FACTS else entry.subject
    return event, subject(message.tenant)


async def opened(event: Event, tenant: UUID, consumer: str, store: PostgresStore) -> Message:
    """The message in an event of ours, with what was left by claim check fetched, validated, for ``consumer``.

    Raises ``Invalid`` when it is not what the catalogue says or is not for that function.
    """
    if event.dataref is not None and event.data is None:
        content = await store.read_blob(tenant, event.dataref)
        if content is None:
            raise Invalid([Problem("dataref", "names no stored content", code="unknown_blob")])
        event = check_out(event, content)
    parse(event)
    entry = CATALOGUE[event.name]
    if consumer not in entry.consumers:
        mend = f"it is for {', '.join(entry.consumers) or 'subscribers'}"
        raise Invalid([Problem("type", f"{event.name} is not for {consumer}", mend, "wrong_function")])
    assert isinstance(event.data, dict)
    return Message(event.name, tenant, *identity(event), event.data, event.traceparent)


def identity(event: Event) -> tuple[UUID, str]:
    """The run and the key in the id of an event of ours; ``Invalid`` when it is nobody's."""
    run, _, key = event.id.partition(":")
    try:
        return UUID(run), key
    except ValueError:
        raise Invalid(
            [Problem("id", "is not <run>:<key>", "events of AgentFlow are made by AgentFlow")]
        ) from None


def incoming(subject: str) -> bool:
    """Whether a subject is one that clients publish on: nothing on it is ours, whatever it says."""
    return subject.split(".", 3)[2:3] == ["in"]
