"""How a step of each kind begins: what is asked of whom, and what is waited for.

``begin(turn, step, given, attempt)`` opens one attempt of a step and returns why it was refused, if it was. What a step
waits for is written down in ``OpenStep.waits``; ``WAITING`` says for each how it is ended and when its time is over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from agentflow.core import agents, chat
from agentflow.core.decide.holds import Fault, Short, at_limit, room, short_of, take
from agentflow.core.decision import (
    CHILD,
    PERSON,
    Row,
    StepClosed,
    Subscribed,
    TimerCleared,
    TimerSet,
    Unsubscribed,
)
from agentflow.core.expr import CelFault
from agentflow.core.goal import CHILD_NAME
from agentflow.core.money import by_bytes, call_ms, input_tokens_bound, llm_hold, tool_hold, tool_price
from agentflow.core.plan import Child, Task
from agentflow.core.planner import key_of
from agentflow.core.price import llm_bound, most_output
from agentflow.core.run import OpenStep, child_id
from agentflow.core.waiting import Shortage

if TYPE_CHECKING:
    from agentflow.core.decide.turn import Turn

JSON = Any
Given = Mapping[str, JSON]
YEAR_MS = 366 * 86_400_000


def begin(
    turn: Turn, step: int, task: Task, given: Given, attempt: int, waited_for: Shortage | None = None
) -> Fault | None:
    """Open one attempt of a step; why it was refused, None when it goes on. In a paused run it waits. ``waited_for``:
    the money that it has waited for."""
    turn.waited_for = waited_for
    if turn.run.status == "paused":
        turn.opened(step, task, "resume", attempt, given)
        return None
    return _BEGIN[task.kind](turn, step, task, given, attempt)


def _llm(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    wanted = agents.asked(turn.plan, turn.state, step) if task.part_of else chat.asked(task, given)
    if wanted is None:
        turn.opened(step, task, "resume", attempt, given)  # and halted by this very decision
        return None
    offer, short = _offer(turn, step, task, wanted)
    if offer is None:
        return _out_of_money(turn, step, task, given, attempt, short)
    price = turn.run.models[offer.alias]
    asked = {
        "model": {"provider": price.provider, "model": price.model},
        "messages": wanted.messages,
        "input": dict(given),
        "max_output_tokens": offer.tokens,
        "output_schema": wanted.schema,
    }
    if wanted.tools:
        asked["tools"] = wanted.tools
    if offer.alias != task.use:
        asked["alias"] = offer.alias
    return _call(turn, step, task, given, attempt, asked, offer.held, price.price_version)


class Offer(NamedTuple):
    """A model that can be asked: so many tokens at most, with so much held."""

    alias: str
    tokens: int
    held: int


def _offer(turn: Turn, step: int, task: Task, wanted: chat.Asked) -> tuple[Offer | None, int]:
    """The first of the task's models that fits, its reply limited to what fits if need be; and where none does, the
    least that would do."""
    left = room(turn, step, task)
    least = 0
    for alias in task.aliases:
        price = turn.run.models[alias]
        count = turn.facts.tokens(alias) if turn.facts.tokens is not None else None
        most = input_tokens_bound(*wanted, count or by_bytes(price))
        held = llm_hold(price, task, most)
        if left is None or held <= left:
            return Offer(alias, task.max_tokens, held), held
        tokens = most_output(price, most, call_ms(task), left)
        if tokens is not None and tokens >= task.fewest_tokens:
            return Offer(alias, tokens, llm_bound(price, most, tokens, call_ms(task))), held
        needed = llm_bound(price, most, task.fewest_tokens, call_ms(task))
        least = min(least or needed, needed)
    return None, least


def _tool(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    before = turn.open.get(step)
    try:
        key = before.key if before is not None else ""  # all attempts have the one that the first has had
        if not key and task.keyed and turn.state is not None:
            key = key_of(turn.plan, task.name, turn.state, step)
    except CelFault as fault:
        opened = turn.opened(step, task, "call", attempt, given)
        return _refused(turn, step, task, given, opened, "bad_key", f"tasks.{task.name}.key: {fault.message}"[:500])
    asked = {
        "tool": task.use,
        "workflow": turn.run.workflow,
        "version": turn.run.version,
        "input": dict(given),
        "key": key or f"{turn.run.id}/{step}",
    }
    if task.calls_once(turn.plan.tools):
        asked["once"] = True
    price = tool_price(turn.run, turn.plan, task)
    refusal = _call(turn, step, task, given, attempt, asked, tool_hold(price, task), price.price_version)
    if refusal is None and key:
        turn.keyed(step, key)
    return refusal


def _refused(
    turn: Turn, step: int, task: Task, given: Given, opened: OpenStep, code: str, message: str
) -> Fault:
    """Close a step that was refused at once."""
    turn.row(StepClosed(step, opened.attempt, opened, task.kind, "failed", given, error=_error(code, message)))
    turn.close(step)
    return code, message


def _call(
    turn: Turn, step: int, task: Task, given: Given, attempt: int, asked: dict[str, JSON], held: int, version: str
) -> Fault | None:
    """Ask for a call of a model or tool, with its worst price held."""
    data = {
        "run": str(turn.run.id),
        "step": step,
        "attempt": attempt,
        "epoch": turn.epoch,
        "task": task.name,
        **asked,
        "timeout_ms": call_ms(task),
        "hold_micro": held,
    }
    refusal = _held(turn, step, task, given, attempt, "call", held, version, asked.get("alias"))
    if refusal is None and step not in turn.run.short:
        turn.send(f"{task.kind}.requested", f"{step}.{attempt}", data)
    return refusal


def _held(
    turn: Turn, step: int, task: Task, given: Given, attempt: int, waits: str, held: int, price: str,
    alias: str | None = None,
) -> Fault | None:  # fmt: skip
    """Open the step with what it may cost held. Where that does not fit it is closed at once, or waits."""
    short = short_of(turn, step, task, held, price)
    if short is not None:
        return _at_limit(turn, step, task, given, attempt, short)
    turn.fund(step)
    take(turn, step, attempt, held, price, alias)
    turn.opened(step, task, waits, attempt, given if waits != "call" else None)
    return None


def _out_of_money(turn: Turn, step: int, task: Task, given: Given, attempt: int, needed: int) -> Fault | None:
    short = short_of(turn, step, task, needed, "")
    assert short is not None, "what fits is offered"
    return _at_limit(turn, step, task, given, attempt, short)


def _at_limit(turn: Turn, step: int, task: Task, given: Given, attempt: int, short: Short) -> Fault | None:
    refusal = at_limit(turn, step, task, given, attempt, short)
    if refusal is None:
        return None
    opened = turn.opened(step, task, "budget", attempt, given)
    return _refused(turn, step, task, given, opened, *refusal)


def _wait(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    opened = turn.opened(step, task, "timer", attempt, given)
    after_ms = task.for_ms or 0
    if "until" in given:
        until_ms = _milliseconds(given["until"])
        if until_ms is None or until_ms - turn.facts.now_ms > YEAR_MS:
            said = "is no time such as 2026-12-24T18:00:00Z" if until_ms is None else "is more than 366 days away"
            code, message = "bad_time", f"tasks.{task.name}.until: {given['until']!r} {said}"[:500]
            return _refused(turn, step, task, given, opened, code, message)
        after_ms = max(0, until_ms - turn.facts.now_ms)
    turn.row(TimerSet(f"wait:{step}", "wait", after_ms, step, attempt))
    return None


def _milliseconds(text: str) -> int | None:
    """A point in time as milliseconds since the epoch; one without an offset is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _error(code: str, message: str) -> dict[str, JSON]:
    return {"code": code, "message": message}


def _event(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    turn.opened(step, task, "event", attempt, given)
    turn.row(Subscribed(step, task.use))
    _limit(turn, step, task, attempt)
    return None


def _human(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    turn.opened(step, task, "person", attempt, given)
    turn.row(Subscribed(step, PERSON))
    _limit(turn, step, task, attempt)
    data = {
        "run": str(turn.run.id),
        "workflow": turn.run.workflow,
        "version": turn.run.version,
        "step": step,
        "task": task.name,
        "use": task.use,
        "input": dict(given),
        "timeout_ms": task.timeout_ms,
    }
    turn.send("human.requested", f"{step}.{attempt}:human", data)
    return None


def _workflow(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    """Ask for a run of another workflow; all that it may spend is held here, so that both limits are kept."""
    assert task.child is not None
    budget = task.price_cap_micro or 0
    refusal = _held(turn, step, task, given, attempt, "child", budget, CHILD)
    if refusal or step in turn.run.short:
        return refusal
    _limit(turn, step, task, attempt)
    run, child = turn.run, task.child
    if not child.workflow:  # a plan that has been written
        child = Child(given[CHILD_NAME], 1, 1)
        given = {name: value for name, value in given.items() if name != CHILD_NAME}
    exact = child.first if child.first == child.last else None
    data: dict[str, JSON] = {
        "run": str(child_id(run.id, step, attempt)),
        "workflow": child.workflow,
        "version": exact,
        "versions": None if exact or not child.first else [child.first, child.last],
        "input": dict(given),
        "budget_micro": budget,
        "priority": run.priority,
        "parent": {
            "run": str(run.id),
            "step": step,
            "attempt": attempt,
            "epoch": turn.epoch,
            "depth": run.parent.depth + 1 if run.parent else 1,
        },
    }
    if run.budget is not None:
        data["budget"] = run.budget
    turn.send("run.requested", "requested", data, run=UUID(data["run"]))
    return None


def _planner(turn: Turn, step: int, task: Task, given: Given, attempt: int) -> Fault | None:
    turn.opened(step, task, "planner", attempt, given)  # which carries it out, and says when it has ended
    return None


_BEGIN: Mapping[str, Callable[[Turn, int, Task, Given, int], Fault | None]] = {
    "llm": _llm,
    "tool": _tool,
    "wait": _wait,
    "event": _event,
    "human": _human,
    "workflow": _workflow,
    "compensate": _planner,
    "agent": _planner,
    "judge": _planner,
    "keep": _planner,
}


def _limit(turn: Turn, step: int, task: Task, attempt: int) -> None:
    if task.timeout_ms:
        turn.row(TimerSet(f"timeout:{step}", "timeout", task.timeout_ms, step, attempt))


def unwait(step: int, waits: str) -> list[Row]:
    """What is no longer needed when a step stops waiting."""
    return [make(step) for make in _UNWAIT.get(waits, ())]


def _clear(prefix: str) -> Callable[[int], Row]:
    return lambda step: TimerCleared(f"{prefix}:{step}")


_UNWAIT: Mapping[str, tuple[Callable[[int], Row], ...]] = {
    "retry": (_clear("retry"),),
    "timer": (_clear("wait"),),
    "event": (Unsubscribed, _clear("timeout")),
    "person": (Unsubscribed, _clear("timeout")),
    "child": (_clear("timeout"),),
    "budget": (_clear("budget"),),
    "approval": (Unsubscribed,),
}
