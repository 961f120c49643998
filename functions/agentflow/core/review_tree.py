"""Behaviour trees: branches that can never run, because what comes before them always ends the same way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agentflow.core.expr import Expr
from agentflow.core.expressions import always, is_constant, never
from agentflow.core.node import FAILURE, SKIPPED, SUCCESS, Conditions, Node, Tree
from agentflow.core.review_handlers import ENDS
from agentflow.errors import Problem

Outcomes = frozenset[int]

ANYTHING: Outcomes = frozenset({SUCCESS, FAILURE, SKIPPED})
_TURNED = {SUCCESS: FAILURE, FAILURE: SUCCESS, SKIPPED: SKIPPED}


def dead_branches(tree: Tree) -> Iterator[Problem]:
    """Children that are never ticked, and conditions that are none."""
    outcomes = _Outcomes()
    for node in tree.nodes:
        if node.kind in ("sequence", "fallback"):
            yield from _cut_off(node, outcomes)
        elif node.kind in ("if", "while"):
            yield from _one_way(node, outcomes.of(node.children[0]))
        elif node.kind == "switch" and is_constant(node.value):
            yield _warn(f"{node.path}.value", "is constant: the same case is taken each time", "switch on a variable")
        for name, expr in _conditions(node):
            if always(expr) if name != "while" else never(expr):
                message = f"the node never runs: {name} is always {'false' if name == 'while' else 'true'}"
                yield _warn(f"{node.path}.{name}", message, "remove the node, or mend the condition")


def _cut_off(node: Node, outcomes: _Outcomes) -> Iterator[Problem]:
    stop, word = (FAILURE, "fails") if node.kind == "sequence" else (SUCCESS, "succeeds")
    for place, child in enumerate(node.children[:-1]):
        if outcomes.of(child) == {stop}:
            message = f"never runs: what comes before it always {word}, which ends the {node.kind}"
            yield _warn(node.children[place + 1].path, message, "put it first, or remove it")
            return


def _one_way(node: Node, condition: Outcomes) -> Iterator[Problem]:
    if len(condition) != 1:
        return
    dead = {SUCCESS: (2,), FAILURE: (1,), SKIPPED: (1, 2)}[next(iter(condition))]
    for place in dead:
        if place < len(node.children):
            word = {SUCCESS: "succeeds", FAILURE: "fails", SKIPPED: "is skipped"}[next(iter(condition))]
            message = f"never runs: the condition always {word}"
            yield _warn(node.children[place].path, message, "remove it, or mend the condition")


def _conditions(node: Node) -> Iterator[tuple[str, Expr]]:
    """The conditions that keep a node from running."""
    given = node.conditions or Conditions()
    for name, expr in (
        ("fail_if", node.fail_if or given.fail_if),
        ("skip_if", node.skip_if or given.skip_if),
        ("success_if", given.success_if),
        ("while", given.holds),
    ):
        if expr is not None:
            yield name, expr


class _Outcomes:
    """How nodes can end: a superset, so what is missing in it never happens."""

    def __init__(self) -> None:
        self.known: dict[int, Outcomes] = {}

    def of(self, node: Node) -> Outcomes:
        if node.index not in self.known:
            rule = _RULES.get(node.kind)
            ended = rule(node, [self.of(child) for child in node.children]) if rule is not None else ANYTHING
            self.known[node.index] = _with_conditions(node, ended)
        return self.known[node.index]


def _with_conditions(node: Node, ended: Outcomes) -> Outcomes:
    status = {"fail_if": FAILURE, "success_if": SUCCESS, "skip_if": SKIPPED, "while": SKIPPED}
    return ended.union({status[name] for name, _ in _conditions(node)})


def _task(node: Node, _: list[Outcomes]) -> Outcomes:
    kind = node.task.kind if node.task is not None else ""
    sure = ENDS.get(kind) == ("done",) and node.ok_if is None
    return frozenset({SUCCESS}) if sure else frozenset({SUCCESS, FAILURE})


def _check(node: Node, _: list[Outcomes]) -> Outcomes:
    if always(node.condition):
        return frozenset({SUCCESS})
    return frozenset({FAILURE}) if never(node.condition) else frozenset({SUCCESS, FAILURE})


def _series(on: int, stop: int) -> Callable[[Node, list[Outcomes]], Outcomes]:
    def rule(_: Node, children: list[Outcomes]) -> Outcomes:
        found = {SKIPPED} if all(SKIPPED in child for child in children) else set()
        ended = False
        for child in children:
            found |= child & {stop}
            ended = child == {stop}
            if ended:
                break
        if not ended and any(on in child for child in children):
            found.add(on)
        return frozenset(found)

    return rule


def _branch(node: Node, children: list[Outcomes]) -> Outcomes:
    ways = {SUCCESS: 1, FAILURE: 2}
    found: Outcomes = children[0] & {SKIPPED}
    for status, place in ways.items():
        if status in children[0]:
            found |= children[place] if place < len(children) else {FAILURE}
    return found


def _forced(node: Node, children: list[Outcomes]) -> Outcomes:
    return (children[0] & {SKIPPED}) | ({node.forced} if children[0] - {SKIPPED} else frozenset())


_RULES: dict[str, Callable[[Node, list[Outcomes]], Outcomes]] = {
    "task": _task,
    "check": _check,
    "succeed": lambda node, children: frozenset({SUCCESS}),
    "fail": lambda node, children: frozenset({FAILURE}),
    "sequence": _series(SUCCESS, FAILURE),
    "fallback": _series(FAILURE, SUCCESS),
    "invert": lambda node, children: frozenset(_TURNED[status] for status in children[0]),
    "force": _forced,
    "retry": lambda node, children: children[0],
    "repeat": lambda node, children: children[0],
    "delay": lambda node, children: children[0],
    "timeout": lambda node, children: children[0] | {FAILURE},
    "if": _branch,
    "while": _branch,
}
"""The node kinds of which something can be said; of the others (parallel, map, …) anything may be expected."""


def _warn(path: str, message: str, mend: str) -> Problem:
    return Problem(path, message, mend, "constant" if "constant" in message else "never_runs", "warning")
