"""Names that are declared and not used, and variables that are read and never set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agentflow.core.expressions import names_read, names_set
from agentflow.core.plan import Plan, Task
from agentflow.errors import Problem


def unused(plan: Plan) -> Iterator[Problem]:
    """Tasks that nothing runs, tools and agents that no task uses, inputs and variables that say nothing."""
    run = {task.name for task in running_tasks(plan)}
    entries = plan.document.get("tasks", {})
    for name in sorted(entries.keys() - run):
        if not any(_mentions(entry, name) for other, entry in entries.items() if other != name):
            yield _warn(f"tasks.{name}", f"nothing runs the task {name!r}", "run it, or remove it", "unused")
    used = {task.use for task in plan.tasks.values()}
    for name in sorted(plan.tools.keys() - used):
        if not any(_mentions(entry, name) for entry in entries.values()):
            yield _warn(f"tools.{name}", f"no task uses the tool {name!r}", "use it, or remove it", "unused")
    for name in sorted(plan.document.get("agents", {}).keys() - used):
        yield _warn(f"agents.{name}", f"no task uses the agent {name!r}", "use it, or remove it", "unused")
    yield from _variables(plan)


def running_tasks(plan: Plan) -> list[Task]:
    """The task of every state and node that runs one; a task that several run comes several times."""
    if plan.machine is not None:
        return [state.task for state in plan.machine.states if state.task is not None]
    return [node.task for node in plan.tree.nodes if node.task is not None] if plan.tree is not None else []


def _variables(plan: Plan) -> Iterator[Problem]:
    moving = (plan.machine, plan.tree)
    read = names_read((moving, plan.tasks, plan.output))
    written = names_set(moving)
    for name in plan.input:
        if name not in read:
            yield _warn(f"input.{name}", f"nothing reads the input {name!r}", "use it, or remove it", "unused")
    for name in plan.vars:
        # Without `output` all variables are the run's result, so to set one is to use it.
        shown = plan.output is None and name in written
        if name in read and name not in written:
            message = f"{name!r} is read and never set: it is what the run's input says, else zero"
            mend = "set it somewhere, or declare it under `input`"
            yield _warn(f"vars.{name}", message, mend, "never_set")
        elif name not in read and not shown:
            what = "nothing reads" if name in written else "nothing sets or reads"
            yield _warn(f"vars.{name}", f"{what} the variable {name!r}", "use it, or remove it", "unused")


def _mentions(entry: Any, name: str) -> bool:
    """Whether a task's entry names another task or tool, e.g. as what undoes it."""
    if isinstance(entry, dict):
        words = ("kind", "prompt", "description")
        return any(_mentions(value, name) for key, value in entry.items() if key not in words)
    if isinstance(entry, list):
        return any(_mentions(value, name) for value in entry)
    return bool(entry == name)


def _warn(path: str, message: str, mend: str, code: str) -> Problem:
    return Problem(path, message, mend, code, "warning")
