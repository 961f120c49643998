"""Parcels: results share messages on the bus, requests do not, and no event suffers for its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any
from uuid import UUID, uuid4

import nats as nats_client
import pytest
from house import House, eventually
from nats.aio.msg import Msg
from test_reactor import TEN, Faulty

from agentflow.bus.jetstream import JetStream
from agentflow.bus.parts import Delivered
from agentflow.core.decide import dispatch
from agentflow.core.message import Message
from agentflow.runtime import parking
from agentflow.runtime.batch import Leaving
from agentflow.runtime.publisher import PARCEL_BYTES, PARCEL_EVENTS, packed
from agentflow.wire.event import Event
from agentflow.wire.http import BATCH
from agentflow.wire.nats import from_nats, split_batch
from agentflow.wire.streams import consumers_of

TENANTS = UUID(int=1), UUID(int=2)
DECIDING, WORKING = ("api", "plan", "dispatch", "account_cost"), ("run_tool",)


def leaving(
    consumer: str, name: str, number: int, *, tenant: UUID = TENANTS[0], size: int = 0, tries: int = 0
) -> Any:
    data = {"run": str(UUID(int=number)), "output": "x" * size}
    message = Message(name, tenant, UUID(int=number), "1.1:done", data)
    return Leaving(consumer, message, b"x" * size, tries)


def test_results_of_one_tenant_share_a_parcel() -> None:
    both = [leaving(to, "step.completed", n) for n in (1, 2, 3) for to in ("dispatch", "account_cost")]
    others = [leaving("dispatch", "step.completed", 9, tenant=TENANTS[1])]
    first, second = packed([*both, *others])
    assert [event.id for event in first.events] == [f"{UUID(int=n)}:1.1:done" for n in (1, 2, 3)]
    assert [event.tenant for event in second.events] == [TENANTS[1]]


def test_requests_facts_and_repetitions_travel_alone() -> None:
    alone = [leaving("run_tool", "tool.requested", n) for n in range(3)]
    alone += [leaving("facts", "run.completed", n) for n in range(3)]
    alone += [leaving("dispatch", "step.completed", n, tries=1) for n in range(3)]
    parcels = packed(alone)
    assert [len(parcel.events) for parcel in parcels] == [1] * 9
    assert [parcel.tries for parcel in parcels] == [0] * 6 + [1] * 3
    assert [parcel.fact for parcel in parcels[3:6]] == [leave.twin for leave in alone[3:6]]
    assert not any(parcel.fact for parcel in parcels[:3] + parcels[6:])


@pytest.mark.parametrize(("size", "fit"), [(0, PARCEL_EVENTS), (60_000, PARCEL_BYTES // 60_000)])
def test_a_parcel_is_bounded_in_number_and_in_size(size: int, fit: int) -> None:
    parcels = packed([leaving("dispatch", "step.completed", n, size=size) for n in range(fit + 1)])
    assert [len(parcel.events) for parcel in parcels] == [fit, 1]


async def test_apart_results_come_in_parcels_and_requests_one_by_one(house: House) -> None:
    await house.register(TEN)
    heard: dict[str, list[int]] = {}

    async def hear(msg: Msg) -> None:
        kind = msg.subject.split(".", 3)[3]
        heard.setdefault(kind, []).append(len(split_batch(msg.headers, msg.data)) or 1)

    client = await nats_client.connect(house.nats.url)
    await client.subscribe("agentflow.*.work.>", cb=hear)
    async with house.host(DECIDING) as host, house.host(WORKING, relay=False):
        runs = await asyncio.gather(*(house.submit(host, "ten") for _ in range(60)))
        for run in runs:
            assert (await house.ended(run, within_s=60))["output"] == {"n": 10}
    await client.drain()
    assert max(heard["tool.requested"]) == 1
    assert max(heard["step.completed"]) > 1
    assert len(heard["step.completed"]) < sum(heard["step.completed"]) / 2
    assert (await house.rows("select count(*) as n from outbox"))[0]["n"] == 0
    assert await house.rows("select * from parked") == []


async def test_one_that_fails_in_a_parcel_is_parked_alone(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "BACKOFF_S", (0.01, 0.02, 0.02, 0.02))
    await house.register(TEN)
    poisoned = UUID(int=7)
    async with house.host(DECIDING) as host, house.host(WORKING, relay=False):
        faulty = Faulty(poisoned, "raise")
        host._reactor._routes.functions["dispatch"] = faulty  # type: ignore[index]
        runs = [UUID(int=number) for number in range(1, 31)]
        await asyncio.gather(*(house.submit(host, "ten", run=run) for run in runs))
        for run in runs:
            if run != poisoned:
                assert (await house.ended(run, within_s=60))["status"] == "succeeded"
        (row,) = await eventually(lambda: house.rows("select consumer, reason, tries, payload from parked"))
        assert (row["consumer"], row["tries"]) == ("dispatch", parking.TRIES)
        assert "a bug" in row["reason"]
        assert str(poisoned).encode() in bytes(row["payload"])
        # Alone as often as any message, and once more for the parcel it came in, if it did.
        assert faulty.calls in (parking.TRIES, parking.TRIES + 1)
        host._reactor._routes.functions["dispatch"] = dispatch.decide  # type: ignore[index]


async def test_a_parcel_is_acknowledged_when_its_last_event_has_ended(house: House) -> None:
    """Until then JetStream keeps it: whoever dies with half a parcel loses nothing."""
    bus = JetStream(house.nats.url)
    await bus.open()
    (consumer,) = consumers_of("dispatch")
    held: list[Delivered] = []
    events = [Event(str(n), "/s", "com.example.t", tenant=house.tenant).with_data({"n": n}) for n in range(3)]

    async def hold(part: Delivered) -> None:
        held.append(part)

    async def unacknowledged() -> int:
        info = await bus._nc.jetstream().consumer_info(consumer.stream, consumer.function)
        return info.num_ack_pending or 0

    await bus.pull(consumer, hold, limit=10)
    await (await bus.send(events, f"agentflow.{house.tenant}.work.step.completed"))
    await eventually(lambda: asyncio.sleep(0, len(held) == 3))
    assert [from_nats(part.headers, part.data, house.tenant) for part in held] == events
    for part, left in zip(held, (1, 1, 0), strict=True):
        await part.ack()
        await bus._nc.flush()
        assert await eventually(lambda left=left: _is(unacknowledged(), left))  # type: ignore[misc]
    await bus.close()


async def _is(look: Awaitable[int], value: int) -> bool:
    return await look == value


async def test_what_cannot_be_read_in_a_parcel_is_parked_each_by_itself(house: House) -> None:
    await house.register(TEN)
    bodies = [b"{", b'{"specversion": "1.0"}', b"[1]"]
    headers = {"Content-Type": BATCH, "Agentflow-Sizes": " ".join(str(len(body)) for body in bodies)}
    client = await nats_client.connect(house.nats.url)
    async with house.host():
        subject = f"agentflow.{house.tenant}.work.step.completed"
        await client.jetstream().publish(subject, b"[" + b",".join(bodies) + b"]", headers=headers)

        async def parked() -> list[dict[str, Any]] | None:
            rows = await house.rows("select consumer, payload from parked where consumer = 'dispatch'")
            return rows if len(rows) == len(bodies) else None

        rows = await eventually(parked)
        assert sorted(bytes(row["payload"]) for row in rows) == sorted(bodies)
    await client.close()


@pytest.mark.parametrize("sizes", ["", "x", "1 2", "-3 6", "0 3", "99", "3 " * 5000])
async def test_a_parcel_whose_sizes_do_not_add_up_is_parked_as_it_is(house: House, sizes: str) -> None:
    client = await nats_client.connect(house.nats.url)
    async with house.host():
        subject = f"agentflow.{house.tenant}.work.step.completed"
        headers = {"Content-Type": BATCH, "Agentflow-Sizes": sizes, "Nats-Msg-Id": str(uuid4())}
        await client.jetstream().publish(subject, b"[{}, 3]", headers=headers)
        query = "select reason, payload from parked where consumer = 'dispatch'"
        (row,) = await eventually(lambda: house.rows(query))
        assert bytes(row["payload"]) == b"[{}, 3]"
        assert "one event per message" in row["reason"]
    await client.close()
