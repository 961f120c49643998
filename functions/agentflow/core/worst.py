"""The worst case of a plan, known before it runs: the most steps, calls or money as an expression of the inputs.

``worst(plan, weight)`` adds up ``weight(task)`` over the steps of the dearest run there can be. It never says less
than a run can use; it may say more, where it depends on values which of two ways a run takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from agentflow.core.bound import Bound, Limit, Size, largest, number
from agentflow.core.expressions import always, names_read, never
from agentflow.core.least import may_be_skipped
from agentflow.core.money import tool_hold, tool_price
from agentflow.core.node import Node, Tree
from agentflow.core.plan import Plan, Task
from agentflow.core.variables import changing, inside, unchanged
from agentflow.core.worst_fsm import entries

Weight = Callable[[Task], int]

CALLING = frozenset({"llm", "tool", "agent"})
"""Kinds of tasks that call something outside; each attempt is a call."""


def steps(plan: Plan) -> Bound:
    """The most steps that a run starts."""
    return worst(plan, lambda task: task.most_steps)


def calls(plan: Plan) -> Bound:
    """The most calls of models and tools, retries counted."""
    return worst(plan, lambda task: _calls(task) * task.retry.max if task.kind in CALLING else 0)


def _calls(task: Task) -> int:
    """What one start of a task calls: an agent's model in each turn, and its tools."""
    return task.most_steps - 1 if task.agent else 1


def cost(plan: Plan, cost_of: Callable[[Task], int]) -> Bound:
    """The most that a run spends, in micro-dollars, where ``cost_of`` says what one attempt at a task may cost (of an
    agent's: all of it)."""
    return worst(plan, lambda task: cost_of(task) * (1 if task.agent else task.retry.max))


def declared_cost(plan: Plan) -> Callable[[Task], int]:
    """What the document itself says of an attempt's price: a task's ``usd``, or its tool's."""

    def cost_of(task: Task) -> int:
        if task.agent and task.price_cap_micro is None:
            parts = (part for part in plan.tasks.values() if part.part_of == task.name and part.kind == "tool")
            dearest = max((tool_hold(tool_price(None, plan, part), part) for part in parts), default=0)
            return dearest * (_calls(task) - task.turns) * task.retry.max
        if task.kind == "tool":
            return tool_hold(tool_price(None, plan, task), task)
        return task.price_cap_micro or 0

    return cost_of


def worst(plan: Plan, weight: Weight) -> Bound:
    """The largest sum of ``weight(task)`` over the steps of one run; ``limits.steps`` stands for what nothing else
    bounds. What a compensation undoes counts where it was done: once for each compensation there may be."""
    if plan.compensates:
        plain = replace(plan, compensates=False)
        often = worst(plain, lambda task: int(task.kind == "compensate")).most
        plan, weight = plain, _undone(plan, weight, max(often, 1))
    if plan.tree is not None:
        walk = _Walk(plan, plan.tree, weight)
        return _with_limit(plan, walk.of(plan.tree.root), walk.dearest, _dearest(plan.tree.root, weight))
    assert plan.machine is not None
    total, dearest, overall = 0, 0, 0
    for state, times in entries(plan.machine):
        each = weight(state.task) if state.task is not None else 0
        overall = max(overall, each)
        if times is None:
            dearest = max(dearest, each)
        else:
            total += times * each
    return _with_limit(plan, number(total), dearest, overall)


def _undone(plan: Plan, weight: Weight, times: int) -> Weight:
    return lambda task: weight(task) + (times * weight(plan.tasks[task.undo.task]) if task.undo else 0)


def _with_limit(plan: Plan, bounded: Bound, dearest: int, overall: int) -> Bound:
    """The sum of what is bounded and, where something is not, of as many steps of the ``dearest`` of that as a run may
    start. No step costs more than ``overall``."""
    if not dearest:
        return bounded
    free = number(dearest) * Limit("limits.steps", plan.limits.steps)
    return free if dearest == overall else bounded + free


def _dearest(node: Node, weight: Weight) -> int:
    return max((weight(task) for task in tasks_in(node)), default=0)


class _Walk:
    """One walk over a tree. ``dearest``: the largest weight of a task that nothing but the limit bounds."""

    def __init__(self, plan: Plan, tree: Tree, weight: Weight) -> None:
        self.plan = plan
        self.weight = weight
        self.ir = tree.ir
        self.assigned = changing(tree)
        self.known = unchanged(plan)
        self.dearest = 0

    def of(self, node: Node) -> Bound:
        """The worst case of one time through the node, from its start until it has ended or was halted."""
        rule = _RULES.get(node.kind)
        if rule is None or self._may_start_again(node):
            self.dearest = max(self.dearest, _dearest(node, self.weight))
            return Bound()
        return rule(self, node)

    def _may_start_again(self, node: Node) -> bool:
        """Whether a condition that is looked at again may change while the node runs, or a delay may begin again: and
        so start something anew."""
        if self._waits_anew(node):
            return True
        if not self.assigned:
            return False  # conditions are only looked at again when variables have changed
        if node.kind in ("while", "switch"):
            asked = self._guards(node.children[0]) if node.kind == "while" else names_read((node.value,))
            return bool(asked & self.assigned)
        return node.reactive and bool(self._guards(node) & self.assigned)

    def _waits_anew(self, node: Node) -> bool:
        """Whether there is a delay below that begins anew whenever it is looked at, as those did that were skipped."""
        if self.ir >= 3 or not (node.reactive or node.kind == "while"):
            return False
        looked_at = node if node.reactive else node.children[0]
        return any(each.kind == "delay" and may_be_skipped(each) for each in nodes_in(looked_at))

    def _guards(self, node: Node) -> set[str]:
        """What the conditions below a reactive node read."""
        found: set[str] = set()
        todo = [node]
        while todo:
            each = todo.pop()
            todo += each.children
            given = each.conditions
            held = (given.fail_if, given.success_if, given.skip_if, given.holds) if given is not None else ()
            found |= names_read((each.condition, each.fail_if, each.skip_if, each.value, held))
        return found

    def _task(self, node: Node) -> Bound:
        return number(self.weight(node.task)) if node.task is not None else Bound()

    def _sum(self, node: Node) -> Bound:
        return sum((self.of(child) for child in node.children), Bound())

    def _one_way(self, node: Node) -> Bound:
        condition = node.children[0]
        ways = list(node.children[1:])
        if condition.kind == "check" and condition.conditions is None:
            if always(condition.condition):
                ways = ways[:1]
            elif never(condition.condition):
                ways = ways[1:]
        return self.of(condition) + largest(self.of(way) for way in ways)

    def _largest(self, node: Node) -> Bound:
        return largest(self.of(child) for child in node.children)

    def _again(self, node: Node) -> Bound:
        return self._sum(node) * node.max

    def _map(self, node: Node) -> Bound:
        each, over = self._sum(node), node.over
        assert over is not None
        if not over.names:
            items = over.value({})
            return each * (min(len(items), node.max) if isinstance(items, list) else node.max)
        if self.known.issuperset(over.names):  # what they were when the run began
            return each * Size(over.source, node.max, over)
        return each * node.max

    def _subtree(self, node: Node) -> Bound:
        around, self.known = self.known, inside(node, self.known)
        found = self._sum(node)
        self.known = around
        return found


_RULES: dict[str, Callable[[_Walk, Node], Bound]] = {
    "task": _Walk._task,
    "check": _Walk._sum,
    "succeed": _Walk._sum,
    "fail": _Walk._sum,
    "sequence": _Walk._sum,
    "fallback": _Walk._sum,
    "parallel": _Walk._sum,
    "invert": _Walk._sum,
    "force": _Walk._sum,
    "delay": _Walk._sum,
    "timeout": _Walk._sum,
    "once": _Walk._sum,
    "try": _Walk._sum,
    "subtree": _Walk._subtree,
    "retry": _Walk._again,
    "keep": _Walk._again,
    "repeat": _Walk._again,
    "map": _Walk._map,
    "if": _Walk._one_way,
    "while": _Walk._one_way,
    "switch": _Walk._largest,
}
"""By kind of node. One that is missing here is bounded by ``limits.steps`` alone."""

KINDS = frozenset(_RULES)


def nodes_in(node: Node) -> Iterator[Node]:
    """The node and those in it."""
    yield node
    for child in node.children:
        yield from nodes_in(child)


def tasks_in(node: Node) -> list[Task]:
    """The tasks that the node and those in it run."""
    found = [node.task] if node.task is not None else []
    for child in node.children:
        found += tasks_in(child)
    return found
