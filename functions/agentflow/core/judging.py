"""Judging a plan that a model has written: does it stand for a plan, is it in order, does it come to an end?

What passes is frozen: as a document of its own under a name that holds its hash, so that the same plan is the same
workflow, whoever thinks of it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.canonical import as_written, digest, undone
from agentflow.core.compile import compile_plan
from agentflow.core.explore import Reducer, explore
from agentflow.core.plan import Plan, Planning
from agentflow.core.planning_wire import Misshapen, document
from agentflow.errors import Invalid, Problem

MAX_FAULTS = 20
MAX_STATES = 500
MAX_ADVANCES = 3_000


def judge(planning: Planning, draft: Any, advance: Reducer) -> dict[str, Any]:
    """What becomes of a model's answer: ``fits`` with ``workflow`` (its name) and ``document``, or ``faults`` in words
    that the model can act upon."""
    try:
        frozen = _frozen(planning, draft, advance)
    except (Misshapen, Invalid) as fault:
        return _refused(list(fault.problems))
    return {"fits": True, "faults": "", "workflow": frozen["name"], "document": frozen}


def _frozen(planning: Planning, draft: Any, advance: Reducer) -> dict[str, Any]:
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
    return {*planning.tasks, *(tasks[name]["undo"] for name in planning.tasks if undone(tasks.get(name, {}), tasks))}


def rehearse(plan: Plan, advance: Reducer) -> None:
    """Go every way that the plan can go, as far as there is time for it. ``Invalid`` when that shows that it cannot
    succeed or come to an end, or not with the steps that there are."""
    explored = explore(plan, advance, states=MAX_STATES, advances=MAX_ADVANCES)
    if explored.findings:
        mend = "let there be a way to success, and from everywhere one to an end"
        raise Invalid([Problem("nodes", str(finding), mend, finding.code) for finding in explored.findings])


def _refused(problems: list[Problem]) -> dict[str, Any]:
    lines = [str(problem) for problem in problems[:MAX_FAULTS]]
    if len(problems) > MAX_FAULTS:
        lines.append(f"and {len(problems) - MAX_FAULTS} more")
    return {"fits": False, "faults": "\n".join(lines), "workflow": "", "document": None}
