"""Diagrams with every box and arrow in its place; all coordinates are whole pixels, from the upper left."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.picture.diagram import Box
from agentflow.picture.text import mono_width, plain, short, width

TITLE, SMALL = 13, 11
"""Sizes of letters."""

TITLE_ROW, SMALL_ROW = 19, 15
PAD_X, PAD_Y = 10, 7
GLYPH = 22
"""Room for a glyph before the text."""

MAX_TITLE, MAX_SMALL = 36, 46
MAX_ROWS = 10
POINT, RING, MEMORY = 12, 20, 24
"""How wide the dot of a start, the ring of an end and the circle of a history are."""

ROUND = frozenset({"success", "failure", "history"})
"""Shapes that have their text below them."""


@dataclass(frozen=True, slots=True)
class Frame:
    """How large a box is, and its text: the title, the small print as it is shown, and all of it, told when asked."""

    width: int
    height: int
    title: str
    rows: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    mono_title: bool = False


@dataclass(frozen=True, slots=True)
class Placed:
    """A box in its place."""

    box: Box
    frame: Frame
    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Label:
    """What an arrow says, beside it; ``full`` are its rows unshortened."""

    x: int
    y: int
    rows: tuple[str, ...]
    full: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wire:
    """An arrow in its place: ``curved`` or straight where it leads aside."""

    source: str
    target: str
    points: tuple[tuple[int, int], ...]
    label: Label | None = None
    curved: bool = False
    head: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """All there is to print. ``separators`` are lines between regions: x, y, and how long they are, downwards."""

    width: int
    height: int
    name: str
    placed: tuple[Placed, ...]
    wires: tuple[Wire, ...]
    separators: tuple[tuple[int, int, int], ...] = ()


def frame(box: Box, extra: tuple[str, ...] = ()) -> Frame:
    """How large a box is that has nothing inside; ``extra`` is more small print."""
    if box.shape == "start":
        return Frame(POINT, POINT, "")
    mono = box.shape == "check"
    title = short(box.title, MAX_SMALL if mono else MAX_TITLE)
    shown = small_rows((*((box.mark.note,) if box.mark.note else ()), *box.lines, *extra))
    titled = mono_width(title, SMALL + 1) if mono else width(title, TITLE)
    room = max([titled, *(mono_width(row, SMALL) for row in shown)])
    height = TITLE_ROW + SMALL_ROW * len(shown)
    told = tuple(plain(line) for line in (box.title, *box.lines, *extra, *box.more) if line)
    if box.shape in ROUND:
        ring = MEMORY if box.shape == "history" else RING
        return Frame(_even(max(room, ring)), height + ring, title, shown, told)
    glyph = GLYPH if box.glyph else 0
    return Frame(_even(room + 2 * PAD_X + glyph), height + 2 * PAD_Y, title, shown, told, mono)


def small_rows(lines: tuple[str, ...]) -> tuple[str, ...]:
    """Small print, each line short, and not too many of them."""
    shown = [short(line, MAX_SMALL) for line in lines[:MAX_ROWS]]
    if len(lines) > MAX_ROWS:
        shown[-1] = f"… {len(lines) - MAX_ROWS + 1} more"
    return tuple(shown)


def label_size(rows: tuple[str, ...]) -> tuple[int, int]:
    """How wide and high small print is."""
    return max((mono_width(row, SMALL) for row in rows), default=0), SMALL_ROW * len(rows)


def _even(size: int) -> int:
    return size + size % 2
