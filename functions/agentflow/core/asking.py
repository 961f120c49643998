"""How long the requests of a task are, as far as that follows from the run's inputs: at most, at least and typically.

A prompt is filled with what is known beforehand: inputs and variables that no step changes, and the items of a map
over them. What is not known, but is a number or a truth value, is as long as such a value can be; any other text has no
bound.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from agentflow.core import chat
from agentflow.core.expr import CelFault, Expr
from agentflow.core.money import Count, input_tokens_bound
from agentflow.core.node import Node
from agentflow.core.plan import TURN, Plan, Task, part_name
from agentflow.core.prompt import placeholders
from agentflow.core.types import JSON
from agentflow.core.variables import inside, unchanged

MAX_ITEMS = 200
"""Items of a map that are looked at one by one; those of a longer one are not known."""

TYPICAL = "x" * 400
"""In place of a text that is not known, where nobody has seen one yet."""

LONGEST: Mapping[str, str] = {"int": "-" + "9" * 19, "double": "-" + "9" * 25, "bool": "false"}
"""The longest text of a value of a type."""

Inputs = Mapping[str, Expr]


class Length(NamedTuple):
    """What a task asks: tokens at most (None: no bound, because of what is ``unknown``), bytes at least, typically."""

    most_tokens: int | None = 0
    least_bytes: int = 0
    typical_bytes: int = 0
    unknown: frozenset[str] = frozenset()

    def joined(self, other: Length) -> Length:
        """What holds for both."""
        most = None
        if self.most_tokens is not None and other.most_tokens is not None:
            most = max(self.most_tokens, other.most_tokens)
        typical = max(self.typical_bytes, other.typical_bytes)
        least = min(self.least_bytes, other.least_bytes)
        return Length(most, least, typical, self.unknown | other.unknown)


class _Place(NamedTuple):
    """Where a task runs: what it is given, which names are known there, and the items of the map around it."""

    task: Task
    inputs: Inputs
    known: frozenset[str]
    items: list[JSON] | None


def lengths(plan: Plan, values: Mapping[str, JSON], counts: Mapping[str, Count | None]) -> dict[str, Length]:
    """By name of each task that asks a model, of the first request of a start. ``counts``: how the texts of a model are
    counted, by its alias, where that is known."""
    found: dict[str, Length] = {}
    for place in _places(plan, values):
        task = place.task
        if task.kind in ("llm", "agent"):
            asked = plan.tasks[part_name(task.name, TURN)] if task.agent else task
            for alias in asked.aliases:
                length = _length(place, values, counts.get(alias))
                found[task.name] = found[task.name].joined(length) if task.name in found else length
    return found


def _places(plan: Plan, values: Mapping[str, JSON]) -> Iterator[_Place]:
    known = unchanged(plan)
    if plan.tree is not None:
        yield from _in_tree(plan.tree.root, known, None, values)
    else:
        assert plan.machine is not None
        for state in plan.machine.states:
            if state.task is not None:
                yield _Place(state.task, state.inputs, known, None)
    for task in plan.tasks.values():
        if task.undo is not None:  # what it is given depends on what is undone
            yield _Place(plan.tasks[task.undo.task], task.undo.inputs, frozenset(), None)


def _in_tree(
    node: Node, known: frozenset[str], items: list[JSON] | None, values: Mapping[str, JSON]
) -> Iterator[_Place]:
    if node.task is not None:
        yield _Place(node.task, node.inputs, known, items)
    if node.kind == "map":
        items = _items(node.over, known, values)
    elif node.kind == "subtree":
        known = inside(node, known)
    for child in node.children:
        yield from _in_tree(child, known, items, values)


def _items(over: Expr | None, known: frozenset[str], values: Mapping[str, JSON]) -> list[JSON] | None:
    if over is None or not known.issuperset(over.names):
        return None
    try:
        items = over.value(values)
    except CelFault:
        return None
    return items if isinstance(items, list) and len(items) <= MAX_ITEMS else None


def _length(place: _Place, values: Mapping[str, JSON], count: Count | None) -> Length:
    items = place.items or [None]
    known = place.known | {"item"} if place.items else place.known
    found: Length | None = None
    for item in items:
        length = _one(place, {**values, "item": item}, known, count)
        found = length if found is None else found.joined(length)
    assert found is not None
    return found


def _one(place: _Place, values: Mapping[str, JSON], known: frozenset[str], count: Count | None) -> Length:
    task = place.task
    most, least, typical = dict[str, JSON](), dict[str, JSON](), dict[str, JSON]()
    unknown = set()
    for name, expr in place.inputs.items():
        value, is_known = _value(expr, values, known)
        longest = LONGEST.get(expr.type.kind)
        if is_known:
            most[name] = least[name] = typical[name] = value
        elif longest is not None:
            most[name], least[name], typical[name] = longest, "", longest[:4]
        else:
            unknown.add(name)
            most[name], least[name], typical[name] = "", "", TYPICAL
    unknown &= _read(task, place.inputs)
    tokens = None if unknown else input_tokens_bound(chat.chat(task, most), [], chat.output_schema(task), count)
    return Length(tokens, _bytes(task, least), _bytes(task, typical), frozenset(unknown))


def _value(expr: Expr, values: Mapping[str, JSON], known: frozenset[str]) -> tuple[JSON, bool]:
    if not known.issuperset(expr.names):
        return None, False
    try:
        return expr.value(values), True
    except CelFault:
        return None, False


def _read(task: Task, inputs: Inputs) -> set[str]:
    """The inputs that the request says."""
    if not task.prompt:
        return set(inputs)
    return placeholders(task.prompt) | placeholders(task.system)


def _bytes(task: Task, given: Mapping[str, JSON]) -> int:
    return sum(len(message["content"].encode()) for message in chat.chat(task, given))
