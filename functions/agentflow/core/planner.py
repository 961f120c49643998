"""The planner's face: one pure function that moves a run on, whatever kind of plan it follows.

``advance(plan, state, event)`` gives the next state and the commands that follow from the event. It runs to
completion: when it returns, either something is running or the run has finished. An event that comes late, twice
or after the end changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

from agentflow.core import fsm, planning, tree
from agentflow.core.agents import Agents
from agentflow.core.expr import CelFault, Expr
from agentflow.core.goal import RESERVED
from agentflow.core.inner import Inner, Make
from agentflow.core.moves import (
    Advance,
    Begin,
    ClearTimer,
    Command,
    Completed,
    Elapsed,
    Ended,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    SetTimer,
    Signal,
    Start,
    TimedOut,
)
from agentflow.core.plan import Plan, Task
from agentflow.core.turn import FREE
from agentflow.core.types import JSON, conform, problem, zero
from agentflow.core.undo import Undoing
from agentflow.errors import Problem

__all__ = [
    "Advance",
    "Begin",
    "ClearTimer",
    "Command",
    "Completed",
    "Elapsed",
    "Ended",
    "Failed",
    "Finish",
    "Halt",
    "PlanEvent",
    "PlanState",
    "SetTimer",
    "Signal",
    "Start",
    "TimedOut",
    "advance",
    "awaits",
    "check_input",
    "check_values",
    "key_of",
    "match_event",
    "match_trigger",
]


def advance(
    plan: Plan, state: PlanState | None, event: PlanEvent, fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Move the run on by one event; ``state`` is None for ``Begin`` and only then (ValueError otherwise).

    ``fixed``: variables that have these values from before the event on, whatever it assigns to them.
    """
    if fixed and state is not None:
        state = replace(state, vars={**state.vars, **fixed})
    if plan.planning is not None:
        return planning.advance(plan, partial(_advance, fixed=fixed), advance, state, event)
    if carriers := _CARRIERS[plan.compensates, plan.has_agents]:
        return Inner(plan, partial(_advance, fixed=fixed), _where, state, carriers).advance(event)
    return _advance(plan, state, event, fixed)


MAX_KEY = 500
"""Most characters of an idempotency key."""

_CARRIERS: Mapping[tuple[bool, bool], Mapping[str, Make]] = {
    (False, False): {},
    (True, False): {"undo": Undoing},
    (False, True): {"agents": Agents},
    (True, True): {"undo": Undoing, "agents": Agents},
}
"""What carries out steps of its own: by whether a plan compensates, and has agents."""


def _advance(
    plan: Plan, state: PlanState | None, event: PlanEvent, fixed: Mapping[str, JSON] = FREE
) -> Advance:
    if state is None:
        if not isinstance(event, Begin):
            raise ValueError(f"a run begins with Begin, not {type(event).__name__}")
        variables = {**_first_vars(plan, event.input), **fixed}
        if plan.machine is not None:
            moved = fsm.begin(plan, plan.machine, variables, fixed)
        else:
            assert plan.tree is not None
            moved = tree.begin(plan, plan.tree, variables, fixed)
        return replace(moved, changed={**moved.changed, "vars": moved.state.vars})
    if "ended" in state.cursor or event.__class__ is Begin:
        return Advance(state, ())
    if plan.machine is not None:
        return fsm.advance(plan, plan.machine, state, event, fixed)
    assert plan.tree is not None
    return tree.advance(plan, plan.tree, state, event, fixed)


def _where(
    plan: Plan, state: PlanState, step: int, result: dict[str, JSON] | None = None
) -> tuple[str, Task, dict[str, JSON]] | None:
    if plan.machine is not None:
        return fsm.where(plan.machine, state, step)
    assert plan.tree is not None
    return tree.where(plan, plan.tree, state, step, result)


def awaits(state: PlanState | None, timer: int) -> bool:
    """Whether a timer that the planner has set still means something to it."""
    return state is not None and str(timer) in state.cursor.get("timers", ())


def _first_vars(plan: Plan, given: Mapping[str, JSON]) -> dict[str, JSON]:
    declared = {**plan.input, **plan.vars}
    return {
        name: conform(given[name], type_) if name in given else zero(type_)
        for name, type_ in declared.items()
    }


def check_input(plan: Plan, given: Mapping[str, JSON]) -> list[Problem]:
    """The faults of a run's input: every declared input is there, nothing else but first values of vars."""
    problems = []
    for name, type_ in plan.input.items():
        if name not in given:
            problems.append(
                Problem(f"input.{name}", "is missing", f"give a value of type {type_}", "missing")
            )
    return problems + check_values(plan, given, "input")


def check_values(plan: Plan, given: Mapping[str, JSON], root: str) -> list[Problem]:
    """The faults of values for inputs and variables, with paths below ``root``."""
    problems = []
    declared = {**plan.input, **plan.vars}
    if plan.planning is not None:
        declared = {name: type_ for name, type_ in declared.items() if not name.startswith(RESERVED)}
    for name, value in given.items():
        if name not in declared:
            known = ", ".join(declared) or "nothing"
            problems.append(
                Problem(
                    f"{root}.{name}",
                    f"{plan.name} {'takes no input' if root == 'input' else 'has no variable'} {name!r}",
                    f"it {'takes' if root == 'input' else 'has'}: {known}",
                    "unknown_input",
                )
            )
        elif fault := problem(value, declared[name], f"{root}.{name}"):
            problems.append(fault)
    return problems


def match_trigger(plan: Plan, event: Mapping[str, JSON]) -> dict[str, JSON] | None:
    """The run's input when ``event`` (a CloudEvent as an object) starts this workflow, else None.

    A condition that cannot be evaluated on this event does not hold. An input that cannot be is null, so that
    the run's own check refuses it where its owner sees it, and other workflows still start.
    """
    trigger = plan.trigger
    if trigger is None or event.get("type") != trigger.type:
        return None
    local = {"event": dict(event)}
    if trigger.condition is not None and not _holds(trigger.condition, {}, local):
        return None
    return {name: _value(expr, local) for name, expr in trigger.input}


def budget_of(plan: Plan, event: Mapping[str, JSON]) -> str | None:
    """The named budget that a run which ``event`` starts is charged to, as its trigger says; None: it says nothing."""
    if plan.trigger is None or plan.trigger.budget is None:
        return None
    value = _value(plan.trigger.budget, {"event": dict(event)})
    return value if isinstance(value, str) and value else None


def match_event(plan: Plan, task: str, state: PlanState, step: int, event: Mapping[str, JSON]) -> bool:
    """Whether ``event`` (a CloudEvent as an object) is the one that ``step``, of the event task ``task``, waits for.

    A ``match`` that cannot be evaluated on this event does not hold.
    """
    waiting = plan.tasks[task]
    local: dict[str, JSON] = {}
    if (ran := _where(plan, state, step)) is not None:  # no place is its own where it undoes something
        _, waiting, local = ran
    if waiting.kind != "event" or event.get("type") != waiting.use:
        return False
    return waiting.match is None or _holds(waiting.match, state.vars, {**local, "event": dict(event)})


def key_of(plan: Plan, task: str, state: PlanState, step: int) -> str:
    """The idempotency key that ``task`` says for ``step``, which has just started; '' where it says none. ``CelFault``
    when it has no value, or one that is no key."""
    starting = plan.tasks[task]
    local: dict[str, JSON] = {}
    if starting.keyed and (ran := _where(plan, state, step)) is not None:
        _, starting, local = ran
    if starting.key is None:
        return ""
    key: str = starting.key.value(state.vars, local)
    if not 1 <= len(key) <= MAX_KEY or "\0" in key:
        raise CelFault(f"a key has 1 to {MAX_KEY} characters, this one {len(key)}")
    return key


def _value(expr: Expr, local: Mapping[str, JSON]) -> JSON:
    try:
        return expr.value({}, local)
    except CelFault:
        return None


def _holds(condition: Expr, variables: Mapping[str, JSON], local: Mapping[str, JSON]) -> bool:
    try:
        return condition.value(variables, local) is True
    except CelFault:
        return False
