"""SVG files: valid, harmless, complete, the same each time, and done soon."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from core.driving import machine, tree

from agentflow.core.tree import BEHAVIOUR
from agentflow.picture.diagram import Arrow, Box, Diagram, Mark
from agentflow.picture.printing import diagram_of, picture
from agentflow.picture.svg import svg
from agentflow.picture.trees import LOOKS
from agentflow.wire.document import compile_document

from .plans import all_plans, any_machine, any_tree

SVG = "{http://www.w3.org/2000/svg}"
DIAGRAMS = [*map(diagram_of, all_plans()), *map(any_tree, range(20)), *map(any_machine, range(20))]
HOSTILE = "</title><script>alert('1')</script>\"&lt;\x00\x1b[31m\u202e\ud800\ufffe]]>"


def texts(root: ET.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_a_file_is_valid_and_tells_all_there_is(diagram: Diagram) -> None:
    root = ET.fromstring(svg(diagram))
    assert root.tag == f"{SVG}svg"
    told = "\n".join(each.text or "" for each in root.iter(f"{SVG}title")).splitlines()
    for box in diagram.all_boxes():
        assert not box.title or " ".join(box.title.split()) in told
        assert all(" ".join(line.split()) in told for line in (*box.lines, *box.more) if line.strip())
    for arrow in diagram.arrows:
        label = arrow.label.strip()
        assert (
            not label
            or label in told
            or f"↻ {label}" in told
            or [t for t in told if t.startswith(f"{label} →")]
        )


@pytest.mark.parametrize("diagram", DIAGRAMS, ids=lambda diagram: diagram.name)
def test_text_is_inside_its_box(diagram: Diagram) -> None:
    # Arial's letters are about half as broad as high; those of fonts of one breadth 0.6.
    for group in ET.fromstring(svg(diagram)).iter(f"{SVG}g"):
        rect = group.find(f"{SVG}rect")
        if rect is None:
            continue
        x, y, width, height = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        for text in group.iter(f"{SVG}text"):
            kind = text.attrib.get("class", "")
            if kind in ("badge", "glyph"):
                continue
            size, broad = {"small": (11, 0.6), "mono": (12, 0.6)}.get(kind, (13, 0.5))
            assert x < float(text.attrib["x"])
            assert float(text.attrib["x"]) + len(text.text or "") * size * broad < x + width
            assert y + size < float(text.attrib["y"]) + 3 and float(text.attrib["y"]) < y + height


def test_names_and_expressions_are_text_and_nothing_else() -> None:
    boxes = (
        Box("a", "state", HOSTILE, HOSTILE[:9], (HOSTILE,), (HOSTILE,), mark=Mark("active", HOSTILE)),
        Box("b", "success", HOSTILE, "✓"),
        Box("c", "compound", HOSTILE, lines=(HOSTILE,), inside=(Box("d", "state", HOSTILE),)),
    )
    arrows = (Arrow("a", "b", HOSTILE), Arrow("a", "a", HOSTILE), Arrow("d", "a", HOSTILE))
    nodes = (Box("a", "check", HOSTILE), Box("b", "task", HOSTILE))
    for diagram in (
        Diagram("machine", HOSTILE, boxes, arrows),
        Diagram("tree", HOSTILE, nodes, (Arrow("a", "b", HOSTILE),)),
    ):
        drawn = svg(diagram).decode()
        names = {each.tag.removeprefix(SVG) for each in ET.fromstring(drawn).iter()}
        assert names <= {"svg", "title", "style", "marker", "path", "rect", "circle", "g", "text"}
        assert not re.search("[\x00-\x09\x0b-\x1f\u202e\ufffe]", drawn)
        assert "alert('1')" in "".join(ET.fromstring(drawn).itertext())
        assert not re.search(r"<script|\son\w+=|href|@import|<!|<\?|url\((?!#head\))", drawn)


def test_nothing_is_longer_than_it_may_be() -> None:
    plan = compile_document(tree({"check": " || ".join(["x == 1234567890"] * 50)}))
    drawn = picture(plan, "svg").decode()
    assert max(map(len, texts(ET.fromstring(drawn)))) <= 46
    assert len(drawn) < 8_000


def test_a_file_is_the_same_in_every_process() -> None:
    code = (
        "import sys; from agentflow.picture.printing import picture\n"
        "from agentflow.wire.document import compile_document\n"
        f"print(picture(compile_document({document()!r}), 'svg').hex())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True, check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(found) == 1 and found.pop()


def document() -> dict[str, Any]:
    def state(number: int, **parts: Any) -> dict[str, Any]:
        ways = [{"event": "done", "to": f"s{number + 1}"}, {"event": "failed", "to": f"s{number * 5 % 13}"}]
        return {"run": "a", "visits": 5, "transitions": ways, **parts}

    states: dict[str, Any] = {f"s{number}": state(number) for number in range(13)}
    return machine({**states, "s13": {"final": "success"}})


@pytest.mark.parametrize("kind", ["line", "any", "star", "dense"])
def test_large_machines_are_drawn_soon(kind: str) -> None:
    count = 200 if kind == "dense" else 5_000
    boxes = tuple(Box(f"s{number}", "state", f"s{number}") for number in range(count))
    pairs = {
        "line": [(n, m) for n in range(count - 1) for m in (n + 1, count - 1)],
        "any": [(n * 7919 % count, n * n % count) for n in range(2 * count)],
        "star": [pair for n in range(1, count) for pair in ((0, n), (n, 0))],
        "dense": [(n, m) for n in range(100) for m in range(100, 200)],
    }[kind]
    arrows = tuple(Arrow(f"s{source}", f"s{target}", "done") for source, target in pairs)
    begin = time.process_time()
    drawn = svg(Diagram("machine", kind, boxes, arrows))
    assert time.process_time() - begin < 15
    assert drawn.count(b'<g class="state">') == count
    told = sum(" → " in line for line in "\n".join(ET.fromstring(drawn).itertext()).splitlines())
    lines = drawn.count(b'<path class="wire"')
    assert lines + told >= len({pair for pair in pairs if pair[0] != pair[1]})
    assert lines > 1_000


@pytest.mark.parametrize("wide", [True, False])
def test_large_trees_are_drawn_soon(wide: bool) -> None:
    count = 5_000
    boxes = tuple(Box(f"n{number}", "task", f"task {number}") for number in range(count))
    arrows = tuple(Arrow(f"n{0 if wide else number - 1}", f"n{number}") for number in range(1, count))
    begin = time.process_time()
    drawn = svg(Diagram("tree", "large", boxes, arrows))
    assert time.process_time() - begin < 15
    assert drawn.count(b'<g class="task">') == count


def test_it_is_readable_in_the_dark() -> None:
    drawn = svg(any_tree(3)).decode()
    assert "prefers-color-scheme: dark" in drawn and "color-scheme: light dark" in drawn
    light, dark = drawn.split("@media", 1)
    declared = set(re.findall(r"--(\w+):", light))
    assert declared == set(re.findall(r"--(\w+):", dark.split("} }")[0]))
    assert declared == set(re.findall(r"var\(--(\w+)\)", drawn))
    assert not re.findall(r'(?:fill|stroke)="#', drawn)


def test_every_kind_of_node_has_a_look_of_its_own() -> None:
    assert set(LOOKS) == set(BEHAVIOUR)
    assert all(look.glyph for kind, look in LOOKS.items() if kind not in ("task", "check"))


def test_where_a_run_is_can_be_seen() -> None:
    marks = {"n1": Mark("done"), "n2": Mark("active", "2 of 5"), "n0": Mark("around"), "n3": Mark("failed")}
    plan = compile_document(tree({"sequence": ["a", "b", "c"]}))
    drawn = ET.fromstring(picture(plan, "svg", marks))
    classes = [each.attrib["class"] for each in drawn.iter(f"{SVG}g")]
    assert classes == ["control around", "task done", "task active", "task failed"]
    assert [text for text in texts(drawn) if text in ("✓", "✗", "2 of 5")] == ["✓", "2 of 5", "✗"]
