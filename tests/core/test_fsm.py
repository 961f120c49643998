"""The state machine: selection, hierarchy, regions, final states and how runs end. See ``driving`` for the scripts."""

from __future__ import annotations

from typing import Any

import pytest

from .driving import Drive, machine, play

OK = {"final": "success"}
BAD = {"final": "failure"}


def done(to: str, **more: Any) -> dict[str, Any]:
    return {"event": "done", "to": to, **more}


def failed(to: str, **more: Any) -> dict[str, Any]:
    return {"event": "failed", "to": to, **more}


def on(event: str, to: str, **more: Any) -> dict[str, Any]:
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

VECTORS: dict[str, tuple[dict[str, Any], str]] = {
    "one state after the other": (
        {"s": run("a", done("t")), "t": run("b", done("ok")), "ok": OK},
        ">: +a [s] | a: +b [t] | b: ok",
    ),
    "a failure state fails the run": ({"s": run("a", done("bad")), "bad": BAD}, ">: +a | a: no"),
    "the first transition whose guard holds": (
        {
            "s": run("a", done("t", **{"if": "result.n > 3"}), done("u")),
            "t": run("b", done("ok")),
            "u": run("c", done("ok")),
            "ok": OK,
        },
        ">: +a | a=5: +b [t] | b: ok",
    ),
    "the next one when it does not": (
        {
            "s": run("a", done("t", **{"if": "result.n > 3"}), done("u")),
            "t": run("b", done("ok")),
            "u": run("c", done("ok")),
            "ok": OK,
        },
        ">: +a | a=3: +c [u] | c: ok",
    ),
    "failed is a transition": (
        {"s": run("a", done("ok"), failed("t")), "t": run("b", done("ok")), "ok": OK},
        ">: +a | a!: +b | b: ok",
    ),
    "timeout is a transition": (
        {
            "s": run("e", done("ok"), failed("bad"), on("timeout", "t")),
            "t": run("b", done("ok")),
            "ok": OK,
            "bad": BAD,
        },
        ">: +e | e~: +b | b: ok",
    ),
    "a timeout nobody takes is a failure": (
        {"s": run("e", done("ok"), failed("t")), "t": run("b", done("ok")), "ok": OK},
        ">: +e | e~: +b | b: ok",
    ),
    "a timeout nobody takes fails the run": ({"s": run("e", done("ok")), "ok": OK}, ">: +e | e~: no"),
    "a failure nobody takes fails the run": ({"s": run("a", done("ok")), "ok": OK}, ">: +a | a!: no"),
    "set before the next state starts": (
        {
            "s": run("a", done("t", set={"x": "result.n"})),
            "t": run("b", done("ok", **{"if": "x == 4"}), done("bad")),
            "ok": OK,
            "bad": BAD,
        },
        ">: +a | a=4: +b | b: ok",
    ),
    "assignments see the values from before": (
        {
            "s": run("a", done("t", set={"x": "1", "y": "x"})),
            "t": run("b", done("ok", **{"if": "y == 0"}), done("bad")),
            "ok": OK,
            "bad": BAD,
        },
        ">: +a | a: +b | b: ok",
    ),
    "a self transition starts again": (
        {"s": run("a", done("s", **{"if": "result.n < 3"}), done("ok"), visits=5), "ok": OK},
        ">: +a | a=1: +a [s] | a=2: +a | a=3: ok",
    ),
    "visits are counted": (
        {"s": run("a", done("s", **{"if": "result.n < 3"}), done("ok"), visits=2), "ok": OK},
        ">: +a | a=1: +a | a=1: no",
    ),
    # eventless
    "an eventless transition passes through": (
        {"s": {"transitions": [{"to": "t"}]}, "t": run("a", done("ok")), "ok": OK},
        ">: +a [t] | a: ok",
    ),
    "eventless by guard": (
        {
            "s": run("a", done("p")),
            "p": {"transitions": [{"if": "x > 0", "to": "t"}, {"to": "ok"}]},
            "t": run("b", done("ok")),
            "ok": OK,
        },
        ">: +a | a: ok",
    ),
    "a state that is left at once starts nothing": (
        {"s": run("a", done("ok"), {"to": "t"}), "t": run("b", done("ok")), "ok": OK},
        ">: +b [t] | b: ok",
    ),
    # signals
    "a signal halts what runs": (
        {"s": run("a", done("ok"), on("stop", "t")), "t": run("b", done("ok")), "ok": OK},
        ">: +a | @stop: -a +b [t] | b: ok",
    ),
    "a signal nobody listens to": ({"s": run("a", done("ok")), "ok": OK}, ">: +a | @stop: [s] | a: ok"),
    "a signal's data in a guard": (
        {
            "s": run(
                "a",
                done("ok"),
                on("stop", "bad", **{"if": "event.data.n == 2"}),
                on("stop", "t", **{"if": "event.data.n == 1"}),
            ),
            "t": run("b", done("ok")),
            "ok": OK,
            "bad": BAD,
        },
        ">: +a | @stop: -a +b | b: ok",
    ),
    "task events cannot be signalled": (
        {"s": run("a", done("ok")), "ok": OK},
        ">: +a | @done: [s] | @failed: [s] | a: ok",
    ),
    "the inner state's transition wins": (
        {
            **WORK,
            "work": {"initial": "w1", "transitions": [done("ok"), on("stop", "bad")]},
            "w1": run("a", done("w2"), on("stop", "w2"), **{"in": "work"}),
            "bad": BAD,
        },
        ">: +a | @stop: -a +b [w2] | b: ok",
    ),
    "the outer state's transition otherwise": (
        {**WORK, "work": {"initial": "w1", "transitions": [done("ok"), on("stop", "bad")]}, "bad": BAD},
        ">: +a | @stop: -a no",
    ),
    "an inner guard that is false lets the outer one": (
        {
            **WORK,
            "work": {"initial": "w1", "transitions": [done("ok"), on("stop", "bad")]},
            "w1": run("a", done("w2"), on("stop", "w2", **{"if": "go"}), **{"in": "work"}),
            "bad": BAD,
        },
        ">: +a | @stop: -a no",
    ),
    # compound
    "a compound state is done with its final state": (WORK, ">: +a [w1] | a: +b [w2] | b: ok"),
    "an inner failure state fails the state around": (
        {
            **WORK,
            "work": {"initial": "w1", "transitions": [done("ok"), failed("t")]},
            "w_ok": {"in": "work", **BAD},
            "t": run("c", done("ok")),
        },
        ">: +a | a: +b | b: +c [t] | c: ok",
    ),
    "an inner failure state nobody takes fails the run": (
        {**WORK, "w_ok": {"in": "work", **BAD}},
        ">: +a | a: +b | b: no",
    ),
    "failed is seen by the states around": (
        {
            **WORK,
            "work": {"initial": "w1", "transitions": [done("ok"), failed("t")]},
            "t": run("c", done("ok")),
        },
        ">: +a | a!: +c [t] | c: ok",
    ),
    "done is not": ({**WORK, "w1": run("a", done("w2", **{"if": "go"}), **{"in": "work"})}, ">: +a | a: no"),
    "into the middle of a compound state": (
        {"s": run("d", done("w2"), failed("work")), **WORK},
        ">: +d | d: +b [w2] | b: ok",
    ),
    "from a compound state to its own inside": (
        {**WORK, "work": {"initial": "w1", "transitions": [done("ok"), on("again", "w1")], "visits": 3}},
        ">: +a | a: +b | @again: -b +a [w1] | a: +b | b: ok",
    ),
    # parallel
    "regions run at once and end together": (
        BOTH,
        ">: +a +b [l r] | a: +c [l2 r] | b: [l2 r_ok] | c: +d [after] | d: ok",
    ),
    "leaving a parallel state halts all its regions": (
        both(both={"regions": ["l", "r"], "transitions": [done("after"), on("stop", "after")]}),
        ">: +a +b | @stop: -a -b +d [after] | d: ok",
    ),
    "a transition out of one region leaves all": (
        both(l=run("a", done("after", **{"if": "result.ok"}), done("l2"), **{"in": "both"})),
        ">: +a +b | a: -b +d [after] | d: ok",
    ),
    "a transition into a region enters the others": (
        {"s": run("d", done("l2"), on("x", "both")), **BOTH},
        ">: +d | d: +c +b [l2 r] | c: | b: +d [after] | d: ok",
    ),
    "a signal that both regions take moves both": (
        both(
            l=run("a", done("l2"), on("go", "l2"), **{"in": "both"}),
            r=run("b", done("r_ok"), on("go", "r_ok"), **{"in": "both"}),
        ),
        ">: +a +b | @go: -a -b +c [l2 r_ok] | c: +d | d: ok",
    ),
    "of two that conflict the first region's wins": (
        both(
            l=run("a", done("l2"), on("go", "after"), **{"in": "both"}),
            r=run("b", done("r_ok"), on("go", "r_ok"), **{"in": "both"}),
        ),
        ">: +a +b | @go: -a -b +d [after] | d: ok",
    ),
    "an inner transition preempts the outer one of the same signal": (
        both(
            both={"regions": ["l", "r"], "transitions": [done("after"), on("go", "after")]},
            l=run("a", done("l2"), on("go", "l2"), **{"in": "both"}),
        ),
        ">: +a +b | @go: -a +c [l2 r] | b: [l2 r_ok] | c: +d | d: ok",
    ),
    "so does one of a later region": (
        both(
            both={"regions": ["l", "r"], "transitions": [done("after"), on("go", "after")]},
            r=run("b", done("r_ok"), on("go", "r_ok"), **{"in": "both"}),
        ),
        ">: +a +b | @go: -b [l r_ok] | a: +c | c: +d | d: ok",
    ),
    "from one region into another leaves and enters both": (
        both(
            both={"regions": ["l", "r"], "transitions": [done("after")], "visits": 2},
            l=run("a", done("l2"), on("go", "r_ok"), **{"in": "both"}),
        ),
        ">: +a +b | @go: -a -b +a [l r_ok] | a: +c | c: +d | d: ok",
    ),
    "what was done before it was left is not": (
        {
            "both": {"regions": ["work", "r"], "transitions": [done("ok")]},
            **{**WORK, "work": {"initial": "w1", "in": "both", "transitions": [done("after")]}},
            "r": run("c", done("r_ok"), **{"in": "both"}),
            "r_ok": {"in": "both.r", **OK},
            "after": run("d", done("ok")),
        },
        ">: +a +c | a: +b | c: | b: +d [after] | d: ok",
    ),
    "a region that fails fails the whole when all are final": (
        both(
            both={"regions": ["l", "r"], "transitions": [done("ok"), failed("after")]},
            r_ok={"in": "both.r", **BAD},
        ),
        ">: +a +b | b: [l r_ok] | a: +c | c: +d [after] | d: ok",
    ),
    "a failed task in a region nobody takes fails the run": (BOTH, ">: +a +b | a!: -b no"),
    "a compound region": (
        {
            "both": {"regions": ["work", "r"], "transitions": [done("ok")]},
            **{**WORK, "work": {"initial": "w1", "in": "both"}},
            "r": run("c", done("r_ok"), **{"in": "both"}),
            "r_ok": {"in": "both.r", **OK},
        },
        ">: +a +c [w1 r] | a: +b | b: [w_ok r] | c: ok",
    ),
    "regions in regions": (
        {
            "p": {"regions": ["q", "r"], "transitions": [done("ok")]},
            "q": {"regions": ["s", "t"], "in": "p"},
            "s": run("a", done("s_ok"), **{"in": "q"}),
            "s_ok": {"in": "q.s", **OK},
            "t": run("b", done("t_ok"), **{"in": "q"}),
            "t_ok": {"in": "q.t", **OK},
            "r": run("c", done("r_ok"), **{"in": "p"}),
            "r_ok": {"in": "p.r", **OK},
            "ok": OK,
        },
        ">: +a +b +c [s t r] | a: | c: | b: ok",
    ),
    "a region may wait for another": (
        both(
            l=run("a", done("hold"), **{"in": "both"}),
            hold={"in": "both.l", "transitions": [{"if": "x == 1", "to": "l2"}]},
            r=run("b", done("r_ok", set={"x": "1"}), **{"in": "both"}),
        ),
        ">: +a +b | a: [hold r] | b: +c [l2 r_ok] | c: +d | d: ok",
    ),
    "waiting for nobody is the end": (
        both(
            l=run("a", done("hold"), **{"in": "both"}),
            hold={"in": "both.l", "transitions": [{"if": "x == 1", "to": "l2"}]},
        ),
        ">: +a +b | a: [hold r] | b: no",
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_vector(name: str) -> None:
    states, script = VECTORS[name]
    play(machine(states), script)


ROOT = [on("cancel", "undo")]


@pytest.mark.parametrize(
    ("script", "transitions"),
    [
        (">: +a | @cancel: -a +c [undo] | c: no", ROOT),
        (">: +a | @cancel: -a +c | @cancel: -c +c | c: no", ROOT),
        (">: +a | a!: +c [undo] | c: no", [failed("undo", **{"if": "event.code == 'broken'"})]),
        (">: +a | a!: no", [failed("undo", **{"if": "event.code == 'other'"})]),
    ],
)
def test_root_transitions_come_last(script: str, transitions: list[Any]) -> None:
    states = {
        "s": run("a", done("ok")),
        "undo": run("c", done("bad"), failed("bad"), visits=5),
        "ok": OK,
        "bad": BAD,
    }
    play(machine(states, transitions=transitions), script)


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
