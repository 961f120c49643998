"""Documents that were accepted by earlier versions mean what they meant then."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core.canonical import normalise
from agentflow.wire.document import check_document, compile_document, compile_stored

from .driving import machine, play, tree

GO = {"task": "a", "set": {"go": True}}
BACK = {"task": "c", "set": {"go": False}}
ORDER = {"fallback": [{"task": "a", "success_if": "true", "fail_if": "true"}, "b"]}


def beside(node: Any, *others: Any) -> dict[str, Any]:
    """A reactive sequence of the node and ``d``, beside tasks that set variables."""
    return {"parallel": [{"sequence": [node, "d"], "reactive": True}, {"sequence": list(others)}]}


@pytest.mark.parametrize(
    ("root", "then", "now"),
    [
        (ORDER, ">: ok", ">: +b | b: ok"),
        (
            beside({"sequence": ["b"], "skip_if": "go"}, GO, BACK),
            ">: +b +a | b: +d | a: +c | c: | d: ok",
            ">: +b +a | b: +d | a: +c | c: -d +b | b: +d | d: ok",
        ),
        (beside({"parallel": [{"check": "!go"}]}, GO), ">: +d +a | a: | d: ok", ">: +d +a | a: -d no"),
        (
            beside({"if": "!go", "then": "b", "else": {"type": "fail"}}, GO),
            ">: +b +a | b: +d | a: | d: ok",
            ">: +b +a | b: +d | a: -d no",
        ),
        (
            beside({"while": "!go", "do": "b", "else": "e"}, GO),
            ">: +b +a | b: +d | a: | d: ok",
            ">: +b +a | b: +d | a: -d +e | e: +d | d: ok",
        ),
        (
            beside({"switch": "go", "cases": {"false": "b"}, "default": "e"}, GO),
            ">: +b +a | b: +d | a: | d: ok",
            ">: +b +a | b: +d | a: -d +e | e: +d | d: ok",
        ),
        (
            beside({"sequence": [{"fallback": [{"check": "!go"}, "e"]}, {"if": "x == 0", "then": "b"}]}, GO),
            ">: +b +a | b: +d | a: -d +e | e: +b | b: +d | d: ok",
            ">: +b +a | b: +d | a: -d +e | e: +b | b: +d | d: ok",
        ),
        (
            {"parallel": [{"type": "while", "children": ["b", "d"]}, GO]},
            ">: +b +a | b: +d | a: -d +b | b: +d | d: ok",
            ">: +b +a | b: +d | a: | d: ok",
        ),
    ],
    ids=["order", "guard", "parallel", "if", "while", "switch", "halted", "condition"],
)
def test_what_was_accepted_before_decides_as_before(root: Any, then: str, now: str) -> None:
    stored, _ = normalise(tree(root))
    assert "ir" not in stored
    play(compile_stored(stored), then)
    play(compile_document(stored), now)
    accepted = check_document(stored).plan
    assert accepted.document["ir"] == 2
    again = compile_stored(accepted.document)
    assert again.hash == accepted.hash
    play(again, now)


@pytest.mark.parametrize(
    "document",
    [
        tree({"sequence": ["a", {"task": "b", "skip_if": "go", "fail_if": "x == 1"}]}),
        tree({"sequence": [{"if": "go", "then": "a"}, {"task": "b", "success_if": "go", "while": "x == 0"}]}),
        machine({"s": {"run": "a", "transitions": [{"event": "done", "to": "ok"}]}, "ok": {"final": "success"}}),
    ],
    ids=["own conditions", "others", "machine"],
)
def test_where_versions_do_not_differ_none_is_named(document: dict[str, Any]) -> None:
    assert "ir" not in compile_document(document).document


def test_a_tree_of_the_document_counts_too() -> None:
    trees = {"part": {"root": {"sequence": ["a"], "reactive": True}}}
    assert compile_document(tree({"subtree": "part"}, trees=trees)).document["ir"] == 2


def test_a_version_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Exception, match="ir"):
        compile_stored({**normalise(tree("a"))[0], "ir": 3})
