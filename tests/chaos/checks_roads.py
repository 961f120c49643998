"""Checks of roads: nothing is left on its way, nothing was dropped, no timer was early (invariants 6, 10, 14)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta

from chaos.books import Books
from chaos.poison import TRIES
from chaos.statements import Row
from chaos.violation import Violation

EARLY = timedelta(milliseconds=5)
"""Statements of one transaction read the clock one after another, in an order that is nobody's business."""

ENDS = {"succeeded": "run.completed", "failed": "run.failed", "cancelled": "run.cancelled"}


def check_outbox(books: Books) -> Iterator[Violation]:
    """6: after quiescence every message has been consumed, or the bus has it; every public fact was published."""
    for twin in books.tables["outbox"]:
        what = f"{twin['name']} {twin['key']} for {twin['consumer']} is still in the outbox after {twin['tries']} repetitions"
        yield Violation(6, what, twin["run_id"])
    for subscription in books.tables["subscriptions"]:
        if books.round.quiet:
            yield Violation(6, f"step {subscription['step']} still waits for an event", subscription["run_id"])
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
    """14: a wait takes its time, a retry its pause, a time-out its patience, a wall its limit, by the database's clock."""
    for run_id, run in books.runs.items():
        plan = books.plan(run)
        if plan is None:
            continue
        lines = books.history.get(run_id, [])
        begun = {start["step"]: line["at"] for line in lines for start in line["data"].get("started", ())}
        failed = {
            (line["data"]["step"], line["data"]["attempt"]): line["at"] for line in lines if line["name"] == "step.completed"
        }
        for line in lines:
            if line["name"] != "timer.fired":
                continue
            data = line["data"]
            since = _since(data, begun, failed, lines)
            if since is None:
                continue
            task = plan.tasks[data["task"]] if "task" in data else None
            least = {
                "wait": lambda task=task: task.for_ms,
                "timeout": lambda task=task: task.timeout_ms,
                "retry": lambda task=task, data=data: task.backoff_ms * 2 ** (data["attempt"] - 1),
                "wall": lambda plan=plan: plan.limits.wall_ms,
                "hold": lambda: 0,
            }[data["kind"]]()
            took = line["at"] - since
            if took < timedelta(milliseconds=least) - EARLY:
                yield Violation(14, f"a {data['kind']} of {least} ms fired after {took.total_seconds() * 1000:.0f} ms", run_id)


def _since(
    data: Mapping[str, object], begun: Mapping[int, datetime], failed: Mapping[tuple[int, int], datetime], lines: list[Row]
) -> datetime | None:
    """When the timer was set, as far as the history tells."""
    step: int = data.get("step", 0)  # type: ignore[assignment]
    if data["kind"] == "retry":
        return failed.get((step, data["attempt"]))  # type: ignore[arg-type]
    if data["kind"] == "wall":
        return next((line["at"] for line in lines if line["name"] == "run.started"), None)
    return begun.get(step)
