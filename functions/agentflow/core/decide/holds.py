"""Holds: what a step may cost is reserved before it is asked for, in all accounts that it is charged to.

Where one of them is short, ``at_limit`` of the task (or of the plan's limits) says what becomes of the step: it is
rejected, it waits for headroom, or a person is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agentflow.core.agents import around
from agentflow.core.budgets import EXHAUSTED, TENANT, Account, scopes
from agentflow.core.decision import CHILD, PERSON, LedgerEntry, Refused, Row, Subscribed, TimerSet, Waiting
from agentflow.core.plan import Task
from agentflow.core.run import OpenStep, Run
from agentflow.core.waiting import RUN, Shortage

if TYPE_CHECKING:
    from agentflow.core.decide.turn import Turn

JSON = Any
Fault = tuple[str, str]  # code, message
TASK = "task"
"""The scope of the ``usd`` of an agent or an llm task, which is no account either."""
LONGEST_MS = 366 * 86_400_000
PASSED = 100
"""Steps that do not fit are passed by smaller ones, so many at most, as in an account (0011_budgets.sql)."""


class Short(NamedTuple):
    """An account that does not admit a hold, how much that is, and what could be done about it."""

    account: Account
    needed: int
    path: str
    mend: str

    @property
    def fault(self) -> Fault:
        said = f"{self.path}: may cost up to {self.needed} micro-dollars, but {self.account.said()}"
        return EXHAUSTED, f"{said} ({self.mend} or lower max_tokens)"


def short_of(turn: Turn, step: int, task: Task, amount: int, price: str) -> Short | None:
    """What is in the way of a hold."""
    if amount == 0:
        return None
    path = f"tasks.{task.part_of or task.name}"
    if (cap := _cap(turn, step, task)) is not None and not cap.account.admits(amount):
        return Short(cap.account, amount, f"tasks.{cap.task}.usd", "raise it")
    own = _own(turn)
    account = turn.headroom.short(scopes(turn.run, child=price == CHILD), amount) if own.admits(amount) else own
    return None if account is None else Short(account, amount, path, _mend(turn, account))


def room(turn: Turn, step: int, task: Task) -> int | None:
    """The most that may be held for a call of a step; None: as much as one likes."""
    accounts = [_own(turn), *turn.headroom.of(scopes(turn.run))]
    if (cap := _cap(turn, step, task)) is not None:
        accounts.append(cap.account)
    return min((left for account in accounts if (left := account.left_micro) is not None), default=None)


def take(turn: Turn, step: int, attempt: int, amount: int, price: str, alias: str | None = None) -> None:
    """Reserve what an attempt may cost; nothing is in the way. ``alias``: the model, where it is not the task's own."""
    if amount == 0:
        return
    if (within := _agent_of(turn, step)) is not None:
        agent, opened = within
        turn.open = turn.open.set(agent, opened._replace(used_micro=opened.used_micro + amount))
    turn.held_now += amount
    turn.headroom = turn.headroom.charged(scopes(turn.run, child=price == CHILD), amount)
    turn.holds = turn.holds.set(f"{step}.{attempt}", amount)
    if alias is not None:
        turn.run = turn.run.but(cheaper=turn.run.cheaper.set(f"{step}.{attempt}", alias))
    turn.row(LedgerEntry(step, attempt, "hold", amount, amount, price, None if alias is None else {"model": alias}))


def at_limit(
    turn: Turn, step: int, task: Task, given: Mapping[str, JSON], attempt: int, short: Short
) -> Fault | None:
    """What becomes of a step that does not fit: why it is refused, None where it waits or somebody is asked."""
    account = short.account
    way = task.at_limit or turn.plan.limits.at_limit
    waits = way == "wait" and _may_come(turn, short)
    asks = way == "ask" and account.scope != TASK and not (account.scope == RUN and turn.run.parent)
    before = turn.waited_for
    if before is None or not waits:  # else it has been told already
        _tell(turn, step, attempt, short)
    if account.scope not in (RUN, TASK):
        turn.row(Refused(account.scope, short.needed))
    if not waits and not asks:
        return short.fault
    opened = turn.opened(step, task, "budget" if waits else "approval", attempt, given)
    shortage = Shortage(account.scope, account.period, short.needed)
    if waits and account.scope != RUN:
        until = LONGEST_MS if account.ends_ms is None else account.ends_ms - turn.facts.now_ms
        since = before.since_ms if before is not None else opened.at_ms
        shortage = shortage._replace(since_ms=since)
        turn.row(Waiting(step, attempt, *shortage[:3], max(0, min(until, LONGEST_MS)), since))
    turn.run = turn.run.but(short=turn.run.short.set(step, shortage))
    turn.is_short(step)
    if asks:
        _ask(turn, step, task, attempt, short)
    return None


def freed(run: Run) -> tuple[Row, ...]:
    """Steps that wait for the run's own limit and can go on, or have waited in vain, after it was settled: in their
    order, past ``PASSED`` at most that do not fit. Those that go on are expected to take what they wait for, so that
    the others are not woken for it as well; if they do not, ``Turn.decision`` asks again."""
    left, held = run.limit_micro - run.spent_micro - run.held_micro, run.held_micro
    woken: list[Row] = []
    passed = 0
    for step in run.short.own():
        shortage, opened = run.short[step], run.open.get(step)
        if opened is None or opened.waits != "budget":
            continue
        never = run.frozen or held == 0 or shortage.needed_micro > run.limit_micro - run.spent_micro
        if shortage.needed_micro <= left:
            left -= shortage.needed_micro
            held += shortage.needed_micro
        elif not never:
            passed += 1
            if passed == PASSED:
                break
            continue
        woken.append(TimerSet(f"budget:{step}", "budget", 0, step, opened.attempt))
    return tuple(woken)


def _may_come(turn: Turn, short: Short) -> bool:
    """Whether there may be enough in time. A tenant's limits may be raised; a run's own is what it is."""
    account = short.account
    if account.scope == TASK:
        return False
    if account.scope != RUN:
        return True
    limit = account.limit_micro or 0
    return not account.frozen and account.held_micro > 0 and short.needed <= limit - account.spent_micro


def _ask(turn: Turn, step: int, task: Task, attempt: int, short: Short) -> None:
    run = turn.run
    turn.row(Subscribed(step, PERSON))
    data = {
        "run": str(run.id),
        "workflow": run.workflow,
        "version": run.version,
        "step": step,
        "task": task.part_of or task.name,
        "use": "budget",
        "input": {**short.account.told(), "needed_micro": short.needed},
        "timeout_ms": None,
    }
    turn.send("human.requested", f"{step}.{attempt}:budget:{run.seq}", data)


def _tell(turn: Turn, step: int, attempt: int, short: Short) -> None:
    data = {"run": str(turn.run.id), "step": step, "needed_micro": short.needed, **short.account.told()}
    turn.send("budget.exhausted", f"{step}.{attempt}:budget", data)


def _own(turn: Turn) -> Account:
    run = turn.run
    return Account(RUN, "total", run.limit_micro, run.spent_micro, run.held_micro + turn.held_now, run.frozen)


class Cap(NamedTuple):
    """What a ``task`` of the document may cost by its ``usd``, as an account."""

    task: str
    account: Account


def _cap(turn: Turn, step: int, task: Task) -> Cap | None:
    """What one attempt at an llm task may cost, or all of an agent's where the step is one of its inner ones."""
    if task.kind == "llm" and task.price_cap_micro is not None:
        return Cap(task.name, Account(TASK, "total", task.price_cap_micro))
    within = _agent_of(turn, step)
    if within is None:
        return None
    _, opened = within
    cap = turn.plan.tasks[opened.task].price_cap_micro
    return None if cap is None else Cap(opened.task, Account(TASK, "total", cap, opened.used_micro))


def _agent_of(turn: Turn, step: int) -> tuple[int, OpenStep] | None:
    """The open step of the agent that an inner step belongs to."""
    agent = around(turn.state, step)
    opened = None if agent is None else turn.open.get(agent)
    return None if agent is None or opened is None else (agent, opened)


def _mend(turn: Turn, account: Account) -> str:
    if account.scope == RUN:
        return "raise usd of the task that runs it" if turn.run.parent else "raise limits.usd"
    who = "the tenant's" if account.scope == TENANT else f"{account.scope}'s"
    return f"have an operator look at {who} account" if account.frozen else f"raise {who} limit"
