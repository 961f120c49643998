"""Envelopes: a leaving message as the CloudEvent that travels, and the subject it travels on."""

from __future__ import annotations

from datetime import UTC, datetime

from agentflow.runtime.batch import FACTS, Leaving
from agentflow.wire.catalogue import CATALOGUE, make
from agentflow.wire.event import Event


def envelope(leave: Leaving) -> tuple[Event, str]:
    """The event and its subject. Data over the inline limit stays behind as the blob its dataref names."""
    message = leave.message
    entry = CATALOGUE[message.name]
    event = make(
        message.name,
        run=message.run,
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
