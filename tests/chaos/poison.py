"""Poison: messages that can't be handled, published among the others. Each must be parked with its reason."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID, uuid4

from agentflow.wire.catalogue import CATALOGUE, incoming_subject, make
from agentflow.wire.nats import to_nats
from chaos.listener import Listener

NO_USAGE = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 0}
TRIES = 5


@dataclass(slots=True)
class Poison:
    """One bad message. ``mark`` is in its payload; ``consumers`` have to park it, ``tenant`` keeps it."""

    mark: str
    tenant: UUID
    consumers: frozenset[str]
    subject: str
    payload: bytes
    acknowledged: bool = False
    losses: int = 0  # as the listener counted them when it was published

    def due(self, listener: Listener) -> bool:
        """Whether it has to be found parked: the bus has had it, and has not lost its data since."""
        return self.acknowledged and self.losses == listener.losses

    def parked(self, found: list[tuple[str, bytes]]) -> bool:
        """Whether all who have to have parked it (consumer, payload)."""
        mark = self.mark.encode()
        return self.consumers <= {consumer for consumer, payload in found if mark in payload}

    async def publish(self, listener: Listener) -> None:
        self.losses = listener.losses
        self.acknowledged = await listener.publish(self.subject, self.payload)


def poisons(tenants: list[UUID], seed: str, count: int) -> list[Poison]:
    """Bad messages of every kind, in turn."""
    chance = random.Random(seed)
    kinds = (_garbage, _unknown_run, _bad_data, _unknown_tenant, _reserved)
    return [
        kinds[number % len(kinds)](chance.choice(tenants), f"poison-{seed}-{number}")
        for number in range(count)
    ]


def _garbage(tenant: UUID, mark: str) -> Poison:
    return Poison(
        mark, tenant, frozenset({"plan"}), incoming_subject(tenant, "x"), f"{{ not JSON {mark}".encode()
    )


def _unknown_run(tenant: UUID, mark: str) -> Poison:
    run = uuid4()
    data = {
        "run": str(run), "step": 1, "attempt": 1, "epoch": 0, "task": "x", "status": "failed", "output": None,
        "error": {"code": "x", "message": mark, "retryable": False, "retry_after_ms": None}, "usage": NO_USAGE,
        "cost_micro": 0, "duration_ms": 1, "late": False,
    }  # fmt: skip
    event = make("step.completed", run=run, key="1.1:done", source_function="run_tool", tenant=tenant,
                 time=datetime.now(UTC), data=data)  # fmt: skip
    subject = CATALOGUE["step.completed"].subject(tenant)
    return Poison(mark, tenant, frozenset({"dispatch", "account_cost"}), subject, to_nats(event)[1])


def _bad_data(tenant: UUID, mark: str) -> Poison:
    event = make("run.requested", run=uuid4(), key="requested", source_function="api", tenant=tenant,
                 time=datetime.now(UTC), data={"run": 5, "mark": mark})  # fmt: skip
    return Poison(
        mark, tenant, frozenset({"plan"}), CATALOGUE["run.requested"].subject(tenant), to_nats(event)[1]
    )


def _unknown_tenant(tenant: UUID, mark: str) -> Poison:
    """Keeps failing: parked after the last try, by the operator's own tenant."""
    return Poison(
        mark, UUID(int=0), frozenset({"plan"}), incoming_subject(uuid4(), "x"), _event("com.chaos.lost", mark)
    )


def _reserved(tenant: UUID, mark: str) -> Poison:
    payload = _event("agentflow.step.completed.v1", mark)
    return Poison(mark, tenant, frozenset({"plan"}), incoming_subject(tenant, "x"), payload)


def _event(kind: str, mark: str) -> bytes:
    event = {
        "specversion": "1.0", "id": mark, "source": "/poison", "type": kind, "datacontenttype": "application/json",
        "data": {"mark": mark},
    }  # fmt: skip
    return json.dumps(event).encode()
