"""Diagrams as Mermaid text, for documents."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.picture.diagram import Box, Diagram
from agentflow.picture.text import short

_ACTIVE = "classDef active stroke-width:4px"
_SHAPES = {"task": ("([", "])"), "check": ("{{", "}}")}


def mermaid(diagram: Diagram) -> str:
    """A state diagram or a flowchart."""
    lines = list(_tree(diagram) if diagram.kind == "tree" else _machine(diagram))
    marked = [_id(box.key) for box in diagram.all_boxes() if box.mark.state == "active"]
    if marked:
        lines += [f"    {_ACTIVE}", f"    class {','.join(marked)} active"]
    return "\n".join(lines)


def _machine(diagram: Diagram) -> Iterator[str]:
    yield "stateDiagram-v2"
    points = {box.key for box in diagram.all_boxes() if box.shape in ("start", "any")}
    begins = {arrow.source: arrow.target for arrow in diagram.arrows if arrow.source in points}
    for box in diagram.boxes:
        yield from _state(box, begins, 1)
    for arrow in diagram.arrows:
        if arrow.source.endswith(" start") or (arrow.source in points and not arrow.moves):
            continue  # the first is where its box is
        # What any state may take leads from nowhere in particular.
        source = "[*]" if arrow.source in points else _id(arrow.source)
        yield f"    {source} --> {_id(arrow.target)}" + (f" : {_text(arrow.label)}" if arrow.label else "")


def _state(box: Box, begins: dict[str, str], depth: int) -> Iterator[str]:
    pad, name = "    " * depth, _id(box.key)
    if box.shape == "any":
        return
    if box.shape == "start":
        yield f"{pad}[*] --> {_id(begins[box.key])}"
    elif box.inside:
        yield f"{pad}state {name} {{"
        for number, each in enumerate(box.inside):
            if number and box.shape == "parallel" and each.shape != "history":
                yield f"{pad}    --"
            yield from _state(each, begins, depth + 1)
        yield f"{pad}}}"
    else:
        yield f"{pad}{name} : {_text(' '.join((box.title, box.glyph or ' '.join(box.lines[:1]))).strip())}"


def _tree(diagram: Diagram) -> Iterator[str]:
    yield "flowchart TD"
    for box in diagram.boxes:
        begin, end = _SHAPES.get(box.shape, ("[", "]"))
        note = f" ({box.mark.note})" if box.mark.note else ""
        yield f'    {box.key}{begin}"{_text(box.title + note)}"{end}'
    for arrow in diagram.arrows:
        said = f'|"{_text(arrow.label)}"|' if arrow.label else ""
        yield f"    {arrow.source} -->{said} {arrow.target}"


def _id(name: str) -> str:
    """A name as Mermaid takes it: it reads hyphens and dots as something else."""
    return name.replace("_", "__").replace("-", "_d").replace(".", "_p")


def _text(text: str) -> str:
    """Text that Mermaid does not read as syntax, not too long."""
    return "".join(f"#{ord(c)};" if c in '"#;:<>{}|&%\\`' else c for c in short(text))
