"""Checks of runs: that each ends once, as it must, and that its steps follow each other (invariants 1 to 5, 8, 9)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

from agentflow.core.plan import Plan
from agentflow.core.run import child_id
from chaos.books import TERMINAL, Books, nonce_of
from chaos.checks_roads import EARLY
from chaos.replay import Replay
from chaos.statements import Row
from chaos.violation import Violation
from chaos.workflows import BY_NAME, UNPRICED

ENDS = {"succeeded": "run.completed", "failed": "run.failed", "cancelled": "run.cancelled"}
PASSING = frozenset({"rate_limited", "model_unavailable", "timeout", "bad_response", "bad_result", "model_unreachable",
                     "internal", "sandbox_unavailable", "tool_failed", "outcome_unknown",
                     "not_called", "connection_lost"})  # fmt: skip


def check_submissions(books: Books) -> Iterator[Violation]:
    """2: every acknowledged submission is one run, the one that was named; nobody else has made runs."""
    known = set()
    for submission in books.round.submissions:
        known.add(submission.token)
        runs = books.by_token.get(submission.token, [])
        if submission.acknowledged and len(runs) != 1:
            yield Violation(
                2,
                f"{submission.token} ({submission.workflow.name}) was acknowledged, and is {len(runs)} runs",
            )
        named = submission.ids | {str(run["run_id"]) for run in runs}
        if len(named) > 1:
            yield Violation(2, f"the key {submission.token} gave several runs: {sorted(named)}")
    for token, runs in books.by_token.items():
        if token not in known and not (runs[0]["state"] or {}).get("parent"):
            yield Violation(2, f"nobody has asked for this run (token {token!r})", runs[0]["run_id"])


def check_ends(books: Books) -> Iterator[Violation]:
    """1: every run is over, once, as its workflow says; no end has changed since it was first seen."""
    for submission in books.round.submissions:
        for run in books.by_token.get(submission.token, []):
            run_id = run["run_id"]
            if run["status"] not in TERMINAL or run["finished_at"] is None:
                opened = (run["state"] or {}).get("open")
                yield Violation(1, f"{run['workflow']} is still {run['status']}, open: {opened}", run_id)
                continue
            if fault := _outcome(books, run, cancelled=submission.cancelled):
                yield Violation(1, f"{run['workflow']}: {fault}", run_id)
            if books.round.sampler.ended.get(run_id, run["digest"]) != run["digest"]:
                yield Violation(1, "its end has changed after it had ended", run_id)
            facts = {
                name
                for (each, name) in books.round.listener.facts
                if each == run_id and name in ENDS.values()
            }
            if facts - {ENDS[run["status"]]}:
                yield Violation(
                    1, f"it is {run['status']}, and {', '.join(sorted(facts))} was published", run_id
                )
            said = books.round.listener.facts.get((run_id, ENDS[run["status"]]), set())
            if len(said) > 1:
                yield Violation(
                    1, f"{ENDS[run['status']]} was published with {len(said)} different contents", run_id
                )


def _outcome(books: Books, run: Row, *, cancelled: bool) -> str:
    """What is wrong with how a run has ended; '' when nothing is."""
    workflow = BY_NAME.get(run["workflow"], UNPRICED)
    error = run["error"] or {}
    code = "cancelled" if run["status"] == "cancelled" else error.get("code", "")
    if run["status"] == "succeeded":
        return "" if not workflow.code and workflow.good(run) else f"it must not come to {run['output']}"
    if code == workflow.code or (code == "cancelled" and cancelled):
        return ""
    # Only its budget, or a far side that failed an attempt too many, may end another run before its time.
    steps = books.steps[run["run_id"]]
    last = [step for step in steps if step["status"] == "failed"]
    refused = code == "budget_exhausted" and not steps  # nothing was left when it was to begin
    if refused or any((step["error"] or {}).get("code") == "budget_exhausted" for step in last):
        limited = books.round.tenants[-1].id
        return "" if run["tenant_id"] == limited else f"it ran out of money: {error}"
    plan = books.plan(run)
    assert plan is not None
    if any(_spent(plan, step) or _fell_with(books, step) for step in last):
        return ""
    return f"it must not end {run['status']}: {error}"


def _spent(plan: Plan, step: Row) -> bool:
    """Whether a failed attempt was the last its task allows, and failed for what only the far side decides."""
    task = plan.tasks[step["task"]]
    calls = step["kind"] == "llm" or step["task"].endswith(("effect", "charge"))
    return calls and step["attempt"] >= task.retry.max and step["error"]["code"] in PASSING


def _fell_with(books: Books, step: Row) -> bool:
    """Whether a step failed because the run that it had started failed, and that one had a reason to."""
    child = books.runs.get(child_id(step["run_id"], step["step"], step["attempt"]))
    return step["kind"] == "workflow" and child is not None and not _outcome(books, child, cancelled=False)


def check_children(books: Books) -> Iterator[Violation]:
    """1, 3: a run that another has started has ended as that one was told, and belongs to a step that asked for it."""
    for run in books.runs.values():
        around = (run["state"] or {}).get("parent")
        if not around:
            continue
        parent, step, attempt = UUID(around[0]), around[1], around[2]
        asked = books.attempts.get((parent, step, attempt))
        if run["run_id"] != child_id(parent, step, attempt) or parent not in books.runs:
            yield Violation(2, f"nobody has asked for this run as step {step}.{attempt} of {parent}", run["run_id"])
        elif asked is None or run["status"] not in TERMINAL:
            if books.runs[parent]["status"] in TERMINAL:
                what = f"it is {run['status']}, and run {parent}, which waits for it, has ended"
                yield Violation(1, what, run["run_id"])
        elif asked["status"] == "succeeded" and (run["status"], run["output"]) != ("succeeded", asked["output"]):
            what = f"it came to {run['status']} {run['output']}, and run {parent} took {asked['output']}"
            yield Violation(3, what, run["run_id"])
        elif asked["status"] == "failed" and run["status"] == "succeeded":
            yield Violation(3, f"it succeeded, and for run {parent} it failed: {asked['error']}", run["run_id"])


def check_histories(books: Books) -> Iterator[Violation]:
    """3, 4, 8: the history, decided again, comes to the same; what it started is what there is, and nothing else."""
    for run_id, run in books.runs.items():
        plan = books.plan(run)
        lines = books.history.get(run_id, [])
        if plan is None or not lines:
            continue
        replay = Replay(run, plan, books.steps[run_id])
        yield from replay.check(lines)
        if replay.violations:
            continue
        for line, (setter, least_ms) in replay.fired.items():
            took = lines[line - 1]["at"] - lines[setter - 1]["at"]
            if took < timedelta(milliseconds=least_ms) - EARLY:
                fired = f"line {line}: fired after {took.total_seconds() * 1000:.0f} ms"
                yield Violation(14, f"{fired}, it was set for {least_ms}", run_id)
        if run["seq"] != len(lines):
            yield Violation(
                8, f"it has decided {run['seq']} times, its history has {len(lines)} lines", run_id
            )
        closed = {step["step"] for step in books.steps[run_id] if step["status"] != "requested"}
        if odd := closed - replay.started.keys():
            yield Violation(3, f"steps {sorted(odd)} have results and were never started", run_id)
        if run["status"] in TERMINAL and (lost := replay.started.keys() - closed):
            yield Violation(3, f"steps {sorted(lost)} were started and have no result", run_id)
        for step in books.steps[run_id]:
            yield from _check_step(replay, lines, step)


def _check_step(replay: Replay, lines: list[Row], step: Row) -> Iterator[Violation]:
    number, run_id = step["step"], step["run_id"]
    name = f"step {number}.{step['attempt']} ({step['task']})"
    halted = lines[replay.halted[number] - 1]["at"] if number in replay.halted else None
    # What was recorded before the halt stays recorded; nobody has decided upon it, and nobody will.
    if halted is not None and step["status"] == "succeeded" and step["completed_at"] > halted:
        yield Violation(4, f"{name} was halted in line {replay.halted[number]}, and has succeeded", run_id)
    if step["status"] == "halted" and step["output"] is not None:
        yield Violation(4, f"{name} was halted, and has a result", run_id)
    if step["attempt"] == 1 and number in replay.started and step["epoch"] != replay.started[number][1]:
        yield Violation(
            4, f"{name} has epoch {step['epoch']}, it was started in {replay.started[number][1]}", run_id
        )


def check_results(books: Books) -> Iterator[Violation]:
    """3, 5: results have not changed since they were seen; each was decided upon once, and came from one call."""
    sampler, far = books.round.sampler, books.round.far
    for (run_id, number, attempt), digest in sampler.results.items():
        row = books.attempts.get((run_id, number, attempt))
        if row is None or row["digest"] != digest:
            yield Violation(
                3, f"the result of step {number}.{attempt} has changed since it was first seen", run_id
            )
    decided = Counter(
        (line["run_id"], line["data"]["step"], line["data"]["attempt"])
        for line in books.tables["history"]
        if line["name"] == "step.completed"
    )
    kept = Counter((step["run_id"], step["step"], step["attempt"]) for step in books.tables["steps"])
    for (run_id, number, attempt), times in (decided | kept).items():
        if times > 1:
            yield Violation(5, f"the result of step {number}.{attempt} was accepted {times} times", run_id)
    wanted: Counter[str] = Counter()
    for step in books.tables["steps"]:
        key = books.key_of(step)
        refused = (step["error"] or {}).get("code") == "budget_exhausted"
        if key is None or refused:
            continue
        wanted[key] += 1
        if step["status"] != "succeeded":
            continue
        nonce = nonce_of(step)
        call = far.nonces.get(nonce or "")
        name = f"step {step['step']}.{step['attempt']} ({step['task']})"
        if call is None or call.key != key:
            yield Violation(
                5, f"{name} has a result that the far side never gave it: {step['output']}", step["run_id"]
            )
    for key, calls in far.calls.items():
        if not wanted[key]:
            if calls and books.by_token.get(key.partition("/")[0]) and books.round.quiet:
                yield Violation(5, f"{key} was called {len(calls)} times, and no step asks for it")
        elif books.round.calm and len(calls) > wanted[key]:
            yield Violation(
                5, f"{key} was called {len(calls)} times for {wanted[key]} attempts, without any fault"
            )


def check_once(books: Books) -> Iterator[Violation]:
    """5: what declares that it may be called once was, whatever happened; nobody is in the dark without a reason."""
    for step in books.tables["steps"]:
        if step["task"] != "charge":
            continue
        name = f"step {step['step']}.{step['attempt']} ({step['task']})"
        calls = len(books.round.far.calls.get(books.key_of(step) or "", ()))
        if calls > 1:
            yield Violation(5, f"{name} was called {calls} times under one key", step["run_id"])
        code = (step["error"] or {}).get("code")
        if code == "outcome_unknown" and books.round.calm:
            yield Violation(5, f"{name} has an unknown outcome, without any fault", step["run_id"])
    for claim in books.tables["claims"] if books.round.quiet else ():
        yield Violation(13, f"the claim of step {claim['key']} is still there", claim["run_id"])


def repeated_calls(books: Books) -> int:
    """Calls beyond one per attempt: a call is made at least once, so faults may repeat it."""
    wanted = Counter(books.key_of(step) for step in books.tables["steps"])
    return sum(max(0, len(calls) - wanted[key]) for key, calls in books.round.far.calls.items())


def check_order(books: Books) -> Iterator[Violation]:
    """3: no call reaches the far side before the decision that asked for it was committed."""
    asked = {}
    for line in books.tables["history"]:
        for start in line["data"].get("started", ()):
            asked[line["run_id"], start["step"]] = line
    for step in books.tables["steps"]:
        key = books.key_of(step)
        if key is None or step["attempt"] != 1 or (step["run_id"], step["step"]) not in asked:
            continue
        if not key.startswith(f"{books.runs[step['run_id']]['input'].get('token')}/"):
            continue  # a fork goes on with what an agent was asked in the other run, which made this call before
        line = asked[step["run_id"], step["step"]]
        calls = books.round.far.calls.get(key)
        if calls and (first := datetime.fromtimestamp(calls[0].at, UTC)) < line["committed"]:
            early = (line["committed"] - first).total_seconds() * 1000
            what = f"step {step['step']} ({step['task']}) was called {early:.1f} ms before line {line['seq']}, which "
            yield Violation(3, what + "asked for it, was committed", step["run_id"])


def check_pending(books: Books) -> Iterator[Violation]:
    """9: nothing goes on without anything pending (at rest as in every snapshot), and fuel never runs out."""
    if not books.round.quiet and not books.round.sampler.twins and not books.round.sampler.timers:
        for run in books.runs.values():
            if run["status"] not in TERMINAL and not any(
                row["run_id"] == run["run_id"] for row in books.tables["subscriptions"]
            ):
                yield Violation(9, f"{run['status']}, and nothing is pending anywhere", run["run_id"])
    for run in books.runs.values():
        if "fuel" in str(run["error"]) or "microsteps" in str(run["error"]):
            yield Violation(9, f"it ran out of fuel: {run['error']}", run["run_id"])
