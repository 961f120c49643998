"""Plans: what another version has accepted, and this one does not understand, is left to that one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import pytest

from agentflow.errors import Unreadable
from agentflow.runtime.parking import Parking
from agentflow.runtime.plans import Plans, Versions
from agentflow.wire.document import load_document

TENANT = UUID(int=1)
TEXT = b"{agentflow: plan/v1, kind: bt, name: w, limits: {steps: 2}, tasks: {}, root: a, mood: good}"


class Stored:
    """A registry with one workflow, of a later version."""

    async def newest(self, tenant: UUID, name: str, versions: Versions) -> int | None:
        return 3

    async def workflow(self, tenant: UUID, name: str, version: int | None) -> tuple[int, Mapping[str, Any]] | None:
        return 3, load_document(TEXT)


class Delivered:
    """A message on the bus, as far as it matters here."""

    metadata = type("Metadata", (), {"num_delivered": 1})
    said: tuple[str, float | None] = ("", None)

    async def nak(self, delay: float | None = None) -> None:
        self.said = ("nak", delay)


def test_a_run_whose_workflow_this_version_cannot_read_waits_for_one_that_can() -> None:
    """It is neither failed nor parked at once: a host of the version that has accepted it may be next."""

    async def work(_: Any) -> None:
        await Plans().ensure(Stored(), TENANT, "w", None)

    with pytest.raises(Unreadable, match="w version 3, as another version of us has accepted it: mood"):
        asyncio.run(work(None))
    message: Any = Delivered()
    store: Any = None
    asyncio.run(Parking(store).guard("plan", work)(message))
    assert message.said == ("nak", 0.2)
