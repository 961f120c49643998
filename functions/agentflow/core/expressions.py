"""The expressions of a compiled plan, wherever they are: what it reads, what it sets, and a copy with others in place.

Plans are frozen dataclasses, so one walk over their fields finds the expressions of every kind of node and state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar

from agentflow.core.expr import Expr

Part = TypeVar("Part")


def reads(part: Any) -> Iterator[Expr]:
    """Every expression in ``part``, once, in no order."""
    for value in _walk(part):
        if isinstance(value, Expr):
            yield value


def names_read(part: Any) -> set[str]:
    """The names that expressions in ``part`` read."""
    return {name for expr in reads(part) for name in expr.names}


def names_set(part: Any) -> set[str]:
    """The variables that ``part`` assigns: an assignment is a pair of a name and an expression."""
    return {value[0] for value in _walk(part) if _is_pair(value)}


def is_constant(expr: Expr | None) -> bool:
    """Whether it has the same value wherever it is looked at."""
    return expr is not None and not expr.names


def always(expr: Expr | None) -> bool:
    """Whether a condition holds whatever happens; a missing one does."""
    return expr is None or (not expr.names and expr.value({}) is True)


def never(expr: Expr | None) -> bool:
    """Whether a condition holds in no case."""
    return expr is not None and not expr.names and expr.value({}) is False


Swap = Callable[[Expr, object, str], Expr]


def rewritten(part: Part, swap: Swap, amend: Callable[[Any], Any] = lambda made: made) -> Part:
    """A copy of ``part``: ``swap(expr, owner, field)`` in place of every expression, ``amend(copy)`` of every object.

    What was one object stays one. Of an assignment ``owner`` is None and ``field`` the variable, of an entry in a table
    both are empty.
    """
    made: dict[int, Any] = {}

    def copy(value: Any, owner: object = None, field: str = "") -> Any:
        if id(value) in made:
            return made[id(value)]
        if isinstance(value, Expr):
            return swap(value, owner, field)
        if _is_pair(value):
            return value[0], swap(value[1], None, value[0])
        if is_dataclass(value) and not isinstance(value, type):
            new = {each.name: copy(getattr(value, each.name), value, each.name) for each in fields(value)}
            made[id(value)] = amend(replace(value, **new))
            return made[id(value)]
        if isinstance(value, (tuple, list)):
            return type(value)(map(copy, value))
        if isinstance(value, dict):
            return {key: copy(item) for key, item in value.items()}
        return value

    return copy(part)  # type: ignore[no-any-return]


def _walk(part: Any) -> Iterator[Any]:
    todo, seen = [part], set()
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if isinstance(value, dict):
            todo += value.values()
        elif isinstance(value, (tuple, list)):
            todo += value
        elif is_dataclass(value) and not isinstance(value, type):
            todo += (getattr(value, each.name) for each in fields(value))


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], Expr)
