"""The nodes of behaviour trees, each built by the function of its name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypedDict, Unpack

from agentflow.plan.expression import Condition, Expr, Exprs, Sets, Value
from agentflow.plan.part import Part
from agentflow.plan.tasks import Task


class Guards(TypedDict, total=False):
    """What every node may have."""

    description: str
    label: str
    fail_if: Condition
    success_if: Condition
    skip_if: Condition
    while_: Condition
    on_success: Sets
    on_failure: Sets
    on_halt: Sets
    post: Sets


class Node(Part):
    """A node of a tree."""


Child = Node | Task
"""A node; a task by itself is a node that runs it."""


def task(
    task: Task, *, set: Sets | None = None, ok_if: Condition | None = None, **more: Unpack[Guards]
) -> Node:
    """Runs a task: success when it ends well and ``ok_if`` holds; ``set`` keeps its ``result``."""
    return Node(type="task", task=task.name, set=set, ok_if=ok_if, **more)


def check(if_: Condition, **more: Unpack[Guards]) -> Node:
    """Success when the expression holds."""
    return Node(type="check", if_=if_, **more)


def succeed(**more: Unpack[Guards]) -> Node:
    """Always success."""
    return Node(type="succeed", **more)


def fail(**more: Unpack[Guards]) -> Node:
    """Always failure."""
    return Node(type="fail", **more)


def sequence(
    *children: Child, reactive: bool | None = None, memory: bool | None = None, **more: Unpack[Guards]
) -> Node:
    """All in order until one fails. ``reactive``: checks before the running child are looked at again."""
    return Node(type="sequence", children=_nodes(*children), reactive=reactive, memory=memory, **more)


def fallback(
    *children: Child, reactive: bool | None = None, memory: bool | None = None, **more: Unpack[Guards]
) -> Node:
    """All in order until one succeeds. ``reactive``: checks before the running child are looked at again."""
    return Node(type="fallback", children=_nodes(*children), reactive=reactive, memory=memory, **more)


def parallel(
    *children: Child,
    need: int | None = None,
    fail_at: int | None = None,
    wait: Literal["all"] | None = None,
    **more: Unpack[Guards],
) -> Node:
    """All at once: success when ``need`` succeed (all), failure when ``fail_at`` fail (1)."""
    return Node(type="parallel", children=_nodes(*children), need=need, fail_at=fail_at, wait=wait, **more)


def each(
    child: Child,
    over: Expr | str,
    *,
    max: int,
    concurrency: int | None = None,
    fail_at: int | None = None,
    **more: Unpack[Guards],
) -> Node:
    """The child (a node of type map) once for each ``item`` of a list, ``max`` items at most."""
    return Node(
        type="map", child=_node(child), over=over, max=max, concurrency=concurrency, fail_at=fail_at, **more
    )


def retry(child: Child, *, max: int, **more: Unpack[Guards]) -> Node:
    """Again while it fails, ``max`` times in all."""
    return Node(type="retry", child=_node(child), max=max, **more)


def repeat(child: Child, *, max: int, **more: Unpack[Guards]) -> Node:
    """Again while it succeeds, ``max`` times in all."""
    return Node(type="repeat", child=_node(child), max=max, **more)


def keep(child: Child, *, max: int, **more: Unpack[Guards]) -> Node:
    """Again as long as it succeeds; it fails when the child does, and after ``max`` times."""
    return Node(type="keep", child=_node(child), max=max, **more)


def try_(*children: Child, catch: Child, **more: Unpack[Guards]) -> Node:
    """All in order; ``catch`` runs when one fails or what runs is halted, and then this fails."""
    return Node(type="try", children=_nodes(*children, catch), **more)


def subtree(
    tree: str, *, in_: Exprs | None = None, share: Mapping[str, str] | None = None, **more: Unpack[Guards]
) -> Node:
    """One of the workflow's trees, with variables of its own; ``share``: its variables that are ones of the caller."""
    return Node(type="subtree", tree=tree, in_=in_, share=share, **more)


def invert(child: Child, **more: Unpack[Guards]) -> Node:
    """Success for failure and failure for success."""
    return Node(type="invert", child=_node(child), **more)


def force(child: Child, *, as_: Literal["success", "failure"] | None = None, **more: Unpack[Guards]) -> Node:
    """Success (or failure) whatever the child says."""
    return Node(type="force", child=_node(child), as_=as_, **more)


def if_(
    condition: Child | Condition, then: Child, else_: Child | None = None, **more: Unpack[Guards]
) -> Node:
    """Decided once: ``then``, or ``else_``."""
    return Node(type="if", children=_ways(condition, then, else_), **more)


def while_(
    condition: Child | Condition, do: Child, else_: Child | None = None, **more: Unpack[Guards]
) -> Node:
    """Decided again when variables change; the other way is halted."""
    return Node(type="while", children=_ways(condition, do, else_), **more)


def switch(
    value: Value, cases: Mapping[str, Child], default: Child | None = None, **more: Unpack[Guards]
) -> Node:
    """The child whose case the value is; another one when the value changes."""
    nodes = {case: _node(child) for case, child in cases.items()}
    return Node(type="switch", value=value, cases=nodes, default=default and _node(default), **more)


def once(child: Child, *, then: Literal["skip", "same"] | None = None, **more: Unpack[Guards]) -> Node:
    """Once in a run; after that skipped, or what it came to."""
    return Node(type="once", child=_node(child), then=then, **more)


def delay(for_: str, child: Child, **more: Unpack[Guards]) -> Node:
    """The child after some time (``5s``)."""
    return Node(type="delay", for_=for_, child=_node(child), **more)


def timeout(for_: str, child: Child, **more: Unpack[Guards]) -> Node:
    """Failure, and the child halted, when it takes longer."""
    return Node(type="timeout", for_=for_, child=_node(child), **more)


def _node(child: Child) -> Node:
    return child if isinstance(child, Node) else task(child)


def _nodes(*children: Child) -> list[Node]:
    return [_node(child) for child in children]


def _ways(condition: Child | Condition, then: Child, else_: Child | None) -> list[Node]:
    first = condition if isinstance(condition, (Node, Task)) else check(condition)
    return _nodes(first, then) if else_ is None else _nodes(first, then, else_)
