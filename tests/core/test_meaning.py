"""Documents that were accepted by earlier versions mean what they meant then."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core import worst
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


SKIPS = {"delay": "50ms", "child": {"task": "d", "skip_if": "true"}}
TWICE = {"repeat": {"task": "a", "set": {"go": "!go"}}, "max": 2}
ANEW = ">: +50ms | 50ms: +a | a: +50ms"
ONCE = ">: +50ms | 50ms: +a | a: +a | a: ok"
WAITS: list[tuple[Any, str, str]] = [
    (SKIPS, ANEW, ONCE),
    ({"timeout": "90ms", "child": SKIPS}, ">: +50ms +90ms | 50ms: +a -90ms | a: +50ms +90ms",
     ">: +50ms +90ms | 50ms: +a -90ms | a: +a | a: ok"),
    ({"type": "invert", "child": SKIPS}, ANEW, ONCE),
    ({"once": SKIPS}, ANEW, ONCE),
    ({"retry": SKIPS, "max": 2}, ANEW, ONCE),
    ({"map": SKIPS, "over": "['p']", "max": 1}, ANEW, ONCE),
    ({"parallel": [SKIPS]}, ANEW, ONCE),
    ({"try": [SKIPS], "catch": "b"}, ANEW, ONCE),
    ({"sequence": [SKIPS], "memory": True}, ANEW, ONCE),
    ({"type": "while", "children": [SKIPS, "b"]}, ANEW, ONCE),
    ({"subtree": "t"}, ANEW, ONCE),
]  # fmt: skip


@pytest.mark.parametrize("kind", ["sequence", "fallback"])
@pytest.mark.parametrize(("first", "then", "now"), WAITS)
def test_what_was_skipped_after_a_delay_is_remembered(first: Any, then: str, now: str, kind: str) -> None:
    """Before version 3 the delay began anew whenever a variable changed; the worst case knows which it is."""
    trees = {"trees": {"t": {"root": SKIPS}}} if "subtree" in first else {}
    document = compile_document(tree({kind: [first, TWICE], "reactive": True}, **trees)).document
    assert document["ir"] == 3
    before, after = compile_stored({**document, "ir": 2}), compile_stored(document)
    play(before, then)
    play(after, now)
    each = [worst.worst(plan, lambda task: int(task.name == "a")) for plan in (before, after)]
    assert list(map(str, each)) == ["limits.steps", "2"]


def test_what_was_skipped_after_a_delay_waits_again_once_its_condition_has_flipped() -> None:
    beside = {"sequence": [{"task": "b", "set": {"go": "true"}}, {"task": "c", "set": {"go": "false"}}]}
    for guarded in ({"delay": "50ms", "child": SKIPS["child"], "fail_if": "go"},
                    {"sequence": [SKIPS], "fail_if": "go"}, {"once": SKIPS, "fail_if": "go"}):  # fmt: skip
        root = {"parallel": [{"fallback": [guarded, "a"], "reactive": True}, beside]}
        play(tree(root), ">: +b +50ms | 50ms: +a | b: +c | c: -a +50ms | 50ms: +a | a: ok")


def test_a_delay_whose_end_is_not_skipped_was_bounded_before() -> None:
    root = {"sequence": [{"delay": "50ms", "child": "d"}, TWICE], "reactive": True}
    before = compile_stored({**compile_document(tree(root)).document, "ir": 2})
    assert str(worst.worst(before, lambda task: int(task.name == "a"))) == "2"


def test_a_tree_of_the_document_counts_too() -> None:
    trees = {"part": {"root": {"sequence": ["a"], "reactive": True}}}
    assert compile_document(tree({"subtree": "part"}, trees=trees)).document["ir"] == 2


def test_a_version_that_nobody_knows_is_refused() -> None:
    with pytest.raises(Exception, match="ir"):
        compile_stored({**normalise(tree("a"))[0], "ir": 4})
