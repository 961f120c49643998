"""The state machine: selection, hierarchy, regions, final states and how runs end. See ``driving`` for the scripts."""

from __future__ import annotations

from typing import Any

import pytest

from .driving import Drive, machine, play

OK = {"final": "success"}
BAD = {"final": "failure"}


def done(to: str | list[str], **more: Any) -> dict[str, Any]:
    return {"event": "done", "to": to, **more}


def failed(to: str | list[str], **more: Any) -> dict[str, Any]:
    return {"event": "failed", "to": to, **more}


def on(event: str, to: str | list[str], **more: Any) -> dict[str, Any]:
    return {"event": event, "to": to, **more}


def run(task: str, *transitions: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"run": task, "transitions": list(transitions), **more}


# both: two regions, l runs a then c, r runs b
BOTH = {
    "both": {"regions": ["l", "r"], "transitions": [done("after")]},
    "l": run("a", done("l2"), **{"in": "both"}),
    "l2": run("c", done("l_ok"), **{"in": "both.l"}),
    "l_ok": {"in": "both.l", **OK},
    "r": run("b", done("r_ok"), **{"in": "both"}),
    "r_ok": {"in": "both.r", **OK},
    "after": run("d", done("ok")),
    "ok": OK,
}


def both(**changes: Any) -> dict[str, Any]:
    return {**BOTH, **changes}


# work: a compound of two steps
WORK = {
    "work": {"initial": "w1", "transitions": [done("ok")]},
    "w1": run("a", done("w2"), **{"in": "work"}),
    "w2": run("b", done("w_ok"), **{"in": "work"}),
    "w_ok": {"in": "work", **OK},
    "ok": OK,
}

def test_a_failed_task_with_the_code_timeout_takes_the_timeout_transition() -> None:
    states = {"s": run("a", done("bad"), on("timeout", "ok"), failed("bad")), "ok": OK, "bad": BAD}
    drive = Drive(machine(states))
    drive.begin()
    assert drive.fail(1, "timeout", "60s are over") == ["ok"]


@pytest.mark.parametrize(
    ("states", "script", "reason"),
    [
        (
            {"s": run("a", done("bad")), "bad": BAD},
            ">: +a | a: no",
            "states.bad: the run ended in the failure state 'bad'",
        ),
        (
            {"s": run("a", done("ok")), "ok": OK},
            ">: +a | a!: no",
            "states.s: task 'a' failed: broken: it broke, and no transition takes `failed`",
        ),
        (
            {"s": run("a", done("ok", **{"if": "result.n > 3"})), "ok": OK},
            ">: +a | a: no",
            "states.s: `done` and no transition applies",
        ),
        (
            {"s": run("a", done("ok", **{"if": "10 / result.n > 3"})), "ok": OK},
            ">: +a | a: no",
            "states.s.transitions[0].if: `10 / result.n > 3`: divide by zero",
        ),
        (
            {"s": run("a", done("s", **{"if": "!result.ok"}), done("ok"), visits=1), "ok": OK},
            ">: +a | a?: no",
            "states.s.visits: 's' would be entered 2 times",
        ),
        (
            {"s": {"transitions": [{"if": "go", "to": "ok"}]}, "ok": OK},
            ">: no",
            "states.s: nothing runs here and no transition applies",
        ),
        (
            {**WORK, "w_ok": {"in": "work", **BAD}},
            ">: +a | a: +b | b: no",
            "states.work: an inner state ended in failure, and no transition takes `failed`",
        ),
    ],
)
def test_the_reason_says_where(states: dict[str, Any], script: str, reason: str) -> None:
    finish = play(machine(states), script).finish
    assert finish is not None
    assert finish.reason == reason


def test_a_result_of_the_wrong_shape_is_a_failure_that_a_transition_takes() -> None:
    states = {
        "s": run("a", done("ok"), failed("t", set={"j": "event.code"})),
        "t": run("b", done("ok")),
        "ok": OK,
    }
    drive = Drive(machine(states))
    drive.begin()
    assert drive.done(1, ok="yes") == ["+b"]
    assert drive.state is not None
    assert drive.state.vars["j"] == "bad_result"


def test_a_loop_without_a_task_is_stopped() -> None:
    states = {
        "s": {
            "transitions": [{"if": "x < 5000", "set": {"x": "x + 1"}, "to": "s"}, {"to": "t"}],
            "visits": 9999,
        },
        "t": run("a", done("ok")),
        "ok": OK,
    }
    finish = play(machine(states), ">: no").finish
    assert finish is not None
    assert finish.reason == "states.s.transitions[0]: more than 1,000 transitions without a task in between"


def test_steps_are_limited() -> None:
    states = {"s": run("a", done("s", **{"if": "!go"}), done("ok"), visits=9), "ok": OK}
    finish = play(machine(states, limits={"steps": 2}), ">: +a | a: +a | a: no").finish
    assert finish is not None
    assert finish.reason == "limits.steps: step 3 would start 'a', but 2 steps are allowed"
