"""Behaviour trees as diagrams: a glyph and a title per kind of node, conditions as small print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from agentflow.core.expr import Expr
from agentflow.core.node import FAILURE, Node, Tree
from agentflow.picture.diagram import UNMARKED, Arrow, Box, Diagram, Mark, Shape
from agentflow.picture.text import duration


class _Look(NamedTuple):
    glyph: str
    title: Callable[[Node], str]
    shape: Shape = "control"


def _source(expr: Expr | None) -> str:
    return expr.source if expr is not None else ""


def _series(node: Node) -> str:
    return ("reactive " if node.reactive else "") + node.kind + (" with memory" if node.memory else "")


def _parallel(node: Node) -> str:
    if node.wait_all:
        return "parallel, all end"
    return f"parallel, {node.need} of {len(node.children)}" if node.need else "parallel"


def _kind(node: Node) -> str:
    return node.kind


LOOKS: dict[str, _Look] = {
    "task": _Look("", lambda node: node.task.name if node.task else "", "task"),
    "check": _Look("", lambda node: _source(node.condition), "check"),
    "succeed": _Look("✓", _kind),
    "fail": _Look("✗", _kind),
    "sequence": _Look("→", _series),
    "fallback": _Look("?", _series),
    "parallel": _Look("⇉", _parallel),
    "map": _Look("⇶", lambda node: f"map {_source(node.over)}"),
    "if": _Look("◇", _kind),
    "while": _Look("◇", _kind),
    "switch": _Look("◇", lambda node: f"switch {_source(node.value)}"),
    "retry": _Look("↻", lambda node: f"retry {node.max}×"),
    "repeat": _Look("↻", lambda node: f"repeat {node.max}×"),
    "keep": _Look("↻", lambda node: f"keep on, {node.max}×"),
    "try": _Look("⤳", _kind),
    "subtree": _Look("▸", lambda node: f"subtree {node.tree}"),
    "invert": _Look("¬", _kind),
    "force": _Look("!", lambda node: "force failure" if node.forced == FAILURE else "force success"),
    "once": _Look("1", lambda node: "once" if node.then_skip else "once, then the same"),
    "delay": _Look("◷", lambda node: f"delay {duration(node.for_ms)}"),
    "timeout": _Look("◷", lambda node: f"timeout {duration(node.for_ms)}"),
}

_WAYS = {"if": ("if", "then", "else"), "while": ("while", "do", "else")}


def tree_diagram(name: str, tree: Tree, marks: Mapping[str, Mark]) -> Diagram:
    """The diagram of a tree; the keys of ``marks`` are those of ``key``."""
    labels = {first: label for label, places in tree.labels.items() for first, _ in places}
    boxes = tuple(_box(node, labels.get(node.index, ""), marks) for node in tree.nodes)
    arrows = tuple(
        Arrow(key(node), key(child), _way(node, place))
        for node in tree.nodes
        for place, child in enumerate(node.children)
    )
    return Diagram("tree", name, boxes, arrows)


def key(node: Node) -> str:
    """The key of a node's box."""
    return f"n{node.index}"


def _box(node: Node, label: str, marks: Mapping[str, Mark]) -> Box:
    look = LOOKS.get(node.kind) or _Look("", _kind)
    return Box(
        key=key(node),
        shape=look.shape,
        title=look.title(node),
        glyph=look.glyph,
        lines=tuple(_lines(node, label)),
        more=tuple(_more(node)),
        mark=marks.get(key(node), UNMARKED),
    )


def _way(node: Node, place: int) -> str:
    """What leads to the child in this place."""
    if node.cases:
        return node.cases[place] if place < len(node.cases) else "default"
    if node.kind == "try":
        return "catch" if place == len(node.children) - 1 else ""
    ways = _WAYS.get(node.kind, ())
    return ways[place] if place < len(ways) else ""


def _lines(node: Node, label: str) -> Iterator[str]:
    if label:
        yield f"“{label}”"
    if node.task is not None:
        yield f"{node.task.kind} {node.task.use}".strip()
        if node.task.match is not None:
            yield f"match {node.task.match.source}"
    if node.kind == "map":
        yield f"at most {node.max}, {node.concurrency} at once"
    if node.kind in ("parallel", "map") and node.fail_at > 1:
        yield f"fails at {node.fail_at}"
    own = node.conditions
    for said, expr in (
        ("fail if", node.fail_if or (own.fail_if if own else None)),
        ("success if", own.success_if if own else None),
        ("skip if", node.skip_if or (own.skip_if if own else None)),
        ("while", own.holds if own else None),
        ("ok if", node.ok_if),
    ):
        if expr is not None:
            yield f"{said} {expr.source}"


def _more(node: Node) -> Iterator[str]:
    yield node.path
    yield from (f"in {name} = {expr.source}" for name, expr in node.given)
    yield from (f"share {name} as {outer}" for name, outer in sorted(node.share.items()))
    own = node.conditions
    after = (
        (("on success", own.on_success), ("on failure", own.on_failure), ("on halt", own.on_halt))
        if own
        else ()
    )
    for said, sets in (("", node.sets), *after, ("post", own.post if own else ())):
        for name, expr in sets:
            yield f"{said} {name} = {expr.source}".strip()
