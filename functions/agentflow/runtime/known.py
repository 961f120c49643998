"""What some decisions need besides their run: plans, the inputs of retried steps, who waits for an event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from agentflow.core.decide.turn import UNCLAIMED
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.run import Run
from agentflow.runtime.batch import Item
from agentflow.runtime.plans import ANY, Plans
from agentflow.store.postgres import Transaction


def looks_for_claim(message: Message) -> bool:
    """Whether a message asks if a halted call may have been made."""
    return message.name == "timer.fired" and str(message.data["timer"]).startswith(UNCLAIMED)


class Known:
    """Read within the transaction of the batch that needs it. ``fresh`` are the inbox keys seen for the first time."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._newest: dict[UUID, int] = {}  # of the workflow of a run that names no version
        self.fresh: set[tuple[UUID, str, str]] = set()
        self.step_inputs: dict[tuple[UUID, int], Mapping[str, Any]] = {}
        self.claimed: set[tuple[Any, ...]] = set()  # halted calls (run, key) that may have been made
        self.templates: dict[UUID, str | None] = {}
        self.triggered: dict[UUID, tuple[Any, ...]] = {}
        self.subscribers: dict[UUID, tuple[Any, ...]] = {}

    @classmethod
    async def read(cls, tx: Transaction, items: list[Item], runs: Mapping[UUID, Run], plans: Plans) -> Known:
        known = cls(plans)
        once = [(item.message.tenant, item.consumer, item.once) for item in items if item.once is not None]
        if once:
            known.fresh = await tx.enter_inbox([(t, c, o) for t, c, o in once if o])
        retried, halted = [], []
        for item in items:
            message = item.message
            run = runs.get(message.run)
            if message.name == "event.received":
                await known._route(tx, message)
                continue
            if run is not None and message.name == "timer.fired" and message.data["kind"] == "retry":
                step, attempt = message.data["step"], message.data["attempt"]
                retried.append((message.tenant, run.created_ms, message.run, step, attempt))
            if looks_for_claim(message):
                halted.append((message.tenant, message.run, f"{message.data['step']}.{message.data['attempt']}"))
            if run is not None and run.version is not None:
                await plans.ensure(tx, message.tenant, run.workflow, run.version)
                if message.name == "run.requested":
                    await known._template(tx, message, plans.get(message.tenant, run.workflow, run.version))
            elif message.name == "run.requested":
                name, version = message.data["workflow"], message.data["version"]
                versions = message.data.get("versions") or ANY
                newest = await plans.ensure(tx, message.tenant, name, version, versions)
                if newest is not None:
                    known._newest[message.run] = newest
                    await known._template(tx, message, plans.get(message.tenant, name, newest))
        if retried:
            known.step_inputs = await tx.step_inputs(retried)
        if halted:
            known.claimed = set(await tx.rows("read_claims", halted))
        return known

    async def _template(self, tx: Transaction, message: Message, plan: Plan | None) -> None:
        if plan is not None and plan.planning is not None and plan.planning.cache:
            self.templates[message.run] = await tx.template(message.tenant, plan.planning.key)

    async def _route(self, tx: Transaction, message: Message) -> None:
        event_type = message.data["event"]["type"]
        plans = []
        for name, version in await tx.triggers(message.tenant, event_type):
            await self._plans.ensure(tx, message.tenant, name, version)
            plan = self._plans.get(message.tenant, name, version)
            if plan is not None:
                plans.append((plan, version))
        self.triggered[message.run] = tuple(plans)
        self.subscribers[message.run] = tuple(await tx.subscribers(message.tenant, event_type))

    def plan(self, message: Message, run: Run | None) -> tuple[Any, int | None]:
        """The plan and version of a run, or of one that is asked for."""
        if run is not None and run.version is not None:
            return self._plans.get(message.tenant, run.workflow, run.version), run.version
        if message.name != "run.requested":
            return None, None
        version = message.data["version"] or self._newest.get(message.run)
        if version is None:
            return None, None
        return self._plans.get(message.tenant, message.data["workflow"], version), version
