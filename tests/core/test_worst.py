"""The worst case: the most steps, calls and money of a run, as an expression of its inputs."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from agentflow.core import worst
from agentflow.core.bound import Bound, Largest, Limit, Size, largest, number
from agentflow.core.cel import compile_expr
from agentflow.core.planner import Elapsed, Start
from agentflow.core.types import parse
from agentflow.wire.document import compile_document

from .driving import TASKS, Drive, machine, tree
from .random_plans import random_plan
from .test_fsm import BAD, BOTH, OK, WORK, done, failed, on, run
from .test_tree import par, seq

FILES = {"input": {"files": "list(string)", "deep": "bool"}}


def size(name: str, most: int) -> Size:
    return Size(name, most, compile_expr(name, {name: parse("list(string)")}))


@pytest.mark.parametrize(
    ("bound", "text", "most", "at"),
    [
        (Bound(), "0", 0, 0),
        (number(1) + number(2), "3", 3, 3),
        (number(3) * size("a", 5), "3 * min(size(a), 5)", 15, 6),
        (number(1) + number(3) * size("a", 5), "1 + 3 * min(size(a), 5)", 16, 7),
        (number(2) * size("a", 5) + number(1) * size("a", 5), "3 * min(size(a), 5)", 15, 6),
        (number(1) * size("b", 2) * size("a", 5), "min(size(a), 5) * min(size(b), 2)", 10, 4),
        ((number(1) + number(1) * size("a", 5)) * 2, "2 + 2 * min(size(a), 5)", 12, 6),
        (largest([number(2), number(7), Bound()]), "7", 7, 7),
        (largest([number(9), number(3) * size("a", 5)]), "max(3 * min(size(a), 5), 9)", 15, 9),
        (largest([number(1) * size("a", 5), number(1) + number(2) * size("a", 5)]), "1 + 2 * min(size(a), 5)", 11, 5),
        (number(4) * Limit("limits.steps", 50), "4 * limits.steps", 200, 200),
        (largest([]), "0", 0, 0),
    ],
)
def test_a_bound_is_printed_and_evaluated(bound: Bound, text: str, most: int, at: int) -> None:
    assert (str(bound), bound.most, bound.at({"a": ["x", "y"], "b": ["x", "y", "z"]})) == (text, most, at)


def test_a_largest_is_a_factor() -> None:
    bound = largest([number(9), number(3) * size("a", 5)]) * 2 + number(1)
    assert isinstance(bound.terms[-1][1][0], Largest)
    assert (str(bound), bound.most, bound.at({"a": []})) == ("1 + 2 * max(3 * min(size(a), 5), 9)", 31, 19)
    assert bound.text("${}".format) == "$1 + 2 * max($3 * min(size(a), 5), $9)"


LOOP = run("a", done("s", **{"if": "go"}), done("ok"), visits=7)

SHARING: dict[str, Any] = {
    "t": {"vars": {"up": "bool"}, "root": {"while": "up", "do": "a", "else": "b"}},
    "u": {"vars": {"off": "bool"}, "root": {"task": "c", "set": {"off": "!off"}}},
    "v": {"vars": {"all": "bool"}, "root": {"subtree": "t", "share": {"up": "all"}}},
}

def sharing(*names: str) -> dict[str, Any]:
    """Some of these trees."""
    return {name: SHARING[name] for name in names}


STEPS: list[tuple[Any, str]] = [
    (tree("a"), "1"),
    (tree({"check": "go"}), "0"),
    (tree(seq("a", "b", {"retry": seq("c", "d"), "max": 3})), "8"),
    (tree({"fallback": ["a", seq("b", "c")]}), "3"),
    (tree(par("a", "b", need=1)), "2"),
    (tree({"keep": seq("a", "b", memory=True), "max": 3}), "6"),
    (tree({"retry": {"try": ["a", "b"], "catch": "c"}, "max": 2}), "6"),
    (tree(seq({"subtree": "t"}, {"subtree": "t"}, "c"), trees={"t": {"root": seq("a", "b")}}), "5"),
    (tree({"if": "go", "then": seq("a", "b"), "else": "c"}), "2"),
    (tree({"if": "false", "then": seq("a", "b"), "else": "c"}), "1"),
    (tree({"type": "if", "children": ["a", "b", "c"]}), "2"),
    (tree({"switch": "x", "cases": {"1": "a"}, "default": seq("a", "b")}), "2"),
    (tree({"timeout": "5s", "child": {"delay": "1s", "child": {"once": {"invert": "a"}}}}), "1"),
    # maps
    (tree({"map": {"repeat": "b", "max": 2}, "over": "xs", "max": 50}), "2 * min(size(xs), 50)"),
    (tree(seq("a", {"map": seq("b", "c", "d"), "over": "files", "max": 50}), **FILES), "1 + 3 * min(size(files), 50)"),
    (tree({"map": "b", "over": "['p', 'q', 'r']", "max": 9}), "3"),
    (tree(seq({"task": "a", "post": {"xs": "['x']"}}, {"map": "b", "over": "xs", "max": 4})), "5"),
    (tree({"map": {"map": "b", "over": "item.parts", "max": 3}, "over": "files", "max": 5},
          input={"files": "list(json)"}), "3 * min(size(files), 5)"),
    (tree({"if": "deep", "then": {"map": "b", "over": "files", "max": 9}, "else": seq("a", "b", "c")}, **FILES),
     "max(3, min(size(files), 9))"),
    # what is looked at again
    (tree(seq("a", {"fallback": ["b", "c"], "reactive": True})), "3"),
    (tree({"fallback": [{"check": "go"}, {"task": "a", "set": {"go": "true"}}], "reactive": True}), "limits.steps"),
    (tree({"fallback": [{"check": "go"}, {"task": "a", "set": {"x": "1"}}], "reactive": True}), "1"),
    (tree({"while": "go", "do": {"task": "a", "set": {"x": "1"}}, "else": "b"}), "1"),
    (tree({"while": "go", "do": {"task": "a", "set": {"go": "false"}}, "else": "b"}), "limits.steps"),
    (tree({"type": "while", "children": ["a", {"task": "b", "set": {"x": "1"}}]}), "2"),
    (tree({"type": "while", "children": [{"task": "a", "skip_if": "x == 1"}, {"task": "b", "set": {"x": "1"}}]}),
     "limits.steps"),
    (tree({"switch": "x", "cases": {"1": {"task": "a", "set": {"x": "2"}}}, "default": "b"}), "limits.steps"),
    (tree({"type": "while", "children": ["a", "b", seq("c", "d")]}), "3"),
    # a variable that a subtree knows by another name
    (tree(par({"subtree": "t", "share": {"up": "go"}}, {"task": "c", "set": {"go": "!go"}}), trees=sharing("t")),
     "limits.steps"),
    (tree(par({"subtree": "t", "share": {"up": "go"}}, {"task": "c", "set": {"x": "1"}}), trees=sharing("t")), "2"),
    (tree(par({"subtree": "t", "share": {"up": "go"}}, {"subtree": "u", "share": {"off": "go"}}),
          trees=sharing("t", "u")), "limits.steps"),
    (tree(par({"subtree": "v", "share": {"all": "go"}}, {"task": "c", "set": {"go": "!go"}}), trees=sharing("t", "v")),
     "limits.steps"),
    # machines
    (machine(WORK), "2"),
    (machine(BOTH), "4"),
    (machine({"s": LOOP, "ok": OK}), "7"),
    (machine({"s": run("a", done("t"), visits=3), "t": run("b", done("s", **{"if": "go"}), done("ok")), "ok": OK}),
     "7"),
    (machine({"s": run("a", done("ok")), "ok": OK}, transitions=[on("stop", "ok")]), "1"),
    (machine({"s": run("a", done("ok")), "u": run("b", done("ok")), "ok": OK}, transitions=[on("stop", "u")]),
     "limits.steps"),
    (machine({"s": run("a", done("ok")), "u": run("b", done("ok"), visits=2), "ok": OK}, transitions=[on("stop", "u")]),
     "3"),
    # nothing follows a final state, not even what is said of the whole machine
    (machine({"s": run("a", done("ok")), "u": run("b", done("bad"), failed("bad")), "ok": OK, "bad": BAD},
             transitions=[failed("u")]), "2"),
    # two ways to the same state, each of which is taken once at most
    (machine({"s": run("a", done("t"), failed("u")), "t": run("b", done("v")), "u": run("b", done("v")),
              "v": run("c", done("ok")), "ok": OK}), "4"),
    # a parallel state that is entered again brings all its regions along
    (machine({**BOTH, "both": {"regions": ["l", "r"], "transitions": [done("after")], "visits": 3},
              "r": run("b", done("r_ok"), failed("both"), **{"in": "both"})}), "10"),
    (machine({**BOTH, "after": run("d", done("both", **{"if": "go"}), done("ok"), visits=2)}), "11"),
    # history
    (machine({"w": {"initial": "w1", "visits": 4, "transitions": [on("pause", "rest"), done("ok")]},
              "w1": run("a", done("w2"), **{"in": "w"}), "w2": run("b", done("ok"), **{"in": "w"}),
              "was": {"in": "w", "history": "deep", "to": "w1"}, "rest": run("c", done("was")), "ok": OK}), "15"),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "expected"), STEPS)
def test_the_steps(parts: Any, expected: str) -> None:
    assert str(worst.steps(compile_document(parts))) == expected


def test_a_map_over_an_input_knows_it() -> None:
    plan = compile_document(tree(seq("a", {"map": seq("b", "c"), "over": "files", "max": 3}), **FILES))
    bound = worst.steps(plan)
    assert [bound.at({"files": ["f"] * n, "deep": True}) for n in (0, 2, 3, 9)] == [1, 5, 7, 7]
    assert bound.most == 7
    drive = Drive(plan)
    drive.begin(files=["f", "g"], deep=True)
    while drive.running:
        drive.done(min(drive.running))
    assert drive.state is not None
    assert drive.state.steps == bound.at({"files": ["f", "g"], "deep": True}), "that is what such a run takes"


def test_calls_and_cost_count_every_attempt() -> None:
    tasks = {
        "ask": {"kind": "llm", "use": "small", "prompt": "Hello", "usd": 0.01, "retry": {"max": 3}},
        "look": {"kind": "tool", "use": "mine", "retry": {"max": 2}},
        "wait": {"kind": "wait", "for": "1s"},
    }
    tools = {"mine": {"kind": "python", "code": "def run(): return {}", "usd": 0.002}}
    root = seq({"map": "ask", "over": "xs", "max": 10}, {"repeat": seq("look", "wait"), "max": 2})
    plan = compile_document(tree(root, tasks=tasks, tools=tools, limits={"steps": 50, "usd": 1}))
    assert str(worst.steps(plan)) == "4 + min(size(xs), 10)"
    assert str(worst.calls(plan)) == "4 + 3 * min(size(xs), 10)"
    assert worst.cost(plan, worst.declared_cost(plan)).at({"xs": ["x"]}) == 3 * 10_000 + 2 * 2 * 2_000
    assert worst.cost(plan, worst.declared_cost(plan)).text("${}".format) == "$8000 + $30000 * min(size(xs), 10)"
    assert worst.cost(plan, lambda task: 7 if task.name == "ask" else 0).most == 7 * 3 * 10


def test_what_nothing_bounds_costs_at_most_the_dearest_step_each_time() -> None:
    again = {"fallback": [{"check": "go"}, {"task": "b", "set": {"go": "true"}}], "reactive": True}
    plan = compile_document(tree(seq("a", again), limits={"steps": 20}))
    assert str(worst.worst(plan, lambda task: {"a": 500, "b": 3}[task.name])) == "500 + 3 * limits.steps"
    assert str(worst.worst(plan, lambda task: 3 if task.name == "b" else 1)) == "3 * limits.steps"
    assert str(worst.worst(plan, lambda task: int(task.name == "a"))) == "1", "what is free may start again for free"



@pytest.mark.parametrize("part", range(2))
def test_no_task_of_a_random_tree_is_started_more_often_than_it_may_be(part: int) -> None:
    """Delays, guards, reactive nodes and subtrees with variables of other names among them."""
    for seed in range(400 * part, 400 * part + 400, 2):
        plan = compile_document(random_plan(seed, TASKS, limits={"steps": 400}))
        bounds = {name: worst.worst(plan, lambda task, name=name: int(task.name == name)).most for name in plan.tasks}
        for again in range(4):
            chance = random.Random(100 * seed + again)
            drive = Drive(plan, copied=False)
            drive.begin()
            while drive.finish is None:
                due = [(True, step) for step in drive.running] * 3 + [(False, timer) for timer in drive.timers]
                is_step, number = chance.choice(sorted(due))
                if not is_step:
                    del drive.timers[number]
                    drive.tell(Elapsed(number))
                elif chance.random() < 0.3:
                    drive.fail(number)
                else:
                    drive.done(number, n=chance.randint(0, 3), ok=chance.random() < 0.5)
            begun = Counter(each.task for said in drive.history for each in said if isinstance(each, Start))
            assert all(times <= bounds[name] for name, times in begun.items()), (seed, again, begun, bounds)
