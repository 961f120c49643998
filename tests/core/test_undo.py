"""Compensation: what has been done is undone in reverse order, once, whatever fails on the way."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core.planner import Begin, Completed, Failed, advance

from .driving import Drive, machine, play, tree

ECHO = {"kind": "tool", "use": "std.echo"}
TASKS: dict[str, Any] = {
    **{name: {**ECHO, "out": {"n": "int", "ok": "bool"}} for name in "def"},
    "a": {**ECHO, "out": {"n": "int", "ok": "bool"}, "undo": "ua"},
    "b": {**ECHO, "out": {"n": "int", "ok": "bool"}, "undo": "ub"},
    "i": {**ECHO, "in": {"item": "item"}, "out": {"n": "int", "ok": "bool"}, "undo": "ui"},
    "ua": {**ECHO, "in": {"n": "result.n", "x": "x"}},
    "ub": {**ECHO, "in": {"n": "result.n"}},
    "ui": {**ECHO, "in": {"n": "result.n", "item": "item"}},
    "c": {"kind": "compensate"},
    "inner": {"kind": "compensate", "scope": "part"},
}


def undone(root: Any, scope: str = "c") -> dict[str, Any]:
    """A tree whose only compensation is ``scope``."""
    return tree(root, tasks=tasks(scope))


def tasks(scope: str, *others: str) -> dict[str, Any]:
    kept = {"c": "inner", "inner": "c"}[scope]
    return {name: task for name, task in TASKS.items() if name not in (kept, *others)}


SEQ = {"fallback": [{"sequence": ["a", "b", "d"]}, "c"]}
SCRIPTS = {
    "the last first": (SEQ, ">: +a | a: +b | b: +d | d!: +c +ub | ub: +ua | ua: .c ok"),
    "what has failed is not undone": (SEQ, ">: +a | a: +b | b!: +c +ua | ua: .c ok"),
    "nothing to undo": (SEQ, ">: +a | a!: +c .c ok"),
    "a step that is undone in vain does not keep the others from it": (
        SEQ, ">: +a | a: +b | b: +d | d!: +c +ub | ub!: +ua | ua: .c! no",
    ),
    "what could not be undone is tried again, and only that": (
        {"fallback": [{"sequence": ["a", "b", "d"]}, {"retry": "c", "max": 2}]},
        ">: +a | a: +b | b: +d | d!: +c +ub | ub!: +ua | ua: .c! +c +ub | ub: .c ok",
    ),
    "a task that is not good enough has been done all the same": (
        {"fallback": [{"task": "a", "ok_if": "result.ok"}, "c"]},
        ">: +a | a?: +c +ua | ua: .c ok",
    ),
    "only what is inside the label": (
        {"fallback": [{"sequence": ["a", {"sequence": ["b", "d"], "label": "part"}]}, "inner"]},
        ">: +a | a: +b | b: +d | d!: +inner +ub | ub: .inner ok",
    ),
    "what is undone is forgotten": (
        {"sequence": ["a", {"repeat": "c", "max": 2}]}, ">: +a | a: +c +ua | ua: .c +c .c ok",
    ),
    "two at once share the work": (
        {"sequence": ["a", "b", {"parallel": ["c", "c"]}]},
        ">: +a | a: +b | b: +c +c +ub +ua | ub: .c | ua: .c ok",
    ),
    "every item of a map": (
        {"sequence": [{"map": "i", "over": "['p', 'q']", "max": 2, "concurrency": 1}, "c"]},
        ">: +i | i=1: +i | i=2: +c +ui | ui: +ui | ui: .c ok",
    ),
    "halted half way": (
        {"sequence": ["a", "b", {"parallel": ["c", "d"], "need": 1}]},
        ">: +a | a: +b | b: +c +d +ub | d: -c -ub ok",
    ),
    "what is done meanwhile is not undone with it": (
        {"sequence": ["a", {"parallel": ["c", "b"]}, "c"]},
        ">: +a | a: +c +b +ua | b: | ua: .c +c +ub | ub: .c ok",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCRIPTS)
def test_trees(name: str) -> None:
    root, script = SCRIPTS[name]
    play(undone(root, "inner" if "inner" in script else "c"), script)


STATES = {
    "one": {"run": "a", "transitions": [{"event": "done", "set": {"x": "result.n"}, "to": "part"}]},
    "part": {
        "initial": "two",
        "transitions": [{"event": "failed", "to": "back"}, {"event": "done", "to": "good"}],
    },
    "two": {"in": "part", "run": "b", "transitions": [{"event": "done", "to": "three"}]},
    "three": {"in": "part", "run": "d", "transitions": [{"event": "done", "to": "fine"}]},
    "fine": {"in": "part", "final": "success"},
    "back": {"run": "c", "transitions": [{"event": "done", "to": "bad"}, {"event": "failed", "to": "bad"}]},
    "bad": {"final": "failure"},
    "good": {"final": "success"},
}


@pytest.mark.parametrize(
    ("scope", "script"),
    [
        ("c", ">: +a | a=7: +b | b: +d [three] | d!: +c +ub [back] | ub: +ua | ua: .c no"),
        ("inner", ">: +a | a=7: +b | b: +d | d!: +inner +ub [back] | ub: .inner no"),
    ],
)
def test_machines(scope: str, script: str) -> None:
    states = {**STATES, "back": {**STATES["back"], "run": scope}}
    drive = play(machine(states, tasks=tasks(scope, "i", "ui")), script)
    assert drive.finish is not None
    assert not drive.finish.ok


def test_the_undoing_task_is_given_what_was_true_when_the_other_was_done() -> None:
    drive = Drive(undone({"sequence": [
        {"task": "a", "set": {"x": "result.n"}}, {"task": "d", "set": {"x": "result.n"}}, "c",
    ]}))  # fmt: skip
    drive.begin()
    drive.done(1, n=5)
    drive.done(2, n=99)
    assert drive.inputs[4] == {"n": 5, "x": 5}


def test_items_are_undone_with_their_item() -> None:
    drive = Drive(undone({"sequence": [{"map": "i", "over": "['p', 'q']", "max": 2}, "c"]}))
    drive.begin()
    drive.done(1, n=1)
    drive.done(2, n=2)
    assert drive.inputs[4] == {"n": 2, "item": "q"}
    drive.done(4)
    assert drive.inputs[5] == {"n": 1, "item": "p"}


def test_the_reason_names_what_could_not_be_undone() -> None:
    drive = Drive(undone({"sequence": ["a", "b", "c"]}))
    drive.begin()
    drive.done(1)
    drive.done(2)
    drive.fail(4, "refused", "not today")
    drive.done(5)
    assert drive.finish is not None
    assert "1 undone, 1 could not be: ub (for step 2): refused: not today" in drive.finish.reason


def test_without_a_compensation_nothing_is_kept() -> None:
    drive = Drive(tree({"sequence": ["a", "b"]}, tasks=tasks("c", "c")))
    drive.begin()
    drive.done(1)
    assert drive.state is not None
    assert drive.state.undo is None


def test_what_comes_late_changes_nothing() -> None:
    drive = Drive(undone({"sequence": ["a", "c", "d"]}))
    drive.begin()
    drive.done(1)
    drive.done(3)
    assert drive.state is not None
    for late in (Begin({}), Completed(3, {}), Failed(2, "broken", "it broke")):
        moved = advance(drive.plan, drive.state, late)
        assert moved.state is drive.state
        assert not moved.commands
