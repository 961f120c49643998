"""The least of a plan: the fewest steps, calls or money of a run that succeeds. The counterpart of ``core.worst``.

It never says more than such a run can use; it may say less, where it depends on values which of two ways a run takes. A
run that fails, or is cancelled, may use less: a step that fails need not have cost anything.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from agentflow.core.expr import CelFault, Expr
from agentflow.core.expressions import always, never
from agentflow.core.least_fsm import least_of_machine
from agentflow.core.node import SUCCESS, Node
from agentflow.core.plan import Plan, Task
from agentflow.core.types import JSON
from agentflow.core.variables import inside, unchanged

Weight = Callable[[Task], int]
NEVER = 10**30
"""In place of a weight: it does not come to that."""


class Ends(NamedTuple):
    """What it takes at least for a node to succeed, to fail and to be skipped."""

    succeed: int = 0
    fail: int = 0
    skip: int = NEVER

    @property
    def passed(self) -> int:
        """To be over without having failed."""
        return min(self.succeed, self.skip)

    @property
    def over(self) -> int:
        return min(self)


def least(plan: Plan, weight: Weight, values: Mapping[str, JSON]) -> int:
    """The smallest sum of ``weight(task)`` over the steps of a run that succeeds and began with these inputs and
    variables. A task weighs what it takes to complete it once."""
    if plan.tree is not None:
        found = _Walk(weight, values).of(plan.tree.root, unchanged(plan)).passed
    else:
        assert plan.machine is not None
        found = least_of_machine(plan.machine, weight)
    return 0 if found >= NEVER else found


def may_be_skipped(node: Node) -> bool:
    """Whether a node can end as skipped."""
    return _Walk(lambda task: 0, {}).of(node, frozenset()).skip < NEVER


class _Walk:
    def __init__(self, weight: Weight, values: Mapping[str, JSON]) -> None:
        self.weight = weight
        self.values = values

    def of(self, node: Node, known: frozenset[str]) -> Ends:
        """``known``: the names that have the values of the run's beginning here."""
        rule = _RULES.get(node.kind)
        ends = rule(self, node, known) if rule is not None else Ends(0, 0, 0)
        return _with_conditions(node, ends)

    def _each(self, node: Node, known: frozenset[str]) -> list[Ends]:
        return [self.of(child, known) for child in node.children]

    def _task(self, node: Node, known: frozenset[str]) -> Ends:
        ends = Ends(self.weight(node.task) if node.task is not None else 0, 0)
        if node.fail_if is not None and not never(node.fail_if):
            ends = ends._replace(fail=0)
        return ends._replace(skip=0) if node.skip_if is not None and not never(node.skip_if) else ends

    def _check(self, node: Node, known: frozenset[str]) -> Ends:
        return Ends(NEVER if never(node.condition) else 0, NEVER if always(node.condition) else 0)

    def _sequence(self, node: Node, known: frozenset[str]) -> Ends:
        each = self._each(node, known)
        return Ends(_sum(one.passed for one in each), _until(each, failed=True), _sum(one.skip for one in each))

    def _fallback(self, node: Node, known: frozenset[str]) -> Ends:
        each = self._each(node, known)
        fail = _sum(min(one.fail, one.skip) for one in each)
        return Ends(_until(each, failed=False), fail, _sum(one.skip for one in each))

    def _parallel(self, node: Node, known: frozenset[str]) -> Ends:
        each = self._each(node, known)
        if node.wait_all:
            saved = sorted((one.passed - one.over for one in each), reverse=True)
            succeed = _sum(one.passed for one in each)
            if succeed >= NEVER:  # some of them can only fail
                succeed = _sum(one.over for one in each)
            else:
                succeed -= sum(saved[: max(node.fail_at - 1, 0)])
        else:
            enough = sorted(one.passed if node.lenient else one.succeed for one in each)
            succeed = _sum(enough[: node.need or len(each)])
        return Ends(max(succeed, 0), 0, _sum(one.skip for one in each))

    def _invert(self, node: Node, known: frozenset[str]) -> Ends:
        (child,) = self._each(node, known)
        return Ends(child.fail, child.succeed, child.skip)

    def _force(self, node: Node, known: frozenset[str]) -> Ends:
        (child,) = self._each(node, known)
        ended = min(child.succeed, child.fail)
        return Ends(ended, NEVER, child.skip) if node.forced == SUCCESS else Ends(NEVER, ended, child.skip)

    def _same(self, node: Node, known: frozenset[str]) -> Ends:
        return self._each(node, known)[0]

    def _timeout(self, node: Node, known: frozenset[str]) -> Ends:
        return self._same(node, known)._replace(fail=0)

    def _once(self, node: Node, known: frozenset[str]) -> Ends:
        """It may have ended before; whoever repeats it counts it once."""
        child = self._same(node, known)
        return child._replace(skip=min(child.skip, child.over)) if node.then_skip else child

    def _repeat(self, node: Node, known: frozenset[str]) -> Ends:
        child = self._same(node, known)
        times = 1 if node.children[0].lasting else node.max  # what remembers may do less the second time
        return child._replace(succeed=min(child.succeed * times, NEVER))

    def _keep(self, node: Node, known: frozenset[str]) -> Ends:
        child = self._same(node, known)
        return Ends(NEVER, min(child.fail, child.succeed), child.skip)

    def _branch(self, node: Node, known: frozenset[str]) -> Ends:
        condition, then, *otherwise = self._each(node, known)
        other = otherwise[0] if otherwise else Ends(NEVER, 0)
        ways = [
            Ends(*(min(asked + end, NEVER) for end in way))
            for asked, way in ((condition.succeed, then), (condition.fail, other))
        ]
        return _either(ways)._replace(skip=min(condition.skip, *(way.skip for way in ways)))

    def _switch(self, node: Node, known: frozenset[str]) -> Ends:
        ways = self._each(node, known)
        if len(node.children) == len(node.cases):
            ways.append(Ends(NEVER, 0))
        return _either(ways)

    def _try(self, node: Node, known: frozenset[str]) -> Ends:
        each = self._each(node, known)[:-1]
        return Ends(_sum(one.passed for one in each), 0, _sum(one.skip for one in each))

    def _subtree(self, node: Node, known: frozenset[str]) -> Ends:
        return self.of(node.children[0], inside(node, known))

    def _map(self, node: Node, known: frozenset[str]) -> Ends:
        (child,) = self._each(node, known)
        items = _length(node.over, self.values, known)
        if items > node.max:
            return Ends(NEVER, 0)
        failing = min(items, max(node.fail_at - 1, 0))
        succeed = (items - failing) * child.passed + failing * child.over
        if node.children[0].lasting and items:
            succeed = min(succeed, child.over)
        return Ends(min(succeed, NEVER), 0, child.skip * items if items else NEVER)


def _with_conditions(node: Node, ends: Ends) -> Ends:
    given = node.conditions
    if given is None:
        return ends
    if given.fail_if is not None and not never(given.fail_if):
        ends = ends._replace(fail=0)
    if given.success_if is not None and not never(given.success_if):
        ends = ends._replace(succeed=0)
    if (given.skip_if is not None and not never(given.skip_if)) or not always(given.holds):
        ends = ends._replace(skip=0)
    return ends


def _either(ways: list[Ends]) -> Ends:
    return Ends(*(min(ends) for ends in zip(*ways, strict=True)))


def _until(each: list[Ends], *, failed: bool) -> int:
    """The cheapest way to go through some of them and end with one that fails (or succeeds)."""
    before, found = 0, NEVER
    for one in each:
        found = min(found, before + (one.fail if failed else one.succeed))
        before = min(before + (one.passed if failed else min(one.fail, one.skip)), NEVER)
    return found


def _sum(values: object) -> int:
    return min(sum(values), NEVER)  # type: ignore[call-overload,no-any-return]


def _length(over: Expr | None, values: Mapping[str, JSON], known: frozenset[str]) -> int:
    """The number of items of a list that is known beforehand; 0 of another."""
    if over is None or not known.issuperset(over.names):
        return 0
    try:
        items = over.value(values)
    except CelFault:
        return 0
    return len(items) if isinstance(items, list) else 0


_RULES: dict[str, Callable[[_Walk, Node, frozenset[str]], Ends]] = {
    "task": _Walk._task,
    "check": _Walk._check,
    "succeed": lambda *_: Ends(0, NEVER),
    "fail": lambda *_: Ends(NEVER, 0),
    "sequence": _Walk._sequence,
    "fallback": _Walk._fallback,
    "parallel": _Walk._parallel,
    "invert": _Walk._invert,
    "force": _Walk._force,
    "delay": _Walk._same,
    "timeout": _Walk._timeout,
    "once": _Walk._once,
    "try": _Walk._try,
    "subtree": _Walk._subtree,
    "retry": _Walk._same,
    "keep": _Walk._keep,
    "repeat": _Walk._repeat,
    "map": _Walk._map,
    "if": _Walk._branch,
    "while": _Walk._branch,
    "switch": _Walk._switch,
}
"""By kind of node. One that is missing here takes nothing."""

KINDS = frozenset(_RULES)
