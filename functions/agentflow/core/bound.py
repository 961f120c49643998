"""An upper bound as an expression of a run's inputs: a sum of products, e.g. ``1 + 3 * min(size(files), 50)``.

All factors are zero or more, so a bound never becomes smaller when one of them grows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod

from agentflow.core.expr import CelFault, Expr
from agentflow.core.types import JSON


@dataclass(frozen=True, slots=True)
class Size:
    """The number of elements of the list ``source``, an expression over inputs that no step changes, up to ``most``."""

    source: str
    most: int
    expr: Expr
    fixed = False

    def at(self, inputs: Mapping[str, JSON]) -> int:
        try:
            value = self.expr.value(inputs)
        except CelFault:
            return self.most
        return min(len(value), self.most) if isinstance(value, list) else self.most

    def __str__(self) -> str:
        return f"min(size({self.source}), {self.most})"


@dataclass(frozen=True, slots=True)
class Limit:
    """What only a limit of the plan bounds, by its name."""

    name: str
    most: int
    fixed = True

    def at(self, inputs: Mapping[str, JSON]) -> int:
        return self.most

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Largest:
    """The largest of several bounds: of ways that exclude each other."""

    of: tuple[Bound, ...]

    @property
    def fixed(self) -> bool:
        return all(each.fixed for each in self.of)

    @property
    def most(self) -> int:
        return max(each.most for each in self.of)

    def at(self, inputs: Mapping[str, JSON]) -> int:
        return max(each.at(inputs) for each in self.of)

    def text(self, amount: Callable[[int], str] = str) -> str:
        return f"max({', '.join(each.text(amount) for each in self.of)})"

    def __str__(self) -> str:
        return self.text()


Factor = Size | Limit | Largest


@dataclass(frozen=True, slots=True)
class Bound:
    """The sum of ``terms``: each a number and the factors it is multiplied by. ``number`` makes the first one."""

    terms: tuple[tuple[int, tuple[Factor, ...]], ...] = ()

    @property
    def most(self) -> int:
        """The bound for any inputs."""
        return sum(number * prod(factor.most for factor in factors) for number, factors in self.terms)

    def at(self, inputs: Mapping[str, JSON]) -> int:
        """The bound for these inputs (all that the plan declares)."""
        return sum(number * prod(factor.at(inputs) for factor in factors) for number, factors in self.terms)

    @property
    def fixed(self) -> bool:
        """Whether it is the same for all inputs."""
        return all(factor.fixed for _, factors in self.terms for factor in factors)

    @property
    def limited(self) -> bool:
        """Whether part of it is bounded by nothing but a limit."""
        return any(isinstance(factor, Limit) for _, factors in self.terms for factor in factors)

    def __add__(self, other: Bound) -> Bound:
        sums: dict[tuple[Factor, ...], int] = {}
        for number_, factors in (*self.terms, *other.terms):
            sums[factors] = sums.get(factors, 0) + number_
        return Bound(tuple((number_, factors) for factors, number_ in sorted(sums.items(), key=_order)))

    def __mul__(self, by: int | Factor) -> Bound:
        if isinstance(by, int):
            return Bound(tuple((number_ * by, factors) for number_, factors in self.terms) if by else ())
        products = ((number_, tuple(sorted((*factors, by), key=str))) for number_, factors in self.terms)
        return reduce(Bound.__add__, (Bound((term,)) for term in products), Bound())

    def text(self, amount: Callable[[int], str] = str) -> str:
        """The expression, with ``amount`` to write a number, e.g. as money."""
        return " + ".join(_shown(number_, factors, amount) for number_, factors in self.terms) or amount(0)

    def __str__(self) -> str:
        return self.text()


def number(value: int) -> Bound:
    """A bound that is the same for all inputs."""
    return Bound(((value, ()),)) if value else Bound()


def largest(bounds: Iterable[Bound]) -> Bound:
    """The largest of ``bounds``, 0 of none."""
    kept: list[Bound] = []
    for bound in bounds:
        if not any(_covers(other, bound) for other in kept):
            kept = [other for other in kept if not _covers(bound, other)] + [bound]
    if len(kept) > 1:
        return Bound(((1, (Largest(tuple(sorted(kept, key=str))),)),))
    return kept[0] if kept else Bound()


def _covers(one: Bound, other: Bound) -> bool:
    """Whether ``one`` is at least ``other`` term by term."""
    numbers = {factors: number_ for number_, factors in one.terms}
    return all(numbers.get(factors, 0) >= number_ for number_, factors in other.terms)


def _order(item: tuple[tuple[Factor, ...], int]) -> tuple[int, str]:
    return len(item[0]), " * ".join(map(str, item[0]))


def _shown(number_: int, factors: tuple[Factor, ...], amount: Callable[[int], str]) -> str:
    inside = any(isinstance(factor, Largest) for factor in factors)  # then the amounts are in there
    said = str(number_) if inside else amount(number_)
    parts = [] if said == "1" and factors else [said]
    return " * ".join([*parts, *(f.text(amount) if isinstance(f, Largest) else str(f) for f in factors)])
