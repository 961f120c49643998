"""From a document to a plan: everything that can be refused before a run is refused here, all at once.

``compile_plan`` takes a document of the right shape (``agentflow.wire.document`` checks the shape and calls it) and
raises ``Invalid`` with every problem found: unknown names, types that do not match, states nobody reaches, loops
without a bound, money without a limit. A plan that compiles can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core import compile_agents, compile_fsm, compile_tasks, compile_tree, goal, meaning
from agentflow.core.canonical import as_written, digest, normalise, undone
from agentflow.core.draft import Draft, micro, milliseconds
from agentflow.core.machine import Machine
from agentflow.core.node import Tree
from agentflow.core.plan import Limits, Plan
from agentflow.core.prompt import placeholders
from agentflow.errors import Invalid


def compile_plan(document: Mapping[str, Any], *, stored: bool = False) -> Plan:
    """The plan of ``document`` (short or canonical form); ``Invalid`` with all problems, paths as written. One that is
    ``stored`` means what it meant when it was accepted, see ``meaning``."""
    canonical, author = normalise(document)
    draft = Draft(canonical)
    try:
        if not stored:
            canonical = draft.document = meaning.new(canonical)
        plan = _pursue(draft, canonical, author) if "plan" in canonical else _build(draft, canonical)
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        if not draft.problems:
            message = f"is not shaped like a plan/v1 document ({type(fault).__name__}: {fault})"
            draft.note("", message[:200], "load it with agentflow.wire.document, which says where", "shape")
        plan = None
    if draft.problems or plan is None:
        found = dict.fromkeys(as_written(problem, author) for problem in draft.problems)
        raise Invalid(list(found), code="invalid_plan")
    return plan


def _pursue(draft: Draft, document: dict[str, Any], author: dict[str, str]) -> Plan:
    """The plan of a goal: a machine that has a model write one."""
    _goal(draft, document)
    if draft.problems:
        raise ValueError
    draft.document = goal.expand(document)
    author |= goal.AUTHOR
    return goal.pursued(_build(draft, draft.document), document)


def _goal(draft: Draft, document: Mapping[str, Any]) -> None:
    """What only a plan that a model writes may have wrong."""
    asked = document["plan"]
    try:
        names = placeholders(asked["goal"])
    except ValueError as fault:
        draft.note("plan.goal", str(fault), "write {{ or }} for a brace", "prompt")
        names = set()
    given = {**document.get("input", {}), **document.get("vars", {})}
    for name in sorted(names - given.keys()):
        draft.note("plan.goal", f"{{{name}}} is no input", "declare it under `input`", "prompt")
    for i, name in enumerate(asked.get("tasks", ())):
        if name not in document["tasks"]:
            draft.unknown(f"plan.tasks[{i}]", "task", name, document["tasks"])
    if micro(asked.get("usd", 0)) > micro(document["limits"].get("usd", 0)):
        draft.note("plan.usd", "is more than limits.usd", "leave something for the plan itself", "no_budget")
    for key in ("input", "vars", "tasks"):
        for name in document.get(key, ()):
            if name.startswith(goal.RESERVED):
                draft.note(f"{key}.{name}", f"{name!r} is reserved", "choose another name", "reserved_name")


def _build(draft: Draft, document: Mapping[str, Any]) -> Plan:
    inputs = draft.types(document.get("input", {}), "input")
    variables = draft.types(document.get("vars", {}), "vars")
    for name in sorted(inputs.keys() & variables.keys()):
        draft.note(
            f"vars.{name}", "is an input too", "declare it once: inputs can be set like vars", "duplicate"
        )
    draft.names = {**inputs, **variables}
    draft.vars = variables
    draft.events = {name: draft.types(given, f"events.{name}") for name, given in document.get("events", {}).items()}
    draft.elsewhere = compile_tree.only_in_trees(document)
    draft.tools = compile_tasks.tools(draft)
    draft.agents = compile_agents.agents(draft)
    compile_tasks.tasks(draft)
    fsm = document["kind"] == "fsm"
    machine = compile_fsm.machine(draft) if fsm else None
    tree = None if fsm else compile_tree.tree(draft)
    _scopes(draft, document, machine, tree)
    return Plan(
        kind=document["kind"],
        name=document["name"],
        hash=digest(document),
        limits=_limits(document["limits"]),
        input=inputs,
        vars=variables,
        tasks={**draft.tasks, **compile_agents.inner(draft)},
        tools=draft.tools,
        trigger=compile_tasks.trigger(draft, inputs),
        output=compile_tasks.output(draft),
        machine=machine,
        tree=tree,
        compensates=any(task.kind == "compensate" for task in draft.tasks.values()),
        has_agents=any(task.agent for task in draft.tasks.values()),
        document=dict(document),
    )


def _limits(limits: Mapping[str, Any]) -> Limits:
    wall_ms = milliseconds(limits.get("wall", "24h"))
    way = limits.get("at_limit", "reject")
    return Limits(
        limits["steps"],
        micro(limits.get("usd", 0)),
        wall_ms,
        preflight=limits.get("preflight", ""),
        budget=limits.get("budget"),
        at_limit=way,
    )


def _scopes(draft: Draft, document: Mapping[str, Any], machine: Machine | None, tree: Tree | None) -> None:
    """What compensations undo is there, and something can be undone."""
    compensations = [task for task in draft.tasks.values() if task.kind == "compensate"]
    if compensations and not any(undone(task, document["tasks"]) for task in document["tasks"].values()):
        path = f"tasks.{compensations[0].name}"
        draft.note(path, "nothing can be undone", "say with `undo` what undoes a task", "undo")
    known = {document["name"]: None}
    if machine is not None:
        known |= dict.fromkeys(state.name for state in machine.states if state.name)
    elif tree is not None:
        known |= dict.fromkeys(tree.labels)
    else:
        return
    for task in compensations:
        if task.scope and task.scope not in known:
            draft.unknown(f"tasks.{task.name}.scope", "scope", task.scope, known)
