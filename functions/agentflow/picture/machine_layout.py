"""Where the states of a machine are drawn: level by level from the inside out, then put into place."""

from __future__ import annotations

from agentflow.picture.diagram import Diagram
from agentflow.picture.drawing import PAD_X, PAD_Y, Drawing, Frame, Label, Placed, Wire, frame
from agentflow.picture.level_layout import MARGIN, Level, Point, lay
from agentflow.picture.nesting import Nesting, Part, Place, Port, Route


def machine_drawing(diagram: Diagram) -> Drawing:
    """The drawing of a machine."""
    return _Layout(diagram).drawing()


class _Layout:
    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        self.nesting = Nesting(diagram)
        self.levels: dict[Place, Level] = {}
        for place in reversed(self.nesting.places):
            self._size(place)
        self.origins: dict[Place, Point] = {self.nesting.root: (0, 0)}
        for place in self.nesting.places:
            x, y = self.origins[place]
            for inner, (across, down) in self.levels[place].at.items():
                self.origins[inner] = (x + across, y + down)

    def _size(self, place: Place) -> None:
        outline = frame(place.box, tuple(place.words)) if place.real else Frame(0, 0, "")
        level = self.levels[place] = Level(place, outline)
        if place.wide:
            self._beside(level)
        elif place.inner:
            lay(level, self.levels, self._title(place))
        else:
            level.width, level.height = outline.width, outline.height

    def _title(self, place: Place) -> int:
        """The room for the title of a level, and for those of states around that are over its left corner."""
        room = 0
        while place.real:
            outline = frame(place.box, tuple(place.words))
            room = max(room, outline.width - PAD_X)
            if place.outer is None or not place.outer.wide or place.outer.inner[0] is not place:
                break
            place = place.outer
        return room

    def _beside(self, level: Level) -> None:
        """Regions lie side by side, all as high as the highest."""
        regions = [self.levels[inner] for inner in level.place.inner]
        top = PAD_Y + level.header
        inset = MARGIN if any(region.place.wide for region in regions) else 0
        high = max(region.height for region in regions)
        for region in regions:
            level.at[region.place] = (level.width + inset, top)
            level.width += region.width + 2 * inset
            self._stretch(region, high)
        level.width = max(level.width, level.frame.width)
        level.height = top + high + inset

    def _stretch(self, level: Level, height: int) -> None:
        for inner in level.place.inner if level.place.wide else ():
            self._stretch(self.levels[inner], self.levels[inner].height + height - level.height)
        level.height = height

    # -- in place ------------------------------------------------------------------------------------------

    def drawing(self) -> Drawing:
        root = self.levels[self.nesting.root]
        placed = tuple(
            Placed(place.box, level.frame, *self.origins[place], level.width, level.height)
            for place in self.nesting.places
            if place.real
            for level in (self.levels[place],)
        )
        wires = tuple(self._wire(route) for route in self.nesting.routes)
        return Drawing(root.width, root.height, self.diagram.name, placed, wires, tuple(self._separators()))

    def _separators(self) -> list[tuple[int, int, int]]:
        found = []
        for place in self.nesting.places:
            for inner in place.inner[1:] if place.wide else ():
                x, y = self.origins[inner]
                inset = MARGIN if any(each.wide for each in place.inner) else 0
                found.append((x - inset, y, self.levels[inner].height))
        return found

    def _wire(self, route: Route) -> Wire:
        points: list[Point] = []
        label: Label | None = None
        for part in route.parts:
            for point in self._points(part):
                if not points or points[-1] != point:
                    points.append(point)
            level = self._level(part)
            if part in level.labels:
                x, y = self.origins[level.place]
                across, down = level.labels[part]
                label = Label(x + across, y + down, part.rows, route.full)
        points = self._reach(self._reach(points, route.target)[::-1], route.source)[::-1]
        return Wire(route.source.box.key, route.target.box.key, tuple(points), label, curved=True, head=True)

    def _reach(self, way: list[Point], place: Place) -> list[Point]:
        """A way on to the border of its last place: a parallel state around a region, or a region in one."""
        (_, before), (x, y) = way[-2:]
        top = self.origins[place][1]
        bottom = top + self.levels[place].height
        border = (top if top >= y else bottom) if y > before else (bottom if bottom <= y else top)
        return way if y == border else [*way, (x, border)]

    def _points(self, part: Part) -> list[Point]:
        level = self._level(part)
        x, y = self.origins[level.place]
        points = [(x + across, y + down) for across, down in level.lines[part]]
        if isinstance(part.upper, Port):
            points.insert(0, (points[0][0], y))
        if isinstance(part.lower, Port):
            points.append((points[-1][0], y + level.height))
        return points[::-1] if part.turned else points

    def _level(self, part: Part) -> Level:
        for end in (part.upper, part.lower):
            if isinstance(end, Port):
                return self.levels[end.home]
        assert isinstance(part.upper, Place)
        assert part.upper.outer is not None
        return self.levels[part.upper.outer]
