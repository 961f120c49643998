"""The behaviour tree, node by node: what starts, what is halted and how it ends. See ``driving`` for the scripts."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentflow.core.planner import Begin, Completed, Halt, Start, advance
from agentflow.wire.document import compile_document

from .driving import Drive, play, tree


def seq(*children: Any, **more: Any) -> dict[str, Any]:
    return {"sequence": list(children), **more}


def fb(*children: Any, **more: Any) -> dict[str, Any]:
    return {"fallback": list(children), **more}


def par(*children: Any, **more: Any) -> dict[str, Any]:
    return {"parallel": list(children), **more}


GO = {"check": "go"}
SKIP = {"task": "f", "skip_if": "true"}
SET_GO = {"task": "a", "set": {"go": True}}
UNSET_GO = {"task": "a", "set": {"go": False}}

VECTORS: dict[str, tuple[Any, str]] = {
    # leaves
    "task succeeds": ("a", ">: +a | a: ok"),
    "task fails": ("a", ">: +a | a!: no"),
    "event task times out": ("e", ">: +e | e~: no"),
    "check holds": ({"check": "x == 0"}, ">: ok"),
    "check does not hold": (GO, ">: no"),
    "succeed": ({"type": "succeed"}, ">: ok"),
    "fail": ({"type": "fail"}, ">: no"),
    "ok_if refuses a result": ({"task": "a", "ok_if": "result.ok"}, ">: +a | a?: no"),
    "ok_if accepts a result": ({"task": "a", "ok_if": "result.ok"}, ">: +a | a: ok"),
    "fail_if before the task": ({"task": "a", "fail_if": "x == 0"}, ">: no"),
    "skip_if before the task": ({"task": "a", "skip_if": "x == 0"}, ">: ok"),
    "fail_if wins over skip_if": ({"task": "a", "fail_if": "true", "skip_if": "true"}, ">: no"),
    "set is seen by the next node": (
        seq({"task": "a", "set": {"x": "result.n"}}, {"check": "x == 7"}),
        ">: +a | a=7: ok",
    ),
    "set happens even when ok_if says no": (
        fb({"task": "a", "set": {"x": "result.n"}, "ok_if": "result.ok"}, {"check": "x == 0 && !go"}, "b"),
        ">: +a | a?: ok",
    ),
    "ok_if sees the variables from before": (
        {"task": "a", "set": {"x": "5"}, "ok_if": "x == 0"},
        ">: +a | a: ok",
    ),
    # sequence
    "sequence in order": (seq("a", "b", "c"), ">: +a | a: +b | b: +c | c: ok"),
    "sequence stops at a failure": (seq("a", "b"), ">: +a | a!: no"),
    "sequence skips over": (seq("a", SKIP, "b"), ">: +a | a: +b | b: ok"),
    "sequence of skipped is skipped": (fb(seq(SKIP, SKIP), "a"), ">: +a | a: ok"),
    "sequence with memory does not look back": (seq(GO, "b", "c"), ">: no"),
    # fallback
    "fallback stops at a success": (fb("a", "b"), ">: +a | a: ok"),
    "fallback goes on after a failure": (fb("a", "b"), ">: +a | a!: +b | b: ok"),
    "fallback fails when all do": (fb("a", "b"), ">: +a | a!: +b | b!: no"),
    "fallback skips over": (fb(SKIP, "a"), ">: +a | a!: no"),
    "fallback of skipped is skipped": (seq(fb(SKIP, SKIP), "a"), ">: +a | a: ok"),
    # reactive
    "reactive: a guard that flips halts": (
        par(seq({"check": "!go"}, "b", reactive=True), SET_GO),
        ">: +b +a | a: -b no",
    ),
    "not reactive: the guard is not checked again": (
        par(seq({"check": "!go"}, "b"), SET_GO),
        ">: +b +a | a: | b: ok",
    ),
    "reactive: a finished task is not started again": (
        seq("a", "b", "c", reactive=True),
        ">: +a | a: +b | b: +c | c: ok",
    ),
    "reactive: a finished task stays when others move": (
        par(seq({"check": "x == 0"}, "b", "c", reactive=True), seq({"task": "a", "set": {"y": 1}}, "d")),
        ">: +b +a | b: +c | a: +d | c: | d: ok",
    ),
    "reactive: skip_if that flips starts the task": (
        par(seq({"task": "b", "skip_if": "!go"}, "c", reactive=True), SET_GO),
        ">: +c +a | a: -c +b | b: +c | c: ok",
    ),
    "reactive: a guard that flips off drops what it guarded": (
        par(seq({"task": "b", "skip_if": "go"}, "c", reactive=True), SET_GO),
        ">: +b +a | a: | b: +c | c: ok",
    ),
    "reactive: a guard inside a fallback": (
        par(seq(fb({"check": "!go"}, "d"), "b", reactive=True), SET_GO),
        ">: +b +a | a: -b +d | d: +b | b: ok",
    ),
    "reactive fallback: a better choice preempts": (
        par(fb(seq(GO, "c"), "b", reactive=True), SET_GO),
        ">: +b +a | a: -b +c | c: ok",
    ),
    "reactive fallback: a check that holds ends it": (
        par(fb(GO, "b", reactive=True), SET_GO),
        ">: +b +a | a: -b ok",
    ),
    "reactive: what its own task set ends it in the same turn": (
        seq({"check": "!go"}, SET_GO, "b", reactive=True),
        ">: +a | a: no",
    ),
    "reactive: a started and preempted step never was": (
        fb(seq({"check": "!go"}, SET_GO, "b", reactive=True), "c"),
        ">: +a | a: +c | c: ok",
    ),
    "reactive: parallel inside is remembered": (
        par(seq({"check": "y == 0"}, par("b", "c"), "d", reactive=True), seq(SET_GO, "f")),
        ">: +b +c +a | b: | c: +d | a: +f | d: | f: ok",
    ),
    "reactive: retry inside is remembered": (
        par(seq({"retry": "b", "max": 2}, "c", reactive=True), seq(SET_GO, "f")),
        ">: +b +a | b!: +b | b: +c | a: +f | c: | f: ok",
    ),
    "reactive: halted retry starts from the beginning": (
        par(seq(fb({"check": "!go"}, "d"), {"retry": "b", "max": 2}, reactive=True), SET_GO),
        ">: +b +a | b!: +b | a: -b +d | d: +b | b!: +b | b: ok",
    ),
    "reactive in a retry starts afresh": (
        {"retry": seq("b", "c", reactive=True), "max": 2},
        ">: +b | b: +c | c!: +b | b: +c | c: ok",
    ),
    "reactive inside reactive keeps what is done": (
        par(seq(seq("b", reactive=True), "c", reactive=True), seq(SET_GO, "f")),
        ">: +b +a | b: +c | a: +f | c: | f: ok",
    ),
    "reactive: what a flipped guard passed by is forgotten": (
        par(seq(fb(GO, "d"), "b", reactive=True), seq(SET_GO, {"task": "c", "set": {"go": False}})),
        ">: +d +a | d: +b | a: +c | c: -b +d | d: +b | b: ok",
    ),
    "reactive: a task that was skipped in between starts again": (
        par(
            seq({"task": "b", "skip_if": "go"}, "d", reactive=True),
            seq(SET_GO, {"task": "c", "set": {"go": False}}),
        ),
        ">: +b +a | b: +d | a: +c | c: -d +b | b: +d | d: ok",
    ),
    "reactive: a sequence inside is remembered": (
        par(seq(seq("b", "d"), "c", reactive=True), seq(SET_GO, "f")),
        ">: +b +a | b: +d | d: +c | a: +f | c: | f: ok",
    ),
    # parallel
    "parallel starts all": (par("a", "b", "c"), ">: +a +b +c | b: | a: | c: ok"),
    "parallel fails at the first failure": (par("a", "b", "c"), ">: +a +b +c | b!: -a -c no"),
    "parallel need": (par("a", "b", "c", need=2, fail_at=3), ">: +a +b +c | a: | b!: | c: ok"),
    "parallel need halts the rest": (par("a", "b", "c", need=1, fail_at=3), ">: +a +b +c | b: -a -c ok"),
    "parallel fails when need is out of reach": (
        par("a", "b", "c", need=2, fail_at=3),
        ">: +a +b +c | a!: | c!: -b no",
    ),
    "parallel fail_at": (par("a", "b", "c", fail_at=2, need=1), ">: +a +b +c | a!: | b!: -c no"),
    "parallel decides before it starts the rest": (par({"type": "succeed"}, "a", need=1), ">: ok"),
    "parallel drops what it started when a later child decides": (par("a", {"type": "fail"}), ">: no"),
    "parallel: skipped counts as done": (par("a", SKIP), ">: +a | a: ok"),
    "parallel: all skipped is skipped": (fb(par(SKIP, SKIP), "a"), ">: +a | a: ok"),
    "parallel: too few left is a failure, not a wait": (par("a", SKIP, need=2, fail_at=2), ">: +a | a: no"),
    "parallel of sequences": (par(seq("a", "b"), seq("c", "d")), ">: +a +c | c: +d | a: +b | d: | b: ok"),
    # decorators
    "retry": ({"retry": "a", "max": 3}, ">: +a | a!: +a | a!: +a | a!: no"),
    "retry stops at a success": ({"retry": "a", "max": 3}, ">: +a | a!: +a | a: ok"),
    "retry of a sequence starts it afresh": (
        {"retry": seq("a", "b"), "max": 2},
        ">: +a | a: +b | b!: +a | a: +b | b: ok",
    ),
    "retry halts with its parent": (par({"retry": "a", "max": 2}, "b"), ">: +a +b | b!: -a no"),
    "repeat": ({"repeat": "a", "max": 3}, ">: +a | a: +a | a: +a | a: ok"),
    "repeat stops at a failure": ({"repeat": "a", "max": 3}, ">: +a | a: +a | a!: no"),
    "repeat of skipped is skipped": (fb({"repeat": SKIP, "max": 3}, "a"), ">: +a | a: ok"),
    "invert": ({"invert": "a"}, ">: +a | a!: ok"),
    "invert a success": ({"invert": "a"}, ">: +a | a: no"),
    "invert passes skipped on": (seq({"invert": SKIP}, "a"), ">: +a | a: ok"),
    "invert halts": (
        par({"invert": "a"}, {"force": "b", "as": "success"}, "c"),
        ">: +a +b +c | c!: -a -b no",
    ),
    "force success": ({"force": "a"}, ">: +a | a!: ok"),
    "force failure": ({"force": "a", "as": "failure"}, ">: +a | a: no"),
    "force passes skipped on": (fb({"force": SKIP}, "a"), ">: +a | a: ok"),
    # map
    "map over nothing": ({"map": "i", "over": "xs", "max": 3}, ">: ok"),
    "map": ({"map": "i", "over": "['p', 'q']", "max": 3}, ">: +i +i | i: | i: ok"),
    "map one at a time": (
        {"map": "i", "over": "['p', 'q', 'r']", "max": 3, "concurrency": 1},
        ">: +i | i: +i | i: +i | i: ok",
    ),
    "map keeps concurrency": (
        {"map": "i", "over": "['p', 'q', 'r', 's']", "max": 4, "concurrency": 2},
        ">: +i +i | i: +i | i: +i | i: | i: ok",
    ),
    "map fails at the first failure": (
        {"map": "i", "over": "['p', 'q', 'r']", "max": 3},
        ">: +i +i +i | i!: -i -i no",
    ),
    "map fail_at": ({"map": "i", "over": "['p', 'q']", "max": 3, "fail_at": 2}, ">: +i +i | i!: | i: ok"),
    "map of sequences": (
        {"map": seq("i", "b"), "over": "['p', 'q']", "max": 3},
        ">: +i +i | i: +b | b: | i: +b | b: ok",
    ),
    "map in a map": (
        {
            "map": {"map": "i", "over": "[item, item]", "max": 2},
            "over": "['p', 'q']",
            "max": 2,
            "concurrency": 1,
        },
        ">: +i +i | i: | i: +i +i | i: | i: ok",
    ),
    "map: all skipped is skipped": (
        fb({"map": {"task": "i", "skip_if": "true"}, "over": "['p']", "max": 1}, "a"),
        ">: +a | a: ok",
    ),
    "map skips by item": (
        {"map": {"task": "i", "skip_if": "item == 'p'"}, "over": "['p', 'q']", "max": 2},
        ">: +i | i: ok",
    ),
    "map halts with its parent": (
        par({"map": seq("i"), "over": "['p', 'q']", "max": 2}, "a"),
        ">: +i +i +a | a!: -i -i no",
    ),
    "map with a reactive child": (
        par(
            {"map": seq({"check": "!go"}, "i", reactive=True), "over": "['p', 'q']", "max": 2, "fail_at": 2},
            SET_GO,
        ),
        ">: +i +i +a | a: -i -i no",
    ),
    "retry of a map sees the new list": (
        {
            "retry": {
                "map": {"task": "i", "set": {"xs": "['z']"}, "ok_if": "result.ok"},
                "over": "size(xs) == 0 ? ['p'] : xs",
                "max": 2,
            },
            "max": 2,
        },
        ">: +i | i?: +i | i: ok",
    ),
    # signals are not for trees
    "a signal changes nothing": (seq("a", "b"), ">: +a | @cancel: | a: +b | b: ok"),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    root, script = VECTORS[name]
    play(tree(root), script)


def test_map_gives_each_item_its_own_input() -> None:
    drive = play(tree({"map": "i", "over": "xs", "max": 3}), ">: +i +i | i: | i: ok", xs=["p", "q"])
    assert [drive.inputs[step] for step in (1, 2)] == [{"item": "p"}, {"item": "q"}]


def test_a_retried_map_takes_items_from_the_list_as_it_is_then() -> None:
    root, script = VECTORS["retry of a map sees the new list"]
    drive = play(tree(root), script)
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
