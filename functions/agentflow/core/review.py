"""What can be said against a plan that compiles, before it runs.

``review`` is asked where a document comes in, not where a stored one is loaded: what was accepted once goes on, also
when a later version would say more against it.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core import worst
from agentflow.core.machine import Machine
from agentflow.core.plan import Plan
from agentflow.core.review_effects import effects
from agentflow.core.review_handlers import unhandled
from agentflow.core.review_money import at_limit
from agentflow.core.review_names import unused
from agentflow.core.review_shadows import overruled, shadowed
from agentflow.core.review_spin import endless, idle
from agentflow.core.review_tree import dead_branches
from agentflow.errors import Problem

MAX_WARNINGS = 100


def review(plan: Plan) -> list[Problem]:
    """Problems of both severities, the errors first; paths address the canonical document."""
    found = list(dict.fromkeys(_all(plan)))
    errors = [problem for problem in found if problem.severity == "error"]
    warnings = [problem for problem in found if problem.severity == "warning"]
    return errors + warnings[:MAX_WARNINGS]


def _all(plan: Plan) -> Iterator[Problem]:
    if plan.kind == "goal":  # its machine is ours, and what the document declares is for the plan that a model writes
        yield from _fuel(plan)
        return
    if plan.machine is not None:
        yield from _cancelling(plan.machine)
    if plan.machine is not None:
        yield from shadowed(plan.machine)
        yield from overruled(plan.machine)
        yield from unhandled(plan.machine)
        yield from endless(plan.machine)
    if plan.tree is not None:
        yield from dead_branches(plan.tree)
        yield from idle(plan.tree)
    yield from effects(plan)
    yield from at_limit(plan)
    yield from _fuel(plan)
    yield from unused(plan)


def _cancelling(machine: Machine) -> Iterator[Problem]:
    """What cancelling a run tells a machine has a shape of its own: declared otherwise it would not be heard."""
    declared = machine.events.get("cancel", {})
    if {name: type_.name for name, type_ in declared.items()} not in ({}, {"reason": "string"}):
        message = "cancelling a run sends this event, too, with a `reason` and nothing else"
        yield Problem("events.cancel", message, "declare it as {reason: string}, or name yours otherwise", "cancel")


def _fuel(plan: Plan) -> Iterator[Problem]:
    """Whether a run can come to the end of its steps before it is through."""
    limit = plan.limits.steps
    wide = [node for node in plan.tree.nodes if node.kind == "map" and node.max > limit] if plan.tree else []
    for node in wide:
        if worst.tasks_in(node):
            message = f"is {node.max}, but a run starts {limit} steps at most (limits.steps)"
            yield Problem(f"{node.path}.max", message, "raise limits.steps, or lower it", "fuel", "warning")
    bound = worst.steps(plan)
    if not wide and not bound.limited and bound.most > limit:
        message = (
            f"is {limit}, but a run may start {bound.most} steps ({bound}): it ends with `limits.steps` "
            "before it is through"
        )
        yield Problem("limits.steps", message, f"raise it to {bound.most}, or bound the plan closer", "fuel", "warning")
