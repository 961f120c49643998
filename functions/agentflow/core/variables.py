"""Which names have the value that they had when the run began, wherever they are read, and which may change."""

from __future__ import annotations

from collections.abc import Iterable

from agentflow.core.expressions import names_set
from agentflow.core.node import Node, Tree
from agentflow.core.plan import Plan


def unchanged(plan: Plan) -> frozenset[str]:
    """The inputs and variables that no step changes."""
    if plan.tree is None:
        assigned: Iterable[str] = names_set(plan.machine)
    else:
        assigned = changing(plan.tree)
    return frozenset((plan.input.keys() | plan.vars.keys()).difference(assigned))


def changing(tree: Tree) -> frozenset[str]:
    """The names that mean another value once some node has set a variable, be it under another name."""
    others = aliases(tree)
    return frozenset().union(*(others.get(name, {name}) for name in names_set(tree)))


def aliases(tree: Tree) -> dict[str, frozenset[str]]:
    """By name all that may mean the same variable, itself among them, where subtrees share any under another name. Of
    variables with the same name in several trees it is not asked which is meant."""
    known: dict[str, frozenset[str]] = {}
    for node in tree.nodes:
        for pair in node.share.items():
            if pair[0] != pair[1]:
                joined = frozenset().union(*(known.get(name, {name}) for name in pair))
                known |= dict.fromkeys(joined, joined)
    return known


def inside(node: Node, known: frozenset[str]) -> frozenset[str]:
    """Of these names those that mean the same inside a subtree: what is shared under its own name."""
    return frozenset(inner for inner, outer in node.share.items() if inner == outer and outer in known)
