"""Where everything is inside one level: its states, the labels of its arrows, the ports at its border."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from agentflow.picture.drawing import ROUND, SMALL_ROW, TITLE_ROW, Frame, label_size
from agentflow.picture.layers import Thing, layered, tie
from agentflow.picture.nesting import Part, Place, Port

MARGIN, BETWEEN, PASSING = 14, 24, 6
"""Around a level, between its layers, and what a layer takes that arrows only pass."""

APART = 18
"""How far arrows are apart where they meet a box, when it is broad enough."""

STRAIGHT = 8
"""How much more it counts that an arrow is straight between layers than that it is close to its ends."""

Point = tuple[int, int]


@dataclass(slots=True, eq=False)
class Level:
    """A place with its size and where things are in it, from its upper left.

    ``lines`` are the parts' points from the upper end to the lower, without the border that a port is on; ``labels``
    where the labels of parts begin.
    """

    place: Place
    frame: Frame
    width: int = 0
    height: int = 0
    at: dict[Place, Point] = field(default_factory=dict)
    ports: dict[Port, int] = field(default_factory=dict)
    lines: dict[Part, list[Point]] = field(default_factory=dict)
    labels: dict[Part, Point] = field(default_factory=dict)

    @property
    def header(self) -> int:
        """How high the title with its small print is."""
        return TITLE_ROW + SMALL_ROW * len(self.frame.rows) if self.place.box.key else 0


def lay(level: Level, inner: Mapping[Place, Level], title: int) -> None:
    """Lay out a level whose states are laid out; ``title`` is the room its title takes from left to right."""
    _Laying(level, inner, title)


class _Laying:
    def __init__(self, level: Level, inner: Mapping[Place, Level], title: int) -> None:
        self.level, self.place, self.inner = level, level.place, inner
        ported = (
            part for part in self.place.parts if isinstance(part.upper, Port) or isinstance(part.lower, Port)
        )
        labelled = any(part.rows for part in ported)
        beyond = 2 if labelled else 1
        last = max(self.place.ranks.values())
        self.ends: dict[Place | Port, Thing] = {}
        things: list[Thing] = []
        if title:
            things.append(Thing(-beyond, 0, title, level.header, first=True))
        for place, rank in self.place.ranks.items():
            half = inner[place].width // 2
            self.ends[place] = Thing(rank, half, half, inner[place].height)
        for port in self.place.ports:
            self.ends[port] = Thing(-beyond if port.upper else last + beyond, 6, 6, 0)
        things += self.ends.values()
        self.bends: dict[Part, list[Thing]] = {}
        self.named: dict[Part, Thing] = {}
        for part in self.place.parts:
            things += self._bend(part)
        layers = layered(things)
        self._down(layers)
        self._across(things)
        self._ends()
        self._trace()

    def _bend(self, part: Part) -> list[Thing]:
        """What the part needs in the layers between its ends, its label among it."""
        upper, lower = self.ends[part.upper], self.ends[part.lower]
        bends = [Thing(rank, 5, 5, 0) for rank in range(upper.rank + 1, lower.rank)]
        if part.rows:
            broad, high = label_size(part.rows)
            self.named[part] = bends[(len(bends) - 1) // 2]
            self.named[part].right, self.named[part].height = broad + 8, high + 4
        self.bends[part] = bends
        chain = [upper, *bends, lower]
        for number, (one, other) in enumerate(pairwise(chain)):
            begin = self._beside(part.upper, part.upper_port) if number == 0 else 0
            end = self._beside(part.lower, part.lower_port) if number == len(chain) - 2 else 0
            tie(one, other, begin, end, 1 if number == 0 or number == len(chain) - 2 else STRAIGHT)
        return bends

    def _beside(self, end: Place | Port, port: Port | None) -> int:
        """How far from the middle of a place a port in it is."""
        if port is None or isinstance(end, Port):
            return 0
        return port_x(self.inner, end, port) - self.inner[end].width // 2

    def _down(self, layers: list[list[Thing]]) -> None:
        self.tops: dict[int, tuple[int, int]] = {}
        y = MARGIN
        for layer in layers:
            high = max(thing.height for thing in layer)
            self.tops[layer[0].rank] = (y, y + high)
            y += high + BETWEEN if high else PASSING
        self.level.height = y - (BETWEEN if high else PASSING) + MARGIN

    def _across(self, things: list[Thing]) -> None:
        least = min(thing.x - thing.left for thing in things)
        for thing in things:
            thing.x = round(thing.x - least) + MARGIN
        broad = max(int(thing.x) + thing.right for thing in things) + MARGIN
        self.level.width = _even(max(broad, self.level.frame.width))

    def _ends(self) -> None:
        """Where parts meet the boxes: at a port, or beside each other in the order of where they go."""
        self.meets: dict[tuple[Part, bool], int] = {}
        for end, thing in self.ends.items():
            if isinstance(end, Port):
                self.level.ports[end] = int(thing.x)
                continue
            top, bottom = self.tops[thing.rank]
            self.level.at[end] = (int(thing.x) - thing.left, (top + bottom - thing.height) // 2)
        sides: dict[tuple[Place, bool], list[Part]] = {}
        for part in self.place.parts:
            for end, upper, port in (
                (part.upper, True, part.upper_port),
                (part.lower, False, part.lower_port),
            ):
                x = int(self.ends[end].x)
                self.meets[part, upper] = x + self._beside(end, port)
                if isinstance(end, Place) and port is None:
                    sides.setdefault((end, upper), []).append(part)
        for (end, upper), parts in sides.items():
            self._spread(end, parts, upper=upper)

    def _spread(self, end: Place, parts: list[Part], *, upper: bool) -> None:
        parts.sort(key=lambda part: self._next(part, upper=upper))
        room = 8 if end.box.shape in ROUND else 0 if end.box.shape == "start" else self.inner[end].width - 24
        span = max(0, min(room, APART * (len(parts) - 1)))
        for number, part in enumerate(parts):
            if len(parts) > 1:
                self.meets[part, upper] += span * number // (len(parts) - 1) - span // 2

    def _next(self, part: Part, *, upper: bool) -> float:
        bends = self.bends[part]
        if bends:
            return bends[0 if upper else -1].x
        return self.ends[part.lower if upper else part.upper].x

    def _trace(self) -> None:
        for part in self.place.parts:
            points: list[Point] = []
            x = self.meets[part, True]
            top, bottom = self.tops[self.ends[part.upper].rank]
            if isinstance(part.upper, Place):
                points.append((x, self.level.at[part.upper][1] + self.inner[part.upper].height))
            points.append((x, bottom))
            for bend in self.bends[part]:
                top, bottom = self.tops[bend.rank]
                points += [(int(bend.x), top), (int(bend.x), bottom)]
            x = self.meets[part, False]
            top, bottom = self.tops[self.ends[part.lower].rank]
            points.append((x, top))
            if isinstance(part.lower, Place):
                points.append((x, self.level.at[part.lower][1]))
            self.level.lines[part] = points
            if (named := self.named.get(part)) is not None:
                top, bottom = self.tops[named.rank]
                self.level.labels[part] = (int(named.x) + 6, (top + bottom - named.height) // 2 + 2)


def port_x(levels: Mapping[Place, Level], place: Place, port: Port) -> int:
    """Where a port somewhere inside a place is, from its left."""
    x, home = levels[port.home].ports[port], port.home
    while home is not place:
        assert home.outer is not None
        x += levels[home.outer].at[home][0]
        home = home.outer
    return x


def _even(size: int) -> int:
    return size + size % 2
