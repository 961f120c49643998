"""Where the nodes of a tree are drawn: downwards, or to the right where that would be too broad to read."""

from __future__ import annotations

from agentflow.picture.diagram import Diagram
from agentflow.picture.drawing import SMALL_ROW, Drawing, Frame, Label, Placed, Wire, frame, label_size
from agentflow.picture.text import plain, short
from agentflow.picture.tidy import tidy

BROAD = 1_400
"""Pixels that a tree drawn downwards may take from left to right."""

MAX_WAY = 24
GAP, STEP, MARGIN = 18, 34, 16


def tree_drawing(diagram: Diagram) -> Drawing:
    """The drawing of a tree."""
    layout = _Layout(diagram)
    downwards = layout.draw(sideways=False)
    return downwards if downwards.width <= BROAD else layout.draw(sideways=True)


class _Layout:
    """A cell per node: its frame, and above that what leads to it."""

    def __init__(self, diagram: Diagram) -> None:
        self.diagram = diagram
        index = {box.key: number for number, box in enumerate(diagram.boxes)}
        count = len(diagram.boxes)
        self.parents, self.ways = [-1] * count, [""] * count
        self.children: list[list[int]] = [[] for _ in diagram.boxes]
        for arrow in diagram.arrows:
            parent, child = index[arrow.source], index[arrow.target]
            self.children[parent].append(child)
            self.parents[child], self.ways[child] = parent, arrow.label
        self.depths = [0] * count
        for number, parent in enumerate(self.parents):
            if parent >= 0:
                self.depths[number] = self.depths[parent] + 1
        self.frames = [frame(box) for box in diagram.boxes]
        self.cells = [_cell(each, way) for each, way in zip(self.frames, self.ways, strict=True)]

    def draw(self, *, sideways: bool) -> Drawing:
        breadths = [cell[sideways] for cell in self.cells]
        middles = [MARGIN + middle for middle in tidy(breadths, self.children, GAP)]
        begins = self._levels(sideways=sideways)
        placed = []
        for number, (each, cell) in enumerate(zip(self.frames, self.cells, strict=True)):
            begin, above = begins[self.depths[number]], cell[1] - each.height
            if sideways:
                x, y = begin, middles[number] - cell[1] // 2 + above
            else:
                x, y = middles[number] - each.width // 2, begin + above
            placed.append(Placed(self.diagram.boxes[number], each, x, y, each.width, each.height))
        wires = tuple(self._wire(placed, child, sideways=sideways) for child in range(1, len(placed)))
        last = max(middle + breadth // 2 for middle, breadth in zip(middles, breadths, strict=True)) + MARGIN
        far = begins[-1] - STEP + MARGIN
        size = (far, last) if sideways else (last, far)
        return Drawing(*size, self.diagram.name, tuple(placed), wires)

    def _levels(self, *, sideways: bool) -> list[int]:
        """Where each level begins, and where one more would."""
        lengths = [0] * (max(self.depths) + 1)
        for depth, cell in zip(self.depths, self.cells, strict=True):
            lengths[depth] = max(lengths[depth], cell[not sideways])
        begins = [MARGIN]
        for length in lengths:
            begins.append(begins[-1] + length + STEP)
        return begins

    def _wire(self, placed: list[Placed], child: int, *, sideways: bool) -> Wire:
        source, target = placed[self.parents[child]], placed[child]
        way, label = self.ways[child], None
        if sideways:
            begin = (source.x + source.width, source.y + source.height // 2)
            end = (target.x, target.y + target.height // 2)
            bend = target.x - STEP // 2
            points = (begin, (bend, begin[1]), (bend, end[1]), end)
        else:
            begin = (source.x + source.width // 2, source.y + source.height)
            end = (target.x + target.width // 2, target.y)
            above = target.y - (self.cells[child][1] - target.height) - STEP // 2
            points = (begin, (begin[0], above), (end[0], above), end)
        if way:
            x = target.x + 2 if sideways else end[0] + 5
            label = Label(x, target.y - SMALL_ROW - 2, (short(way, MAX_WAY),), (plain(way),))
        return Wire(source.box.key, target.box.key, points, label)


def _cell(each: Frame, way: str) -> tuple[int, int]:
    if not way:
        return each.width, each.height
    broad, high = label_size((short(way, MAX_WAY),))
    # Drawn downwards, the label is right of the middle, so that it takes its room twice.
    return max(each.width, 2 * (broad + 6)), each.height + high + 2
