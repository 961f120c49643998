"""What is said against a plan that compiles: errors for what can never be right, warnings for what may not be meant."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core import tree as trees
from agentflow.core.review_handlers import ENDS
from agentflow.errors import Invalid
from agentflow.wire.document import check_document
from agentflow.wire.document_shape import Task

from .driving import Drive, document, machine, tree
from .test_fsm import BAD, BOTH, OK, WORK, done, failed, on, run
from .test_tree import par, seq

ASIDE = {"unused", "never_set"}
"""What is said of nearly every document under test, which declares more than it uses."""


def said(parts: Any, *, aside: set[str] = ASIDE) -> list[str]:
    """Everything said of a document, in words, an error with an exclamation mark before it."""
    try:
        found = check_document(parts).warnings
    except Invalid as refusal:
        return [f"!{problem}" for problem in refusal.problems]
    assert {problem.severity for problem in found} <= {"warning"}
    return [str(problem) for problem in found if problem.code not in aside]


def total(task: str, to: str, **more: Any) -> dict[str, Any]:
    """A state that takes whatever its task ends with."""
    return run(task, done(to), failed(to), **more)


STATES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "everything is handled": ({"s": total("a", "ok"), "ok": OK}, []),
    # handlers
    "nothing takes failed": (
        {"s": run("a", done("ok")), "ok": OK},
        ["states.s: when task 'a' fails, no transition takes it and the run ends (add one with event: failed, here"],
    ),
    "failed, but only sometimes": (
        {"s": run("a", done("ok"), failed("ok", **{"if": "go"})), "ok": OK},
        ["states.s: when task 'a' fails and no condition of the transitions for that holds, the run ends"],
    ),
    "failed is taken around it": (
        {**WORK, "work": {"initial": "w1", "transitions": [done("ok"), failed("ok")]}},
        [],
    ),
    "done, but only sometimes": (
        {"s": run("a", done("ok", **{"if": "result.ok"}), failed("ok")), "ok": OK},
        ["states.s: when task 'a' is done and no condition of the transitions for that holds, the run ends"],
    ),
    "done is not taken around it": (
        {
            **WORK,
            "work": {"initial": "w1", "transitions": [done("ok"), failed("ok")]},
            "w1": run("a", done("w2", **{"if": "go"}), **{"in": "work"}),
        },
        ["states.w1: when task 'a' is done and no condition of the transitions for that holds, the run ends"],
    ),
    "sometimes, and then it waits": (
        {"s": run("a", done("ok", **{"if": "go"}), failed("ok"), on("stop", "ok")), "ok": OK},
        ["states.s: when task 'a' is done and no condition of the transitions for that holds, it stays until another"],
    ),
    "sometimes, in a region": (
        {
            **BOTH,
            "both": {"regions": ["l", "r"], "transitions": [done("after"), failed("after")]},
            "l": run("a", done("l2", **{"if": "go"}), **{"in": "both"}),
            "after": total("d", "ok"),
        },
        ["states.l: when task 'a' is done and no condition of the transitions for that holds, it stays until another"],
    ),
    "always true is no condition": (
        {"s": run("a", done("ok", **{"if": "true"}), failed("ok", **{"if": "1 < 2"})), "ok": OK},
        [],
    ),
    "an event that does not come": (
        {"s": run("e", done("ok")), "ok": OK},
        ["states.s: when task 'e' times out, no transition takes it and the run ends"],
    ),
    "a timeout is a failure, too": ({"s": run("e", done("ok"), failed("ok")), "ok": OK}, []),
    "an inner failure nobody takes": (
        {"w": {"initial": "w1", "transitions": [done("ok")]},
         "w1": run("a", done("w_ok"), failed("w_bad"), **{"in": "w"}),
         "w_ok": {"in": "w", **OK}, "w_bad": {"in": "w", **BAD}, "ok": OK},
        ["states.w: when 'w' fails (an inner state is a failure), no transition takes it and the run ends"],
    ),
    "a region's failure is the parallel state's": (
        {**BOTH, "l": total("a", "l_ok", **{"in": "both"}), "r": total("b", "r_ok", **{"in": "both"}),
         "l2": total("c", "l_ok", **{"in": "both.l"}), "after": total("d", "ok"), "l_ok": {"in": "both.l", **BAD},
         "both": {"regions": ["l", "r"], "visits": 2, "transitions": [done("after"), on("x", "l2")]}},
        ["states.both.transitions[0]: is never taken: what is inside 'both' never ends well, so it is never done",
         "states.both: when 'both' fails (an inner state is a failure), no transition takes it and the run ends"],
    ),
    "the end of a region needs no transition": (
        {"p": {"regions": ["w", "r"], "transitions": [done("ok"), failed("ok")]},
         "w": {"in": "p", "initial": "w1"}, "w1": total("a", "w_ok", **{"in": "w"}), "w_ok": {"in": "w", **OK},
         "r": total("b", "r_ok", **{"in": "p"}), "r_ok": {"in": "p.r", **BAD}, "ok": OK},
        ["states.p.transitions[0]: is never taken: what is inside 'p' never ends well"],
    ),
    "done, and something else may lead on": (
        {"w": {"initial": "w1", "transitions": [{"if": "go", "to": "ok"}]}, "w1": total("a", "w_ok", **{"in": "w"}),
         "w_ok": {"in": "w", **OK}, "ok": OK},
        ["states.w: when 'w' is done, no transition takes it and it stays until another transition leads out"],
    ),
    # shadows
    "behind one without a condition": (
        {"s": run("a", done("ok"), done("bad", **{"if": "go"}), failed("bad")), "ok": OK, "bad": BAD},
        ["!states.s.transitions[1]: is never taken: states.s.transitions[0] comes before it and has no condition"],
    ),
    "behind one that always holds": (
        {"s": run("a", done("ok", **{"if": "true"}), done("bad"), failed("bad")), "ok": OK, "bad": BAD},
        ["!states.s.transitions[1]: is never taken: states.s.transitions[0] comes before it and always holds"],
    ),
    "the same condition twice": (
        {"s": run("a", done("ok", **{"if": "go"}), done("bad", **{"if": "go"}), done("ok"), failed("ok")),
         "ok": OK, "bad": BAD},
        ["!states.s.transitions[1]: is never taken: states.s.transitions[0] comes before it and has the same"],
    ),
    "any before a name": (
        {"s": total("a", "ok") | {"transitions": [done("ok"), failed("ok"), on("*", "ok"), on("go", "bad")]},
         "ok": OK, "bad": BAD},
        ["!states.s.transitions[3]: is never taken: states.s.transitions[2] comes before it and has no condition"],
    ),
    "any behind a name takes the rest": (
        {"s": total("a", "ok") | {"transitions": [done("ok"), failed("ok"), on("go", "bad"), on("*", "ok")]},
         "ok": OK, "bad": BAD},
        [],
    ),
    "any does not take what a task ends with": (
        {"s": run("a", on("*", "bad"), done("ok"), failed("ok")), "ok": OK, "bad": BAD},
        [],
    ),
    "one for each event": (
        {"s": run("a", done("ok"), failed("ok"), on("go", "bad"), on("stop", "bad")), "ok": OK, "bad": BAD},
        [],
    ),
    "two ways at once": (
        {"s": {"transitions": [{"to": "ok"}, {"if": "go", "to": "bad"}]}, "ok": OK, "bad": BAD},
        ["!states.s.transitions[1]: is never taken: states.s.transitions[0] comes before it"],
    ),
    "later than what leaves the state": (
        {"s": {"transitions": [{"after": "5s", "to": "ok"}, {"after": "1m", "to": "bad"}]}, "ok": OK, "bad": BAD},
        ["!states.s.transitions[1]: is never taken: the state is left before, by states.s.transitions[0]"],
    ),
    "later than what stays": (
        {"s": {"transitions": [{"after": "5s", "set": {"x": "1"}}, {"after": "1m", "to": "ok"}]}, "ok": OK},
        [],
    ),
    "later than what may leave it": (
        {"s": {"transitions": [{"after": "5s", "if": "go", "to": "bad"}, {"after": "1m", "to": "ok"}]},
         "ok": OK, "bad": BAD},
        [],
    ),
    # never taken
    "an inner one always takes it": (
        {"w": {"initial": "w1", "transitions": [on("stop", "bad"), done("ok")]},
         "w1": run("a", done("w2"), failed("w2"), on("stop", "ok"), **{"in": "w"}),
         "w2": run("a", done("w_ok"), failed("w_ok"), on("*", "ok"), **{"in": "w"}),
         "w_ok": {"in": "w", **OK}, "ok": OK, "bad": BAD},
        ["states.w.transitions[0]: is never taken: an inner state always takes it"],
    ),
    "but not everywhere": (
        {"w": {"initial": "w1", "transitions": [on("stop", "bad"), done("ok")]},
         "w1": run("a", done("w2"), failed("w2"), on("stop", "ok"), **{"in": "w"}),
         "w2": run("a", done("w_ok"), failed("w_ok"), **{"in": "w"}),
         "w_ok": {"in": "w", **OK}, "ok": OK, "bad": BAD},
        [],
    ),
    "but not where it is raised": (
        {"w": {"initial": "w1", "transitions": [on("stop", "bad"), done("ok")]},
         "w1": run("a", done("w_ok", **{"raise": "stop"}), failed("w_ok"), on("stop", "ok"), **{"in": "w"}),
         "w_ok": {"in": "w", **OK}, "ok": OK, "bad": BAD},
        [],
    ),
    "an inner one always takes failed": (
        {"w": {"initial": "w1", "transitions": [failed("bad"), done("ok")]},
         "w1": total("a", "w_ok", **{"in": "w"}), "w_ok": {"in": "w", **OK}, "ok": OK, "bad": BAD},
        ["states.w.transitions[0]: is never taken: an inner state always takes it"],
    ),
    "done where nothing inside is final": (
        {"w": {"initial": "w1", "transitions": [failed("ok"), done("ok")]},
         "w1": run("a", done("ok"), **{"in": "w"}), "ok": OK},
        ["states.w.transitions[1]: is never taken: what is inside 'w' never ends well, so it is never done"],
    ),
    "a condition that is always false": (
        {"s": run("a", done("bad", **{"if": "false"}), done("ok"), failed("ok")), "ok": OK, "bad": BAD},
        ["states.s.transitions[0]: is never taken: its condition is always false"],
    ),
    "an event that is raised again by taking it": (
        {"s": {"transitions": [{"event": "go", "raise": "go"}, {"event": "stop", "to": "ok"}]}, "ok": OK},
        ["!states.s.transitions[0]: raises the event that it takes, without end (go → go) (give it a condition"],
    ),
    "two that raise each other, one of them around": (
        {"w": {"initial": "s", "transitions": [{"event": "b", "raise": "a"}, {"event": "stop", "to": "ok"}]},
         "s": {"in": "w", "transitions": [{"event": "a", "raise": ["b"]}]}, "ok": OK},
        ["!states.s.transitions[0]: raises the event that it takes, without end (a → b → a)"],
    ),
    "a condition is a way to count": (
        {"s": {"transitions": [{"event": "go", "if": "x < 5", "set": {"x": "x + 1"}, "raise": "go"},
                               {"event": "stop", "to": "ok"}]}, "ok": OK},
        [],
    ),
    "one that also raises what leads out": (
        {"s": {"transitions": [{"event": "go", "raise": ["go", "stop"]}, {"event": "stop", "to": "ok"}]}, "ok": OK},
        [],
    ),
    "another region leaves for it": (
        {"w": {"regions": ["x", "y"], "transitions": [{"event": "done", "to": "ok"}]}, "x": {"in": "w", "initial": "s"},
         "s": {"in": "x", "transitions": [{"event": "go", "raise": "go"}]},
         "y": {"in": "w", "initial": "t"}, "t": {"in": "y", "transitions": [{"event": "go", "to": "u"}]},
         "u": {"in": "y", "transitions": [{"event": "go", "to": "ok"}]}, "ok": OK},
        ["states.w.transitions[0]: is never taken: what is inside 'w' never ends well"],
    ),
    "a task that never starts": (
        {"s": run("a", done("ok"), failed("ok"), {"to": "t"}), "t": total("b", "ok"), "ok": OK},
        ["states.s.run: task 'a' never starts: 's' is left as soon as it is entered"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_machines(name: str) -> None:
    states, expected = STATES[name]
    found = said(machine(states))
    assert len(found) == len(expected), found
    for got, wanted in zip(found, expected, strict=True):
        assert got.startswith(wanted), found


def test_what_is_said_to_follow_follows() -> None:
    """Each of the words above, played."""
    for how, states in (("a!", run("a", done("ok"))), ("a", run("a", done("ok", **{"if": "go"}), failed("ok")))):
        drive = Drive(machine({"s": states, "ok": OK}))
        drive.begin()
        assert drive.happen(how) == ["no"]
    waits = Drive(machine({"s": run("a", done("ok", **{"if": "go"}), failed("ok"), on("stop", "ok")), "ok": OK}))
    waits.begin()
    assert waits.happen("a") == []
    assert waits.happen("@stop") == ["ok"]


NODES: dict[str, tuple[Any, list[str]]] = {
    "nothing to say": (seq("a", {"check": "go"}, {"fallback": ["b", {"type": "succeed"}]}), []),
    "after what always succeeds": (
        {"fallback": ["a", {"force": "b", "as": "success"}, "c"]},
        ["root.fallback[2]: never runs: what comes before it always succeeds, which ends the fallback"],
    ),
    "forced to fail in a sequence": (
        seq("a", {"force": "b", "as": "failure"}, "c"),
        ["root.sequence[2]: never runs: what comes before it always fails, which ends the sequence"],
    ),
    "what may be skipped may be passed over": (
        {"fallback": [{"sequence": [{"type": "succeed"}], "skip_if": "go"}, "c"]},
        [],
    ),
    "what may fail before": ({"fallback": [{"sequence": [{"type": "succeed"}], "fail_if": "go"}, "c"]}, []),
    "a wait always succeeds": (
        {"fallback": ["w", "c"]},
        ["root.fallback[1]: never runs: what comes before it always succeeds"],
    ),
    "a wait that is judged": ({"fallback": [{"task": "w", "ok_if": "go"}, "c"]}, []),
    "a wait with a time limit": ({"fallback": [{"timeout": "5s", "child": "w"}, "c"]}, []),
    "inverted": (
        seq({"invert": {"type": "succeed"}}, "c"),
        ["root.sequence[1]: never runs: what comes before it always fails"],
    ),
    "a condition that is none": (
        {"if": "true", "then": "a", "else": "b"},
        ["root.else: never runs: the condition always succeeds"],
    ),
    "the other way round": (
        {"if": "false", "then": "a", "else": "b"},
        ["root.then: never runs: the condition always fails"],
    ),
    "a switch over nothing": (
        {"switch": "1 + 1", "cases": {"2": "a", "3": "b"}},
        ["root.switch: is constant: the same case is taken each time"],
    ),
    "a node that is always skipped": (
        seq("a", {"task": "b", "skip_if": True}),
        ["root.sequence[1].skip_if: the node never runs: skip_if is always true"],
    ),
    "a node whose while is never": (
        seq("a", {"sequence": ["b"], "while": "false"}),
        ["root.sequence[1].while: the node never runs: while is always false"],
    ),
    "a parallel may end in any way": (
        {"fallback": [par({"type": "succeed"}, {"type": "succeed"}), "c"]},
        [],
    ),
    "rounds in which nothing takes time": (
        seq({"repeat": {"retry": {"check": "x < 1"}, "max": 200}, "max": 200}, "a"),
        ["root.sequence[0]: nothing in it takes time, and it may tick 40,201 nodes at once: a run ends at 20,000"],
    ),
    "few of them": (seq({"repeat": {"retry": {"check": "x < 1"}, "max": 100}, "max": 90}, "a"), []),
    "rounds with a pause": (
        seq({"repeat": {"retry": {"delay": "1s", "child": {"check": "x < 1"}}, "max": 200}, "max": 200}, "a"), [],
    ),
    "a map over more than there are steps": (
        {"map": "b", "over": "xs", "max": 500},
        ["root.max: is 500, but a run starts 100 steps at most (limits.steps) (raise limits.steps, or lower it)"],
    ),
    "more steps than there are": (
        {"repeat": seq("a", "b"), "max": 51},
        ["limits.steps: is 100, but a run may start 102 steps (102): it ends with `limits.steps` before it is through "
         "(raise it to 102, or bound the plan closer)"],
    ),
    "just as many": ({"repeat": seq("a", "b"), "max": 50}, []),
}  # fmt: skip


@pytest.mark.parametrize("name", NODES)
def test_trees(name: str) -> None:
    root, expected = NODES[name]
    tasks = {**document()["tasks"], "w": {"kind": "wait", "for": "1s"}}
    found = said(tree(root, tasks=tasks))
    assert len(found) == len(expected), found
    for got, wanted in zip(found, expected, strict=True):
        assert got.startswith(wanted), found


def test_a_way_that_is_said_to_be_dead_is_not_ticked() -> None:
    dead = {"after what always succeeds": "c", "inverted": "c", "the other way round": "a"}
    for name, task in dead.items():
        drive = Drive(tree(NODES[name][0]))
        said = drive.begin()
        while drive.running:
            said += drive.fail(min(drive.running))
        assert f"+{task}" not in said and drive.finish


def test_names_that_say_nothing() -> None:
    parts = tree(
        seq({"task": "a", "set": {"n": "result.n", "m": "1"}}, {"check": "limit > n"}),
        input={"who": "string"},
        vars={"n": "int", "m": "int", "limit": "int", "idle": "int"},
        tasks={**document()["tasks"]} | {"b": {"kind": "tool", "use": "mine"}},
        tools={name: {"kind": "python", "code": "def run(): return {}"} for name in ("mine", "yours")},
        output={"n": "n"},
    )
    found = [line for line in said(parts, aside=set()) if not line.startswith("tasks.")]
    assert found == [
        "tools.yours: no task uses the tool 'yours' (use it, or remove it)",
        "input.who: nothing reads the input 'who' (use it, or remove it)",
        "vars.idle: nothing sets or reads the variable 'idle' (use it, or remove it)",
        "vars.limit: 'limit' is read and never set: it is what the run's input says, else zero "
        "(set it somewhere, or declare it under `input`)",
        "vars.m: nothing reads the variable 'm' (use it, or remove it)",
    ]
    tasks = [line.split(":")[0] for line in said(parts, aside=set()) if line.startswith("tasks.")]
    assert tasks == [f"tasks.{name}" for name in "bcdef"]


def test_what_another_task_names_is_used() -> None:
    echo = {"kind": "tool", "use": "std.echo"}
    tasks = {"pay": {**echo, "undo": "refund"}, "refund": echo, "back": {"kind": "compensate"}}
    parts = tree({"fallback": ["pay", "back"]}, tasks=tasks, vars={})
    assert said(parts, aside=set()) == []


def test_what_is_set_is_the_result_where_no_output_says_otherwise() -> None:
    parts = tree({"task": "a", "set": {"n": "result.n"}}, vars={"n": "int"})
    assert [line for line in said(parts, aside=set()) if line.startswith("vars")] == []


def test_every_kind_of_task_has_its_ends() -> None:
    kinds = {name for shape in Task.__args__[0].__args__ for name in shape.model_fields["kind"].annotation.__args__}
    assert kinds <= ENDS.keys()


def test_every_kind_of_node_has_its_worst_case() -> None:
    from agentflow.core.worst import KINDS

    assert trees.BEHAVIOUR.keys() <= KINDS


@pytest.mark.parametrize(
    ("declared", "fits"),
    [({}, True), ({"reason": "string"}, True), ({"why": "string"}, False), ({"reason": "json"}, False)],
)
def test_what_cancelling_sends_cannot_be_declared_otherwise(declared: dict[str, str], fits: bool) -> None:
    """Declared otherwise the machine would not hear that it is to be cancelled, and be halted at once."""
    states = {"s": {"transitions": [{"event": "cancel", "to": "ok"}]}, "ok": OK}
    found = [each for each in said(machine(states, events={"cancel": declared})) if each.startswith("!events.cancel")]
    assert bool(found) != fits, found


def test_what_is_ours_in_the_machine_of_a_goal_is_not_held_against_its_author() -> None:
    tasks = {"find": {"kind": "tool", "use": "std.echo", "in": {"topic": "topic"}, "out": {"facts": "string"}}}
    goal = {
        "agentflow": "plan/v1", "name": "brief", "limits": {"steps": 20, "usd": 1}, "input": {"topic": "string"},
        "vars": {"facts": "string"}, "tasks": tasks,
        "plan": {"goal": "Find out about {topic}.", "use": "small", "usd": 0.2},
    }  # fmt: skip
    assert said(goal) == []
