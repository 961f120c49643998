"""plan: turn a request into a plan that is pinned to its run, and route events to whom they concern."""

from __future__ import annotations

from typing import Any
from uuid import uuid5

from agentflow.core import spending
from agentflow.core.budgets import EXHAUSTED, NAME, scopes
from agentflow.core.costly import moving
from agentflow.core.decide.api import requested
from agentflow.core.decide.ending import failed
from agentflow.core.decision import NOTHING, Decided, Decision, Facts, Row, SlotTaken
from agentflow.core.estimate import Tariff
from agentflow.core.goal import CHILD_NAME, ONLY
from agentflow.core.limits import GATED
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.planner import budget_of, check_input, match_trigger
from agentflow.core.preflight import CODE, REFUSE, Worst, exhausted, worst_case
from agentflow.core.price import Price, ToolPrice
from agentflow.core.run import Run
from agentflow.errors import Rejected

MAX_DEPTH = 10
"""Runs that may wait for each other: a workflow that runs itself by way of others ends here at the latest."""
UNKNOWN_BUDGET = "unknown_budget"
LONGEST = 100
"""Most characters that are kept of what an event says in place of a budget's name."""


def decide(run: Run | None, message: Message, facts: Facts) -> Decision:
    """Plan a requested run, or start and wake runs by an external event."""
    if message.name == "event.received":
        return _route(message, facts)
    if run is None and facts.waits:
        # It is there to be seen, and to be cancelled, while it waits for its turn.
        return Decision(_asked(message, facts), messages=(message,))
    run = run or _asked(message, facts)
    if run.status != "requested" or (run.slot and message.key != GATED):
        return NOTHING
    plan = facts.plan
    if plan is None:
        return failed(run, facts, "unknown_workflow", f"there is no workflow {run.workflow}", path="workflow")
    if run.parent is not None and run.parent.depth > MAX_DEPTH:
        said = f"more than {MAX_DEPTH} workflows are running inside each other"
        return failed(run, facts, "too_deep", said, path="workflow")
    given = message.data["input"]
    problems = check_input(plan, given)
    if problems:
        return failed(run, facts, "invalid_input", "; ".join(map(str, problems)), path=problems[0].path)
    if said := _nobodys(run, message, facts):
        return failed(run, facts, UNKNOWN_BUDGET, said, path="trigger.budget")
    try:
        models, tools = _pin_models(plan, facts), _pin_tools(plan, facts)
    except Rejected as refusal:
        return failed(run, facts, refusal.code, str(refusal), path=refusal.problem.path)
    limit = plan.limits.micro
    if run.limit_micro or run.parent is not None:
        limit = min(limit, run.limit_micro)
    run = run.but(budget=_budget(run, plan))
    tariff = Tariff(models, tools, {alias: facts.window(alias) if facts.window else None for alias in models})
    if limit and (empty := exhausted(plan, tariff, facts.headroom.of(scopes(run)))) is not None:
        mend = "an operator has to look at it" if empty.frozen else f"raise the limit of {empty.who}"
        return failed(run, facts, EXHAUSTED, f"{empty.said()} ({mend})", path="budget")
    # A fork's worst case is known where it is asked for: it depends on what the other run has done.
    worst = worst_case(plan, tariff, given) if run.forked is None and plan.limits.preflight == REFUSE else None
    if worst is not None and (said := _too_dear(worst, run, limit, facts)):
        return failed(run, facts, CODE, said, path="limits.preflight")
    planned = run.move(
        "planned",
        version=facts.version,
        plan_hash=plan.hash,
        models=models,
        tools=tools,
        limit_micro=limit,
        seq=run.seq + 1,
    )
    planned = spending.begun(plan, planned, moving(plan, given, tools))
    data: dict[str, Any] = {
        "run": str(run.id),
        "workflow": run.workflow,
        "version": facts.version,
        "plan_hash": plan.hash,
        "input": given,
        "models": {alias: _price_json(price) for alias, price in models.items()},
        "limit_micro": limit,
    }
    if tools:
        data["tools"] = {name: price._asdict() for name, price in tools.items()}
    pinned: dict[str, Any] = {"workflow": run.workflow, "version": facts.version, "plan_hash": plan.hash}
    if plan.planning is not None:
        known = facts.template if plan.planning.cache else None
        pinned["goal"] = data["goal"] = {CHILD_NAME: known or "", ONLY: bool(message.data.get("only_plan"))}
    line = Decided("run.planned", pinned)
    message_out = Message("run.planned", run.tenant, run.id, "planned", data, run.trace)
    rows: tuple[Row, ...] = (line, SlotTaken()) if run.slot else (line,)
    return Decision(run=planned, rows=rows, messages=(message_out,))


def _too_dear(worst: Worst, run: Run, limit: int, facts: Facts) -> str:
    """Why the run is not started; '' where nothing is in its way."""
    if worst.exceeds(limit):
        return f"{worst.said(limit, 'it')} ({worst.mending('raise limits.usd')})"
    short = facts.headroom.short(scopes(run), worst.micro) if worst.micro else None
    if short is None:
        return ""
    mend = worst.mending(f"raise the limit of {short.who}")
    return f"{worst.said(short.left_micro or 0, short.who)}: {short.said()} ({mend})"


def _budget(run: Run, plan: Plan) -> str | None:
    """The named budget that the run is charged to: a child run's own comes before that of the run around it."""
    if run.parent is not None:
        return plan.limits.budget or run.budget
    return run.budget or plan.limits.budget


def _asked(message: Message, facts: Facts) -> Run:
    """The run that is asked for. What an event says in place of a budget may be anything: no run has such a name."""
    run = requested(message, facts)
    return run if run.budget is None or NAME.fullmatch(run.budget) else run.but(budget=None)


def _nobodys(run: Run, message: Message, facts: Facts) -> str:
    """Why the run cannot be charged to the budget that it is asked for with; '' where it can. Only an event's is still
    in its request: the API knows those that it lets through, and a child run has its parent's or its workflow's."""
    budget = message.data.get("budget")
    if budget is None or run.parent is not None or facts.headroom.of((f"budget:{budget}",)):
        return ""
    mend = "send another name, or have an administrator set it: agentflow budgets set budget:NAME"
    return f"trigger.budget: the event names {budget!r}, and there is no such budget ({mend})"


def _pin_models(plan: Plan, facts: Facts) -> dict[str, Price]:
    assert facts.price is not None
    return {alias: facts.price(alias) for alias in plan.aliases}


def _pin_tools(plan: Plan, facts: Facts) -> dict[str, ToolPrice]:
    if facts.tool_price is None:
        return {}
    names = sorted({task.use for task in plan.tasks.values() if task.kind == "tool" and task.use})
    told = {name: facts.tool_price(name) for name in names}
    return {name: price for name, price in told.items() if price is not None}


def _price_json(price: Price) -> dict[str, Any]:
    given = {name: value for name, value in price._asdict().items() if value is not None}
    if price.tiers:
        given["tiers"] = [tier._asdict() for tier in price.tiers]
    return given


def _route(message: Message, facts: Facts) -> Decision:
    """One external event: a new run for every trigger that matches, a signal for every step that waits."""
    event = message.data["event"]
    out: list[Message] = []
    for plan, version in facts.triggered:
        run_input = match_trigger(plan, event)
        if run_input is None:
            continue
        run_id = uuid5(message.run, plan.name)
        data = {
            "run": str(run_id),
            "workflow": plan.name,
            "version": version,
            "input": run_input,
            "budget_micro": None,
        }
        if (budget := budget_of(plan, event)) is not None:
            data["budget"] = budget[:LONGEST]
        out.append(Message("run.requested", message.tenant, run_id, "requested", data, message.trace))
    for run_id, step in facts.subscribers:
        data = {"run": str(run_id), "name": event["type"], "data": event, "step": step}
        key = f"event:{message.run}:{step}"
        out.append(Message("signal.received", message.tenant, run_id, key, data, message.trace))
    return Decision(messages=tuple(out))
