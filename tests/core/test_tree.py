"""The behaviour tree, beyond what the vectors say: inputs, reasons, limits, and the size of its state."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from agentflow.core.planner import Begin, Completed, Elapsed, Halt, PlanState, Signal, Start, advance
from agentflow.wire.document import compile_document

from .driving import Drive, plain, play, tree
from .test_vectors import FOLDER


def seq(*children: Any, **more: Any) -> dict[str, Any]:
    return {"sequence": list(children), **more}


def fb(*children: Any, **more: Any) -> dict[str, Any]:
    return {"fallback": list(children), **more}


def par(*children: Any, **more: Any) -> dict[str, Any]:
    return {"parallel": list(children), **more}


GO = {"check": "go"}
SKIP = {"task": "f", "skip_if": "true"}


def test_map_gives_each_item_its_own_input() -> None:
    drive = play(tree({"map": "i", "over": "xs", "max": 3}), ">: +i +i | i: | i: ok", xs=["p", "q"])
    assert [drive.inputs[step] for step in (1, 2)] == [{"item": "p"}, {"item": "q"}]


def test_a_retried_map_takes_items_from_the_list_as_it_is_then() -> None:
    vectors = yaml.safe_load((FOLDER / "bt_map.yaml").read_text())
    vector = next(each for each in vectors if each["name"] == "retry of a map sees the new list")
    drive = play(tree(vector["plan"]["root"]), vector["script"])
    assert [drive.inputs[step]["item"] for step in (1, 2)] == ["p", "z"]


@pytest.mark.parametrize(
    ("root", "script", "reason"),
    [
        (seq("a", "b"), ">: +a | a: +b | b!: no", "root.children[1]: task 'b' failed: broken: it broke"),
        (seq("a", GO), ">: +a | a: no", "root.children[1].if: `go` does not hold"),
        ("e", ">: +e | e~: no", "root: task 'e' failed: timeout: nothing came in time"),
        (
            fb("a", {"type": "fail"}),
            ">: +a | a!: no",
            "root.children[1]: the plan says fail, after root.children[0]: task 'a' failed: broken: it broke",
        ),
        (
            seq("a", {"check": "1 / x > 0"}),
            ">: +a | a: no",
            "root.children[1].if: `1 / x > 0`: divide by zero",
        ),
        (
            {"map": "i", "over": "['p', 'q', 'r']", "max": 2},
            ">: no",
            "root.max: `['p', 'q', 'r']` has 3 items, at most 2 are allowed",
        ),
        ({"map": "i", "over": "j", "max": 2}, ">: no", "root.over: `j`: its value must be a list, not null"),
        ({"repeat": {"type": "succeed"}, "max": 10_000}, ">: ok", ""),
        (
            {"repeat": {"repeat": {"type": "succeed"}, "max": 10_000}, "max": 3},
            ">: no",
            "root.child.child: more than 20,000 nodes ticked without a task in between",
        ),
        (
            par("a", SKIP, need=2, fail_at=2),
            ">: +a | a: no",
            "root: 1 succeeded and 1 were skipped, but 2 are needed",
        ),
    ],
)
def test_the_reason_says_where(root: Any, script: str, reason: str) -> None:
    finish = play(tree(root), script).finish
    assert finish is not None
    assert finish.reason == reason


def test_a_fault_in_an_expression_halts_what_runs() -> None:
    root = par("b", seq({"task": "a", "set": {"x": "result.n / 0"}}))
    drive = play(tree(root), ">: +b +a | a: -b no")
    assert drive.finish is not None
    assert drive.finish.reason.startswith("root.children[1].children[0].set.x: ")


def test_a_result_of_the_wrong_shape_is_a_failure_that_a_fallback_handles() -> None:
    drive = Drive(tree(fb("a", "b")))
    drive.begin()
    assert drive.done(1, n="many") == ["+b"]
    assert drive.state is not None
    assert "bad_result: result.n must be a whole number, not 'many'" in drive.state.cursor["why"]


def test_steps_are_limited() -> None:
    drive = Drive(tree({"repeat": "a", "max": 9}, limits={"steps": 2}))
    drive.begin()
    drive.done(1)
    assert drive.done(2) == ["no"]
    assert drive.finish is not None
    assert drive.finish.reason == "limits.steps: step 3 would start 'a', but 2 steps are allowed"


def test_the_fuel_that_runs_out_halts_the_rest() -> None:
    assert play(
        tree(par("b", {"repeat": "a", "max": 9}), limits={"steps": 3}), ">: +b +a | a: +a | a: -b no"
    ).finish


def test_halts_come_in_order_whatever_order_the_store_keeps() -> None:
    drive = Drive(tree(fb({"map": "i", "over": "['p', 'q', 'r', 's']", "max": 4}, "a")))
    drive.begin()
    drive.fail(2)
    assert drive.history[-1] == (Halt(1), Halt(3), Halt(4), Start(5, "a", {}))


def test_the_state_of_a_wide_map_holds_only_what_is_active() -> None:
    drive = Drive(
        tree({"map": seq("i", "b"), "over": "xs", "max": 1000, "concurrency": 3}, limits={"steps": 2000})
    )
    drive.begin(xs=[str(n) for n in range(1000)])
    for _ in range(600):
        drive.done(min(drive.running))
        assert drive.state is not None
        assert len(drive.state.cursor["n"]) <= 1 + 2 * 3
    assert len(drive.running) == 3


def test_what_an_event_changes_is_as_small_in_a_wide_map_as_in_a_narrow_one() -> None:
    """What a history line's hash is made of, and what a decision costs, must not grow with what else is open."""
    sizes = []
    for width in (10, 5_000):
        document = tree({"map": seq("i", "b"), "over": "xs", "max": width}, limits={"steps": 2 * width})
        plan = compile_document(document)
        state = advance(plan, None, Begin({"xs": ["x"] * width})).state
        moved = advance(plan, state, Completed(3, {"n": 0, "ok": True}))
        sizes.append(len(json.dumps(moved.changed)))
        assert state.cursor["n"] is not moved.state.cursor["n"]
    assert sizes[1] <= sizes[0] + 10, sizes


def open_state(width: int, root: Any, **parts: Any) -> tuple[Any, PlanState]:
    """A plan with so many items open, and its state."""
    plan = compile_document(tree(root, limits={"steps": 3 * width}, **parts))
    return plan, advance(plan, None, Begin({"xs": ["x"] * width})).state


@pytest.mark.parametrize("child", [{"try": ["i", "b"], "catch": "c"}, {"subtree": "t"}], ids=["try", "subtree"])
def test_what_an_event_changes_does_not_grow_with_the_tries_and_subtrees_that_are_open(child: Any) -> None:
    sizes = []
    caught = {"vars": {"n": "int"}, "root": {"try": [{"task": "a", "set": {"n": "n + 1"}}, "b"], "catch": "c"}}
    trees = {"trees": {"t": caught}} if "subtree" in child else {}
    for width in (10, 2_000):
        plan, state = open_state(width, {"map": child, "over": "xs", "max": width}, **trees)
        moved = advance(plan, state, Completed(3, {"n": 0, "ok": True}))
        sizes.append(len(json.dumps(moved.changed)))
    assert sizes[1] <= sizes[0] + 10, sizes


def test_what_an_event_changes_does_not_grow_with_the_catches_that_run() -> None:
    sizes = []
    for width in (10, 2_000):
        each = {"map": {"try": ["a"], "catch": seq("c", "d")}, "over": "xs", "max": width}
        plan, state = open_state(width, {"timeout": "50ms", "child": each})
        moved = advance(plan, state, Elapsed(1))
        assert len(moved.state.cursor["loose"]) == width
        moved = advance(plan, moved.state, Completed(width + 3, {"n": 0, "ok": True}))
        sizes.append(len(json.dumps(moved.changed)))
    assert sizes[1] <= sizes[0] + 30, sizes


@pytest.mark.parametrize(
    "fault",
    [{"task": "c", "skip_if": "1 / x > 0"}, {"parallel": ["c", {"check": "1 / x > 0"}]}],
)
def test_thousands_of_catches_that_cannot_begin_end_in_one_step(fault: Any) -> None:
    each = {"map": {"try": ["a"], "catch": fault}, "over": "xs", "max": 2_000}
    plan, state = open_state(2_000, {"timeout": "50ms", "child": each})
    moved = advance(plan, state, Elapsed(1))
    assert moved.state.ended
    assert len(moved.commands) == 2_001


def test_nothing_is_left_of_what_is_over() -> None:
    """Variables, items and catches go with the last that needs them, whatever order that is in."""
    caught = {"try": [{"map": "b", "over": "['p', 'q']", "max": 2}], "catch": {"subtree": "u"}}
    trees = {"t": {"vars": {"n": "int"}, "root": caught}, "u": {"vars": {"m": "int"}, "root": "c"}}
    halted = {"timeout": "50ms", "child": {"map": {"subtree": "t"}, "over": "['p', 'q']", "max": 2}}
    for last in ("d", "c"):
        drive = Drive(tree(seq({"force": halted}, "d", "f"), trees=trees))
        drive.begin()
        drive.happen("50ms")
        for task in {"d": "ccd", "c": "cdc"}[last]:
            drive.happen(task)
        assert drive.state is not None
        _, cursor, _ = plain(drive.state)
        assert [cursor[name] for name in ("items", "timers", "own", "loose")] == [{}] * 4
        assert cursor["n"].keys() == {"0", str(len(drive.plan.tree.nodes) - 1)}  # type: ignore[union-attr]


def test_why_it_was_cancelled_is_why_it_ended() -> None:
    drive = Drive(tree({"try": ["a"], "catch": "c"}))
    drive.begin()
    assert drive.tell(Signal("cancel", {"reason": "too expensive"})) == ["-a", "+c"]
    drive.happen("c")
    assert drive.finish is not None
    assert drive.finish.reason == "cancelled: too expensive"


def test_a_tree_without_a_try_under_way_is_the_very_same_after_a_cancel() -> None:
    for root in ("a", seq("a", {"try": ["b"], "catch": "c"})):
        drive = Drive(tree(root), copied=False)
        drive.begin()
        state = drive.state
        assert drive.tell(Signal("cancel")) == []
        assert drive.state is state


def test_a_wide_map_of_tries_is_cancelled_item_by_item() -> None:
    play(
        tree({"map": {"try": ["i"], "catch": "c"}, "over": "['p', 'q', 'r']", "max": 3}),
        ">: +i +i +i | i: | @cancel: -i -i +c +c | c: | c: no",
    )


def test_a_variable_that_a_fork_gives_keeps_its_value_whatever_a_subtree_assigns() -> None:
    inner = {"vars": {"n": "int", "m": "int"}, "root": {"task": "a", "set": {"n": "5", "m": "6"}}}
    root = seq({"subtree": "t", "share": {"n": "x", "m": "y"}}, "b")
    plan = compile_document(tree(root, trees={"t": inner}))
    state = advance(plan, None, Begin({})).state
    moved = advance(plan, state, Completed(1, {"n": 0, "ok": True}), {"x": 9})
    assert (moved.state.vars["x"], moved.state.vars["y"]) == (9, 6)
