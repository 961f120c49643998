"""Checks of money: accounts, ledger and calls agree, and nothing stays held (invariant 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from agentflow.core.price import Price, Used, llm_micro
from chaos.books import TERMINAL, Books, nonce_of
from chaos.statements import Row
from chaos.violation import Violation


def check_accounts(books: Books) -> Iterator[Violation]:
    """7: a run has spent what its ledger says, at most its limit; each hold was taken once and settled once."""
    for run_id, run in books.runs.items():
        entries = books.ledger.get(run_id, [])
        spent = sum(entry["amount_micro"] for entry in entries if entry["entry"] == "settle")
        held = sum(entry["held_micro"] for entry in entries)
        if (run["spent_micro"], run["held_micro"]) != (spent, held):
            what = f"spent {run['spent_micro']}, held {run['held_micro']}, while its ledger says {spent} and {held}"
            yield Violation(7, what, run_id)
        if run["frozen"]:
            yield Violation(7, "it was billed more than was held", run_id)
        elif run["version"] is not None and run["spent_micro"] + run["held_micro"] > run["limit_micro"]:
            yield Violation(7, f"it has spent {run['spent_micro']} of {run['limit_micro']}", run_id)
        if run["status"] in TERMINAL and books.round.quiet and run["held_micro"]:
            yield Violation(7, f"it is over, and {run['held_micro']} is still held", run_id)
        counted = Counter((entry["step"], entry["attempt"], entry["entry"]) for entry in entries)
        for (step, attempt, entry), times in counted.items():
            if times > 1:
                yield Violation(7, f"step {step}.{attempt} has {times} entries {entry}", run_id)
            if entry == "settle" and not counted[step, attempt, "hold"]:
                yield Violation(7, f"step {step}.{attempt} was settled and never held", run_id)


def check_sums(books: Books) -> Iterator[Violation]:
    """7: what is rolled up for reports is what the ledger says, by tenant and workflow; a child's counts as its own."""
    settled: Counter[tuple[str, str]] = Counter()
    for entry in books.tables["ledger"]:
        if entry["entry"] == "settle" and entry["price"] != "workflow" and (run := books.runs.get(entry["run_id"])):
            settled[str(run["tenant_id"]), run["workflow"]] += entry["amount_micro"]
    added: Counter[tuple[str, str]] = Counter()
    for row in books.tables["spend"]:
        added[str(row["tenant_id"]), row["workflow"]] += row["cost_micro"]
    for key in settled.keys() | added.keys():
        if settled[key] != added[key]:
            yield Violation(7, f"{key[1]} of {key[0]} has settled {settled[key]}, and {added[key]} is reported")


def check_calls(books: Books) -> Iterator[Violation]:
    """7: what was booked for an accepted call is what that call used, at the price the run has pinned."""
    settled = {
        (entry["run_id"], entry["step"], entry["attempt"]): entry
        for entry in books.tables["ledger"]
        if entry["entry"] == "settle"
    }
    for step in books.tables["steps"]:
        key = (step["run_id"], step["step"], step["attempt"])
        entry = settled.get(key)
        booked = entry["amount_micro"] if entry else 0
        name = f"step {step['step']}.{step['attempt']} ({step['task']})"
        if step["status"] == "requested":
            continue
        if step["status"] != "halted" and booked != step["cost_micro"]:
            yield Violation(7, f"{name} cost {step['cost_micro']}, and {booked} was settled", step["run_id"])
        if step["status"] == "succeeded" and step["kind"] == "llm":
            yield from _check_usage(books, step, booked, name)


def _check_usage(books: Books, step: Row, booked: int, name: str) -> Iterator[Violation]:
    call = books.round.far.nonces.get(nonce_of(step) or "")
    models = (books.runs[step["run_id"]]["state"] or {}).get("models") or {}
    task = next(iter(models), None)
    if call is None or task is None:
        return
    used = llm_micro(Price.unpacked(models[task]), Used(*call.usage))
    if booked != used:
        yield Violation(
            7, f"{name} used {call.usage} tokens, worth {used}, and {booked} was settled", step["run_id"]
        )


def check_unpriced(books: Books) -> Iterator[Violation]:
    """7: no call was made without a known price."""
    for entry in books.tables["ledger"]:
        if not entry["price"]:
            yield Violation(7, f"step {entry['step']} was booked without a price", entry["run_id"])
    for run in books.tables["runs"]:
        if run["workflow"] == "unpriced" and (run["status"] != "failed" or books.steps.get(run["run_id"])):
            yield Violation(7, f"its model has no price, and it is {run['status']}", run["run_id"])
