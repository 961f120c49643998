"""Streams and consumers: made anew where they are damaged, and what clients have published is there afterwards."""

from __future__ import annotations

from typing import Any

import nats as nats_client
import nats.errors
import nats.js.errors
import orjson
import pytest
from house import House, eventually
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig, StreamConfig
from nats.js.errors import NotFoundError
from test_reactor import TEN

from agentflow.bus.jetstream import JetStream
from agentflow.wire.streams import STREAMS, consumers_of

TRIGGERED = TEN | {"name": "triggered", "trigger": {"type": "com.example.go"}}
IN = next(stream for stream in STREAMS if stream.lane == "in")
(PLAN,) = [consumer for consumer in consumers_of("plan") if consumer.stream == IN.name]


async def publish(js: JetStreamContext, house: House, number: int) -> None:
    event = {"specversion": "1.0", "id": str(number), "source": "/tests", "type": "com.example.go"}
    headers = {"Content-Type": "application/cloudevents+json"}
    await js.publish(f"agentflow.{house.tenant}.in.go", orjson.dumps(event), headers=headers)


async def ran(house: House, count: int) -> None:
    async def succeeded() -> bool:
        rows = await house.rows("select status from runs")
        return [row["status"] for row in rows] == ["succeeded"] * count

    await eventually(succeeded)


@pytest.fixture
async def bare(house: House) -> Any:
    """JetStream as a host has left it, with a client's connection."""
    await house.register(TRIGGERED)
    bus = JetStream(house.nats.url)
    await bus.open()
    await bus.close()
    client = await nats_client.connect(house.nats.url)
    yield client.jetstream()
    await client.close()


async def test_what_is_published_while_there_is_no_consumer_waits_for_one(house: House, bare: Any) -> None:
    """As when the consumer's files are damaged and the server has come back without it."""
    await bare.delete_consumer(IN.name, PLAN.function)
    for number in range(3):
        await publish(bare, house, number)
    async with house.host():
        await ran(house, 3)


async def test_a_consumer_that_is_ahead_of_its_stream_is_made_anew_and_the_stream_is_not(
    house: House, bare: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        await publish(bare, house, number)
    born = (await bare.stream_info(IN.name)).created
    real = JetStreamContext.add_consumer
    said: list[str] = []

    async def ahead(self: Any, stream: str, config: Any) -> Any:
        info = await real(self, stream, config)
        if stream == IN.name and not said:
            said.append(stream)
            info.delivered.stream_seq = 99  # as after a power cut that took the end of the stream with it
        return info

    monkeypatch.setattr(JetStreamContext, "add_consumer", ahead)
    async with house.host():
        await ran(house, 3)
    assert said
    assert (await bare.stream_info(IN.name)).created == born


async def test_a_stream_of_an_earlier_version_is_replaced_once_it_is_empty(house: House, bare: Any) -> None:
    await bare.delete_stream(IN.name)
    old = IN.config() | {"retention": "interest"}
    await bare.add_stream(StreamConfig.from_response(old))
    await bare.add_consumer(IN.name, ConsumerConfig.from_response(PLAN.config()))
    await publish(bare, house, 1)
    async with house.host():
        await ran(house, 1)
        assert (await bare.stream_info(IN.name)).config.retention == "interest"
    async with house.host():
        await publish(bare, house, 2)
        await ran(house, 2)
        assert (await bare.stream_info(IN.name)).config.retention == "workqueue"


async def test_a_client_may_have_no_consumer_of_its_own_on_what_clients_publish(bare: Any) -> None:
    """It would get what plan is to get; JetStream refuses it. Facts are what clients subscribe to."""
    with pytest.raises(Exception, match=r"filtered consumer not unique|multiple non-filtered"):
        await bare.add_consumer(IN.name, ConsumerConfig(durable_name="mine", ack_policy="explicit"))
    with pytest.raises(NotFoundError):
        await bare.consumer_info(IN.name, "mine")


async def test_what_is_parked_before_and_after_the_bus_is_wiped_is_kept_both_times(
    house: House, bare: Any
) -> None:
    """A stream that is made anew numbers its messages from one again: the first is not taken for the other first."""
    subject = f"agentflow.{house.tenant}.in.x"

    async def parked(count: int) -> bool:
        return len(await house.rows("select 1 from parked")) == count

    async with house.host():
        await bare.publish(subject, b"not an event, before")
        await eventually(lambda: parked(1))
        await house.nats.wipe_jetstream()
        await eventually(lambda: made_again(bare))
        await bare.publish(subject, b"not an event, after")
        await eventually(lambda: parked(2))
    rows = await house.rows("select payload from parked")
    assert {bytes(row["payload"]) for row in rows} == {b"not an event, before", b"not an event, after"}


async def made_again(js: JetStreamContext) -> bool:
    try:
        return (await js.stream_info(IN.name)).state.last_seq == 0
    except (nats.errors.Error, nats.js.errors.Error, OSError):  # nobody is there, or the stream is not
        return False
