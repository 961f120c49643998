"""What a picture of a plan shows, whatever prints it: boxes in boxes, arrows between them, and where a run is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Shape = Literal[
    "control", "task", "check",  # of a tree
    "state", "compound", "parallel", "region", "start", "any", "success", "failure", "history",  # of a machine
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a run is. ``around``: something inside or below is active. ``note`` counts, where there are several."""

    state: Literal["", "active", "around", "done", "failed"] = ""
    note: str = ""


UNMARKED = Mark()


@dataclass(frozen=True, slots=True)
class Box:
    """A node or a state. ``lines`` are its small print, ``more`` what is told of it only when asked.

    A start is where the box around it begins, an ``any`` stands for every state; neither has a title.
    """

    key: str
    shape: Shape
    title: str = ""
    glyph: str = ""
    lines: tuple[str, ...] = ()
    more: tuple[str, ...] = ()
    inside: tuple[Box, ...] = ()
    mark: Mark = UNMARKED


@dataclass(frozen=True, slots=True)
class Arrow:
    """From one box to another, or to itself; ``moves`` is False where a transition leads nowhere."""

    source: str
    target: str
    label: str = ""
    moves: bool = True


@dataclass(frozen=True, slots=True)
class Diagram:
    """The picture of a plan; the boxes of a tree lie side by side, in document order."""

    kind: Literal["tree", "machine"]
    name: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    def all_boxes(self) -> Iterator[Box]:
        """Every box, the outer before the inner."""
        todo = list(reversed(self.boxes))
        while todo:
            box = todo.pop()
            yield box
            todo.extend(reversed(box.inside))
