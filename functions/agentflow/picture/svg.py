"""Drawings as SVG: one file that stands for itself, readable in light and in dark, without scripts."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from agentflow.picture.diagram import Diagram
from agentflow.picture.drawing import (
    GLYPH,
    MEMORY,
    PAD_X,
    PAD_Y,
    RING,
    ROUND,
    SMALL_ROW,
    TITLE_ROW,
    Drawing,
    Label,
    Placed,
    Wire,
)
from agentflow.picture.machine_layout import machine_drawing
from agentflow.picture.text import MAX_TOLD, plain
from agentflow.picture.tree_layout import tree_drawing

STYLE = """
svg { color-scheme: light dark; --page: #fff; --box: #f6f7f9; --in: #fbfbfd; --line: #8b93a1; --ink: #1d2330;
  --soft: #566070; --call: #eaf2ff; --ask: #fff6df; --live: #0b66d8; --glow: #d6e6ff; --good: #1b7f3b; --bad: #c22f2f }
@media (prefers-color-scheme: dark) { svg { --page: #14171c; --box: #20252d; --in: #191d23; --line: #7d8796;
  --ink: #e8ebf0; --soft: #a4adba; --call: #1c2c44; --ask: #372f1a; --live: #6cb0ff; --glow: #1d3a5f; --good: #5cc47c;
  --bad: #f07a7a } }
.page { fill: var(--page) }
text { fill: var(--ink); font: 13px "Helvetica Neue", Arial, sans-serif; white-space: pre }
.small, .mono { font: 11px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--soft) }
.mono { font-size: 12px; fill: var(--ink) }
.glyph { font-size: 16px; fill: var(--soft); text-anchor: middle }
.history .glyph { font-size: 12px } .middle { text-anchor: middle }
.box { fill: var(--box); stroke: var(--line) }
.task .box { fill: var(--call) } .check .box { fill: var(--ask) }
.compound .box, .parallel .box { fill: var(--in) }
.region .box { fill: none; stroke: none }
.any .box { stroke-dasharray: 4 3 }
.start .box { fill: var(--ink); stroke: none }
.success .box, .failure .box, .history .box { fill: var(--page); stroke-width: 1.5 }
.success .core, .success .glyph { fill: var(--good) } .failure .core, .failure .glyph { fill: var(--bad) }
.success .box { stroke: var(--good) } .failure .box { stroke: var(--bad) }
.wire { fill: none; stroke: var(--line); stroke-width: 1.2 } .head { fill: var(--line) }
.apart { stroke: var(--line); stroke-dasharray: 5 4 }
.active > .box { stroke: var(--live); stroke-width: 3 } .active > .box { fill: var(--glow) }
.around > .box { stroke: var(--live); stroke-width: 1.5 }
.region.active > .box, .region.around > .box { fill: none; stroke: none }
.badge { font-size: 12px; font-weight: bold; text-anchor: end } .done > .badge { fill: var(--good) }
.failed > .badge { fill: var(--bad) }
""".strip()

_BADGES = {"done": "✓", "failed": "✗"}
_ROUNDED = {"task": 4, "control": 4, "check": 14, "any": 12, "state": 9, "compound": 9, "parallel": 9}


def svg(diagram: Diagram) -> bytes:
    """An SVG document, in UTF-8."""
    drawing = tree_drawing(diagram) if diagram.kind == "tree" else machine_drawing(diagram)
    return ("\n".join(_document(drawing)) + "\n").encode()


def _document(drawing: Drawing) -> Iterator[str]:
    width, height = drawing.width, drawing.height
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">'
    )
    yield f"<title>{_text(drawing.name)}</title>"
    yield f"<style>{STYLE}</style>"
    yield '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    yield '<path class="head" d="M0 .5 8 4 0 7.5z"/></marker>'
    yield f'<rect class="page" width="{width}" height="{height}"/>'
    for placed in drawing.placed:
        yield from _box(placed)
    for x, y, length in drawing.separators:
        yield f'<path class="apart" d="M{x} {y}v{length}"/>'
    for wire in drawing.wires:
        yield from _wire(wire)
    yield "</svg>"


def _box(placed: Placed) -> Iterator[str]:
    box, mark = placed.box, placed.box.mark
    yield f'<g class="{f"{box.shape} {mark.state}".strip()}">'
    if placed.frame.told:
        yield _title(placed.frame.told)
    if box.shape == "start":
        half = placed.width // 2
        yield f'<circle class="box" cx="{placed.x + half}" cy="{placed.y + half}" r="{half}"/>'
    elif box.shape in ROUND:
        yield from _round(placed)
    else:
        yield (
            f'<rect class="box" x="{placed.x}" y="{placed.y}" width="{placed.width}" height="{placed.height}" '
            f'rx="{_ROUNDED.get(box.shape, 0)}"/>'
        )
        yield from _inside(placed)
    if badge := _BADGES.get(mark.state):
        yield f'<text class="badge" x="{placed.x + placed.width - 2}" y="{placed.y + 11}">{badge}</text>'
    yield "</g>"


def _inside(placed: Placed) -> Iterator[str]:
    x, y = placed.x + PAD_X, placed.y + PAD_Y + 14
    if placed.box.glyph:
        yield f'<text class="glyph" x="{x + 6}" y="{y}">{_text(placed.box.glyph)}</text>'
        x += GLYPH
    kind = ' class="mono"' if placed.frame.mono_title else ""
    yield f'<text{kind} x="{x}" y="{y}">{_text(placed.frame.title)}</text>'
    yield from _rows(placed.frame.rows, x, placed.y + PAD_Y + TITLE_ROW)


def _round(placed: Placed) -> Iterator[str]:
    memory = placed.box.shape == "history"
    size, x = MEMORY if memory else RING, placed.x + placed.width // 2
    y = placed.y + size // 2
    yield f'<circle class="box" cx="{x}" cy="{y}" r="{size // 2 - 1}"/>'
    if memory:
        yield f'<text class="glyph" x="{x}" y="{y + 5}">{placed.box.glyph}</text>'
    else:
        yield f'<circle class="core" cx="{x}" cy="{y}" r="{size // 2 - 4}"/>'
    yield f'<text class="middle" x="{x}" y="{placed.y + size + 14}">{_text(placed.frame.title)}</text>'
    yield from _rows(placed.frame.rows, x, placed.y + size + TITLE_ROW, "small middle")


def _rows(rows: tuple[str, ...], x: int, y: int, kind: str = "small") -> Iterator[str]:
    for number, row in enumerate(rows):
        yield f'<text class="{kind}" x="{x}" y="{y + SMALL_ROW * number + 11}">{_text(row)}</text>'


def _wire(wire: Wire) -> Iterator[str]:
    head = ' marker-end="url(#head)"' if wire.head else ""
    path = f'<path class="wire" d="{_path(wire)}"{head}/>'
    if wire.label is None:
        yield path
        return
    yield f"<g>{_title(wire.label.full)}"
    yield path
    yield from _label(wire.label)
    yield "</g>"


def _label(label: Label) -> Iterator[str]:
    yield from _rows(label.rows, label.x, label.y)


def _path(wire: Wire) -> str:
    (x, y), *rest = wire.points
    parts = [f"M{x} {y}"]
    for to_x, to_y in rest:
        if not wire.curved or x == to_x:
            parts.append(f"L{to_x} {to_y}")
        else:
            middle = (y + to_y) // 2
            parts.append(f"C{x} {middle} {to_x} {middle} {to_x} {to_y}")
        x, y = to_x, to_y
    return "".join(parts)


def _title(lines: tuple[str, ...]) -> str:
    text = "\n".join(lines)
    return f"<title>{escape(text if len(text) <= MAX_TOLD else text[: MAX_TOLD - 1] + '…')}</title>"


def _text(text: str) -> str:
    return escape(plain(text))
