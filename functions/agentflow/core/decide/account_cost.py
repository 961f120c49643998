"""account_cost: turn what a step has used into spend, exactly once, and give back what was held for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core import spending
from agentflow.core.builtin import BUILTIN_TOOLS
from agentflow.core.decide.ending import known
from agentflow.core.decide.holds import freed
from agentflow.core.decide.turn import UNCLAIMED
from agentflow.core.decision import NOTHING, Decision, Facts, LedgerEntry, Row, TimerCleared
from agentflow.core.message import Message
from agentflow.core.money import price_version
from agentflow.core.price import FROM_PLAN
from agentflow.core.run import Run, without


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Settle the hold of a completed step. A step that costs nothing and held nothing leaves no entry."""
    data = message.data
    run = known(run, message)
    cost: int = data["cost_micro"]
    key = f"{data['step']}.{data['attempt']}"
    held = run.holds.get(key)
    if held is None:
        # Settled before, or never priced: a repeated event, or a step without a price.
        return NOTHING
    settled = run.but(
        holds=run.holds.delete(key),
        halted=without(run.halted, key),
        cheaper=without(run.cheaper, key),
        held_micro=run.held_micro - held,
        spent_micro=run.spent_micro + cost,
        # Billed more than was held: the run is over its word and gets nothing more.
        frozen=run.frozen or cost > held,
    )
    entry = LedgerEntry(
        step=data["step"],
        attempt=data["attempt"],
        entry="settle",
        amount_micro=cost,
        held_micro=-held,
        price=_version(run, data, facts),
        usage=data["usage"],
    )
    rows: tuple[Row, ...] = (entry,)
    task = facts.plan.tasks[data["task"]] if facts.plan else None
    if task is not None and task.use not in BUILTIN_TOOLS and (cost or data["usage"]["calls"]):
        at = {"at_ms": facts.now_ms - data["duration_ms"]}
        rows = (entry._replace(entry="dispatch", amount_micro=held, held_micro=0, usage=at), entry)
    counted, told = spending.settled(
        settled, facts.plan, data["task"], entry.price, data["usage"], cost, held, data["duration_ms"],
        alias=data.get("alias"),
    )  # fmt: skip
    rows += told
    if data["late"]:
        rows += (TimerCleared(f"{UNCLAIMED}{key}"), TimerCleared(f"hold:{key}"))
    if counted.short:
        rows += freed(counted)
    fault = data["usage"].get("fault")
    return Decision(counted, rows, (_violation(counted, data, held, fault),) if fault or cost > held else ())


def _version(run: Run, data: Mapping[str, Any], facts: Facts) -> str:
    if facts.plan is None:
        return FROM_PLAN
    return price_version(run, facts.plan, facts.plan.tasks[data["task"]], data.get("alias"))


def _violation(run: Run, data: Mapping[str, Any], held: int, fault: str | None) -> Message:
    """The fact that a call was not billed as it had to be; of more than was held the accounts are frozen."""
    key = f"{data['step']}.{data['attempt']}"
    said = {
        "run": str(run.id),
        "step": data["step"],
        "attempt": data["attempt"],
        "task": data["task"],
        "reason": fault or f"{data['cost_micro']} micro-dollars were billed, {held} had been held",
        "held_micro": held,
        "billed_micro": data["cost_micro"],
        "frozen": data["cost_micro"] > held,
    }
    return Message("budget.violation", run.tenant, run.id, f"{key}:violation", said, run.trace)
