"""Which levels an arrow between nested states crosses: each state with others inside is a level, laid out by itself.

Where an arrow crosses the border of a state it has a port there, in the level inside: above where it comes from above,
below where it goes on downwards. Levels are taken from the outside in, since only the outer one says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.picture.diagram import Arrow, Box, Diagram
from agentflow.picture.drawing import small_rows
from agentflow.picture.ranks import ranks, turned
from agentflow.picture.text import plain

MAX_BENDS = 8_000
"""Places where arrows may pass the layers between their ends; those beyond that are told in words."""

MAX_LABELS = 6


@dataclass(slots=True, eq=False)
class Port:
    """Where an arrow crosses the border of the level ``home``: above or below."""

    home: Place
    upper: bool


@dataclass(slots=True, eq=False)
class Place:
    """A box, and what it holds; ``words`` are arrows that are not drawn. ``real`` is False for what only groups."""

    box: Box
    outer: Place | None
    depth: int
    real: bool = True
    inner: list[Place] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    parts: list[Part] = field(default_factory=list)
    ranks: dict[Place, int] = field(default_factory=dict)

    @property
    def wide(self) -> bool:
        """Whether what it holds lies side by side, as regions do."""
        return self.box.shape == "parallel"


@dataclass(slots=True, eq=False)
class Part:
    """The part of an arrow within one level. ``turned``: it is drawn from its lower end to its upper one. Where an end
    only holds what the arrow is about, it goes on in there from a port."""

    route: Route
    upper: Place | Port
    lower: Place | Port
    turned: bool
    rows: tuple[str, ...] = ()
    upper_port: Port | None = None
    lower_port: Port | None = None


@dataclass(slots=True, eq=False)
class Route:
    """An arrow, or several between the same two, with its parts from its source to its target."""

    source: Place
    target: Place
    full: tuple[str, ...]
    parts: list[Part] = field(default_factory=list)


class Nesting:
    """All places of a diagram, the outer before the inner, and its routes."""

    def __init__(self, diagram: Diagram) -> None:
        self.root = Place(Box("", "compound"), None, 0, real=False)
        self.places: list[Place] = [self.root]
        self.by_key: dict[str, Place] = {}
        self.routes: list[Route] = []
        self.pending: dict[Place, list[Route]] = {}
        self._hold(self.root, diagram.boxes)
        self._connect(diagram.arrows)
        self._bends = 0
        for place in list(self.places):
            if place.inner and not place.wide:
                self._rank(place)
        self.routes = [route for route in self.routes if route.parts]

    def _hold(self, outer: Place, boxes: tuple[Box, ...]) -> None:
        todo = [(outer, boxes)]
        while todo:
            around, inside = todo.pop()
            for box in inside:
                home = self._column(around) if around.wide and box.shape == "history" else around
                place = Place(box, home, home.depth + 1)
                home.inner.append(place)
                self.places.append(place)
                self.by_key[box.key] = place
                todo.append((place, box.inside))
        self.places.sort(key=lambda place: place.depth)

    def _column(self, around: Place) -> Place:
        """Where the history of a parallel state is drawn: beside its regions."""
        if around.inner and not around.inner[-1].real:
            return around.inner[-1]
        column = Place(Box("", "region"), around, around.depth + 1, real=False)
        around.inner.append(column)
        self.places.append(column)
        return column

    # -- arrows --------------------------------------------------------------------------------------------

    def _connect(self, arrows: tuple[Arrow, ...]) -> None:
        between: dict[tuple[Place, Place], list[str]] = {}
        for arrow in arrows:
            source, target = self.by_key[arrow.source], self.by_key[arrow.target]
            if source is target:
                source.words.append(f"↻ {arrow.label}".strip() if arrow.moves else arrow.label or "⟲")
            else:
                between.setdefault((source, target), []).append(arrow.label)
        for (source, target), labels in between.items():
            said = tuple(label for label in labels if label)
            route = Route(source, target, tuple(map(plain, said)))
            level = self._level(source, target)
            if level.wide or (
                level in (source, target) and not (_holds(level, source) or _holds(level, target))
            ):
                self._tell(route)
            else:
                self.routes.append(route)
                self.pending.setdefault(level, []).append(route)

    def _level(self, source: Place, target: Place) -> Place:
        """The level that holds both ends, or one of them is its border."""
        level, other = source, target
        while level is not other:
            if level.depth >= other.depth:
                assert level.outer is not None
                level = level.outer
            else:
                assert other.outer is not None
                other = other.outer
        if level in (source, target):  # between a parallel state and what is inside, the level is a region's
            end = target if level is source else source
            while level.wide and level is not end:
                level = _step(level, end)
        return level

    def _tell(self, route: Route) -> None:
        for label in route.full or ("",):
            route.source.words.append(f"{label} → {plain(route.target.box.title)}".strip())

    # -- ranks ---------------------------------------------------------------------------------------------

    def _rank(self, level: Place) -> None:
        """Say which way up the arrows of a level are, and what that means for the levels inside."""
        number = {place: index for index, place in enumerate(level.inner)}
        routes = self.pending.pop(level, [])
        between = [route for route in routes if not _at_border(level, route)]
        edges = [(number[_step(level, r.source)], number[_step(level, r.target)]) for r in between]
        back = turned(len(number), edges)
        down = [(b, a) if flip else (a, b) for (a, b), flip in zip(edges, back, strict=True)]
        found = ranks(len(number), down)
        level.ranks = {place: found[index] for place, index in number.items()}
        lengths = [found[lower] - found[upper] for upper, lower in down]
        for place in sorted(range(len(between)), key=lambda each: (lengths[each], each)):
            self._bends += lengths[place] - 1
            if self._bends > MAX_BENDS:
                self._bends -= lengths[place] - 1
                self._tell(between[place])
            else:
                self._between(level, between[place], turned_=back[place])
        for route in routes:
            if _at_border(level, route):
                self._border(level, route)

    def _between(self, level: Place, route: Route, *, turned_: bool) -> None:
        source, target = _step(level, route.source), _step(level, route.target)
        upper, lower = (target, source) if turned_ else (source, target)
        part = Part(route, upper, lower, turned_, _rows(route))
        level.parts.append(part)
        route.parts.append(part)
        leaving = self._within(route, source, route.source, upper=turned_, leaves=True)
        entering = self._within(route, target, route.target, upper=not turned_, leaves=False)
        part.upper_port, part.lower_port = (entering, leaving) if turned_ else (leaving, entering)

    def _border(self, level: Place, route: Route) -> None:
        """From the border of a state to what is inside, or from there to its border."""
        enters = _holds(level, route.target)
        end = route.target if enters else route.source
        inside, port = _step(level, end), Port(level, enters)
        level.ports.append(port)
        ends: tuple[Place | Port, Place | Port] = (port, inside) if enters else (inside, port)
        part = Part(route, *ends, turned=False, rows=_rows(route))
        level.parts.append(part)
        route.parts.append(part)
        within = self._within(route, inside, end, upper=enters, leaves=not enters)
        part.upper_port, part.lower_port = (None, within) if enters else (within, None)

    def _within(self, route: Route, place: Place, end: Place, *, upper: bool, leaves: bool) -> Port | None:
        """The parts from the border of ``place`` to an end of the route that is inside it; the first port."""
        first: Port | None = None
        around: Part | None = None
        while place is not end:
            outer, place = place, _step(place, end)
            if outer.wide and place is not end:
                continue
            port = Port(_region(place) if outer.wide else outer, upper)
            port.home.ports.append(port)
            if around is not None and upper:
                around.lower_port = port
            elif around is not None:
                around.upper_port = port
            first = first or port
            if not outer.wide:
                ends: tuple[Place | Port, Place | Port] = (port, place) if upper else (place, port)
                around = Part(route, *ends, turned=upper == leaves)
                outer.parts.append(around)
                route.parts.insert(0 if leaves else len(route.parts), around)
        return first


def _region(place: Place) -> Place:
    """A region, or the first one where it is parallel itself."""
    while place.wide:
        place = place.inner[0]
    return place


def _step(level: Place, inside: Place) -> Place:
    """The place directly in ``level`` that ``inside`` is in, or is."""
    while inside.outer is not level:
        assert inside.outer is not None
        inside = inside.outer
    return inside


def _holds(level: Place, inside: Place) -> bool:
    """Whether a place is somewhere inside a level."""
    while inside.depth > level.depth and inside.outer is not None:
        inside = inside.outer
        if inside is level:
            return True
    return False


def _at_border(level: Place, route: Route) -> bool:
    return not (_holds(level, route.source) and _holds(level, route.target))


def _rows(route: Route) -> tuple[str, ...]:
    return (
        small_rows(route.full)
        if len(route.full) <= MAX_LABELS
        else (*small_rows(route.full[:MAX_LABELS]), "…")
    )
