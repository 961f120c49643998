"""A plan without its values: every decision that an expression makes may come out either way.

``Abstract`` is a copy of a plan for the real planner. In place of expressions stand stand-ins that ask an ``Oracle``: a
condition is true or false, a list has 0, 1 or 2 elements, a switch takes any of its cases. What is assigned does not
matter. Within one event a condition keeps its answer until a variable that it reads is set.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

from agentflow.core.expr import CelFault, Expr
from agentflow.core.expressions import rewritten
from agentflow.core.machine import State
from agentflow.core.moves import Advance
from agentflow.core.node import Node
from agentflow.core.plan import Plan, Task
from agentflow.core.types import JSON
from agentflow.core.variables import aliases

MAX_DECISIONS = 40
MAX_OUTCOMES = 64
MAX_ITEMS = 2
NO_VALUE = object()
"""The answer of an expression that cannot be evaluated."""

ANOTHER = "another"
NO_LIMIT = 10**9
NOTHING: Mapping[str, JSON] = {}


class Unknown(Exception):
    """The plan asks what cannot be answered here, or more within one event than is followed."""


class Oracle:
    """Answers by a script of choices, and notes what was asked: so that all scripts can be gone through. ``cut`` says
    what was left out, '' when nothing was."""

    def __init__(self) -> None:
        self.cut = ""
        self.elements = count()
        self._script: list[int] = []
        self._asked: list[tuple[Expr, Sequence[Any]]] = []
        self._answers: dict[object, Any] = {}
        self._set: dict[str, int] = {}

    def outcomes(self, work: Callable[[], Advance]) -> Iterator[tuple[Advance, list[str]]]:
        """What ``work`` comes to under every script, with the decisions on the way in words."""
        self._script = []
        for _ in range(MAX_OUTCOMES):
            self._asked, self._answers, self._set = [], {}, {}
            try:
                moved = work()
            except Unknown as fault:
                self.cut = str(fault)
            else:
                asked = zip(self._script, self._asked, strict=True)
                yield moved, [said for i, (expr, choices) in asked if (said := _said(expr, choices[i]))]
            if not self._next():
                return
        self.cut = f"{MAX_OUTCOMES} outcomes of one event"

    def _next(self) -> bool:
        """The script after this one: the last choice that has another one left."""
        while self._script and self._script[-1] + 1 == len(self._asked[len(self._script) - 1][1]):
            self._script.pop()
        if self._script:
            self._script[-1] += 1
        return bool(self._script)

    def pick(self, expr: Expr, choices: Sequence[Any], local: Mapping[str, JSON]) -> Any:
        """One of ``choices``: the same as before in this event, unless something that ``expr`` reads was set."""
        item = local.get("item") if "item" in expr.names else None
        key = (id(expr), item, tuple(self._set.get(name, 0) for name in expr.names))
        if key not in self._answers:
            place = len(self._asked)
            if place == MAX_DECISIONS:
                raise Unknown(f"{MAX_DECISIONS} decisions in one event")
            self._asked.append((expr, choices))
            if place == len(self._script):
                self._script.append(0)
            self._answers[key] = choices[self._script[place]]
        return self._answers[key]

    def was_set(self, name: str) -> None:
        """A variable has another value from now on."""
        self._set[name] = self._set.get(name, 0) + 1


class Guess(Expr):
    """Stands for an expression that decides something: its value is one of ``choices``."""

    __slots__ = ("choices", "oracle")

    def __init__(self, expr: Expr, oracle: Oracle, choices: Sequence[Any]) -> None:
        self.source, self.type, self.names = expr.source, expr.type, expr.names
        self.oracle = oracle
        self.choices = choices

    def value(self, variables: Mapping[str, JSON], local: Mapping[str, JSON] = NOTHING) -> JSON:
        """As the oracle says; CelFault where it says that there is none."""
        found = self.oracle.pick(self, self.choices, local)
        if found is NO_VALUE:
            raise CelFault("has no value")
        # Each element is another one, so that what is decided for one of them is not decided for the next.
        return [next(self.oracle.elements) for _ in found] if isinstance(found, list) else found


class Given(Guess):
    """Stands for an expression whose value does not matter: null. ``sets``: the variable that it is assigned to, by all
    names that it may have."""

    __slots__ = ("sets",)

    def __init__(self, expr: Expr, oracle: Oracle, choices: Sequence[Any], sets: Collection[str]) -> None:
        super().__init__(expr, oracle, choices)
        self.sets = sets

    def value(self, variables: Mapping[str, JSON], local: Mapping[str, JSON] = NOTHING) -> JSON:
        """Null; CelFault where the oracle says that there is no value."""
        for name in self.sets:
            self.oracle.was_set(name)
        return super().value(variables, local) if len(self.choices) > 1 else None


def abstract(plan: Plan, oracle: Oracle, *, loops: int = 0) -> Plan:
    """The copy, for which steps are not limited; with ``loops`` every ``visits`` and ``max`` is that at most. An
    agent's step is one like others there: how it comes to its end is not the plan's affair."""
    faults = (NO_VALUE,) if plan.machine is not None and plan.machine.mends else ()
    others = aliases(plan.tree) if plan.tree is not None else {}

    def swap(expr: Expr, owner: object, field: str) -> Expr:
        if isinstance(owner, Task) or (owner is not None and not expr.names):
            return expr  # the planner does not look at it, or there is nothing to decide
        if isinstance(owner, State) and field == "reason":
            return Given(expr, oracle, (None,), ())
        if owner is None:
            return Given(expr, oracle, (None, *faults), others.get(field, (field,)))
        return Guess(expr, oracle, (*_choices(expr, owner, field), *faults))

    def amend(made: Any) -> Any:
        if loops and isinstance(made, State) and made.visits > loops:
            return replace(made, visits=loops)
        if loops and isinstance(made, Node) and made.kind != "map" and made.max > loops:
            return replace(made, max=loops)
        return made

    machine, tree, output = rewritten((plan.machine, plan.tree, plan.output), swap, amend)
    limits = replace(plan.limits, steps=NO_LIMIT)
    return replace(plan, machine=machine, tree=tree, output=output, limits=limits, has_agents=False)


def _choices(expr: Expr, owner: object, field: str) -> Sequence[Any]:
    if isinstance(owner, Node) and field == "over":
        return [[None] * length for length in range(min(MAX_ITEMS, owner.max) + 1)]
    if isinstance(owner, Node) and field == "value":
        return [*owner.cases, ANOTHER]
    if expr.type.kind == "bool":
        return (False, True)  # what is false leads on; what is true may come again
    raise Unknown(f"`{expr.source}` decides something that is not followed here")


def _said(expr: Expr, choice: Any) -> str:
    """One decision in words, '' where nothing was decided."""
    if isinstance(expr, Given) and choice is None:
        return ""
    if choice is NO_VALUE:
        return f"`{expr.source}` has no value"
    if isinstance(choice, bool):
        return f"`{expr.source}`" if choice else f"not `{expr.source}`"
    return f"`{expr.source}` has {len(choice)} elements" if isinstance(choice, list) else f"`{expr.source}` is {choice}"
