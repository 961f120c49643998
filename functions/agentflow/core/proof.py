"""What the model check proves of a plan, as problems: for whoever takes a document in.

At registration it is bounded by states, not by time, so that the same document is always judged the same. Where it is
cut short it proves nothing, and says nothing.
"""

from __future__ import annotations

from agentflow.core.explore import Explored, Reducer, explore
from agentflow.core.plan import Plan
from agentflow.errors import Problem

STATES = 500
"""States of a plan that are gone through when it is registered: 0.2 s at most, a few milliseconds for most."""

SIZE = 20
"""States and nodes of a plan for which ``STATES`` is meant; for a larger one each state takes longer."""

MENDS = {
    "no_end": "let there be a way to a final state from everywhere",
    "no_success": "let there be a way to success",
    "fuel": "raise limits.steps",
}
"""Findings about a plan. What is found of the planner itself is no fault of its author's."""

REFUSED = frozenset({"no_end", "fuel"})
"""A plan that can only fail may be meant so: it is told."""


def proven(plan: Plan, advance: Reducer, states: int) -> list[Problem]:
    """What ``states`` states of a plan prove: nothing where there are more, for 0, and for the machine of a goal."""
    parts = plan.tree.nodes if plan.tree is not None else plan.machine.states if plan.machine is not None else ()
    bound = states * SIZE // max(SIZE, len(parts))
    if not bound or plan.planning is not None:
        return []
    explored = explore(plan, advance, states=bound, advances=4 * bound, shorten=False)
    return problems(plan, explored) if explored.complete else []


def problems(plan: Plan, explored: Explored) -> list[Problem]:
    """The findings of a check: errors where they are proven."""
    place = "root" if plan.tree is not None else "states"
    found = []
    for finding in explored.findings:
        severity = "error" if finding.code in REFUSED and explored.complete and plan.planning is None else "warning"
        found.append(Problem(place, f"model check: {finding}", MENDS.get(finding.code, ""), finding.code, severity))
    return found
