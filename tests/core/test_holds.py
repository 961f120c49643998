"""What is asked where money is short: a shorter reply, a cheaper model, or nobody; and what the refusal says."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from agentflow.core import spending
from agentflow.core.budgets import Account, Headroom, scopes
from agentflow.core.decide import account_cost, dispatch, plan, record
from agentflow.core.decision import (
    Decided,
    Decision,
    Facts,
    LedgerEntry,
    Left,
    Refused,
    Spent,
    StepClosed,
    TimerSet,
    Waiting,
)
from agentflow.core.message import Message
from agentflow.core.price import Price
from agentflow.core.run import EMPTY, Run, unpack_state
from agentflow.wire.document import compile_document

TENANT, RUN = UUID(int=1), UUID(int=2)
DEAR = Price("scripted", "dear", 1_000_000, 10_000_000, "v1")
CHEAP = Price("scripted", "cheap", 100_000, 1_000_000, "v1")
# "hi" is 34 tokens at most: 2 bytes, and twice the frame of a message.
INPUT = 34


def compiled(task: dict[str, Any] | None = None, **limits: Any) -> Any:
    asked = {"kind": "llm", "use": "dear", "prompt": "hi", "max_tokens": 100, **(task or {})}
    return compile_document({
        "agentflow": "plan/v1", "kind": "bt", "name": "w", "limits": {"steps": 9, "usd": 1, **limits},
        "tasks": {"ask": asked}, "root": {"parallel": ["ask"]},
    })  # fmt: skip


def known(document: Any, *accounts: Account) -> Facts:
    by_scope: dict[str, list[Account]] = {}
    for account in accounts:
        by_scope.setdefault(account.scope, []).append(account)
    prices = {"dear": DEAR, "cheap": CHEAP, "free": CHEAP._replace(input_micro_per_mtok=0, output_micro_per_mtok=0)}
    return Facts(0, document, 1, prices.__getitem__, headroom=Headroom(by_scope))


def planned(document: Any, *accounts: Account, budget: str | None = None) -> Decision:
    """What becomes of a run that is asked for."""
    given = {"run": str(RUN), "workflow": "w", "version": 1, "input": {}, "budget_micro": None, "budget": budget}
    message = Message("run.requested", TENANT, RUN, "requested", given)
    return plan.decide(None, message, known(document, *accounts))


def started(document: Any, *accounts: Account, budget: str | None = None) -> Decision:
    """The first decision of a run that asks a model at once."""
    asked = planned(document, *accounts, budget=budget)
    (message,) = asked.messages
    return dispatch.decide(asked.run, message, known(document, *accounts))


def request(decision: Decision) -> dict[str, Any]:
    (asked,) = [message.data for message in decision.messages if message.name == "llm.requested"]
    return asked


def fault(decision: Decision) -> dict[str, Any]:
    (closed,) = [row for row in decision.rows if isinstance(row, StepClosed)]
    assert closed.error is not None
    return dict(closed.error)


def told(decision: Decision, name: str) -> dict[str, Any]:
    (data,) = [message.data for message in decision.messages if message.name == name]
    return data


def total(left: int, scope: str = "tenant") -> Account:
    return Account(scope, "total", 10_000, 10_000 - left - 7, 7)


def test_all_of_a_reply_is_asked_for_where_it_fits() -> None:
    asked = request(started(compiled(), total(INPUT + 1000)))
    assert (asked["max_output_tokens"], asked["hold_micro"]) == (100, INPUT + 1000)


def test_a_reply_is_shortened_to_what_is_left() -> None:
    decision = started(compiled(), total(INPUT + 999))
    asked = request(decision)
    assert (asked["max_output_tokens"], asked["hold_micro"]) == (99, INPUT + 990)
    (entry,) = [row for row in decision.rows if isinstance(row, LedgerEntry)]
    assert (entry.entry, entry.amount_micro) == ("hold", INPUT + 990)


def test_the_smallest_of_all_headrooms_counts() -> None:
    accounts = [total(5000), total(INPUT + 800, "workflow:w"), total(INPUT + 700, "budget:team"), total(0, "budget:x")]
    assert request(started(compiled(), *accounts, budget="team"))["max_output_tokens"] == 70
    assert request(started(compiled(), *accounts))["max_output_tokens"] == 80
    own = compiled(usd=(INPUT + 600) / 1e6)
    assert request(started(own, *accounts, budget="team"))["max_output_tokens"] == 60


def test_a_reply_is_not_shortened_below_what_makes_sense() -> None:
    assert request(started(compiled(), total(INPUT + 500)))["max_output_tokens"] == 50
    assert fault(started(compiled(), total(INPUT + 499)))["code"] == "budget_exhausted"
    strict, lenient = compiled({"min_tokens": 100}), compiled({"min_tokens": 1})
    assert fault(started(strict, total(INPUT + 999)))["code"] == "budget_exhausted"
    assert request(started(lenient, total(INPUT + 10)))["max_output_tokens"] == 1


def test_a_task_s_own_usd_is_kept() -> None:
    roomy = compiled({"usd": (INPUT + 1000) / 1e6})
    assert request(started(roomy, total(5000)))["max_output_tokens"] == 100
    tight = compiled({"usd": (INPUT + 700) / 1e6})
    assert request(started(tight, total(5000)))["max_output_tokens"] == 70
    refused = started(compiled({"usd": 0.0004}, at_limit="ask"), total(5000))
    assert fault(refused)["code"] == "budget_exhausted"
    assert fault(refused)["message"].startswith("tasks.ask.usd: may cost up to 534 ")
    assert told(refused, "budget.exhausted")["scope"] == "task"
    assert not [row for row in refused.rows if isinstance(row, Refused)]  # no account was short


def test_a_run_that_may_be_too_dear_for_any_of_its_accounts_is_not_started() -> None:
    document = compiled(preflight="refuse")
    most = INPUT + 1000
    assert request(started(document, total(most), total(most, "workflow:w")))["hold_micro"] == most
    for short in (total(most - 1), total(most - 1, "workflow:w"), total(most - 1, "budget:team")):
        known_as = {"budget:team": [Account("budget:team", "total", None)], short.scope: [short]}
        facts = Facts(0, document, 1, lambda _: DEAR, headroom=Headroom(known_as))
        given = {"run": str(RUN), "workflow": "w", "version": 1, "input": {}, "budget_micro": None, "budget": "team"}
        asked = plan.decide(None, Message("run.requested", TENANT, RUN, "requested", given), facts)
        assert asked.run is not None and asked.run.error is not None
        assert asked.run.error["code"] == "estimate_exceeds_budget"
        assert f"{short.who} has {most - 1} left" in asked.run.error["message"]


def test_a_run_that_an_event_charges_to_no_budget_there_is_fails() -> None:
    document = compiled(budget="team")
    assert planned(document, total(5000, "budget:blue"), budget="blue").run.budget == "blue"
    for name in ("zzz", "Not A Name", "7"):
        refused = planned(document, total(5000, "budget:team"), budget=name).run
        assert (refused.status, refused.error["code"], refused.error["path"]) == (
            "failed", "unknown_budget", "trigger.budget"
        )  # fmt: skip
        assert repr(name) in refused.error["message"]
        assert "agentflow budgets set" in refused.error["message"]
    assert refused.budget is None, "no row can have it"
    assert planned(document).run.budget == "team", "a workflow's own needs no account to be counted for"


def test_a_cheaper_model_is_asked_where_the_own_one_does_not_fit() -> None:
    document = compiled({"cheaper": "cheap"})
    asked = request(started(document, total(INPUT + 500)))
    assert (asked["model"]["model"], asked.get("alias")) == ("dear", None)
    decision = started(document, total(110))
    asked = request(decision)
    assert (asked["model"]["model"], asked["alias"], asked["max_output_tokens"]) == ("cheap", "cheap", 100)
    assert asked["hold_micro"] == 104  # 34 at a tenth and 100 tokens, rounded up
    assert request(started(document, total(60)))["max_output_tokens"] == 56
    assert "may cost up to 54 " in fault(started(document, total(53)))["message"]


def test_what_a_cheaper_model_has_used_is_priced_as_its_own() -> None:
    document = compiled({"cheaper": "cheap"})
    decision = started(document, total(110))
    run, asked = decision.run, request(decision)
    facts = Facts(0, document, 1)
    usage = {"input_tokens": 30, "output_tokens": 50, "cached_tokens": 0, "calls": 1}
    report = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task", "alias")}
    report |= {"status": "succeeded", "output": {"text": "ho"}, "error": None, "usage": usage, "cost_micro": 0}
    report |= {"duration_ms": 1, "late": False}
    recorded = record.decide(run, Message("step.completed", TENANT, RUN, "1.1:done", report), facts)
    (result,) = recorded.messages
    assert result.data["cost_micro"] == 53
    settled = account_cost.decide(recorded.run, result, facts)
    entries = [row for row in settled.rows if isinstance(row, LedgerEntry)]
    assert [row[2:5] for row in entries] == [("dispatch", 104, 0), ("settle", 53, -104)]
    (spent,) = [row for row in settled.rows if isinstance(row, Spent)]
    assert (spent.task, spent.name, spent.cost_micro, spent.held_micro) == ("ask", "cheap", 53, 104)
    advanced = dispatch.decide(settled.run, result, facts)
    assert advanced.rows[0].data["model"] == "cheap"  # type: ignore[union-attr]


def test_a_halted_call_of_a_cheaper_model_that_never_reports_counts_as_its() -> None:
    document = compiled({"cheaper": "cheap"})
    decision = started(document, total(110))
    assert decision.run is not None
    (hold,) = [row for row in decision.rows if isinstance(row, LedgerEntry)]
    assert (hold.entry, hold.usage) == ("hold", {"model": "cheap"})
    run = decision.run.but(halted=decision.run.halted.set("1.1", "ask"), open=decision.run.open.delete(1))
    state = run.state_json()
    assert (state["halted"], state["cheaper"]) == ({"1.1": "ask"}, {"1.1": "cheap"})  # the former version reads the one
    run = run.but(**{"cheaper": EMPTY, **unpack_state(state, run.steps)})
    data = {"run": str(RUN), "timer": "hold:1.1", "kind": "hold", "step": 1, "attempt": 1}
    after = dispatch.decide(run, Message("timer.fired", TENANT, RUN, "hold", data), Facts(0, document, 1))
    (spent,) = [row for row in after.rows if isinstance(row, Spent)]
    assert (spent.name, spent.price, spent.cost_micro) == ("cheap", "v1", 104)
    assert [row.price for row in after.rows if isinstance(row, LedgerEntry)] == ["expired", "v1"]
    assert after.run is not None and "cheaper" not in after.run.state_json()
    given_back = dispatch.decide(
        run, Message("timer.fired", TENANT, RUN, "hold", data | {"timer": "unclaimed:1.1"}), Facts(0, document, 1)
    )
    assert given_back.run is not None and "cheaper" not in given_back.run.state_json()


def test_what_a_former_version_has_settled_is_no_longer_known_by_its_model() -> None:
    decision = started(compiled({"cheaper": "cheap"}), total(110))
    assert decision.run is not None
    state = decision.run.state_json()
    state.pop("holds")
    assert unpack_state(state, 1)["cheaper"] == EMPTY


@pytest.mark.parametrize(("alias", "name"), [("cheap", "cheap"), (None, "dear")])
def test_a_correction_counts_for_the_model_that_was_asked(alias: str | None, name: str) -> None:
    document = compiled({"cheaper": "cheap"})
    run = started(document, total(110)).run
    assert run is not None
    _, rows = spending.corrected(run, document, "ask", 5, alias)
    assert isinstance(rows[0], Spent) and (rows[0].task, rows[0].name) == ("ask", name)


def test_a_refusal_says_what_there_is_and_when_it_resets() -> None:
    day = Account("budget:team", "day", 10_000, 9_500, 400, False, 1_767_225_600_000)
    decision = started(compiled(), total(5000), day, budget="team")
    assert fault(decision)["message"] == (
        "tasks.ask: may cost up to 534 micro-dollars, but budget:team has 100 left of 10000 for the day until "
        "2026-01-01T00:00:00Z (9500 spent, 400 held) (raise budget:team's limit or lower max_tokens)"
    )
    assert told(decision, "budget.exhausted") == {
        "run": str(RUN), "step": 1, "needed_micro": 534, "scope": "budget:team", "period": "day", "limit_micro": 10_000,
        "spent_micro": 9_500, "held_micro": 400, "remaining_micro": 100, "resets_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    assert Refused("budget:team", 534) in decision.rows


def test_a_frozen_account_refuses_everything() -> None:
    frozen = Account("workflow:w", "total", 10_000, 0, 0, frozen=True)
    waits = started(compiled({"cheaper": "cheap"}, at_limit="wait"), frozen)
    assert told(waits, "budget.exhausted")["scope"] == "workflow:w"
    refused = planned(compiled({"cheaper": "cheap"}), frozen).run
    assert refused is not None and refused.error is not None
    assert (refused.status, refused.error["code"]) == ("failed", "budget_exhausted")
    assert "workflow:w is frozen" in refused.error["message"]


CHILD = {"kind": "workflow", "use": "other", "usd": 0.5}


@pytest.mark.parametrize(
    ("tasks", "empty", "refused"),
    [
        ({"sub": CHILD}, "workflow:w", True),  # where what it holds for the other run counts
        ({"sub": CHILD}, "tenant", False),  # the other run's own calls count there, and may wait
        ({"sub": CHILD, "ask": {}}, "tenant", False),
        ({"sub": CHILD, "ask": {}}, "workflow:w", True),
        ({"sub": {**CHILD, "at_limit": "wait"}, "ask": {}}, "workflow:w", False),
    ],
)
def test_a_run_that_starts_others_is_refused_only_where_it_could_not(
    tasks: dict[str, Any], empty: str, refused: bool
) -> None:
    asked = {"kind": "llm", "use": "dear", "prompt": "hi", "max_tokens": 100}
    document = compile_document({
        "agentflow": "plan/v1", "kind": "bt", "name": "w", "limits": {"steps": 9, "usd": 1},
        "tasks": {name: task or asked for name, task in tasks.items()}, "root": {"sequence": [*tasks]},
    })  # fmt: skip
    run = planned(document, total(0, empty)).run
    assert run is not None
    assert run.status == ("failed" if refused else "planned")


def test_a_model_that_is_free_is_asked_where_nothing_is_left() -> None:
    assert request(started(compiled({"cheaper": "free"}), total(0)))["hold_micro"] == 0
    for task, name in (({"use": "free"}, "run.planned"), ({"use": "dear"}, "run.failed")):
        assert [message.name for message in planned(compiled(task), total(0)).messages] == [name]


def test_a_step_waits_until_its_period_ends_at_the_latest() -> None:
    day = Account("tenant", "day", 10_000, 9_500, 400, False, 3_600_000)
    waits = {"at_limit": "wait"}
    for document in (compiled(waits), compiled(**waits), compiled(waits, at_limit="ask")):
        decision = started(document, day)
        (waiting,) = [row for row in decision.rows if isinstance(row, Waiting)]
        assert waiting == Waiting(1, 1, "tenant", "day", 534, 3_600_000, 0)
        assert Refused("tenant", 534) in decision.rows
        assert decision.run is not None
        assert decision.run.open[1].waits == "budget"
        assert told(decision, "budget.exhausted")["needed_micro"] == 534
        assert not any(message.name == "llm.requested" for message in decision.messages)


def fired(run: Run, document: Any, *accounts: Account) -> Decision:
    """What the timer of the waiting step leads to."""
    data = {"run": str(RUN), "timer": "budget:1", "kind": "budget", "step": 1, "attempt": 1}
    headroom = Headroom({account.scope: [account] for account in accounts})
    facts = Facts(50, document, 1, headroom=headroom)
    return dispatch.decide(run, Message("timer.fired", TENANT, RUN, "timer:budget:1:1", data), facts)


def test_a_step_that_has_waited_keeps_its_place_or_goes_on() -> None:
    document = compiled({"at_limit": "wait"})
    waits = started(document, total(10))
    assert waits.run is not None
    again = fired(waits.run, document, total(20))
    assert again.run is None  # no news
    assert [row.since_ms for row in again.rows if isinstance(row, Waiting)] == [0]
    assert again.messages == ()
    goes_on = fired(waits.run, document, total(5000))
    assert request(goes_on)["max_output_tokens"] == 100
    assert goes_on.run is not None
    assert (goes_on.run.open[1].waits, dict(goes_on.run.short)) == ("call", {})


def test_nobody_waits_in_vain_for_a_runs_own_limit() -> None:
    """Nothing is held that could come back."""
    assert fault(started(compiled(usd=0.000100, at_limit="wait")))["code"] == "budget_exhausted"


def test_a_step_waits_for_what_its_own_run_holds() -> None:
    document = compile_document({
        "agentflow": "plan/v1", "kind": "bt", "name": "w", "limits": {"steps": 9, "usd": 0.0015, "at_limit": "wait"},
        "tasks": {"ask": {"kind": "llm", "use": "dear", "prompt": "hi", "max_tokens": 100, "min_tokens": 90}},
        "root": {"parallel": ["ask", "ask"]},
    })  # fmt: skip
    decision = started(document)
    run, asked = decision.run, request(decision)
    assert run is not None
    assert run.short[2][:3] == ("run", "total", INPUT + 900)
    data = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task")}
    data |= {"status": "succeeded", "output": {}, "error": None, "usage": {"calls": 1}, "cost_micro": 500}
    data |= {"duration_ms": 1, "late": False}
    settled = account_cost.decide(run, Message("step.completed", TENANT, RUN, "1.1:done", data), Facts(0, document, 1))
    assert TimerSet("budget:2", "budget", 0, 2, 1) in settled.rows


FOUR = compile_document({
    "agentflow": "plan/v1", "kind": "bt", "name": "w", "limits": {"steps": 9, "usd": 0.0015, "at_limit": "wait"},
    "tasks": {"ask": {"kind": "llm", "use": "dear", "prompt": "hi", "max_tokens": 100, "min_tokens": 90}},
    "root": {"parallel": ["ask"] * 4},
})  # fmt: skip


def woken(decision: Decision) -> list[str]:
    return [row.key for row in decision.rows if isinstance(row, TimerSet) and row.kind == "budget"]


def fires(run: Run, step: int, *accounts: Account) -> Decision:
    data = {"run": str(RUN), "timer": f"budget:{step}", "kind": "budget", "step": step, "attempt": 1}
    message = Message("timer.fired", TENANT, RUN, f"timer:{step}", data)
    return dispatch.decide(run, message, known(FOUR, *accounts))


def one_has_ended() -> tuple[Run, Decision]:
    """Of four that ask, of whom one at a time fits."""
    decision = started(FOUR)
    assert decision.run is not None
    assert sorted(decision.run.short) == [2, 3, 4]
    asked = request(decision)
    data = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task")}
    data |= {"status": "succeeded", "output": {"text": ""}, "error": None, "usage": {"calls": 1}, "cost_micro": 5}
    data |= {"duration_ms": 1, "late": False, "alias": "dear"}
    settled = account_cost.decide(
        decision.run, Message("step.completed", TENANT, RUN, "1.1:done", data), Facts(0, FOUR, 1)
    )
    assert settled.run is not None
    return settled.run, settled


def test_only_as_many_are_woken_as_fit() -> None:
    """Though nothing is held at that moment, whose end would wake the others: who is woken takes what it waits for."""
    run, settled = one_has_ended()
    assert (run.held_micro, woken(settled)) == (0, ["budget:2"])
    goes_on = fires(run, 2)
    assert request(goes_on)["step"] == 2
    assert woken(goes_on) == []


def test_who_is_woken_and_takes_nothing_leaves_it_to_the_next() -> None:
    run, _ = one_has_ended()
    account = Account("tenant", "total", 10, 0, 0, None)
    elsewhere = fires(run, 2, account)
    assert elsewhere.run is not None
    assert elsewhere.run.short[2].scope == "tenant"
    assert woken(elsewhere) == ["budget:3"]
    # ... and as well in the account, when it goes.
    halted = dispatch.decide(
        elsewhere.run, Message("run.cancel_requested", TENANT, RUN, "cancel", {"run": str(RUN), "reason": "no"}),
        known(FOUR, account),
    )  # fmt: skip
    assert [row for row in halted.rows if isinstance(row, Left)] == [Left("tenant")]


def test_a_step_whose_shortage_a_former_version_has_dropped_is_begun() -> None:
    """It keeps what a step waits for, and not how much that is."""
    run, _ = one_has_ended()
    state = {name: value for name, value in run.state_json().items() if name != "short"}
    read = run.but(**unpack_state(state, run.steps))
    assert {step: shortage.needed_micro for step, shortage in read.short.items()} == {2: 0, 3: 0, 4: 0}
    assert request(fires(read, 2))["step"] == 2


def test_who_is_refused_in_the_end_is_told_why_in_the_history() -> None:
    run, _ = one_has_ended()
    poor = run.but(spent_micro=run.limit_micro)
    (line,) = [row for row in fires(poor, 2).rows if isinstance(row, Decided)]
    assert line.data["error"]["code"] == "budget_exhausted"


def test_who_gets_what_it_has_waited_for_leaves_nothing() -> None:
    run, _ = one_has_ended()
    waits = fires(run, 2, Account("tenant", "total", 10, 0, 0, None))
    assert waits.run is not None
    goes_on = fires(waits.run, 2, Account("tenant", "total", 10_000, 0, 0, None))
    assert request(goes_on)["step"] == 2
    assert [row for row in goes_on.rows if isinstance(row, Left)] == []


def test_a_person_is_asked_and_says_yes_or_no() -> None:
    document = compiled(usd=0.000100, at_limit="ask")
    decision = started(document)
    run = decision.run
    assert run is not None
    asked = told(decision, "human.requested")
    assert (asked["use"], asked["input"]["scope"], asked["input"]["needed_micro"]) == ("budget", "run", INPUT + 500)

    def answered(approve: bool, micro: int = 0) -> Decision:
        data = {"run": str(RUN), "step": 1, "output": {"approve": approve, "micro": micro}, "by": "ann"}
        return dispatch.decide(run, Message("step.answered", TENANT, RUN, "answer", data), Facts(9, document, 1))

    no = answered(False)
    assert "not approved by ann" in fault(no)["message"]
    yes = answered(True)
    assert yes.run is not None
    assert (yes.run.limit_micro, request(yes)["max_output_tokens"]) == (INPUT + 500, 50)
    more = answered(True, 5000)
    assert more.run is not None
    assert (more.run.limit_micro, request(more)["max_output_tokens"]) == (5100, 100)


def test_what_a_call_was_billed_more_than_was_held_is_told_and_freezes_the_run() -> None:
    document = compiled()
    decision = started(document)
    assert decision.run is not None
    asked = request(decision)
    data = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task")}
    data |= {"status": "succeeded", "output": {}, "error": None, "usage": {"calls": 1}, "cost_micro": 2000}
    data |= {"duration_ms": 1, "late": False}
    settled = account_cost.decide(
        decision.run, Message("step.completed", TENANT, RUN, "1.1:done", data), Facts(0, document, 1)
    )
    assert settled.run is not None
    assert settled.run.frozen
    violation = told(settled, "budget.violation")
    assert (violation["held_micro"], violation["billed_micro"], violation["frozen"]) == (INPUT + 1000, 2000, True)


def test_the_scopes_of_a_run() -> None:
    run = Run(TENANT, RUN, "w", 1)
    assert scopes(run) == ("tenant", "workflow:w")
    assert scopes(run.but(budget="b")) == ("budget:b", "tenant", "workflow:w")
    assert scopes(run.but(budget="b"), child=True) == ("workflow:w",)
