"""Tools that declare what they change outside: is that undone where a plan undoes things, and is a call whose outcome
is not known ever made again?
"""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core.canonical import NOTHING_TO_UNDO
from agentflow.core.machine import Machine
from agentflow.core.node import FAILURE, Node
from agentflow.core.plan import UNKNOWN, Plan, Task, ToolSpec
from agentflow.errors import Problem


def effects(plan: Plan) -> Iterator[Problem]:
    """What can be said against how a plan goes about its effects."""
    if plan.planning is not None or not any(tool.effects for tool in plan.tools.values()):
        return
    yield from _left(plan)
    yield from _named(plan)
    if plan.machine is not None:
        yield from _entered_again(plan, plan.machine)
    if plan.tree is not None:
        yield from _tried_again(plan, plan.tree.root)


def _called(plan: Plan, task: Task) -> list[ToolSpec]:
    """The plan's own tools that a task calls, itself or as an agent."""
    names = task.agent.tools if task.agent else (task.use,) if task.kind == "tool" else ()
    return [plan.tools[name] for name in names if name in plan.tools]


def _once(plan: Plan, task: Task | None) -> ToolSpec | None:
    return next((tool for tool in _called(plan, task) if tool.once), None) if task is not None else None


# -- undoing ------------------------------------------------------------------------------------------------


def _left(plan: Plan) -> Iterator[Problem]:
    """Tasks that change something where things are undone, and do not say what undoes that."""
    scopes = {task.scope: task.name for task in plan.tasks.values() if task.kind == "compensate"}
    undoing = {task.undo.task for task in plan.tasks.values() if task.undo is not None}
    if not scopes and undoing:
        scopes = {"": ""}  # somebody has thought of undoing, and not yet of when
    entries = plan.document.get("tasks", {})
    for scope, compensation in sorted(scopes.items()):
        for task in _inside(plan, scope):
            changing = next((tool for tool in _called(plan, task) if tool.effects not in ("", "none")), None)
            said = task.undo is not None or entries[task.name].get("undo") == NOTHING_TO_UNDO
            if changing is None or said or task.name in undoing:
                continue
            when = f" when {compensation!r} undoes what was done" if compensation else ", as other tasks are undone"
            changes = f"{changing.name!r} changes something outside (effects: {changing.effects})"
            message = f"{changes}, and nothing says what undoes it{when}"
            mend = f"name a task that undoes it, or say that it stays: undo: {NOTHING_TO_UNDO}"
            yield Problem(f"tasks.{task.name}.undo", message, mend, "no_undo", "warning")


def _inside(plan: Plan, scope: str) -> list[Task]:
    """The tasks that a compensation's scope runs, each once."""
    found: dict[str, Task] = {}
    everything = not scope or scope == plan.name
    if plan.machine is not None:
        around = -1 if everything else plan.machine.by_name[scope].index
        for state in plan.machine.states:
            if state.task is not None and (everything or around in state.chain):
                found[state.task.name] = plan.tasks[state.task.name]
    elif plan.tree is not None:
        ranges = [(0, len(plan.tree.nodes))] if everything else plan.tree.labels[scope]
        for node in plan.tree.nodes:
            if node.task is not None and any(first <= node.index <= last for first, last in ranges):
                found[node.task.name] = plan.tasks[node.task.name]
    return list(found.values())


# -- repeating ----------------------------------------------------------------------------------------------


def _named(plan: Plan) -> Iterator[Problem]:
    for task in plan.tasks.values():
        tool = _once(plan, task)
        if tool is None or task.part_of or UNKNOWN not in (task.retry.only or ()) or task.retry.max < 2:
            continue
        message = f"repeats calls of {tool.name!r} (effects: once) that may have had their effect"
        mend = "have somebody find out first, or declare effects: idempotent where the far side knows the key"
        yield Problem(f"tasks.{task.name}.retry.only", message, mend, "blind_retry", "warning")


def _entered_again(plan: Plan, machine: Machine) -> Iterator[Problem]:
    """A state that is entered again because its task has failed, however that was."""
    for state in machine.states:
        tool = _once(plan, state.task)
        if tool is None:
            continue
        first = next((each for each in state.on.get("failed", ()) if each.guard is None), None)
        if first is None or state.index not in first.enter:
            continue
        if any(UNKNOWN in each.guard.source for each in state.on["failed"] if each.guard is not None):
            continue
        message = f"runs {state.task.name!r} again, also when a call of {tool.name!r} may have had its effect"  # type: ignore[union-attr]
        mend = f"let a transition before it take `event.code == '{UNKNOWN}'`"
        yield Problem(first.path, message, mend, "blind_retry", "warning")


def _tried_again(plan: Plan, node: Node) -> Iterator[Problem]:
    """Nodes that are tried again because a task in them has failed, however that was."""
    for child in node.children:
        yield from _tried_again(plan, child)
    if node.kind != "retry" or node.max < 2:
        return
    for leaf in _fails_by(node.children[0]):
        tool = _once(plan, leaf.task)
        if tool is not None and leaf.task is not None:
            message = f"tries {leaf.task.name!r} again, also when a call of {tool.name!r} may have had its effect"
            mend = (
                f"keep `event.code == '{UNKNOWN}'` in a variable (on_failure of the task) and look at it in its "
                "`fail_if`; or let a fallback in the retry decide"
            )
            yield Problem(node.path, message, mend, "blind_retry", "warning")


def _fails_by(node: Node) -> Iterator[Node]:
    """The tasks whose failure may make a node fail, unless they look at conditions before they run again."""
    if node.kind in ("retry", "once", "invert") or (node.kind == "force" and node.forced != FAILURE):
        return
    if node.task is not None:
        guarded = node.fail_if or node.skip_if or (node.conditions and node.conditions.success_if)
        if not guarded:
            yield node
        return
    children = node.children[-1:] if node.kind == "fallback" else node.children
    for child in children:
        yield from _fails_by(child)
