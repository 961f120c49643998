"""Judging a plan that a model has written: does it stand for a plan, is it in order, does it come to an end?

What passes is frozen: as a document of its own under a name that holds its hash, so that the same plan is the same
workflow, whoever thinks of it again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.canonical import as_written, digest
from agentflow.core.compile import compile_plan
from agentflow.core.moves import (
    Advance,
    Begin,
    Completed,
    Elapsed,
    Failed,
    Finish,
    PlanEvent,
    PlanState,
    SetTimer,
    Start,
)
from agentflow.core.plan import Plan, Planning
from agentflow.core.planning_wire import Misshapen, document
from agentflow.core.types import zero
from agentflow.errors import Invalid, Problem

MAX_FAULTS = 20
MAX_EVENTS = 2_000
Advancing = Callable[[Plan, "PlanState | None", PlanEvent], Advance]


def judge(planning: Planning, draft: Any, advance: Advancing) -> dict[str, Any]:
    """What becomes of a model's answer: ``fits`` with ``workflow`` (its name) and ``document``, or ``faults`` in words
    that the model can act upon."""
    try:
        frozen = _frozen(planning, draft, advance)
    except (Misshapen, Invalid) as fault:
        return _refused(list(fault.problems))
    return {"fits": True, "faults": "", "workflow": frozen["name"], "document": frozen}


def _frozen(planning: Planning, draft: Any, advance: Advancing) -> dict[str, Any]:
    part, author = document(draft, planning.tasks, planning.kind)
    whole = {**planning.base, **part}
    whole["tasks"] = {name: task for name, task in whole["tasks"].items() if name in _needed(whole, planning)}
    try:
        plan = compile_plan(whole)
    except Invalid as fault:
        raise Invalid([as_written(problem, author) for problem in fault.problems]) from None
    rehearse(plan, advance)
    name = f"{whole['name'][:46]}-{digest(whole)[:16]}"
    return {**plan.document, "name": name}


def _needed(whole: Mapping[str, Any], planning: Planning) -> set[str]:
    """The tasks a plan may run, and those that undo them."""
    tasks = whole["tasks"]
    return {*planning.tasks, *(tasks[name]["undo"] for name in planning.tasks if "undo" in tasks.get(name, {}))}


def rehearse(plan: Plan, advance: Advancing) -> None:
    """Run a plan without doing anything: once everything succeeds, once everything fails. ``Invalid`` when it has not
    come to an end by then, or when an expression has no value although all went well."""
    for succeeds in (True, False):
        finish = _played(plan, advance, succeeds=succeeds)
        if finish is None:
            said = "succeeds" if succeeds else "fails"
            mend = "let every way lead to an end"
            raise Invalid([Problem("nodes", f"when every task {said} the plan does not end", mend, "endless")])


def _played(plan: Plan, advance: Advancing, *, succeeds: bool) -> Finish | None:
    state: PlanState | None = None
    names = {**plan.input, **plan.vars}
    todo: list[PlanEvent] = [Begin({name: zero(type_) for name, type_ in names.items()})]
    for _ in range(MAX_EVENTS):
        if not todo:
            return None
        moved = advance(plan, state, todo.pop(0))
        state = moved.state
        for command in moved.commands:
            if isinstance(command, Finish):
                return command
            if isinstance(command, Start):
                todo.append(_end(plan, command, succeeds=succeeds))
            elif isinstance(command, SetTimer):
                todo.append(Elapsed(command.timer))
    return None


def _end(plan: Plan, start: Start, *, succeeds: bool) -> PlanEvent:
    task = plan.tasks[start.task]
    if task.kind == "compensate":
        return Elapsed(0)  # the planner ends it itself
    if not succeeds:
        return Failed(start.step, "rehearsed", "it is only rehearsed")
    result: dict[str, Any] = {}
    for field, _, type_ in task.fields:
        if field:
            result[field] = zero(type_)
    return Completed(start.step, result)


def _refused(problems: list[Problem]) -> dict[str, Any]:
    lines = [str(problem) for problem in problems[:MAX_FAULTS]]
    if len(problems) > MAX_FAULTS:
        lines.append(f"and {len(problems) - MAX_FAULTS} more")
    return {"fits": False, "faults": "\n".join(lines), "workflow": "", "document": None}
