"""The model check: it finds what is wrong with a plan or with the planner, and the shortest way there."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from agentflow.core.explore import Explored, explore
from agentflow.core.moves import Advance, Halt, PlanEvent, PlanState, SetTimer, Start
from agentflow.core.plan import Plan
from agentflow.core.planner import advance
from agentflow.wire.document import compile_document, load_document_file

from .driving import machine, tree
from .test_goals import GOAL
from .test_planner import compiled, machines, moves, play_random, random_tree, trees
from .test_vectors import VECTORS, document_of

SAMPLES = [
    path
    for path in sorted((Path(__file__).parents[2] / "local" / "workflows").glob("*.yaml"))
    if not path.name.endswith(".model.yaml")
]
OF_THE_PLANNER = {"stuck", "ignored", "left_running"}
FEW = settings(max_examples=25)


def explored(document: dict[str, Any], **more: Any) -> Explored:
    return explore(compile_document(document), more.pop("reducer", advance), **more)


def codes(found: Explored) -> set[str]:
    return {finding.code for finding in found.findings}


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_the_samples_are_in_order(path: Path) -> None:
    found = explore(compile_document(load_document_file(path)), advance)
    assert (found.complete, found.findings) == (True, ())
    assert found.longest is not None


@pytest.mark.parametrize("vector", VECTORS)
def test_no_vector_shows_a_fault_of_the_planner(vector: dict[str, Any]) -> None:
    assert not codes(explored(document_of(vector))) & OF_THE_PLANNER


@given(trees, moves)
@FEW
def test_random_trees_are_never_stuck_and_no_run_is_longer(root: Any, script: list[tuple[int, int]]) -> None:
    plan = random_tree(root, 1000)
    found = explore(plan, advance, states=300, advances=2_000)
    assert not codes(found) & OF_THE_PLANNER, found.findings
    if found.complete and found.longest is not None and all(node.kind != "map" for node in plan.tree.nodes):  # type: ignore[union-attr]
        assert play_random(plan, script, copied=False)[-1][2] <= found.longest


@given(machines())
@FEW
def test_random_machines_are_never_stuck(parts: Any) -> None:
    plan = compiled(parts)
    if plan is not None:
        found = explore(plan, advance, states=300, advances=500)
        assert not codes(found) & OF_THE_PLANNER, found.findings


def test_a_condition_is_asked_again_when_its_variable_is_set_by_another_name() -> None:
    """Within one event, too: here the second round starts `a` in the event in which the first one did not."""
    flip = {"type": "succeed", "on_success": {"go": "!go"}}
    ways = [{"force": "a", "as": "failure"}, {"type": "succeed"}]
    plain = explored(tree({"repeat": {"sequence": [{"if": "go", "then": ways[0], "else": ways[1]}, flip]}, "max": 2}))
    trees = {"t": {"vars": {"up": "bool"}, "root": {"if": "up", "then": ways[0], "else": ways[1]}}}
    used = {"subtree": "t", "share": {"up": "go"}}
    shared = explored(tree({"repeat": {"sequence": [used, flip]}, "max": 2}, trees=trees))
    assert (plain.states, plain.complete) == (4, True)
    assert (shared.states, shared.complete) == (4, True)


# ------------------------------------------------------------------------------------------- faults of a plan

DONE = {"event": "done", "to": "end"}
END = {"final": "success"}


def test_a_trap_is_found_with_the_way_into_it() -> None:
    """A state that waits for a signal which leads back to it, and to no end."""
    states = {
        "s": {"run": "a", "transitions": [DONE, {"event": "failed", "to": "trap"}]},
        "trap": {"visits": 5, "transitions": [{"event": "again", "to": "trap"}]},
        "end": END,
    }
    (finding,) = explored(machine(states)).findings
    assert (finding.code, finding.trace) == ("no_end", ("begin", "a failed"))


def test_visits_that_are_used_up_are_no_trap() -> None:
    """After three pauses only the bound of the loop ends the run, as whoever wrote it meant."""
    states = {
        "w": {"initial": "w1", "visits": 3, "transitions": [{"event": "pause", "to": "rest"}]},
        "w1": {"in": "w", "run": "a", "transitions": [DONE]},
        "rest": {"run": "b", "transitions": [{"event": "done", "to": "w"}]},
        "end": END,
    }
    assert (explored(machine(states)).complete, explored(machine(states)).findings) == (True, ())


def test_a_run_that_signals_keep_going_has_no_longest() -> None:
    states = {"s": {"run": "a", "transitions": [DONE]}, "u": {"run": "b", "transitions": [DONE]}, "end": END}
    found = explored(machine(states, transitions=[{"event": "again", "to": "u"}]))
    assert (found.complete, found.findings, found.longest) == (True, (), None)


def test_lists_are_short_and_their_elements_differ() -> None:
    seen = set()

    def reducer(plan: Plan, state: PlanState | None, event: PlanEvent) -> Advance:
        moved = advance(plan, state, event)
        if state is None:
            lengths = [len(items) for items in moved.state.cursor.get("items", {}).values()]
            seen.add((*lengths, sum(isinstance(command, Start) for command in moved.commands)))
        return moved

    skipping = {"task": "i", "skip_if": "item == 'x'"}
    assert explored(tree({"map": skipping, "over": "xs", "max": 5}), reducer=reducer).complete
    assert seen == {(0,), (1, 1), (2, 1), (2, 2)}, "an ended run holds nothing; of two elements one may be skipped"


def test_what_was_set_may_change_a_condition() -> None:
    states = {"s": {"transitions": [{"if": "x < 3", "set": {"x": "x + 1"}}, {"to": "end"}]}, "end": END}
    found = explored(machine(states))
    assert not found.complete, "it may hold any number of times"
    assert "in one event" in found.limit or "of one event" in found.limit
    assert found.findings == ()


def test_a_plan_that_cannot_succeed() -> None:
    assert codes(explored(tree({"sequence": ["a", {"type": "fail"}]}))) == {"no_success"}


def test_steps_that_do_not_suffice() -> None:
    (finding,) = explored(tree({"sequence": ["a", "b", "c"]}, limits={"steps": 2})).findings
    assert finding.code == "fuel"
    assert "no run can succeed with fewer than 3 steps" in finding.message


def test_every_way_of_a_condition_is_gone() -> None:
    """Only where x is not what it was would the run fail: the check does not care what x is."""
    found = explored(tree({"if": "x == 0", "then": "a", "else": {"sequence": ["b", "c", "d"]}}))
    assert (found.complete, found.findings, found.longest) == (True, (), 3)


@pytest.mark.parametrize(
    "root",
    [
        {"try": ["a", {"timeout": "5s", "child": "b"}], "catch": "c"},
        {"map": {"try": ["i"], "catch": "a"}, "over": "xs", "max": 5},
        {"subtree": "t", "in": {"x": "1"}, "share": {"go": "go"}},
        {"keep": {"task": "a", "ok_if": "result.ok"}, "max": 3},
        {"retry": {"sequence": ["a", "b"], "memory": True}, "max": 3},
        {"sequence": [{"check": "go"}, {"parallel": ["a", "e"], "need": 1}], "reactive": True},
    ],
)
def test_all_kinds_of_nodes_are_followed(root: Any) -> None:
    inner = {"t": {"vars": {"x": "int", "go": "bool"}, "root": {"sequence": [{"check": "x > 0"}, "a"]}}}
    found = explored(tree(root, **({"trees": inner} if "subtree" in root else {})))
    assert not codes(found) & OF_THE_PLANNER, found.findings
    assert found.complete


def test_compensation_and_goals_are_followed() -> None:
    echo = {"kind": "tool", "use": "std.echo"}
    tasks = {"a": {**echo, "undo": "u"}, "u": echo, "b": echo, "back": {"kind": "compensate"}}
    undone = explored(tree({"fallback": [{"sequence": ["a", "b"]}, "back"]}, tasks=tasks))
    assert (undone.complete, undone.findings) == (True, ())
    goal = explored({**GOAL, "plan": {**GOAL["plan"], "approve": {"by": "boss", "timeout": "1h"}}})
    assert not codes(goal)


def test_what_is_too_much_is_cut_short_and_says_so() -> None:
    wide = {"parallel": [{"sequence": ["a", "b", "c", "d"]} for _ in range(8)]}
    began = time.perf_counter()
    found = explored(tree(wide), states=200, advances=1_000)
    assert time.perf_counter() - began < 20
    assert not found.complete
    assert "the first 200 states" in found.limit


def test_whoever_has_a_clock_bounds_the_time() -> None:
    """An event that the machine raises again and again costs a thousand transitions, each time it comes."""
    again = {"event": "go", "raise": "go"}
    states = {
        "p": {"regions": list("lmnr"), "transitions": [DONE]},
        **{name: {"in": "p", "run": "a", "transitions": [again, {"event": "done", "to": f"{name}_ok"}]}
           for name in "lmnr"},
        **{f"{name}_ok": {"in": f"p.{name}", **END} for name in "lmnr"},
        "end": END,
    }  # fmt: skip
    asked = 0

    def going() -> bool:
        nonlocal asked
        asked += 1
        return asked < 20

    found = explored(machine(states), going=going)
    assert (found.complete, found.findings, found.longest) == (False, (), None)
    assert found.states < 20
    assert f"the first {found.states} states" in found.limit
    assert asked < 25, "it stops when it is told to"
    assert explored(machine(states)).complete


# ------------------------------------------------------------------------------------- faults of the planner

Reducer = Callable[[Plan, PlanState | None, PlanEvent], Advance]


def without(kind: type) -> Reducer:
    """A planner that forgets to give some commands."""

    def reducer(plan: Plan, state: PlanState | None, event: PlanEvent) -> Advance:
        moved = advance(plan, state, event)
        return replace(moved, commands=tuple(each for each in moved.commands if not isinstance(each, kind)))

    return reducer


def deaf(plan: Plan, state: PlanState | None, event: PlanEvent) -> Advance:
    """A planner that does not hear of a second step's end."""
    return Advance(state, ()) if state is not None and getattr(event, "step", 0) == 2 else advance(plan, state, event)


@pytest.mark.parametrize(
    ("root", "reducer", "code"),
    [
        ({"sequence": ["a", "b"]}, without(Start), "stuck"),
        ({"timeout": "5s", "child": {"delay": "1s", "child": "a"}}, without(SetTimer), "stuck"),
        ({"parallel": ["a", "b"], "need": 1}, without(Halt), "left_running"),
        ({"sequence": ["a", "b"]}, deaf, "ignored"),
    ],
)
def test_a_planner_that_forgets_is_found_out(root: Any, reducer: Reducer, code: str) -> None:
    assert code in codes(explored(tree(root), reducer=reducer))
    assert code not in codes(explored(tree(root)))


def test_signals_whose_data_is_declared_are_taken() -> None:
    """They bring values of their types: without them nothing behind them would be looked at."""
    go = {"event": "go", "if": "event.data.n >= 0", "to": "b"}
    then = {"event": "then", "to": "ok"}
    states = {"a": {"transitions": [go]}, "b": {"transitions": [then]}, "ok": {"final": "success"}}
    found = explored(machine(states, events={"go": {"n": "int"}, "then": {}}))
    assert (found.states, found.findings) == (3, ())
