"""Which names have the value that they had when the run began, wherever they are read."""

from __future__ import annotations

from agentflow.core.expressions import names_set
from agentflow.core.node import Node
from agentflow.core.plan import Plan


def unchanged(plan: Plan) -> frozenset[str]:
    """The inputs and variables that no step changes."""
    assigned = names_set(plan.machine if plan.tree is None else plan.tree)
    if plan.tree is not None:
        shared = [pair for node in plan.tree.nodes for pair in node.share.items()]
        known = -1
        while known != len(assigned):  # what a subtree changes under a name of its own may be shared by another
            known = len(assigned)
            assigned |= {outer for inner, outer in shared if inner in assigned}
    return frozenset((plan.input.keys() | plan.vars.keys()) - assigned)


def inside(node: Node, known: frozenset[str]) -> frozenset[str]:
    """Of these names those that mean the same inside a subtree: what is shared under its own name."""
    return frozenset(inner for inner, outer in node.share.items() if inner == outer and outer in known)
