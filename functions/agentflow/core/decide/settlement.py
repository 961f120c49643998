"""Settlement: what becomes of holds that no report settles: a child run's, and those of calls that were halted."""

from __future__ import annotations

from agentflow.core.decide.turn import UNCLAIMED, Turn
from agentflow.core.decision import CHILD, NOTHING, Decision, Facts, LedgerEntry, TimerSet, Withdrawn
from agentflow.core.message import Message
from agentflow.core.money import price_version
from agentflow.core.run import Run, without
from agentflow.core.spending import NO_USAGE, settled

HOLD_GRACE_MS = 60_000

EXPIRED = "expired"
"""In place of a price's version, in the entry of a call that never reported."""


def expired(run: Run, message: Message, facts: Facts) -> Decision:
    """A halted call never reported: it may have been made, so its whole hold counts as spent. One that nobody had
    claimed when it was halted will never be made, and its hold is given back."""
    data = message.data
    key = f"{data['step']}.{data['attempt']}"
    held = run.holds.get(key)
    if held is None:
        return NOTHING
    turn = Turn(run, facts)
    step, attempt = data["step"], data["attempt"]
    if not data["timer"].startswith(UNCLAIMED):
        _whole(turn, step, attempt, held)
    elif facts.claimed:
        _expect(turn, step, attempt)
    else:
        _release(turn, step, attempt, held)
    return turn.decision()


def _whole(turn: Turn, step: int, attempt: int, held: int) -> None:
    """Count a whole hold as spent (late, after the run's end or not), at the price that it was held at."""
    key = f"{step}.{attempt}"
    name = turn.run.halted.get(key, "")
    alias, task = turn.run.cheaper.get(key), turn.plan.tasks.get(name)
    price = EXPIRED if task is None else price_version(turn.run, turn.plan, task, alias)
    turn.row(LedgerEntry(step, attempt, "dispatch", held, 0, EXPIRED))
    _settle(turn, step, attempt, name, held, held, price, alias=alias)
    turn.row(Withdrawn(f"{step}.{attempt}", True))
    turn.note("timer.fired", {"kind": "hold", "step": step, "attempt": attempt})


def _release(turn: Turn, step: int, attempt: int, held: int) -> None:
    """Give a hold back whose call will never be made."""
    key = f"{step}.{attempt}"
    turn.holds = without(turn.holds, key)
    run = turn.run
    turn.run = run.but(
        held_micro=run.held_micro - held, halted=without(run.halted, key), cheaper=without(run.cheaper, key)
    )
    turn.row(LedgerEntry(step, attempt, "release", held, -held, "unclaimed"))
    turn.frees = True
    turn.note("timer.fired", {"kind": "hold", "step": step, "attempt": attempt, "released": held})


def _expect(turn: Turn, step: int, attempt: int) -> None:
    """A halted call has been claimed: what is held for it stays until it reports, or its time is over."""
    task = turn.plan.tasks.get(turn.run.halted.get(f"{step}.{attempt}", ""))
    after = ((task.timeout_ms if task else None) or 0) + HOLD_GRACE_MS
    turn.row(TimerSet(f"hold:{step}.{attempt}", "hold", after, step, attempt))


def settle(turn: Turn, step: int, attempt: int, task: str, cost: int, ms: int) -> None:
    """Count what a child run has cost in place of what was held for it."""
    _settle(turn, step, attempt, task, turn.holds.get(f"{step}.{attempt}", 0), cost, CHILD, ms)


def _settle(
    turn: Turn, step: int, attempt: int, task: str, held: int, cost: int, price: str, ms: int = 0,
    alias: str | None = None,
) -> None:  # fmt: skip
    key = f"{step}.{attempt}"
    turn.holds = without(turn.holds, key)
    turn.run = turn.run.but(
        spent_micro=turn.run.spent_micro + cost,
        held_micro=turn.run.held_micro - held,
        halted=without(turn.run.halted, key),
        cheaper=without(turn.run.cheaper, key),
        frozen=turn.run.frozen or cost > held,
    )
    if held or cost:
        turn.row(LedgerEntry(step, attempt, "settle", cost, -held, price))
        turn.run, told = settled(turn.run, turn.plan, task, price, NO_USAGE, cost, held, ms, alias=alias)
        turn.rows(*told)
    turn.frees = True
