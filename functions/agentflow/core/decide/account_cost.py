"""account_cost: turn what a step has used into spend, exactly once, and give back what was held for it."""

from __future__ import annotations

from agentflow.core.decide.ending import known
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
        price=price_version(run, facts.plan, facts.plan.tasks[data["task"]]) if facts.plan else FROM_PLAN,
        usage=data["usage"],
    )
    rows: tuple[Row, ...] = (entry,)
    if data["late"]:
        rows = (entry, TimerCleared(f"hold:{key}"))
    return Decision(run=settled, rows=rows)
