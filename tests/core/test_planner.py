"""What holds for every plan: the planner's promises under any order of events, and what enters a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core import worst
from agentflow.core.plan import Plan
from agentflow.core.planner import (
    Begin,
    Completed,
    Elapsed,
    Failed,
    PlanState,
    Signal,
    TimedOut,
    advance,
    check_input,
    match_event,
    match_trigger,
)
from agentflow.errors import Invalid
from agentflow.wire.document import compile_document

from .driving import Drive, document, machine, plain, tree
from .test_fsm import BOTH, OK, WORK, done, failed, on, run

FEW = settings(max_examples=40)

# ------------------------------------------------------------------------------------------------ random plans

guards = st.sampled_from(["go", "!go", "x > 1", "y == 0", "x < 3 && !go"])
asked = st.one_of(guards, st.just("6 / (x - 2) > 1"))  # one that may have no value
sets = st.sampled_from(
    [{"go": "!go"}, {"x": "x + 1"}, {"y": "result.n"}, {"go": "result.ok", "x": "x + result.n"}]
)


def _tasks(draw: st.DrawFn) -> dict[str, Any]:
    node: dict[str, Any] = {"type": "task", "task": draw(st.sampled_from("abce"))}
    if node["task"] != "e" and draw(st.booleans()):
        node["set"] = draw(sets)
    for key in ("fail_if", "skip_if", "ok_if"):
        if draw(st.integers(0, 5)) == 0:
            node[key] = draw(asked)
    return node


leaves: st.SearchStrategy[Any] = st.one_of(
    st.composite(_tasks)(),
    st.composite(_tasks)(),
    asked.map(lambda guard: {"check": guard}),
    st.sampled_from([{"type": "succeed"}, {"type": "fail"}]),
)


def _above(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(children, min_size=1, max_size=4)
    return st.one_of(
        st.builds(lambda c, r: {"type": "sequence", "children": c, "reactive": r}, several, st.booleans()),
        st.builds(lambda c, r: {"type": "fallback", "children": c, "reactive": r}, several, st.booleans()),
        st.builds(
            lambda c, n, f: {"parallel": c, "need": min(n, len(c)), "fail_at": min(f, len(c))},
            several,
            st.integers(1, 4),
            st.integers(1, 4),
        ),
        st.builds(lambda c, n: {"retry": c, "max": n}, children, st.integers(1, 3)),
        st.builds(lambda c, n: {"repeat": c, "max": n}, children, st.integers(1, 3)),
        st.builds(lambda c, n: {"keep": c, "max": n}, children, st.integers(1, 3)),
        st.builds(lambda c: {"sequence": c, "memory": True}, several),
        st.builds(lambda c, d: {"try": c, "catch": d}, several, children),
        st.builds(lambda c, d: {"try": c, "catch": d}, several, children),
        st.builds(
            lambda c, share: {"subtree": c, "in": {"y": "y + 1"}, "share": share},
            children,
            st.sampled_from([{}, {"x": "x"}, {"x": "y"}, {"go": "go"}, {"x": "x", "go": "go"}, {"x": "y", "go": "go"}]),
        ),
        st.builds(lambda c: {"invert": c}, children),
        st.builds(lambda c, t: {"once": c, "then": t}, children, st.sampled_from(["skip", "same"])),
        st.builds(lambda c: {"delay": "30ms", "child": c}, children),
        st.builds(lambda c: {"timeout": "50ms", "child": c}, children),
        st.builds(lambda g, c, d: {"if": g, "then": c, "else": d}, asked, children, children),
        st.builds(lambda g, c, d: {"while": g, "do": c, "else": d}, asked, children, children),
        st.builds(lambda c, d: {"switch": "x", "cases": {"0": c, "1": d}, "default": c}, children, children),
        st.builds(
            lambda c, key, g: {"sequence": [c], key: g},
            children,
            st.sampled_from(["fail_if", "success_if", "skip_if", "while"]),
            asked,
        ),
        st.builds(
            lambda c, key, s: {"fallback": [c], key: s},
            children,
            st.sampled_from(["on_success", "on_failure", "on_halt", "post"]),
            st.sampled_from([{"go": "!go"}, {"x": "x + 1"}, {"y": "x", "go": "x > y"}]),
        ),
        st.builds(lambda c, f: {"parallel": c, "wait": "all", "fail_at": -f}, several, st.just(1)),
        st.builds(lambda c, w: {"force": c, "as": w}, children, st.sampled_from(["success", "failure"])),
        st.builds(
            lambda c, n, f: {"map": c, "over": "['p', 'q', 'r']", "max": 3, "concurrency": n, "fail_at": f},
            children,
            st.integers(1, 3),
            st.integers(1, 3),
        ),
    )


trees = st.recursive(leaves, _above, max_leaves=10)


def _lifted(node: Any, found: dict[str, Any]) -> Any:
    """The node with a name for each subtree that stands in it, which is put into ``found``."""
    if isinstance(node, list):
        return [_lifted(child, found) for child in node]
    if not isinstance(node, dict):
        return node
    node = {key: _lifted(value, found) for key, value in node.items()}
    if "subtree" in node:
        name = f"t{len(found)}"
        found[name] = {"vars": {"x": "int", "y": "int", "go": "bool"}, "root": node["subtree"]}
        node["subtree"] = name
    return node


def random_tree(root: Any, steps: int) -> Plan:
    """The plan of a random tree."""
    return compile_document(random_document(root, steps))


def random_document(root: Any, steps: int) -> dict[str, Any]:
    """The document of a random tree. Two tasks read a variable."""
    found: dict[str, Any] = {}
    root = _lifted(root, found)
    tasks = _without_item()
    tasks |= {name: {**tasks[name], "in": {"x": "x", "go": "go"}} for name in "bc"}
    return tree(root, limits={"steps": steps}, tasks=tasks, trees=found)


def _adorn(draw: st.DrawFn, entry: dict[str, Any]) -> dict[str, Any]:
    """Sometimes it raises an event."""
    if draw(st.integers(0, 5)) == 0:
        entry["raise"] = draw(st.sampled_from(["one", "two", ["one", "two"]]))
    return entry


@st.composite
def machines(draw: st.DrawFn) -> dict[str, Any]:
    """Machines of two compound states and a parallel one with random ways between them; some do not compile."""
    inside = {"w": ["w1", "w2"], "v": ["v1", "v2"], "l": ["l1", "l2"], "r": ["r1", "r2"]}
    places = {"w": "w", "v": "v", "l": "l", "r": "r"}
    everywhere = [name for names in inside.values() for name in names] + ["w", "v", "p", "ok"]
    everywhere += ["w_was", "v_was", "p_was", "l_was"]
    states: dict[str, Any] = {
        "w": {"initial": "w1"},
        "v": {"initial": "v1", "visits": 10},
        "p": {"regions": ["l", "r"], "visits": 6},
        "l": {"in": "p", "initial": "l1"},
        "r": {"in": "p", "initial": "r1"},
        "ok": OK,
        "bad": {"final": "failure"},
    }
    for parent, names in inside.items():
        for name in names:
            states[name] = {
                "in": places[parent],
                "run": draw(st.sampled_from("abc")),
                "visits": draw(st.integers(3, 12)),
            }
        states[parent + "_end"] = {
            "in": places[parent],
            "final": draw(st.sampled_from(["success", "success", "failure"])),
        }
    for state in states.values():
        if "final" in state:
            continue
        transitions = []
        for event in ("done", "failed", "ping", "pong"):
            for _ in range(draw(st.integers(1 if event in ("done", "failed") else 0, 2))):
                targets = everywhere + [n for n in states if n.endswith("_end")] * 2
                transition = {"event": event, "to": draw(st.sampled_from(targets))}
                if event == "done" and "run" in state and draw(st.booleans()):
                    transition["set"] = draw(sets)
                if draw(st.integers(0, 3)) == 0:
                    transition["if"] = draw(guards)
                _adorn(draw, transition)
                transitions.append(transition)
        if draw(st.integers(0, 3)) == 0:
            transitions.append(
                {"after": draw(st.sampled_from(["5ms", "70ms"])), "to": draw(st.sampled_from(everywhere))}
            )
        if draw(st.integers(0, 3)) == 0:
            transitions.append(
                _adorn(draw, {"event": draw(st.sampled_from(["one", "two", "*"])), "set": {"x": "x + 1"}})
            )
        for key in ("entry", "exit"):
            if draw(st.integers(0, 4)) == 0:
                state[key] = _adorn(draw, {"set": {"y": "y + 1"}})
        state["transitions"] = transitions
    for around, way in (("w", "shallow"), ("v", "deep"), ("p", "deep"), ("l", "shallow")):
        states[f"{around}_was"] = {
            "in": around,
            "history": way,
            "to": {"w": "w2", "v": "v1", "p": "r2", "l": "l1"}[around],
        }
    states["s"] = run(
        "a", *[done(t, **{"if": g}) for t, g in (("w", "x == 0"), ("v", "go"), ("bad", "go"), ("p", "true"))]
    )
    return machine(
        states, initial="s", transitions=draw(st.sampled_from([[], [on("ping", "bad")], [failed("v")]]))
    )


# ------------------------------------------------------------------------------------------------ random events

moves = st.lists(st.tuples(st.integers(0, 11), st.integers(0, 50)), min_size=12, max_size=60)


def play_random(plan: Plan, script: list[tuple[int, int]], *, copied: bool) -> list[Any]:
    """One run under a script of (what, which); every event also comes late and twice. The log of all commands.

    ``Drive`` checks what holds after every advance.
    """
    drive = Drive(plan, copied=copied)
    drive.begin()
    ended: list[int] = []
    for what, which in script:
        if drive.finish is not None:
            break
        steps = sorted(drive.running)
        if not steps or (what == 11 and drive.timers and which % 3 == 0):
            if drive.timers:
                timer = min(drive.timers)
                drive.timers.pop(timer)
                drive.tell(Elapsed(timer))
                late = drive.state
                assert drive.tell(Elapsed(timer)) == [], "a late timer had an effect"
                assert plain(drive.state) == plain(late), "a late timer changed the state"
            else:
                drive.tell(Signal(["ping", "pong"][which % 2]))
            continue
        step = steps[which % len(steps)]
        if what < 9:
            drive.done(step, n=which % 4, ok=what > 0)
        elif what == 9:
            drive.fail(step)
        elif what == 10:
            del drive.running[step]
            drive.tell(TimedOut(step))
        else:
            drive.tell(Signal(["ping", "pong", "cancel"][which % 3]))
            continue
        ended.append(step)
        state = drive.state
        for event in (Completed(ended[which % len(ended)], {"n": 9, "ok": True}), Failed(step, "late", "")):
            assert drive.tell(event) == [], "a late event had an effect"
            assert plain(drive.state) == plain(state), "a late event changed the state"
    return [*drive.history, plain(drive.state)]


@given(trees, moves)
@FEW
def test_trees_keep_the_promises(root: Any, script: list[tuple[int, int]]) -> None:
    plan = random_tree(root, 40)
    assert play_random(plan, script, copied=True) == play_random(plan, script, copied=False)


def _without_item() -> dict[str, Any]:
    tasks: dict[str, Any] = document()["tasks"]
    return tasks


def compiled(parts: Any) -> Plan | None:
    """The plan, None for one that is refused for what random plans often are."""
    try:
        return compile_document(parts)
    except Invalid as refusal:
        found = {problem.code for problem in refusal.problems}
    assert found <= {"unreachable", "dead_end", "unbounded_cycle", "unheard"}
    return None


@given(machines(), moves)
@FEW
def test_machines_keep_the_promises(parts: Any, script: list[tuple[int, int]]) -> None:
    for state in parts["states"].values():  # so that few are refused as unreachable
        if not {"final", "history"} & state.keys():
            state.setdefault("transitions", []).append(on("never", "bad"))
    parts["transitions"] = [
        *parts["transitions"],
        *(on("other", name) for name in parts["states"] if "." not in name),
    ]
    plan = compiled(parts)
    if plan is not None:
        assert play_random(plan, script, copied=True) == play_random(plan, script, copied=False)


@given(trees, moves)
@FEW
def test_a_tree_starts_no_more_steps_than_its_worst_case(root: Any, script: list[tuple[int, int]]) -> None:
    plan = random_tree(root, 1000)
    _, _, steps = play_random(plan, script, copied=False)[-1]
    assert steps <= worst.steps(plan).at({})


@given(machines(), moves)
@FEW
def test_a_machine_starts_no_more_steps_than_its_worst_case(parts: Any, script: list[tuple[int, int]]) -> None:
    plan = compiled({**parts, "limits": {"steps": 1000}})
    if plan is not None:
        _, _, steps = play_random(plan, script, copied=False)[-1]
        assert steps <= worst.steps(plan).at({})


# -------------------------------------------------------------------------------------------------- determinism

PROGRAM = """
import json, sys
from agentflow.core.planner import Begin, Completed, Start, advance
from agentflow.wire.document import compile_document
log = []
for document in json.loads(sys.stdin.read()):
    plan = compile_document(document)
    moved, waiting = advance(plan, None, Begin({})), []
    while True:
        log.append([moved.state.vars, moved.state.cursor, repr(moved.commands)])
        waiting += [c.step for c in moved.commands if isinstance(c, Start)]
        if not waiting or moved.state.ended:
            break
        step = waiting.pop(len(waiting) // 2)
        moved = advance(plan, moved.state, Completed(step, {"n": step, "ok": step % 3 > 0}))
    log.append(plan.hash)
print(json.dumps(log, default=lambda table: dict(sorted(table.items()))))  # the rest in its own order
"""


def test_every_process_decides_alike() -> None:
    spread = {"q": "{'b': 1, 'a': 2, 'c': 3}", "x": "result.n"}
    tasks = {
        **_without_item(),
        "a": {
            "kind": "tool",
            "use": "std.echo",
            "in": spread | {"x": "x"},
            "out": {"n": "int", "ok": "bool"},
        },
    }
    root = {
        "repeat": {
            "parallel": [
                {"task": "a", "set": {"j": spread["q"], "x": "x + 1"}},
                {"map": "b", "over": "['p', 'q']", "max": 2},
            ]
        },
        "max": 3,
    }
    halted = {"map": {"task": "b", "on_halt": {"x": "x * 10 + item"}}, "over": "[1, 2, 3, 4, 5]", "max": 5}
    caught = {"try": ["a", "b"], "catch": {"task": "c", "set": {"y": "y * 10 + x"}}}
    each = {"map": {"subtree": "t", "in": {"x": "item"}, "share": {"y": "y"}}, "over": "[1, 2, 3, 4, 5]", "max": 5}
    raced = {"sequence": [{"parallel": [halted, "d"], "need": 1}, {"parallel": [each, "d"], "need": 1}, "e"]}
    trees = {"t": {"vars": {"x": "int", "y": "int"}, "root": caught}}
    documents = [tree(root, tasks=tasks), machine(BOTH), machine(WORK)]
    documents.append(tree(raced, tasks=_without_item(), trees=trees))
    answers = set()
    for seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        answer = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            input=json.dumps(documents),
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        answers.add(answer.stdout)
    assert len(answers) == 1
    assert len(json.loads(answers.pop())) > 20


# ------------------------------------------------------------------------------------------------- begin and end


def test_a_run_begins_with_begin() -> None:
    plan = compile_document(tree("a"))
    with pytest.raises(ValueError, match="begins with Begin"):
        advance(plan, None, Completed(1, {}))


def test_after_the_end_nothing_has_an_effect() -> None:
    drive = Drive(tree("a"))
    drive.begin()
    drive.done(1)
    state = drive.state
    for event in (Begin({}), Completed(1, {}), Failed(1, "x", ""), TimedOut(1), Signal("x")):
        moved = advance(drive.plan, state, event)
        assert (moved.state, moved.commands) == (state, ())


def test_inputs_and_variables_start_as_told() -> None:
    plan = compile_document(
        tree("a", input={"who": "string", "price": "double"}, vars={"n": "int", "m": "map(int)"})
    )
    moved = advance(plan, None, Begin({"who": "me", "price": 3, "n": 4}))
    assert moved.state.vars == {"who": "me", "price": 3.0, "n": 4, "m": {}}
    assert isinstance(moved.state.vars["price"], float)


def test_the_output_is_all_vars_and_no_inputs() -> None:
    drive = Drive(tree({"task": "a", "set": {"n": "result.n"}}, input={"who": "string"}, vars={"n": "int"}))
    drive.begin(who="me")
    drive.done(1, n=5)
    assert drive.finish is not None
    assert drive.finish.output == {"n": 5}


def test_the_output_is_what_the_plan_says() -> None:
    drive = Drive(tree("a", input={"who": "string"}, output={"hello": "'hello ' + who"}))
    drive.begin(who="me")
    drive.done(1)
    assert drive.finish is not None
    assert drive.finish.output == {"hello": "hello me"}


def test_an_output_that_cannot_be_given_fails_the_run() -> None:
    drive = Drive(tree("a", output={"part": "1 / x"}))
    drive.begin()
    assert drive.done(1) == ["no"]
    assert drive.finish is not None
    assert drive.finish.reason == "output.part: `1 / x`: divide by zero"


def test_untouched_variables_are_the_same_object() -> None:
    plan = compile_document(tree({"sequence": ["a", "b"]}))
    first = advance(plan, None, Begin({})).state
    assert advance(plan, first, Completed(1, {"n": 1, "ok": True})).state.vars is first.vars


def test_the_state_does_not_grow_with_the_run() -> None:
    drive = Drive(
        tree(
            {"repeat": {"sequence": [{"task": "a", "set": {"x": "x + 1"}}, "b"]}, "max": 2000},
            limits={"steps": 5000},
        )
    )
    drive.begin()
    sizes = set()
    for _ in range(1000):
        drive.done(min(drive.running))
        state = drive.state
        assert isinstance(state, PlanState)
        sizes.add(len(json.dumps(plain(state)[1])))
    assert max(sizes) - min(sizes) < 20


@pytest.mark.parametrize(
    ("given_input", "problems"),
    [
        ({"who": "me"}, []),
        ({"who": "me", "n": 3}, []),
        ({}, ["input.who: is missing (give a value of type string)"]),
        ({"who": 3}, ["input.who: must be a string, not 3 (give a value of type string)"]),
        ({"who": "me", "whom": 1}, ["input.whom: p takes no input 'whom' (it takes: who, n, xs)"]),
        (
            {"who": "me", "xs": ["a", 1]},
            ["input.xs[1]: must be a string, not 1 (give a value of type list(string))"],
        ),
        ({"who": "me", "n": 2**63}, ["input.n: does not fit in 64 bits (give a value of type int)"]),
        (
            {"who": "\ud800"},
            ["input.who: is not valid Unicode (a lone surrogate) (give a value of type string)"],
        ),
    ],
)
def test_check_input(given_input: dict[str, Any], problems: list[str]) -> None:
    plan = compile_document(tree("a", input={"who": "string"}, vars={"n": "int", "xs": "list(string)"}))
    assert list(map(str, check_input(plan, given_input))) == problems


# ------------------------------------------------------------------------------------------- events from outside

ORDERED = {"type": "com.example.ordered", "id": "1", "source": "/shop", "data": {"order": "o-1", "total": 12}}


def test_a_trigger_gives_the_input_of_matching_events_only() -> None:
    trigger = {
        "type": "com.example.ordered",
        "if": "event.data.total > 10",
        "input": {"order": "event.data.order", "total": "event.data.total"},
    }
    plan = compile_document(tree("a", input={"order": "string", "total": "double"}, trigger=trigger))
    assert match_trigger(plan, ORDERED) == {"order": "o-1", "total": 12.0}
    assert match_trigger(plan, {**ORDERED, "type": "com.example.paid"}) is None
    assert match_trigger(plan, {**ORDERED, "data": {"order": "o-1", "total": 9}}) is None
    assert match_trigger(plan, {**ORDERED, "data": "not an object"}) is None
    assert match_trigger(plan, {**ORDERED, "data": None}) is None
    assert match_trigger(compile_document(tree("a")), ORDERED) is None


def test_a_trigger_input_that_the_event_lacks_is_refused_by_the_run() -> None:
    plan = compile_document(
        tree(
            "a",
            input={"order": "string"},
            trigger={"type": "com.example.ordered", "input": {"order": "event.data.order"}},
        )
    )
    given_input = match_trigger(plan, {**ORDERED, "data": {}})
    assert given_input is not None
    assert [problem.path for problem in check_input(plan, given_input)] == ["input.order"]


def test_an_event_task_waits_for_its_event() -> None:
    tasks = {"paid": {"kind": "event", "use": "com.example.paid", "match": "event.data.order == order"}}
    plan = compile_document(
        tree({"task": "paid", "set": {"j": "result.data.total"}}, input={"order": "string"}, tasks=tasks)
    )
    paid = {**ORDERED, "type": "com.example.paid"}
    first, second = (advance(plan, None, Begin({"order": order})).state for order in ("o-1", "o-2"))
    assert match_event(plan, "paid", first, 1, paid)
    assert not match_event(plan, "paid", second, 1, paid)
    assert not match_event(plan, "paid", first, 1, ORDERED)
    assert not match_event(plan, "paid", first, 1, {**paid, "data": {}})


def test_an_event_task_in_a_subtree_sees_the_variables_of_that() -> None:
    tasks = {"paid": {"kind": "event", "use": "com.example.paid", "match": "event.data.order == wanted"}}
    root = {"map": {"subtree": "pay", "in": {"wanted": "item"}}, "over": "xs", "max": 2}
    pay = {"vars": {"wanted": "string"}, "root": "paid"}
    plan = compile_document(tree(root, trees={"pay": pay}, tasks=tasks))
    state = advance(plan, None, Begin({"xs": ["o-2", "o-1"]})).state
    paid = {**ORDERED, "type": "com.example.paid"}
    assert [match_event(plan, "paid", state, step, paid) for step in (1, 2)] == [False, True]
