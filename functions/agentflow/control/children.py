"""The workflows that a workflow runs: they are there, take what they are given, and do not lead back to it."""

from __future__ import annotations

from uuid import UUID

from agentflow.control.registry import Registry
from agentflow.core.canonical import as_written
from agentflow.core.goal import AUTHOR
from agentflow.core.plan import Child, Plan, Task
from agentflow.core.types import Type
from agentflow.errors import Problem, Rejected

MAX_LOOKED_AT = 200
"""Workflows that are followed from one to the next when a new one is checked."""


async def check_children(registry: Registry, tenant: UUID, plan: Plan) -> list[Problem]:
    """The faults of a plan's workflow tasks, as things are now: versions that are registered later are not known."""
    problems: list[Problem] = []
    for task in _running_others(plan):
        assert task.child is not None
        path = f"tasks.{task.name}.use"
        try:
            _, child = await registry.newest(tenant, task.child)
        except Rejected as refusal:
            mend = "register it first, or name a version that there is"
            problems.append(Problem(path, str(refusal.problem.message), mend, "unknown_workflow"))
            continue
        problems += _given(task, child)
        if way := await _way_back(registry, tenant, plan.name, child):
            said = "would run itself again: " + " → ".join((plan.name, *way))
            problems.append(Problem(path, said, "use a loop in one plan", "child_cycle"))
    return [as_written(problem, AUTHOR) for problem in problems]


def _running_others(plan: Plan) -> list[Task]:
    return [task for task in plan.tasks.values() if task.child is not None and task.child.workflow]


def _given(task: Task, child: Plan) -> list[Problem]:
    """What the task gives is what the workflow takes."""
    takes = {**child.vars, **child.input}
    problems = [
        Problem(f"tasks.{task.name}.in.{name}", f"is missing: {child.name} needs it", f"give a {type_}", "missing")
        for name, type_ in child.input.items()
        if name not in task.inputs
    ]
    for name, expr in task.inputs.items():
        path = f"tasks.{task.name}.in.{name}"
        if name not in takes:
            known = ", ".join(takes) or "nothing"
            said = f"{child.name} takes no input {name!r}"
            problems.append(Problem(path, said, f"it takes: {known}", "unknown_input"))
        elif not _suits(expr.type, takes[name]):
            problems.append(Problem(path, f"is a {expr.type}", f"{child.name} takes a {takes[name]}", "type"))
    return problems


def _suits(given: Type, wanted: Type) -> bool:
    """Whether a value of one type may be one of the other; of json that is known only when it is there."""
    if "json" in (given.kind, wanted.kind):
        return True
    if given.of is not None and wanted.of is not None:
        return given.kind == wanted.kind and _suits(given.of, wanted.of)
    return given.kind == wanted.kind or (given.kind, wanted.kind) in _FITS


_FITS = {("int", "double"), ("double", "int"), ("string", "file"), ("file", "string")}


async def _way_back(registry: Registry, tenant: UUID, name: str, first: Plan) -> list[str]:
    """How one comes from ``first`` back to the workflow ``name``; nothing when one does not."""
    todo: list[tuple[Plan, list[str]]] = [(first, [first.name])]
    seen = {first.name}
    while todo and len(seen) < MAX_LOOKED_AT:
        plan, way = todo.pop(0)
        if plan.name == name:
            return way
        for task in _running_others(plan):
            child = task.child
            assert child is not None
            if child.workflow == name:
                return [*way, name]
            if child.workflow not in seen:
                seen.add(child.workflow)
                found = await _found(registry, tenant, child)
                if found is not None:
                    todo.append((found, [*way, child.workflow]))
    return []


async def _found(registry: Registry, tenant: UUID, child: Child) -> Plan | None:
    try:
        return (await registry.newest(tenant, child))[1]
    except Rejected:
        return None
