"""The layers of a drawing: in which order things are in them, so that few lines cross, and how far to the right.

The order is found by sweeps that sort each layer by the middle of what its things are tied to; the places by least
squares: each thing as close to what it is tied to as the room that all need allows.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

GAP = 26
ROUNDS = 4
MANY = 2_000
"""From so many things on there are fewer sweeps."""


@dataclass(slots=True, eq=False)
class Thing:
    """Something in a layer: how far it reaches to the left and right of ``x``, how high it is, and its ties.

    A tie is (the other thing, where it begins relative to ``x``, where it ends relative to the other's ``x``, weight).
    ``first``: it stays leftmost.
    """

    rank: int
    left: int
    right: int
    height: int
    first: bool = False
    x: float = 0.0
    layer: int = 0
    at: int = 0
    above: list[tuple[Thing, int, int, int]] = field(default_factory=list)
    below: list[tuple[Thing, int, int, int]] = field(default_factory=list)


def tie(upper: Thing, lower: Thing, begin: int = 0, end: int = 0, weight: int = 1) -> None:
    """A line leads from one thing to another on the next rank."""
    upper.below.append((lower, begin, end, weight))
    lower.above.append((upper, end, begin, weight))


def layered(things: Sequence[Thing]) -> list[list[Thing]]:
    """The things by layer, ordered, with their ``x``."""
    by_rank: dict[int, list[Thing]] = {}
    for thing in things:
        by_rank.setdefault(thing.rank, []).append(thing)
    layers = [by_rank[rank] for rank in sorted(by_rank)]
    for number, layer in enumerate(layers):
        for thing in layer:
            thing.layer = number
    sweeps = 10 if len(things) < MANY else 3
    _order(layers, sweeps)
    _space(layers, sweeps)
    _gather(layers)
    return layers


# -- order -------------------------------------------------------------------------------------------------


def _order(layers: list[list[Thing]], sweeps: int) -> None:
    for layer in layers:
        layer.sort(key=lambda thing: not thing.first)
        _number(layer)
    best, fewest = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(sweeps):
        if not fewest:
            break
        down = sweep % 2 == 0
        for layer in layers if down else reversed(layers):
            layer.sort(key=lambda thing: (not thing.first, _middle(thing, down=down), thing.at))
            _number(layer)
        crossings = _crossings(layers)
        if crossings < fewest:
            best, fewest = [list(layer) for layer in layers], crossings
    for layer, ordered in zip(layers, best, strict=True):
        layer[:] = ordered
        _number(layer)


def _number(layer: list[Thing]) -> None:
    for at, thing in enumerate(layer):
        thing.at = at


def _middle(thing: Thing, *, down: bool) -> float:
    ties = thing.above if down else thing.below
    if not ties:
        return thing.at
    return sum(other.at for other, *_ in ties) / len(ties)


def _crossings(layers: list[list[Thing]]) -> int:
    count = 0
    for layer in layers:
        seen: list[int] = []
        for thing in layer:
            ends = [other.at for other, *_ in thing.below]
            count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


# -- space -------------------------------------------------------------------------------------------------


def _space(layers: list[list[Thing]], sweeps: int) -> None:
    for layer in layers:
        x = 0.0
        for thing in layer:
            thing.x = x + thing.left
            x = thing.x + thing.right + GAP
    for sweep in range(4 * sweeps):
        down = sweep % 2 == 0
        both = sweep >= 2 * sweeps
        for layer in layers if down else reversed(layers):
            _settle(layer, up=down or both, down=not down or both)


def _settle(layer: list[Thing], *, up: bool, down: bool) -> None:
    """Least squares under the order: things that would overlap are moved together, as one block."""
    blocks: list[tuple[float, float, int]] = []  # where its first thing is to be, weight, how many
    apart = [0.0]
    for one, other in pairwise(layer):
        apart.append(apart[-1] + one.right + GAP + other.left)
    for thing, offset in zip(layer, apart, strict=True):
        wish, weight = _wish(thing, up=up, down=down)
        wish -= offset
        number = 1
        while blocks and blocks[-1][0] >= wish:
            before, heavy, many = blocks.pop()
            wish = (before * heavy + wish * weight) / (heavy + weight)
            weight += heavy
            number += many
        blocks.append((wish, weight, number))
    places = iter(zip(layer, apart, strict=True))
    for wish, _, number in blocks:
        for _ in range(number):
            thing, offset = next(places)
            thing.x = wish + offset


def _wish(thing: Thing, *, up: bool, down: bool) -> tuple[float, float]:
    ties = (thing.above if up else []) + (thing.below if down else [])
    weight = sum(tied[3] for tied in ties)
    if not weight:
        return thing.x, 0.1
    return sum((other.x + end - begin) * heavy for other, begin, end, heavy in ties) / weight, weight


# -- what is not tied together --------------------------------------------------------------------------------


def _gather(layers: list[list[Thing]]) -> None:
    """Move what is tied together to the left as a whole, as far as there is room: from 0 on."""
    group = _groups(layers)
    members: dict[int, list[Thing]] = {}
    for layer in layers:
        for thing in layer:
            members.setdefault(group[thing], []).append(thing)
    for _ in range(ROUNDS):  # one that has moved may have been in the way of another
        if not sum(_shift(layers, group, number, each) for number, each in _from_left(members)):
            break
    for layer in layers:
        edge = 0.0
        for thing in layer:  # where groups lie between each other, one may be in the way of another
            thing.x = max(thing.x, edge + thing.left)
            edge = thing.x + thing.right + GAP


def _from_left(members: dict[int, list[Thing]]) -> list[tuple[int, list[Thing]]]:
    lefts = {number: min(thing.x - thing.left for thing in each) for number, each in members.items()}
    return sorted(members.items(), key=lambda item: (not item[1][0].first, lefts[item[0]], item[0]))


def _shift(layers: list[list[Thing]], group: dict[Thing, int], number: int, things: list[Thing]) -> bool:
    """Move one group to the left as far as it goes; whether that is any way at all."""
    by = min(thing.x - thing.left for thing in things)
    for thing in things:
        before = layers[thing.layer][thing.at - 1] if thing.at else thing
        if group[before] != number:
            by = min(by, thing.x - thing.left - (before.x + before.right + GAP))
    for thing in things:
        thing.x -= by
    return abs(by) >= 1


def _groups(layers: list[list[Thing]]) -> dict[Thing, int]:
    """Which things are tied together, by a number from 0 on."""
    found: dict[Thing, int] = {}
    count = 0
    for layer in layers:
        for start in layer:
            if start in found:
                continue
            found[start], todo = count, [start]
            while todo:
                for other, *_ in (*(thing := todo.pop()).above, *thing.below):
                    if other not in found:
                        found[other] = count
                        todo.append(other)
            count += 1
    return found
