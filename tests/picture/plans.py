"""Plans to draw: the vectors of the planners, the samples, and diagrams made at random."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import yaml
from core.test_vectors import document_of

from agentflow.core.plan import Plan
from agentflow.picture.diagram import Arrow, Box, Diagram, Shape
from agentflow.wire.document import compile_document, load_document_file

TESTS = Path(__file__).parents[1]
VECTORS: list[dict[str, Any]] = [
    vector
    for path in sorted((TESTS / "core" / "vectors").glob("*.yaml"))
    # Every fourth: they come in groups that differ in their events, which no picture shows.
    for vector in yaml.safe_load(path.read_text())[::4]
]
SAMPLES = sorted(
    path
    for path in (TESTS.parent / "local" / "workflows").glob("*.yaml")
    if not path.name.endswith(".model.yaml")
)


def compiled(vector: dict[str, Any]) -> Plan:
    return compile_document(document_of(vector))


def all_plans() -> list[Plan]:
    return [
        *map(compiled, VECTORS),
        *(compile_document(load_document_file(path)) for path in SAMPLES),
    ]


def any_tree(seed: int) -> Diagram:
    """A tree of nodes of any size, in document order."""
    draw = random.Random(seed)
    count = draw.randrange(1, 60)
    # A parent is on the way from the last node to the root: that is document order.
    ways, parents = [[0]], [-1]
    for number in range(1, count):
        parent = draw.choice(ways[-1])
        ways.append([*ways[-1][: ways[-1].index(parent) + 1], number])
        parents.append(parent)
    boxes = tuple(
        Box(f"n{number}", draw.choice(("task", "check", "control")), "x" * draw.randrange(1, 60), "→",
            tuple("y" * draw.randrange(80) for _ in range(draw.randrange(4))))
        for number in range(count)
    )  # fmt: skip
    arrows = tuple(
        Arrow(f"n{parent}", f"n{number}", "z" * draw.choice((0, 0, 5, 30)))
        for number, parent in enumerate(parents)
        if number
    )
    return Diagram("tree", "any", boxes, arrows)


def any_machine(seed: int) -> Diagram:
    """States in states, and arrows between any two of them."""
    draw = random.Random(seed)
    keys: list[str] = []

    def box(shape: Shape, depth: int) -> Box:
        key = f"s{len(keys)}"
        keys.append(key)
        inside: list[Box] = []
        if shape in ("compound", "region"):
            inside = [box(kind(depth + 1), depth + 1) for _ in range(draw.randrange(1, 5))]
        elif shape == "parallel":
            inside = [
                box(draw.choice(("region", "region", "parallel") if depth < 2 else ("region",)), depth + 1)
                for _ in range(draw.randrange(2, 4))
            ]
            inside += [box("history", depth + 1)] * draw.randrange(2)
        lines = tuple("y" * draw.randrange(1, 60) for _ in range(draw.randrange(3)))
        return Box(key, shape, f"{key} " + "x" * draw.randrange(40), lines=lines, inside=tuple(inside))

    def kind(depth: int) -> Shape:
        plain: tuple[Shape, ...] = ("state", "state", "success", "failure", "history")
        return draw.choice((*plain, "compound", "compound", "parallel") if depth < 4 else plain)

    boxes = tuple(box(kind(0), 0) for _ in range(draw.randrange(1, 7)))
    drawn = {each.key for each in Diagram("machine", "any", boxes, ()).all_boxes()}
    keys = [key for key in keys if key in drawn]
    arrows = tuple(
        Arrow(draw.choice(keys), draw.choice(keys), f"e{number} " + "z" * draw.choice((0, 9, 70)))
        for number in range(draw.randrange(2 * len(keys)))
    )
    return Diagram("machine", "any", boxes, arrows)
