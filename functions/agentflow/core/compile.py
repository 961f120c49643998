"""From a document to a plan: everything that can be refused before a run is refused here, all at once.

``compile_plan`` takes a document of the right shape (``agentflow.wire.document`` checks the shape and calls it) and
raises ``Invalid`` with every problem found: unknown names, types that do not match, states nobody reaches, loops
without a bound, money without a limit. A plan that compiles can run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core import compile_fsm, compile_tasks, compile_tree
from agentflow.core.canonical import as_written, digest, normalise
from agentflow.core.draft import Draft, micro, milliseconds
from agentflow.core.plan import Limits, Plan
from agentflow.errors import Invalid


def compile_plan(document: Mapping[str, Any]) -> Plan:
    """The plan of ``document`` (short or canonical form); ``Invalid`` with all problems, paths as written."""
    canonical, author = normalise(document)
    draft = Draft(canonical)
    try:
        plan = _build(draft, canonical)
    except (KeyError, TypeError, AttributeError, ValueError) as fault:
        if not draft.problems:
            message = f"is not shaped like a plan/v1 document ({type(fault).__name__}: {fault})"
            draft.note("", message[:200], "load it with agentflow.wire.document, which says where", "shape")
        plan = None
    if draft.problems or plan is None:
        raise Invalid(
            [as_written(problem, author) for problem in draft.problems], code="invalid_plan"
        )
    return plan


def _build(draft: Draft, document: dict[str, Any]) -> Plan:
    inputs = draft.types(document.get("input", {}), "input")
    variables = draft.types(document.get("vars", {}), "vars")
    for name in sorted(inputs.keys() & variables.keys()):
        draft.note(
            f"vars.{name}", "is an input too", "declare it once: inputs can be set like vars", "duplicate"
        )
    draft.names = {**inputs, **variables}
    draft.vars = variables
    draft.elsewhere = compile_tree.only_in_trees(document)
    tools = compile_tasks.tools(draft)
    compile_tasks.tasks(draft, tools)
    limits = document["limits"]
    fsm = document["kind"] == "fsm"
    machine = compile_fsm.machine(draft) if fsm else None
    tree = None if fsm else compile_tree.tree(draft)
    return Plan(
        kind=document["kind"],
        name=document["name"],
        hash=digest(document),
        limits=Limits(limits["steps"], micro(limits.get("usd", 0)), milliseconds(limits.get("wall", "24h"))),
        input=inputs,
        vars=variables,
        tasks=draft.tasks,
        tools=tools,
        trigger=compile_tasks.trigger(draft, inputs),
        output=compile_tasks.output(draft),
        machine=machine,
        tree=tree,
        document=document,
    )

