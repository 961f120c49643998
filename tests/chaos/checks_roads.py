"""Checks of roads: nothing is left on its way, nothing was dropped, no timer was early (invariants 6, 10, 14)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta

from agentflow.core.plan import Plan
from chaos.books import Books
from chaos.failpoints import WAITS
from chaos.poison import TRIES
from chaos.statements import Row
from chaos.violation import Violation

EARLY = timedelta(milliseconds=5)
"""Statements of one transaction read the clock one after another, in an order that is nobody's business."""

ENDS = {"succeeded": "run.completed", "failed": "run.failed", "cancelled": "run.cancelled"}


def check_outbox(books: Books) -> Iterator[Violation]:
    """6: after quiescence every message has been consumed, or the bus has it; every public fact was published."""
    for twin in books.tables["outbox"]:
        what = f"{twin['name']} {twin['key']} for {twin['consumer']} is in the outbox after {twin['tries']} repetitions"
        yield Violation(6, what, twin["run_id"])
    for subscription in books.tables["subscriptions"]:
        if books.round.quiet:
            yield Violation(
                6, f"step {subscription['step']} still waits for an event", subscription["run_id"]
            )
    if books.round.listener.losses or not books.round.quiet:
        return  # what JetStream has lost after it had acknowledged it, nobody can have heard
    for run_id, run in books.runs.items():
        facts = [ENDS[run["status"]]] if run["status"] in ENDS else []
        facts += ["run.planned"] if run["version"] is not None and books.history.get(run_id) else []
        for fact in facts:
            if fact == "run.planned" and not any(line["name"] == fact for line in books.history[run_id]):
                continue
            if (run_id, fact) not in books.round.listener.facts:
                yield Violation(6, f"{fact} was never published", run_id)
    for account in books.tables["warned"]:
        key = (account["tenant_id"], account["scope"], account["period"], "budget.warning")
        times = len(books.round.listener.told.get(key, ()))
        if times == 0 or (times > 1 and account["period"] == "total"):  # the others may have begun anew
            yield Violation(6, f"{account['scope']} of {account['tenant_id']} was warned of {times} times")


def check_signals(books: Books) -> Iterator[Violation]:
    """6: a signal that was sent again under its key was handled once."""
    said = Counter(
        (line["run_id"], line["data"]["name"])
        for line in books.tables["history"]
        if line["name"] == "signal.received" and line["data"].get("step") is None
    )
    for (run_id, name), times in said.items():
        if times > 1:
            yield Violation(6, f"the signal {name} was sent under one key, and handled {times} times", run_id)


def check_parked(books: Books) -> Iterator[Violation]:
    """10: all poison is parked, with its reason, after few tries; nothing else is."""
    seen: dict[tuple[str, str], Row] = {}
    for row in books.tables["parked"]:
        payload = bytes(row["payload"]).decode("utf-8", "replace")
        poison = next((p for p in books.round.poisons if p.mark in payload), None)
        if poison is None:
            what = f"{row['consumer']} has parked a good message from {row['subject']} after {row['tries']} tries: "
            yield Violation(10, what + row["reason"][:300])
            continue
        seen[poison.mark, row["consumer"]] = row
        if not row["reason"]:
            yield Violation(10, f"{poison.mark} was parked without a reason")
        if row["tries"] > TRIES + 1 and books.round.calm:
            yield Violation(10, f"{poison.mark} was parked after {row['tries']} tries")
        if row["tenant_id"] != poison.tenant:
            yield Violation(11, f"{poison.mark} of tenant {poison.tenant} was parked with {row['tenant_id']}")
    for poison in books.round.poisons:
        if not poison.due(books.round.listener):
            continue
        for consumer in poison.consumers:
            if (poison.mark, consumer) not in seen:
                yield Violation(10, f"{poison.mark} is gone: {consumer} has not parked it")


def check_timers(books: Books) -> Iterator[Violation]:
    """14: a wait, a retry's pause, a time-out and a wall take the time they should, by the database's clock."""
    for run_id, run in books.runs.items():
        plan = books.plan(run)
        if plan is None:
            continue
        lines = books.history.get(run_id, [])
        for line in lines:
            data = line["data"]
            if line["name"] != "timer.fired" or data["kind"] in ("after", "budget") or "released" in data:
                continue  # for those that a plan sets for itself see check_histories; budgets free steps at any time
            since, least_ms = _set(plan, data, lines)
            took = line["at"] - since
            if took < timedelta(milliseconds=least_ms) - EARLY:
                fired = f"fired after {took.total_seconds() * 1000:.0f} ms"
                yield Violation(14, f"a {line['data']['kind']} of {least_ms} ms {fired}", run_id)


BEGINS = ("run.started", "run.forked")


def _set(plan: Plan, data: Row, lines: list[Row]) -> tuple[datetime, int]:
    """When a timer that has fired was set (at the earliest), and for how many milliseconds (at least)."""
    kind = data["kind"]
    if kind == "wall":
        return next(line["at"] for line in lines if line["name"] in BEGINS), plan.limits.wall_ms
    step = data["step"]
    at, name = next(
        (line["at"], start["task"])
        for line in lines
        for start in line["data"].get("started", ())
        if start["step"] == step
    )
    task = plan.tasks[name]
    if kind == "retry":
        failed = (line for line in lines if line["name"] == "step.completed" and line["data"]["step"] == step)
        line = next(line for line in failed if line["data"]["attempt"] == data["attempt"])
        # What was lost with the life that made it is made again at once.
        return line["at"], 0 if line["data"].get("again") else task.retry.after_ms(data["attempt"], 0)
    if kind == "wait":
        return at, task.for_ms or 0
    # What a halted call may cost is held for its time-out and a grace.
    return at, (task.timeout_ms or 0) + (WAITS["hold_grace_ms"] if kind == "hold" else 0)
