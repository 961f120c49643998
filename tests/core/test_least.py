"""The least of a plan: no run that succeeds uses less."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from agentflow.core import least as least_module
from agentflow.core import worst
from agentflow.core.costly import first_values
from agentflow.core.least import least
from agentflow.core.plan import Plan
from agentflow.core.planner import Finish
from agentflow.wire.document import compile_document

from . import test_planner
from .driving import VARS, Drive, machine, tree
from .random_plans import random_plan
from .test_estimate import PAID, played
from .test_fsm import BAD, BOTH, OK, WORK, done, failed, on, run
from .test_planner import compiled, machines, moves, play_random, random_tree, trees
from .test_tree import par, seq

FILES = {"input": {"files": "list(string)", "deep": "bool"}}
GIVEN = {"files": ["x", "y", "z"], "deep": True}
EACH = {name: 10**i for i, name in enumerate("abcdef")}  # so that a sum says which tasks it is made of


def of(plan: Plan, values: dict[str, Any] | None = None) -> int:
    return least(plan, lambda task: EACH.get(task.name, 0), first_values(plan, values or {}))


LEAST: list[tuple[Any, int]] = [
    (tree("a"), 1),
    (tree({"check": "go"}), 0),
    (tree(seq("a", "b", {"retry": seq("c", "d"), "max": 3})), 1111),
    (tree({"fallback": ["c", "a"]}), 1),  # c may fail at no cost
    (tree({"fallback": ["c", {"type": "fail"}]}), 100),
    (tree({"fallback": [{"type": "succeed"}, "c"]}), 0),
    (tree(par("a", "b", "c", need=2)), 11),
    (tree(par("a", "b", "c")), 111),
    (tree({"parallel": ["a", "b", "c"], "wait": "all", "fail_at": 2}), 11),
    (tree({"type": "invert", "child": {"type": "invert", "child": "b"}}), 10),
    (tree({"force": "b", "as": "success"}), 0),
    (tree(seq({"task": "b", "skip_if": "go"}, "a")), 1),
    (tree(seq({"task": "b", "skip_if": "false"}, "a")), 11),
    (tree({"repeat": "b", "max": 3}), 30),
    (tree({"repeat": {"once": "b"}, "max": 3}), 0),  # it may have failed before, and is skipped
    (tree({"if": "go", "then": "c", "else": "b"}), 10),
    (tree({"if": "true", "then": "c", "else": "b"}), 100),
    (tree({"type": "if", "children": ["a", "c", "b"]}), 10),  # a may fail at no cost
    (tree({"switch": "x", "cases": {"1": "c"}, "default": "b"}), 10),
    (tree({"retry": {"try": ["a", "b"], "catch": "c"}, "max": 2}), 11),
    (tree(seq({"subtree": "t"}, "c"), trees={"t": {"root": seq("a", "b")}}), 111),
    (tree({"timeout": "5s", "child": {"delay": "1s", "child": "b"}}), 10),
    (tree({"sequence": ["a", "b"], "success_if": "go"}), 0),
    (tree(seq("a", {"map": "b", "over": "files", "max": 5}), **FILES), 31),
    (tree(seq("a", {"map": "b", "over": "files", "max": 5, "fail_at": 2}), **FILES), 21),
    (tree(seq("a", {"map": "b", "over": "xs", "max": 5})), 1),  # a variable that starts empty
    (tree(seq({"task": "a", "post": {"xs": "['x']"}}, {"map": "b", "over": "xs", "max": 4})), 1),
    (tree({"type": "fail"}), 0),
    (machine(WORK), 11),
    (machine({"s": run("a", done("t"), failed("u")), "t": run("b", done("ok")), "u": run("c", done("ok")), "ok": OK}),
     11),
    (machine({"s": run("b", done("ok")), "ok": OK}, transitions=[on("stop", "ok")]), 0),
    (machine({"s": run("b", done("t")), "t": run("a", done("s", **{"if": "go"}), done("ok"), visits=3), "ok": OK}), 11),
    (machine({"s": run("b", done("bad"), failed("bad")), "bad": BAD}), 0),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), LEAST)
def test_the_least(parts: Any, expected: int) -> None:
    plan = compile_document(parts)
    assert of(plan, GIVEN if plan.input else {}) == expected


def test_regions_are_all_done_before_a_parallel_state_is() -> None:
    plan = compile_document(machine(BOTH))
    assert of(plan) == sum(EACH[state.task.name] for state in plan.machine.states if state.task)  # type: ignore[union-attr]


def test_a_map_over_an_input_is_at_least_as_long_as_it_is() -> None:
    plan = compile_document(tree(seq("a", {"map": seq("b", "c"), "over": "files", "max": 5}), **FILES))
    drive = Drive(plan)
    drive.begin(**GIVEN)
    while drive.running:
        drive.done(min(drive.running))
    assert drive.state is not None
    assert drive.state.steps == least(plan, lambda _: 1, GIVEN) == worst.steps(plan).at(GIVEN) == 7


def test_every_kind_of_node_has_a_rule() -> None:
    assert least_module.KINDS == worst.KINDS


MANY = settings(max_examples=150)


GOING_WELL = [(5, n) for n in range(60)]
"""Further moves, by which most runs come to an end."""


def completed(plan: Plan, script: list[tuple[int, int]]) -> int | None:
    """The weight of the steps that a run has completed, None where it has not succeeded."""
    done_: list[int] = []

    class Counting(Drive):
        def done(self, step: int, **result: Any) -> list[str]:
            done_.append(EACH.get(self.running[step], 0))
            return super().done(step, **result)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(test_planner, "Drive", Counting)
        *history, _ = play_random(plan, [*script, *GOING_WELL], copied=False)
    ends = [command for commands in history for command in commands if isinstance(command, Finish)]
    return sum(done_) if ends and ends[0].ok else None


@given(trees, moves)
@MANY
def test_no_tree_succeeds_with_less(root: Any, script: list[tuple[int, int]]) -> None:
    plan = random_tree(root, 1000)
    weight = completed(plan, script)
    assert weight is None or of(plan) <= weight


@given(machines(), moves)
@MANY
def test_no_machine_succeeds_with_less(parts: Any, script: list[tuple[int, int]]) -> None:
    plan = compiled({**parts, "limits": {"steps": 1000}})
    if plan is not None:
        weight = completed(plan, script)
        assert weight is None or of(plan) <= weight


@pytest.mark.parametrize("part", range(4))
def test_two_hundred_plans_complete_no_less(part: int) -> None:
    tight = 0
    for seed in range(part * 50, part * 50 + 50):
        plan = compile_document(random_plan(seed, PAID, vars={**VARS, "n": "int"}, limits={"steps": 500, "usd": 1000}))
        fewest = of(plan)
        for again in range(4):
            world = played(plan, 10 * seed + again)
            assert world.run is not None
            if world.run.status == "succeeded":
                done_ = [row.opened.task for row in world.results.values() if row.status == "succeeded"]
                weight = sum(EACH[name] for name in done_)
                assert fewest <= weight, (seed, again)
                tight += fewest == weight > 0
    assert tight > 15, "the bound is reached"


def shared(inner: str, outer: str, **more: Any) -> Plan:
    """A map over ``files`` in a subtree that knows the caller's ``outer`` as ``inner``."""
    each = {"map": "b", "over": inner, "max": 9}
    trees_ = {"t": {"vars": {inner: "list(string)"}, "root": each}}
    inputs = {"input": {"files": "list(string)", "big": "list(string)"}}
    return compile_document(tree({"subtree": "t", "share": {inner: outer}}, trees=trees_, **inputs, **more))


def test_a_subtree_reads_its_own_variables() -> None:
    """A list that is the caller's under another name is not the caller's list of that name."""
    given_ = {"files": [], "big": ["x"] * 4, "go": False}
    assert worst.steps(shared("files", "files")).at({**given_, "files": ["x"]}) == 1
    assert worst.steps(shared("files", "big")).at(given_) == 9
    assert of(shared("files", "big"), given_) == 0


def test_what_a_subtree_changes_is_changed_for_its_caller() -> None:
    trees_ = {"t": {"vars": {"own": "list(string)"}, "root": {"task": "a", "set": {"own": "['x', 'y']"}}}}
    root = seq({"subtree": "t", "share": {"own": "files"}}, {"map": "b", "over": "files", "max": 9})
    plan = compile_document(tree(root, trees=trees_, **FILES))
    given_ = {"files": [], "deep": True}
    drive = Drive(plan)
    drive.begin(**given_)
    while drive.running:
        drive.done(min(drive.running))
    assert drive.state is not None
    assert drive.state.steps == 3 <= worst.steps(plan).at(given_)
