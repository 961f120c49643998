"""What makes a picture readable: nothing lies over anything else, and arrows lead from box to box around the others."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agentflow.picture.diagram import Arrow, Box, Diagram
from agentflow.picture.drawing import SMALL, SMALL_ROW, Drawing, Placed, Wire
from agentflow.picture.level_layout import MARGIN
from agentflow.picture.machine_layout import machine_drawing
from agentflow.picture.printing import diagram_of
from agentflow.picture.tree_layout import BROAD, tree_drawing

from .plans import all_plans, any_machine, any_tree

Rect = tuple[float, float, float, float]

DIAGRAMS = [
    *map(diagram_of, all_plans()),
    *map(any_tree, range(30)),
    *map(any_machine, range(60)),
]


def drawn(diagram: Diagram) -> Drawing:
    return tree_drawing(diagram) if diagram.kind == "tree" else machine_drawing(diagram)


def around(diagram: Diagram) -> dict[str, set[str]]:
    """The boxes around each box."""
    found: dict[str, set[str]] = {box.key: set() for box in diagram.boxes}
    for box in diagram.all_boxes():
        for inner in box.inside:
            found[inner.key] = {*found[box.key], box.key}
    return found


def rect(placed: Placed) -> Rect:
    return placed.x, placed.y, placed.x + placed.width, placed.y + placed.height


def overlap(one: Rect, other: Rect) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def within(one: Rect, other: Rect) -> bool:
    return one[0] >= other[0] and one[1] >= other[1] and one[2] <= other[2] and one[3] <= other[3]


def label(wire: Wire) -> Rect:
    assert wire.label is not None
    room = max(len(row) for row in wire.label.rows) * SMALL * 0.6
    return wire.label.x, wire.label.y, wire.label.x + room, wire.label.y + SMALL_ROW * len(wire.label.rows)


def along(wire: Wire) -> Iterator[tuple[float, float]]:
    """Points on the arrow, as close as it takes to hit a box."""
    for (x, y), (to_x, to_y) in zip(wire.points, wire.points[1:], strict=False):
        for step in range(21):
            part = step / 20
            if wire.curved and x != to_x:  # a cubic curve whose handles are half way down
                eased = 3 * part**2 - 2 * part**3
                down = 1.5 * part * (1 - part) + part**3
                yield x + (to_x - x) * eased, y + (to_y - y) * down
            else:
                yield x + (to_x - x) * part, y + (to_y - y) * part


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_everything_is_drawn_and_nothing_lies_over_anything_else(diagram: Diagram) -> None:
    drawing, outer = drawn(diagram), around(diagram)
    placed = {each.box.key: each for each in drawing.placed}
    assert sorted(placed) == sorted(box.key for box in diagram.all_boxes())
    page = (0, 0, drawing.width, drawing.height)
    boxes = list(placed.values())
    for number, one in enumerate(boxes):
        assert within(rect(one), page)
        for key in outer[one.box.key]:
            assert within(rect(one), rect(placed[key]))
        for other in boxes[number + 1 :]:
            if one.box.key not in outer[other.box.key] and other.box.key not in outer[one.box.key]:
                assert not overlap(rect(one), rect(other)), (one.box.key, other.box.key)
    labels = [label(wire) for wire in drawing.wires if wire.label]
    solid = [each for each in boxes if not each.box.inside]
    for number, one_label in enumerate(labels):
        assert within(one_label, page)
        assert not [other for other in labels[number + 1 :] if overlap(one_label, other)]
        assert not [each.box.key for each in solid if overlap(one_label, rect(each))]


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_arrows_lead_from_box_to_box_around_the_others(diagram: Diagram) -> None:
    drawing = drawn(diagram)
    placed = {each.box.key: each for each in drawing.placed}
    solid = [rect(each) for each in placed.values() if not each.box.inside]
    for wire in drawing.wires:
        for end, key in ((wire.points[0], wire.source), (wire.points[-1], wire.target)):
            left, top, right, bottom = rect(placed[key])
            assert left <= end[0] <= right and top <= end[1] <= bottom
            assert end[1] in (top, bottom) or end[0] in (left, right)
        for x, y in along(wire):
            assert not [each for each in solid if each[0] < x < each[2] and each[1] < y < each[3]]


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_every_arrow_is_drawn_or_told(diagram: Diagram) -> None:
    drawing = drawn(diagram)
    lines = {(wire.source, wire.target): wire for wire in drawing.wires}
    rows = {each.box.key: each.frame.rows for each in drawing.placed}
    for arrow in diagram.arrows:
        wire = lines.get((arrow.source, arrow.target))
        if wire is not None:
            assert not arrow.label or (wire.label and arrow.label.strip() in wire.label.full)
        elif len(rows[arrow.source]) < 10:
            said = [row for row in rows[arrow.source] if arrow.label.strip()[:30] in row]
            assert said, arrow
            assert arrow.source == arrow.target or any("→" in row or "…" in row for row in said)


def test_parents_are_over_the_middle_of_their_children_and_levels_are_even() -> None:
    for diagram in map(any_tree, range(30)):
        drawing = drawn(diagram)
        placed = {each.box.key: each for each in drawing.placed}
        children: dict[str, list[Placed]] = {}
        for arrow in diagram.arrows:
            children.setdefault(arrow.source, []).append(placed[arrow.target])
        upright = all(wire.points[0][1] == rect(placed[wire.source])[3] for wire in drawing.wires)
        assert not upright or drawing.width <= BROAD
        for key, below in children.items():
            begins = {each.x for each in below} if not upright else {0}
            assert len(begins) == 1
            middles = [each.x + each.width // 2 if upright else each.y for each in below]
            assert middles == sorted(middles)
            if upright:
                parent = placed[key]
                assert abs(2 * (parent.x + parent.width // 2) - middles[0] - middles[-1]) <= 2


def test_subtrees_of_the_same_form_are_drawn_alike() -> None:
    inner = [Box(f"n{number}", "task", "a") for number in range(7)]
    pairs = [(0, 1), (1, 2), (1, 3), (0, 4), (4, 5), (4, 6)]
    drawing = drawn(Diagram("tree", "t", tuple(inner), tuple(Arrow(f"n{a}", f"n{b}") for a, b in pairs)))
    at = [each.x for each in drawing.placed]
    assert at[2] - at[1] == at[5] - at[4] and at[3] - at[1] == at[6] - at[4]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_line_of_states_is_a_straight_line(count: int) -> None:
    boxes = tuple(Box(f"s{number}", "state", "same") for number in range(count))
    arrows = tuple(Arrow(f"s{number}", f"s{number + 1}", "done") for number in range(count - 1))
    drawing = drawn(Diagram("machine", "line", boxes, arrows))
    assert len({each.x for each in drawing.placed}) == 1
    assert [each.y for each in drawing.placed] == sorted(each.y for each in drawing.placed)


def states(count: int, *pairs: tuple[int, int]) -> dict[str, Placed]:
    boxes = tuple(Box(f"s{number}", "state", "same") for number in range(count))
    arrows = tuple(Arrow(f"s{source}", f"s{target}") for source, target in pairs)
    return {each.box.key: each for each in drawn(Diagram("machine", "states", boxes, arrows)).placed}


def test_a_state_is_over_the_middle_of_those_it_leads_to() -> None:
    placed = states(4, (0, 1), (0, 2), (0, 3))
    assert placed["s0"].x == placed["s2"].x
    assert placed["s2"].x - placed["s1"].x == placed["s3"].x - placed["s2"].x > placed["s0"].width


def test_arrows_do_not_cross_that_need_not() -> None:
    placed = states(6, (0, 1), (0, 2), (1, 4), (2, 3), (2, 5))
    assert (placed["s1"].x < placed["s2"].x) == (placed["s4"].x < placed["s3"].x)
    assert (placed["s1"].x < placed["s2"].x) == (placed["s4"].x < placed["s5"].x)


def test_what_is_between_regions_reaches_down_to_the_border() -> None:
    found = 0
    for diagram in map(any_machine, range(60)):
        drawing = drawn(diagram)
        wide = [rect(each) for each in drawing.placed if each.box.shape == "parallel"]
        for x, y, length in drawing.separators:
            found += 1
            bottoms = [box[3] for box in wide if box[0] < x < box[2] and box[1] < y < box[3]]
            assert any(0 <= bottom - y - length <= MARGIN for bottom in bottoms)
    assert found > 50
