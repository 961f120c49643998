"""Compensation, beyond what the vectors say: what undoing tasks are given, and what is kept."""

from __future__ import annotations

from typing import Any

from agentflow.core.planner import Begin, Completed, Failed, advance

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
