"""Making: streams and consumers as the catalogue has them, whatever is there already and in whatever state."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import structlog
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig, StreamInfo
from nats.js.errors import APIError, BadRequestError, NotFoundError, ServerError

from agentflow.bus.readiness import misfit
from agentflow.wire.streams import Consumer, Stream

log = structlog.get_logger(__name__)
QUEUE = "workqueue"
OURS = ("subjects", "storage", "discard", "max_age", "max_msg_size", "duplicate_window")


async def make(js: JetStreamContext, stream: Stream, consumers: Sequence[Consumer], replicas: int = 1) -> Any:
    """Have a stream with its consumers; returns when it was born. ``ServerError`` when its files are damaged."""
    try:
        info = await _of_its_kind(js, stream, await js.stream_info(stream.name), replicas)
    except NotFoundError:
        info = await _new(js, stream, replicas)
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


async def _new(js: JetStreamContext, stream: Stream, replicas: int) -> StreamInfo:
    # from_response reads the server's own units (nanoseconds), which is what the catalogue states
    return await js.add_stream(StreamConfig.from_response(stream.config(replicas)))


async def _of_its_kind(js: JetStreamContext, stream: Stream, info: StreamInfo, replicas: int) -> StreamInfo:
    """A stream made by an earlier version may have another retention, which JetStream changes for nobody. What else
    differs of what we rely on is set as the catalogue has it; replicas, sizes and places are the operator's."""
    if info.config.retention == stream.retention or QUEUE not in (info.config.retention, stream.retention):
        return await _fitted(js, stream, info)
    if info.state.messages:
        log.warning("a stream keeps its old retention until it is found empty", stream=stream.name)
        return info
    await js.delete_stream(stream.name)
    return await _new(js, stream, replicas)


async def _fitted(js: JetStreamContext, stream: Stream, info: StreamInfo) -> StreamInfo:
    wanted = StreamConfig.from_response(stream.config())
    kept = [name for name in OURS if getattr(info.config, name) != getattr(wanted, name)]
    if not kept:
        return info
    differ = ", ".join(f"{name} {getattr(info.config, name)}, not {getattr(wanted, name)}" for name in kept)
    try:
        info = await js.update_stream(info.config.evolve(**{name: getattr(wanted, name) for name in kept}))
    except (BadRequestError, ServerError) as fault:
        raise misfit(
            f"stream {stream.name} has {differ}, and JetStream does not change that: {fault.description}",
            f"nats stream rm {stream.name}; it is made anew, and what is ours is sent again",
        ) from fault
    log.warning("a stream had other settings", stream=stream.name, settings=differ)
    return info


async def _consumer(js: JetStreamContext, consumer: Consumer) -> None:
    config = ConsumerConfig.from_response(consumer.config())
    try:
        try:
            made = await js.add_consumer(consumer.stream, config)
        except APIError as fault:
            if "can not be updated" not in (fault.description or ""):
                raise
            # What it was to hand out is kept by the stream, or sent again.
            reason = fault.description
            log.warning("a consumer had other settings, and is made anew", consumer=consumer.function, reason=reason)
            await js.delete_consumer(consumer.stream, consumer.function)
            made = await js.add_consumer(consumer.stream, config)
    except BadRequestError as fault:
        raise misfit(
            f"consumer {consumer.function} of {consumer.stream} cannot be made as it should be: {fault.description}",
            f"nats consumer rm {consumer.stream} {consumer.function}, or remove the consumer that is in its way",
        ) from fault
    last = (await js.stream_info(consumer.stream)).state.last_seq
    if made.delivered is not None and made.delivered.stream_seq > last:
        # Messages were cut off, the consumer was not: it would skip all that come until it is caught up with.
        raise ServerError(description=f"{consumer.function} is ahead of its stream")
