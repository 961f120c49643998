"""Compensation, beyond what the vectors say: what undoing tasks are given, and what is kept."""

from __future__ import annotations

from typing import Any

from agentflow.core.planner import Begin, Completed, Failed, advance, match_event
from agentflow.wire.document import compile_document

from .driving import Drive, tree, undoing


def undone(root: Any) -> dict[str, Any]:
    return tree(root, tasks=undoing(root))


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


def test_what_a_subtree_has_done_is_undone_with_its_variables() -> None:
    first = {"vars": {"x": "int"}, "root": {"task": "a", "set": {"x": "result.n + 1"}}}
    root = {"sequence": [{"subtree": "t"}, {"subtree": "u"}, "c"]}
    drive = Drive(tree(root, trees={"t": first, "u": {"root": "b"}}, tasks=undoing({})))
    drive.begin(x=100)
    drive.done(1, n=5)
    drive.done(2, n=7)
    assert drive.inputs[4] == {"n": 7}
    drive.done(4)
    assert drive.inputs[5] == {"n": 5, "x": 6}


def test_what_only_a_subtree_does_may_be_undone_with_names_that_are_not_the_run_s() -> None:
    tasks = undoing({}) | {"ua": {"kind": "tool", "use": "std.echo", "in": {"own": "own"}}}
    one = {"vars": {"own": "string"}, "root": "a"}
    root = {"sequence": [{"subtree": "t", "in": {"own": "'mine'"}}, "c"]}
    drive = Drive(tree(root, trees={"t": one}, tasks=tasks))
    drive.begin()
    drive.done(1)
    assert drive.inputs[3] == {"own": "mine"}


def test_an_undoing_task_may_wait_for_an_event() -> None:
    paid = {"kind": "event", "use": "com.example.refunded", "match": "event.data.n == x"}
    plan = compile_document(undone({"sequence": ["a", "c"]}) | {"tasks": undoing({}) | {"ua": paid}})
    state = advance(plan, None, Begin({"x": 4})).state
    state = advance(plan, state, Completed(1, {"n": 0, "ok": True})).state
    event = {"type": "com.example.refunded", "id": "1", "source": "/bank"}
    assert match_event(plan, "ua", state, 3, {**event, "data": {"n": 4}})
    assert not match_event(plan, "ua", state, 3, {**event, "data": {"n": 5}})


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
    tasks = {name: task for name, task in undoing("").items() if name != "c"}
    drive = Drive(tree({"sequence": ["a", "b"]}, tasks=tasks))
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
