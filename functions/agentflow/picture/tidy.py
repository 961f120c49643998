"""Tidy trees: parents over the middle of their children, subtrees as close as they fit, the same wherever they are.

Reingold and Tilford's layout for nodes of any breadth. Every subtree has an outline, the least and the greatest place
that it takes on each level; to put two side by side, only the levels that both have are compared, so that the whole
takes time in proportion to the nodes.
"""

from __future__ import annotations

from collections.abc import Sequence


class _Outline:
    """The outline of a subtree, the deepest level first; ``low`` and ``high`` are off by ``low_by`` and ``high_by``."""

    __slots__ = ("high", "high_by", "low", "low_by")

    def __init__(self) -> None:
        self.low: list[int] = []
        self.high: list[int] = []
        self.low_by = 0
        self.high_by = 0

    def shift(self, by: int) -> None:
        self.low_by += by
        self.high_by += by

    def top(self, half: int) -> None:
        """Put a node of twice this breadth over the middle."""
        self.low.append(-half - self.low_by)
        self.high.append(half - self.high_by)

    def room(self, other: _Outline, gap: int) -> int:
        """How far ``other`` has to be shifted to lie beside this one."""
        common = min(len(self.low), len(other.low))
        apart = max(self.high[-level] - other.low[-level] for level in range(1, common + 1))
        return apart + self.high_by - other.low_by + gap

    def join(self, other: _Outline) -> None:
        """Take ``other``, which lies behind, into the outline."""
        common = min(len(self.low), len(other.low))
        if len(other.low) > common:
            by = self.low_by - other.low_by
            for level in range(1, common + 1):
                other.low[-level] = self.low[-level] + by
            self.low, self.low_by = other.low, other.low_by
            self.high, self.high_by = other.high, other.high_by
        else:
            by = other.high_by - self.high_by
            for level in range(1, common + 1):
                self.high[-level] = other.high[-level] + by


def tidy(breadths: Sequence[int], children: Sequence[Sequence[int]], gap: int) -> list[int]:
    """The middle of each node, from 0 on; nodes are given in document order, the root first. Breadths are even."""
    count = len(breadths)
    beside = [0] * count  # from the parent's middle
    outlines: list[_Outline | None] = [None] * count
    for node in range(count - 1, -1, -1):
        outline, offsets = _Outline(), [0]
        for child in children[node]:
            below = outlines[child]
            assert below is not None
            outlines[child] = None
            if not outline.low:
                outline = below
                continue
            offsets.append(outline.room(below, gap))
            below.shift(offsets[-1])
            outline.join(below)
        middle = (offsets[0] + offsets[-1]) // 2
        for child, offset in zip(children[node], offsets, strict=False):
            beside[child] = offset - middle
        outline.shift(-middle)
        outline.top(breadths[node] // 2)
        outlines[node] = outline
    root = outlines[0]
    assert root is not None
    places = [-min(root.low) - root.low_by] * count
    for node in range(count):
        for child in children[node]:
            places[child] = places[node] + beside[child]
    return places
