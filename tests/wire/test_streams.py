"""A real nats-server takes the streams and consumers as they are written, and routes every event by them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import nats
import pytest
from nats.aio.client import Client
from nats.js.api import ConsumerConfig, StreamConfig

from agentflow.wire import catalogue
from agentflow.wire.event import Event
from agentflow.wire.examples import TENANT, example, outside
from agentflow.wire.nats import from_nats, message_id, to_nats
from agentflow.wire.place import contracts_path
from agentflow.wire.streams import CONSUMERS, STREAMS

OTHER = UUID("018f3a5e-7d2c-7b1a-9c55-3f1f6f2a9b10")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("nats")
    binary = Path(sysconfig.get_path("scripts"), "nats-server")
    command = [binary, "-a", "127.0.0.1", "-p", "-1", "-js", "-sd", folder]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            assert server.stderr is not None
            address = ""
            for line in server.stderr:
                if "client connections on" in line:
                    address = line.split()[-1]
                if "Server is ready" in line:
                    break
            yield f"nats://{address}"
        finally:
            server.terminate()
            server.communicate()


@pytest.fixture
async def client(url: str) -> AsyncIterator[Client]:
    connection = await nats.connect(url)
    js = connection.jetstream()
    document = json.loads((contracts_path() / "events/streams.json").read_text())
    for stream in document["streams"]:
        await js.add_stream(StreamConfig.from_response(dict(stream)))
    for consumer in document["consumers"]:
        await js.add_consumer(consumer["stream_name"], ConsumerConfig.from_response(dict(consumer["config"])))
    yield connection
    for stream in STREAMS:
        await js.delete_stream(stream.name)
    await connection.close()


async def publish(client: Client, event: Event, subject: str) -> None:
    headers, payload = to_nats(event)
    await client.jetstream().publish(subject, payload, headers=headers | {"Nats-Msg-Id": message_id(event)})


async def drain(client: Client) -> dict[str, list[Event]]:
    """What every function is given, by its name."""
    js = client.jetstream()
    found: dict[str, list[Event]] = {}

    async def read(function: str, stream: str) -> None:
        waiting = (await js.consumer_info(stream, function)).num_pending
        if not waiting:
            return
        pull = await js.pull_subscribe_bind(function, stream)
        for message in await pull.fetch(waiting, timeout=5):
            tenant = catalogue.tenant_of_subject(message.subject)
            found.setdefault(function, []).append(from_nats(message.headers, message.data, tenant))
            await message.ack_sync()

    await asyncio.gather(*(read(consumer.function, consumer.stream) for consumer in CONSUMERS))
    return found


async def test_the_server_keeps_the_settings_as_written(client: Client) -> None:
    js = client.jetstream()
    for stream in STREAMS:
        kept = (await js.stream_info(stream.name)).config
        wanted = stream.config()
        assert kept.duplicate_window == wanted["duplicate_window"] / 1e9
        assert kept.max_age == wanted["max_age"] / 1e9
        assert (kept.retention, kept.storage) == (wanted["retention"], "file")
        assert (kept.subjects, kept.max_msg_size) == (wanted["subjects"], wanted["max_msg_size"])
    for consumer in CONSUMERS:
        settings = (await js.consumer_info(consumer.stream, consumer.function)).config
        filters = settings.filter_subjects or [settings.filter_subject]
        assert sorted(map(str, filters)) == sorted(consumer.filters)
        assert (settings.ack_policy, settings.max_deliver) == ("explicit", -1)
        assert settings.ack_wait == consumer.ack_wait_s
        assert settings.max_ack_pending == consumer.max_ack_pending


async def test_every_event_reaches_its_consumers_and_no_other(client: Client) -> None:
    for name in catalogue.CATALOGUE:
        await publish(client, example(name), catalogue.subject(name, TENANT))
    await publish(client, outside(), catalogue.incoming_subject(TENANT, "alerts.new"))
    found = await drain(client)
    for entry in catalogue.CATALOGUE.values():
        readers = {function for function, events in found.items() if example(entry.name) in events}
        assert readers == set(entry.consumers), entry.name
    assert outside().with_tenant(TENANT) in found["plan"]
    work = await client.jetstream().stream_info("AGENTFLOW_WORK")
    assert work.state.messages == 0, "handled work leaves the stream"


async def test_an_event_sent_again_arrives_once_but_for_every_tenant(client: Client) -> None:
    one = example("run.requested")
    two = one.with_tenant(OTHER)
    for event in (one, one, two, two):
        assert event.tenant is not None
        await publish(client, event, catalogue.subject("run.requested", event.tenant))
    assert (await drain(client))["plan"] == [one, two]


async def test_a_message_id_cannot_suppress_another_tenants_event(client: Client) -> None:
    js = client.jetstream()
    headers, payload = to_nats(outside())
    for tenant in (OTHER, TENANT):
        subject = catalogue.incoming_subject(tenant, "alerts")
        await js.publish(subject, payload, headers=headers | {"Nats-Msg-Id": "guessed"})
        await asyncio.sleep(0.25)  # the least window JetStream allows is 100 ms
    assert {event.tenant for event in (await drain(client))["plan"]} == {OTHER, TENANT}
