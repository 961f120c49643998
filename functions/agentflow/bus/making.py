"""Making: streams and consumers as the catalogue has them, whatever is there already and in whatever state."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig, StreamInfo
from nats.js.errors import NotFoundError, ServerError

from agentflow.wire.streams import Consumer, Stream

log = structlog.get_logger(__name__)
QUEUE = "workqueue"


async def make(js: JetStreamContext, stream: Stream, consumers: Sequence[Consumer]) -> Any:
    """Have a stream with its consumers; returns when it was born. ``ServerError`` when its files are damaged."""
    try:
        info = await _of_its_kind(js, stream, await js.stream_info(stream.name))
    except NotFoundError:
        info = await _new(js, stream)
    for consumer in consumers:
        try:
            await _consumer(js, consumer)
        except ServerError as fault:
            if stream.retention != QUEUE:
                raise
            # Without its consumer the stream keeps what it holds, and a new one begins at the beginning: what is
            # handed out a second time, the inbox knows.
            log.warning("a consumer is broken and made anew", consumer=consumer.function, reason=str(fault))
            with contextlib.suppress(NotFoundError, ServerError):
                await js.delete_consumer(stream.name, consumer.function)
            await _consumer(js, consumer)
    return info.created


async def _new(js: JetStreamContext, stream: Stream) -> StreamInfo:
    # from_response reads the server's own units (nanoseconds), which is what the catalogue states
    return await js.add_stream(StreamConfig.from_response(stream.config()))


async def _of_its_kind(js: JetStreamContext, stream: Stream, info: StreamInfo) -> StreamInfo:
    """A stream made by an earlier version may have another retention, which JetStream changes for nobody."""
    if info.config.retention == stream.retention or QUEUE not in (info.config.retention, stream.retention):
        return info
    if info.state.messages:
        log.warning("a stream keeps its old retention until it is found empty", stream=stream.name)
        return info
    await js.delete_stream(stream.name)
    return await _new(js, stream)


async def _consumer(js: JetStreamContext, consumer: Consumer) -> None:
    made = await js.add_consumer(consumer.stream, ConsumerConfig.from_response(consumer.config()))
    last = (await js.stream_info(consumer.stream)).state.last_seq
    if made.delivered is not None and made.delivered.stream_seq > last:
        # Messages were cut off, the consumer was not: it would skip all that come until it is caught up with.
        raise ServerError(description=f"{consumer.function} is ahead of its stream")
