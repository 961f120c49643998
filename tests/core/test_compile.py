"""What is refused at registration: each fault by its path, its reason and its mend, and all faults at once."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from agentflow.core import worst
from agentflow.core.compile import compile_plan
from agentflow.errors import Invalid
from agentflow.wire.document import compile_document

from .driving import document, machine, tree
from .test_fsm import BOTH, OK, WORK, done, failed, on, run
from .test_tree import par, seq


def refused(parts: Any) -> list[str]:
    """The problems of a document, as a user sees them."""
    with pytest.raises(Invalid) as caught:
        compile_document(parts)
    return [str(problem) for problem in caught.value.problems]


def task(**parts: Any) -> dict[str, Any]:
    """A tree of one task ``t``, a built-in tool unless said otherwise."""
    return tree("t", tasks={"t": {"kind": "tool", "use": "std.echo", **parts}})


ECHO = {"kind": "tool", "use": "std.echo"}
LLM = {"kind": "llm", "use": "small", "prompt": "Hello {who}", "in": {"who": "'you'"}}
CODE = {"kind": "python", "code": "def run(): return {}"}

TREES: dict[str, tuple[Any, list[str]]] = {
    "unknown task": (seq("a", "aa"), ["root.sequence[1]: unknown task 'aa' (did you mean 'a'?)"]),
    "unknown var in set": (
        seq({"task": "a", "set": {"z": 1}}),
        ["root.sequence[0].set.z: unknown var 'z' (known: go, j, x, xs, y)"],
    ),
    "unknown name in a guard": (
        {"check": "gone"},
        ["root.check: `gone`: unknown name or function 'gone' (did you mean 'go'?)"],
    ),
    "a guard that is no bool": (
        {"check": "x"},
        [
            "root.check: `x`: gives int, but bool is needed (compare it with something, e.g. `x != ''` or `x > 0`)"
        ],
    ),
    "a value of another type": (
        {"task": "a", "set": {"x": "'one'"}},
        ["root.set.x: `'one'`: gives string, but int is needed (wrap it in int(...))"],
    ),
    "int meets double": (
        {"check": "x > 0.5"},
        [
            "root.check: `x > 0.5`: `>` does not work on (int, double) (CEL never mixes int and double: "
            "write double(n), int(x), or a literal with a point such as 1.0)"
        ],
    ),
    "unknown result field": (
        {"task": "a", "set": {"x": "result.count"}},
        [
            "root.set.x: `result.count`: unknown result field 'result.count' "
            "(the task's result has result.n, result.ok)"
        ],
    ),
    "result before the task": (
        {"task": "a", "skip_if": "result.ok"},
        [
            "root.skip_if: `result.ok`: there is no `result` here "
            "(a result is only known where its own task is done)"
        ],
    ),
    "item outside a map": (
        seq("i"),
        [
            "root.sequence[0]: task 'i' reads `item` (in.item), which is known inside a map only "
            "(run it inside a map, or read a variable)"
        ],
    ),
    "a map's order": (
        {"check": "j.map(k, k) == []"},
        [
            "root.check: `j.map(k, k) == []`: loops over a value that may be a map, whose order is not stable; "
            "only all and exists may (wrap it in list(...))"
        ],
    ),
    "a constant that cannot be": ({"check": "1 / 0 > 0"}, ["root.check: `1 / 0 > 0`: divide by zero"]),
    "no expression": ({"check": "x >"}, ["root.check: `x >`: Syntax error: "]),
    "over something else": (
        {"map": "b", "over": "x", "max": 2},
        ["root.over: `x`: gives int, but list(json) is needed"],
    ),
    "need more than there are": (
        par("a", "b", need=3),
        ["root.need: is 3, but there are 2 children (use 1 to 2, or -1 for all, -2 for all but one)"],
    ),
    "fail_at more than there are": (
        par("a", "b", fail_at=5),
        ["root.fail_at: is 5, but there are 2 children (use 1 to 2, or -1 for all, -2 for all but one)"],
    ),
    "a loop without max": ({"retry": "a"}, ["root.max: is missing (add it)"]),
    "need has no say when all are waited for": (
        {"type": "parallel", "wait": "all", "need": 1, "children": ["a", "b"]},
        ["root.need: with `wait: all` only failures are counted (use fail_at)"],
    ),
    "an if with four children": (
        {"type": "if", "children": ["a", "b", "c", "d"]},
        ["root.children"],
    ),
    "a switch without cases": ({"switch": "x"}, ["root.cases: is missing"]),
    "a delay without a time": ({"type": "delay", "child": "a"}, ["root.for: is missing"]),
    "a try without a catch": (
        {"type": "try", "children": ["a"]},
        ["root.children: is too short (give at least 2 entries)"],
    ),
    "a short try without a catch": ({"try": ["a", "b"]}, ["root.catch: must be a mapping, not null"]),
    "an unknown node": (
        {"type": "sequnce", "children": ["a"]},
        ["root.type: there is no type 'sequnce' (did you mean 'sequence'?)"],
    ),
    "not a node": (seq("a", 5), ["root.sequence[1]: must be a mapping, not 5"]),
    "no type": (
        {"task": "a", "check": "go"},
        ["root: has no `type` (write a task's name, {sequence: [...]}, or {type: ...})"],
    ),
    "no children": (seq(), ["root.sequence: is too short (give at least 1 entries)"]),
    "all at once": (
        seq("q", {"check": "x"}, {"task": "a", "set": {"x": "true"}, "skipif": "go"}),
        [
            "root.sequence[2].skipif: there is no key 'skipif' here (did you mean 'skip_if'?)",
            "root.sequence[0]: unknown task 'q'",
            "root.sequence[1].check: `x`: gives int",
            "root.sequence[2].set.x: `true`: gives bool",
        ],
    ),
}


@pytest.mark.parametrize("name", TREES)
def test_trees(name: str) -> None:
    root, expected = TREES[name]
    found = refused(tree(root))
    assert len(found) == len(expected), found
    for got, wanted in zip(found, expected, strict=True):
        assert got.startswith(wanted)


def states(*pairs: Any, **more: Any) -> dict[str, Any]:
    return machine({"s": run("a", *pairs), "ok": OK}, **more)


def using(root: Any, **trees: Any) -> dict[str, Any]:
    """A tree with others beside it."""
    return tree(root, trees=trees)


ONE = {"vars": {"n": "int"}, "root": "a"}
SUBTREES: dict[str, tuple[Any, list[str]]] = {
    "unknown tree": (
        using({"subtree": "tt"}, t=ONE),
        ["root.subtree: unknown tree 'tt' (did you mean 't'?)", "trees.t: no node uses this tree"],
    ),
    "no trees at all": (tree({"subtree": "t"}), ["root.subtree: unknown tree 't' (known: none)"]),
    "a tree that uses itself": (
        using({"subtree": "t"}, t={"root": seq("a", {"subtree": "t"})}),
        ["trees.t.root.sequence[1].subtree: a tree cannot use itself: t uses t (repeat it with retry, repeat or keep)"],
    ),
    "trees that use each other": (
        using({"subtree": "t"}, t={"root": {"subtree": "u"}}, u={"root": {"invert": {"subtree": "t"}}}),
        ["trees.u.root.invert.subtree: a tree cannot use itself: t uses u uses t"],
    ),
    "an unused tree": (
        using("a", t=ONE),
        ["trees.t: no node uses this tree (use it: {subtree: t}, or remove it)"],
    ),
    "a tree that only an unused one uses": (
        using("a", t={"root": {"subtree": "u"}}, u=ONE),
        ["trees.t: no node uses this tree", "trees.u: no node uses this tree"],
    ),
    "giving what it does not have": (
        using({"subtree": "t", "in": {"m": 1}}, t=ONE),
        ["root.in.m: unknown var 'm' (known: n)"],
    ),
    "giving another type": (
        using({"subtree": "t", "in": {"n": "'one'"}}, t=ONE),
        ["root.in.n: `'one'`: gives string, but int is needed"],
    ),
    "giving what the caller does not know": (
        using({"subtree": "t", "in": {"n": "gone"}}, t=ONE),
        ["root.in.n: `gone`: unknown name or function 'gone'"],
    ),
    "sharing what it does not have": (
        using({"subtree": "t", "share": {"m": "x"}}, t=ONE),
        ["root.share.m: unknown var 'm' (known: n)"],
    ),
    "sharing what the caller does not have": (
        using({"subtree": "t", "share": {"n": "z"}}, t=ONE),
        ["root.share.n: unknown var 'z' (known: go, j, x, xs, y)"],
    ),
    "sharing another type": (
        using({"subtree": "t", "share": {"n": "go"}}, t=ONE),
        ["root.share.n: 'n' is int in trees.t, but 'go' is bool here (declare both as the same type, or give it"],
    ),
    "sharing and giving": (
        using({"subtree": "t", "in": {"n": 1}, "share": {"n": "x"}}, t=ONE),
        ["root.share.n: `in` gives 'n', too (use one of both)"],
    ),
    "sharing twice": (
        using({"subtree": "t", "share": {"m": "x", "n": "x"}}, t={"vars": {"n": "int", "m": "int"}, "root": "a"}),
        ["root.share.n: 'x' is shared twice (share it by one name)"],
    ),
    "the caller's names": (
        using({"subtree": "t"}, t={"vars": {"n": "int"}, "root": {"check": "x == n"}}),
        ["trees.t.root.check: `x == n`: unknown name or function 'x' (known here: n)"],
    ),
    "the caller's item": (
        using({"map": {"subtree": "t"}, "over": "xs", "max": 2}, t={"root": {"check": "item == 'p'"}}),
        ["trees.t.root.check: `item == 'p'`: there is no `item` here (`item` is known inside a map only)"],
    ),
    "setting the caller's variables": (
        using({"subtree": "t"}, t={"vars": {"n": "int"}, "root": {"task": "a", "set": {"x": 1}, "post": {"x": 2}}}),
        [
            "trees.t.root.post.x: unknown var 'x' (known: n)",
            "trees.t.root.set.x: unknown var 'x' (known: n)",
        ],
    ),
    "a task that reads what the tree does not have": (
        using({"subtree": "t"}, t={"vars": {"n": "int"}, "root": "i"}),
        ["trees.t.root: task 'i', in.item: `item`: there is no `item` here"],
    ),
    "a fault is told once, however often the tree is used": (
        using({"parallel": [{"subtree": "t"}] * 300}, t={"root": {"check": "x"}}),
        ["trees.t.root.check: `x`: unknown name"],
    ),
    "a reserved word": (
        using({"subtree": "t"}, t={"vars": {"item": "int"}, "root": "a"}),
        ["trees.t.vars.item: 'item' is a reserved word"],
    ),
    "nested too deep": (
        using({"subtree": "t0"}, **{f"t{n}": {"root": {"subtree": f"t{n + 1}"}} for n in range(60)}, t60={"root": "a"}),
        ["trees.t40.root: nodes are nested more than 40 deep", "trees.t41: no node uses this tree"],
    ),
    "a fault of the shape": (
        using({"subtree": "t"}, t={"root": seq("a", {"switch": "x", "cases": {"1": {"retry": "a"}}})}),
        ["trees.t.root.sequence[1].cases.1.max: is missing"],
    ),
    "a label of two things": (
        using(seq({"subtree": "t"}, {"task": "a", "label": "here"}), t={"root": {"task": "b", "label": "here"}}),
        ["root.sequence[1].label: 'here' is the name of something else"],
    ),
    "memory in a fallback": (
        tree({"fallback": ["a", "b"], "memory": True}),
        ["root.memory: only a sequence has memory (a fallback begins with its first child)"],
    ),
    "memory and reactive": (
        tree(seq("a", "b", memory=True, reactive=True)),
        ["root.memory: a reactive sequence has no memory"],
    ),
    "keep without max": (tree({"keep": "a"}), ["root.max: is missing"]),
    "trees of a machine": (
        machine({"s": run("a", done("ok")), "ok": OK}, trees={"t": ONE}),
        ["trees: does not belong to a plan of kind fsm"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SUBTREES)
def test_subtrees(name: str) -> None:
    parts, expected = SUBTREES[name]
    found = refused(parts)
    assert len(found) >= len(expected), found
    for got, wanted in zip(found, expected, strict=False):
        assert got.startswith(wanted), found


def test_the_nodes_of_a_subtree_count_wherever_it_is_used() -> None:
    wide = {"root": {"parallel": [{"subtree": "u"}] * 10}}
    assert refused(using({"parallel": [{"subtree": "t"}] * 100}, t=wide, u={"root": seq(*"abcd")})) == [
        "trees.u.root: the tree has more than 5,000 nodes (split the workflow)"
    ]


def test_a_label_in_a_tree_may_be_used_wherever_the_tree_is() -> None:
    plan = compile_document(using(seq({"subtree": "t"}, {"subtree": "t"}), t={"root": {"task": "b", "label": "here"}}))
    assert plan.tree is not None
    assert plan.tree.labels == {"here": ((2, 2), (4, 4))}


def test_files_in_a_tree_are_known_as_files() -> None:
    tasks = {"t": {"kind": "tool", "use": "std.echo", "in": {"one": "doc"}}}
    one = {"vars": {"doc": "file"}, "root": "t"}
    plan = compile_document(
        tree({"subtree": "s", "in": {"doc": "paper"}}, trees={"s": one}, tasks=tasks, input={"paper": "file"})
    )
    assert plan.tasks["t"].files == {"one"}


def test_a_description_of_a_tree_does_not_count() -> None:
    plain = using({"subtree": "t"}, t=ONE)
    described = using({"subtree": "t"}, t={**ONE, "description": "one", "root": {"task": "a", "description": "leaf"}})
    assert compile_document(described).hash == compile_document(plain).hash


MACHINES: dict[str, tuple[Any, list[str]]] = {
    "unknown state": (
        states(done("okay")),
        ["states.s.transitions[0].to: unknown state 'okay' (did you mean 'ok'?)"],
    ),
    "unknown task": (machine({"s": run("z", done("ok")), "ok": OK}), ["states.s.run: unknown task 'z'"]),
    "unknown initial": (states(done("ok"), initial="t"), ["initial: unknown state 't'"]),
    "unreachable": (
        machine({"s": run("a", done("ok")), "t": run("a", done("ok")), "ok": OK}),
        ["states.t: no way leads to 't' (add a transition to it, or remove it)"],
    ),
    "both event and after": (
        machine({"s": run("a", done("ok"), {"event": "go", "after": "1s", "to": "ok"}), "ok": OK}),
        ["states.s.transitions[1].after: it has an event, too"],
    ),
    "a transition that does nothing": (
        machine({"s": run("a", done("ok"), {"event": "go"}), "ok": OK}),
        ["states.s.transitions[1]: it does nothing and leads nowhere"],
    ),
    "one that is taken for ever": (
        machine({"s": run("a", done("ok"), {"set": {"x": "x + 1"}}), "ok": OK}),
        ["states.s.transitions[1]: it is taken again and again"],
    ),
    "after on the whole machine": (
        machine({"s": run("a", done("ok")), "ok": OK}, transitions=[{"after": "1s", "to": "ok"}]),
        ["transitions[0].after: the whole machine is never entered"],
    ),
    "no time at all": (
        machine({"s": run("a", done("ok"), {"after": "0s", "to": "ok"}), "ok": OK}),
        ["states.s.transitions[1].after: must not be zero"],
    ),
    "raising what nobody hears": (
        machine({"s": run("a", done("ok"), entry={"raise": "hello"}), "ok": OK}),
        ["states.s.entry.raise[0]: no transition takes 'hello'"],
    ),
    "raising an event of the machine": (
        machine({"s": run("a", done("ok"), exit={"raise": ["done"]}), "ok": OK}),
        ["states.s.exit.raise[0]: 'done' is an event of the machine itself"],
    ),
    "internal, but not into itself": (
        machine({"s": run("a", done("ok", internal=True)), "ok": OK}),
        ["states.s.transitions[0].internal: only a way from a compound state into itself is internal"],
    ),
    "internal, but one target is elsewhere": (
        machine({
            "both": {"regions": ["l", "r"], "transitions": [done("ok")]},
            "l": {"in": "both", "initial": "l1", "transitions": [on("go", ["l1", "r1"], internal=True)]},
            "l1": {"in": "l"}, "r": {"in": "both", "initial": "r1"}, "r1": {"in": "r"}, "ok": OK,
        }),
        ["states.l.transitions[0].internal: only a way from a compound state into itself is internal"],
    ),
    "raised with data, though signals of that name carry some": (
        machine({"s": run("a", on("go", "ok"), entry={"raise": {"event": "go", "data": {"n": 1}}}), "ok": OK},
                events={"go": {"n": "int"}}),
        ["states.s.entry.raise[0]: 'go' is declared as a signal, and is raised here"],
    ),
    "a condition of what is raised that is none": (
        machine({"s": run("a", on("go", "ok"), entry={"raise": [{"event": "go", "if": "x"}]}), "ok": OK}),
        ["states.s.entry.raise[0].if: `x`"],
    ),
    "data of what is raised that reads what is not there": (
        machine({"s": run("a", on("go", "ok"), entry={"raise": {"event": "go", "data": {"n": "nobody"}}}), "ok": OK}),
        ["states.s.entry.raise[0].data.n: `nobody`"],
    ),
    "history of nothing": (
        machine({"s": run("a", done("h")), "h": {"history": "deep", "to": "s"}, "ok": OK}),
        ["states.h.in: is missing: a history state is inside another"],
    ),
    "history without a beginning": (
        machine({**WORK, "w_was": {"in": "work", "history": "deep"}}),
        ["states.w_was.to: is missing"],
    ),
    "history that begins elsewhere": (
        machine({**WORK, "w_was": {"in": "work", "history": "deep", "to": "ok"}}),
        ["states.w_was.to: 'ok' is not a state inside 'work'"],
    ),
    "history with ways out": (
        machine({**WORK, "w_was": {"in": "work", "history": "deep", "to": "w1", "transitions": [done("ok")]}}),
        ["states.w_was.transitions: a history state has no transitions"],
    ),
    "history that begins with a history state": (
        machine({**WORK, "w_was": {"in": "work", "history": "deep", "to": "w_other"},
                 "w_other": {"in": "work", "history": "shallow", "to": "w1"}}),
        ["states.w_was.to: 'w_other' is not a state inside 'work'"],
    ),
    "history that begins in two states of one region": (
        machine({**BOTH, "was": {"in": "both", "history": "deep", "to": ["l", "l2"]}}),
        ["states.was.to: 'l' and 'l2' are never active together (name states in different regions"],
    ),
    "two initial states, one after the other": (
        machine({**WORK, "work": {"initial": ["w1", "w2"], "transitions": [done("ok")]}}),
        ["states.work.initial: 'w1' and 'w2' are never active together"],
    ),
    "a state and what is inside it": (
        machine({**BOTH, "after": run("d", done(["both", "r"]))}),
        ["states.after.transitions[0].to: 'both' and 'r' are never active together"],
    ),
    "a state twice": (
        machine({**BOTH, "after": run("d", done(["r", "r"]))}),
        ["states.after.transitions[0].to: 'r' and 'r' are never active together"],
    ),
    "one of several targets is unknown": (
        machine({**BOTH, "after": run("d", done(["l", "q"]))}),
        ["states.after.transitions[0].to: unknown state 'q'"],
    ),
    "a history state that nobody leads to": (
        machine({**WORK, "w_was": {"in": "work", "history": "deep", "to": "w1"}}),
        ["states.w_was: no way leads to 'w_was'"],
    ),
    "dead end": (
        machine({"s": run("a", done("t"), failed("ok")), "t": run("b"), "ok": OK}),
        ["states.t: when its task is done, nothing leads out of 't' (add a transition with event: done)"],
    ),
    "nothing runs": (
        machine({"s": run("a", done("t"), failed("ok")), "t": {}, "ok": OK}),
        ["states.t: nothing runs in 't' and nothing leads out of it"],
    ),
    "no end": (
        machine({"s": run("a", done("s"), visits=3)}),
        ["states: no final state can be reached: a run would never end (add {final: success})"],
    ),
    "a cycle without a bound": (
        machine({"s": run("a", done("t")), "t": run("b", done("s", **{"if": "go"}), done("ok")), "ok": OK}),
        ["states.s: the cycle s → t → s has no bound (give one of its states `visits: N`)"],
    ),
    "a cycle of one": (
        states(done("s", **{"if": "go"}), done("ok")),
        ["states.s: the cycle s → s has no bound"],
    ),
    "a cycle through the whole machine": (
        states(done("ok"), transitions=[failed("s")]),
        ["states.s: the cycle s → s has no bound"],
    ),
    "a cycle through a compound state": (
        machine({**WORK, "work": {"initial": "w1", "transitions": [done("ok"), failed("work")]}}),
        ["states.w1: the cycle w1 → w2 → w_ok → w1 has no bound"],
    ),
    "a cycle through a final state inside": (
        machine({"s": run("a", done("w_ok")), "w": {"initial": "w_ok", "transitions": [done("s")]},
                 "w_ok": {"in": "w", **OK}, "ok": OK}, transitions=[on("stop", "ok")]),
        ["states.s: the cycle s → w_ok → s has no bound"],
    ),
    "a cycle through the whole machine, by what is raised": (
        machine({"s": run("a", done("ok", **{"if": "go"}), {"event": "done", "raise": "redo"}), "ok": OK},
                transitions=[on("redo", "s")]),
        ["states.s: the cycle s → s has no bound"],
    ),
    "a cycle through the whole machine, by errors": (
        states(done("ok", **{"if": "1 / result.n > 0"}), transitions=[on("error", "s")]),
        ["states.s: the cycle s → s has no bound"],
    ),
    "a cycle by time": (
        machine({"s": {"transitions": [{"after": "1m", "to": "t"}]},
                 "t": run("a", done("ok", **{"if": "go"}), done("s")), "ok": OK}),
        ["states.s: the cycle s → t → s has no bound"],
    ),
    "a cycle through a region": (
        machine({**BOTH, "r": run("b", done("r_ok"), failed("both"), **{"in": "both"})}),
        ["states.r: the cycle r → r has no bound"],
    ),
    "a cycle through history, past the state with visits": (
        machine({"w": {"initial": "w1", "transitions": [on("pause", "rest"), done("ok")]},
                 "w1": run("a", done("w2"), visits=3, **{"in": "w"}), "w2": run("b", done("ok"), **{"in": "w"}),
                 "was": {"in": "w", "history": "shallow", "to": "w1"}, "rest": run("c", done("was")), "ok": OK}),
        ["states.w2: the cycle w2 → rest → w2 has no bound"],
    ),
    "a cycle through a final state that is not left at once": (
        machine({"w": {"initial": "w1", "transitions": [
                    on("pause", "rest"), {"event": "done", "if": "go", "set": {"x": 1}}, done("ok")]},
                 "w1": run("a", done("w_ok"), visits=1, **{"in": "w"}), "w_ok": {"in": "w", **OK},
                 "was": {"in": "w", "history": "shallow", "to": "w1"}, "rest": run("c", done("was")), "ok": OK}),
        ["states.w_ok: the cycle w_ok → rest → w_ok has no bound"],
    ),
    "a cycle through history that leaves the state with visits active": (
        machine({"s": run("c", done("v2"), failed("w")),
                 "w": {"initial": "v", "visits": 9, "transitions": [on("leave", "s")]},
                 "v": {"in": "w", "initial": "v1", "visits": 3},
                 "v1": run("a", done("was"), on("out", "ok"), **{"in": "v"}),
                 "v2": run("b", done("v1"), **{"in": "v"}),
                 "was": {"in": "w", "history": "deep", "to": "v2"}, "ok": OK}),
        ["states.v1: the cycle v1 → v2 → v1 has no bound"],
    ),
    "a guard's type": (
        states(done("ok", **{"if": "result.n"})),
        ["states.s.transitions[0].if: `result.n`: gives int, but bool is needed"],
    ),
    "a result where there is none": (
        states(done("ok"), failed("ok", **{"if": "result.ok"})),
        ["states.s.transitions[1].if: `result.ok`: there is no `result` here"],
    ),
    "done of the whole machine": (
        states(done("ok"), transitions=[done("ok")]),
        ["transitions[0].event: the whole machine is done when it reaches a final state"],
    ),
    "done of nothing": (
        machine({"s": {"transitions": [done("ok"), {"to": "ok"}]}, "ok": OK}),
        ["states.s.transitions[0].event: 's' runs nothing that could be done (leave `event` out)"],
    ),
    "item in a machine": (
        document(kind="fsm", initial="s", states={"s": run("i", done("ok")), "ok": OK}, root_=1)
        | {"root_": 1},
        [],
    ),
    "in a state that holds none": (
        machine({"s": run("a", done("ok")), "t": {"in": "s", **run("b", done("ok"))}, "ok": OK}),
        ["states.t.in: 's' holds no states (give 's' an `initial`, or name a region)"],
    ),
    "in nowhere": (
        machine({"s": {"in": "q", **run("a", done("ok"))}, "ok": OK}),
        ["states.s.in: unknown state 'q'"],
    ),
    "in itself": (
        machine(
            {
                "s": run("a", done("ok")),
                "t": {"in": "u", "initial": "u"},
                "u": {"in": "t", "initial": "t"},
                "ok": OK,
            }
        ),
        ["states.t.in: 't' is inside itself", "states.u.in: 'u' is inside itself"],
    ),
    "a parallel state is no place": (
        machine({**BOTH, "r_ok": {"in": "both", **OK}}),
        ["states.r_ok.in: 'both' is parallel: name the region (one of both.l, both.r)"],
    ),
    "a region that does not say so": (
        machine({**BOTH, "r": run("b", done("r_ok"))}),
        ["states.r.in: 'r' is a region of 'both' (say in: both)"],
    ),
    "a region twice": (
        machine({**BOTH, "both": {"regions": ["l", "l"], "transitions": [done("after")]}}),
        ["states.both.regions[0]: 'l' is listed twice", "states.both.regions[1]: 'l' is listed twice"],
    ),
    "an unknown region": (
        machine({**BOTH, "both": {"regions": ["l", "rr"], "transitions": [done("after")]}}),
        ["states.both.regions[1]: unknown state 'rr'"],
    ),
    "an initial state elsewhere": (
        machine({**WORK, "work": {"initial": "ok", "transitions": [done("ok")]}}),
        ["states.work.initial: 'ok' is not inside 'work' (name a state with in: work)"],
    ),
    "two shapes": (
        machine({"s": {**run("a", done("ok")), "final": "success"}, "ok": OK}),
        [
            "states.s.final: 's' has both run and final",
            "states.s.transitions: a final state has no transitions",
        ],
    ),
}
del MACHINES["item in a machine"]


@pytest.mark.parametrize("name", MACHINES)
def test_machines(name: str) -> None:
    parts, expected = MACHINES[name]
    found = refused(parts)
    assert len(found) >= len(expected), found
    for got, wanted in zip(found, expected, strict=False):
        assert got.startswith(wanted), found


def test_a_machine_has_no_item() -> None:
    tasks = {"i": {"kind": "tool", "use": "std.echo", "in": {"item": "item"}}}
    found = refused(machine({"s": run("i", done("ok")), "ok": OK}, tasks=tasks))
    assert found == ["tasks.i.in.item: there is no `item` here (`item` is known inside a map only)"]


PARTS: dict[str, tuple[Any, list[str]]] = {
    "unknown tool": (task(use="ehco"), ["tasks.t.use: unknown tool 'ehco' (known: std.calc, std.echo, std.fail)"]),
    "unknown built-in": (
        task(use="std.ehco"),
        ["tasks.t.use: unknown tool 'std.ehco' (did you mean 'std.echo'?)"],
    ),
    "a tool from outside": (
        task(use="erp.pay"),
        [
            "tasks.t.use: the tool 'erp.pay' from outside the workflow is not yet available (ship it with the workflow"
        ],
    ),
    "a task that undoes itself": (
        task(undo="t"),
        ["tasks.t.undo: 't' cannot undo anything (name a task that does one thing, and that is not undone itself)"],
    ),
    "an unknown undoing task": (task(undo="u"), ["tasks.t.undo: unknown task 'u' (known: t)"]),
    "an undoing task that reads what there is not": (
        tree("t", tasks={"t": {**ECHO, "out": {"n": "int"}, "undo": "u"}, "u": {**ECHO, "in": {"m": "result.m"}}}),
        ["tasks.u.in.m: `result.m`: "],
    ),
    "an undoing task with a result that runs by itself": (
        tree(seq("t", "u"), tasks={"t": {**ECHO, "undo": "u"}, "u": {**ECHO, "in": {"m": "result"}}}),
        ["root.sequence[1]: task 'u' reads `result` (in.m), which is there only where it undoes another"],
    ),
    "nothing to compensate": (
        tree("t", tasks={"t": {"kind": "compensate"}}),
        ["tasks.t: nothing can be undone (say with `undo` what undoes a task)"],
    ),
    "an unknown scope": (
        tree(seq("t", "c"), tasks={"t": {**ECHO, "undo": "u"}, "u": ECHO, "c": {"kind": "compensate", "scope": "q"}}),
        ["tasks.c.scope: unknown scope 'q' (known: p)"],
    ),
    "a label twice": (
        tree(seq({"task": "a", "label": "x"}, {"task": "b", "label": "x"})),
        ["root.sequence[1].label: 'x' is the name of something else (choose another)"],
    ),
    "a wait for nothing": (
        tree("t", tasks={"t": {"kind": "wait"}}),
        ["tasks.t: waits neither `for` some time nor `until` a time, or for both (give one of them)"],
    ),
    "a wait for two things": (
        tree("t", tasks={"t": {"kind": "wait", "for": "1s", "until": "j"}}),
        ["tasks.t: waits neither `for` some time nor `until` a time, or for both (give one of them)"],
    ),
    "a time that is a number": (
        tree("t", tasks={"t": {"kind": "wait", "until": "x"}}),
        ["tasks.t.until: `x`: "],
    ),
    "a workflow that runs itself": (
        tree("t", tasks={"t": {"kind": "workflow", "use": "p@1"}}),
        ["tasks.t.use: 'p' would run itself, without an end (use a loop in the plan)"],
    ),
    "an event that nobody takes": (
        machine({"s": {"run": "a", "transitions": [{"event": "done", "to": "t"}]}, "t": {"final": "success"}},
                events={"paid": {"n": "int"}}),
        ["events.paid: no transition takes 'paid' (add one, or remove it)"],
    ),
    "a raised event that should carry something": (
        machine({"s": {"entry": {"raise": "paid"}, "transitions": [{"event": "paid", "to": "t"}]},
                 "t": {"final": "success"}}, events={"paid": {"n": "int"}}),
        ["states.s.entry.raise[0]: 'paid' is declared as a signal, and is raised here"],
    ),
    "a part of an event that is not declared": (
        machine({"s": {"transitions": [{"event": "paid", "if": "event.data.m > 0", "to": "t"}]},
                 "t": {"final": "success"}}, events={"paid": {"n": "int"}}),
        ["states.s.transitions[0].if: `event.data.m > 0`"],
    ),
    "versions the wrong way round": (
        tree("t", tasks={"t": {"kind": "workflow", "use": "q@5-3"}}),
        ["tasks.t.use: the last version is before the first (write it as name@first-last)"],
    ),
    "a version that is none": (
        tree("t", tasks={"t": {"kind": "workflow", "use": "q@new"}}),
        ["tasks.t.use: 'q@new' is not a workflow (write name, name@3 (that version), name@3- or name@3-5)"],
    ),
    "a retry of what is not tried again": (
        task(retry={"max": 2, "only": ["a", "b"], "never": ["b"]}),
        ["tasks.t.retry.never: 'b' is in `only`, too (keep one of them)"],
    ),
    "waiting less than at first": (
        task(retry={"max": 2, "backoff": "10s", "max_backoff": "1s"}),
        ["tasks.t.retry.max_backoff: is less than `backoff` (make it at least as long)"],
    ),
    "an llm task without a budget": (
        tree("t", tasks={"t": LLM}),
        [
            "limits.usd: is missing, but task 't' costs money (set the most that one run may spend, e.g. usd: 1.0)"
        ],
    ),
    "a priced tool without a budget": (
        tree("t", tasks={"t": {"kind": "tool", "use": "mine"}}, tools={"mine": {**CODE, "usd": 0.1}}),
        ["limits.usd: is missing, but task 't' costs money"],
    ),
    "a prompt without its input": (
        tree("t", tasks={"t": {**LLM, "prompt": "{who} and {x}"}}, limits={"steps": 1, "usd": 1}),
        ["tasks.t.prompt: {x} is not a key of the task's `in` (add it: in: {x: x})"],
    ),
    "a prompt with a brace": (
        tree("t", tasks={"t": {**LLM, "system": "answer\n{ok}} as {}"}}, limits={"steps": 1, "usd": 1}),
        ["tasks.t.system: a single '}' in line 2 of the text (write {{ or }} for a brace)"],
    ),
    "unknown type": (
        tree("a", vars={"x": "integer", "l": "list(int"}),
        [
            "vars.l: unknown type 'list(int': use string, int, double, bool, json, file, list(T) or map(T)",
            "vars.x: unknown type 'integer'",
        ],
    ),
    "reserved name": (
        tree("a", vars={"result": "int", "package": "int"}),
        [
            "vars.package: 'package' is a reserved word (choose another name)",
            "vars.result: 'result' is a reserved",
        ],
    ),
    "declared twice": (tree("a", input={"x": "int"}, vars={"x": "int"}), ["vars.x: is an input too"]),
    "out of an unknown type": (task(out={"n": "number"}), ["tasks.t.out.n: unknown type 'number'"]),
    "input of an unknown name": (task(**{"in": {"who": "whom"}}), ["tasks.t.in.who: `whom`: unknown name"]),
    "input that is not JSON": (
        task(**{"in": {"at": "timestamp('2020-01-01T00:00:00Z')"}}),
        [
            "tasks.t.in.at: `timestamp('2020-01-01T00:00:00Z')`: gives a value of type timestamp, "
            "which JSON does not have (convert it with string(...))"
        ],
    ),
    "output": (tree("a", output={"o": "gone"}), ["output.o: `gone`: unknown name"]),
    "a trigger's condition": (
        tree("a", trigger={"type": "com.example.x", "if": "event.data.n + 1"}),
        ["trigger.if: `event.data.n + 1`: gives int, but bool is needed"],
    ),
    "a trigger that leaves an input out": (
        tree("a", input={"who": "string"}, trigger={"type": "com.example.x", "input": {"whom": "event.id"}}),
        [
            "trigger.input.who: is missing: the workflow needs this input (e.g. event.data.who)",
            "trigger.input.whom: unknown input 'whom' (did you mean 'who'?)",
        ],
    ),
    "a match that is no bool": (
        tree("t", tasks={"t": {"kind": "event", "use": "com.example.x", "match": "'x'"}}),
        ["tasks.t.match: `'x'`: gives string, but bool is needed"],
    ),
    "code in a file": (
        tree(
            "t",
            tasks={"t": {"kind": "tool", "use": "mine"}},
            tools={"mine": {"kind": "python", "file": "mine.py"}},
        ),
        ["tools.mine.file: a file cannot be read here (give the code itself under `code` (the CLI does))"],
    ),
    "a tool without code": (
        tree("t", tasks={"t": {"kind": "tool", "use": "mine"}}, tools={"mine": {"kind": "python"}}),
        ["tools.mine.code: is missing (give the Python code that defines run(**input) -> dict)"],
    ),
    "a retry of what is not tried": (
        tree("t", tasks={"t": {"kind": "wait", "for": "1s", "retry": {"max": 2}}}),
        ["tasks.t.retry: there is no key 'retry' here"],
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_parts(name: str) -> None:
    parts, expected = PARTS[name]
    found = refused(parts)
    assert len(found) == len(expected), found
    for got, wanted in zip(found, expected, strict=True):
        assert got.startswith(wanted), found


# ------------------------------------------------------------------------------------------------ what compiles


def test_a_task_has_its_defaults() -> None:
    plan = compile_document(
        tree("t", tasks={"t": LLM, "w": {"kind": "wait", "for": "90s"}}, limits={"steps": 3, "usd": 0.25})
    )
    llm, wait = plan.tasks["t"], plan.tasks["w"]
    assert (llm.retry.max, llm.timeout_ms, llm.max_tokens, llm.out, llm.for_ms) == (
        1,
        60_000,
        1024,
        None,
        None,
    )
    assert (wait.for_ms, wait.timeout_ms, wait.use) == (90_000, None, "")
    assert (plan.limits.steps, plan.limits.micro, plan.limits.wall_ms) == (3, 250_000, 86_400_000)


def test_a_tool_has_its_limits() -> None:
    tool = {**CODE, "memory": "64MiB", "output": "1KiB", "cpu": 2, "timeout": "5s", "usd": 0.0000015}
    plan = compile_document(
        tree(
            "t",
            tasks={"t": {"kind": "tool", "use": "mine"}},
            tools={"mine": tool},
            limits={"steps": 1, "usd": 1},
        )
    )
    spec = plan.tools["mine"]
    assert (spec.memory_bytes, spec.output_bytes, spec.cpu, spec.timeout_ms) == (
        64 << 20,
        1 << 10,
        2.0,
        5_000,
    )
    assert spec.price_micro == 2, "rounded up: a price is never understated"


def test_files_are_known_as_files() -> None:
    given = {"whole": "doc", "first": "docs[0]", "name": "'doc'", "text": "doc + ''", "n": "n"}
    tasks = {
        "t": {"kind": "tool", "use": "std.echo", "in": given},
        "i": {"kind": "tool", "use": "std.echo", "in": {"one": "item"}},
    }
    root = seq("t", {"map": "i", "over": "docs", "max": 3})
    plan = compile_document(
        tree(root, tasks=tasks, input={"doc": "file", "docs": "list(file)"}, vars={"n": "int"})
    )
    assert plan.tasks["t"].files == {"whole", "first"}
    assert plan.tasks["i"].files == {"one"}


SHORT = {
    "retry": {
        "sequence": [
            "a",
            {"task": "b", "set": {"x": 1, "go": True, "j": None}},
            {"check": True},
            {"parallel": ["c", {"invert": "d"}]},
        ]
    },
    "max": 2,
}
LONG = {
    "type": "retry",
    "max": 2,
    "child": {
        "type": "sequence",
        "children": [
            {"type": "task", "task": "a"},
            {"type": "task", "task": "b", "set": {"x": "1", "go": "true", "j": "null"}},
            {"type": "check", "if": "true"},
            {
                "type": "parallel",
                "children": [
                    {"type": "task", "task": "c"},
                    {"type": "invert", "child": {"type": "task", "task": "d"}},
                ],
            },
        ],
    },
}


def test_short_and_long_forms_are_the_same_plan() -> None:
    short, long = compile_document(tree(SHORT)), compile_document(tree(LONG))
    assert short.document["root"] == LONG
    assert short.hash == long.hash


def test_the_hash_names_the_meaning() -> None:
    plain = tree("a")
    first = compile_document(plain)
    described = compile_document(
        {**plain, "description": "what it does", "root": {"task": "a", "description": "a leaf"}}
    )
    assert described.hash == first.hash, "descriptions do not count"
    assert compile_document(dict(reversed(plain.items()))).hash == first.hash, "nor does the order of keys"
    assert compile_document(json.loads(json.dumps(first.document))).hash == first.hash, (
        "nor how it was written"
    )
    assert compile_document(tree("b")).hash != first.hash


def test_the_document_is_not_changed() -> None:
    parts = tree(SHORT)
    before = copy.deepcopy(parts)
    compile_document(parts)
    assert parts == before


def test_an_empty_key_is_not_given() -> None:
    assert (
        compile_document(tree({"task": "a", "set": None}, tools=None)).hash
        == compile_document(tree("a")).hash
    )


@pytest.mark.parametrize(
    "junk",
    [
        {},
        {"kind": "bt"},
        {"tasks": []},
        tree({"type": "task"}),
        tree(5),
        machine({"s": {"run": "a", "transitions": [5]}}),
    ],
)
def test_the_core_refuses_what_has_no_shape(junk: Any) -> None:
    with pytest.raises(Invalid):
        compile_plan(junk)


@pytest.mark.parametrize(
    ("states", "transitions"),
    [
        # a signal from outside to the whole machine: limits.steps bounds how often it may come
        ({"s": run("a", done("ok")), "ok": OK}, [on("again", "s")]),
        # the state whose history it is is entered each time, and counted
        ({"w": {"initial": "w1", "visits": 3, "transitions": [on("pause", "rest"), done("ok")]},
          "w1": run("a", done("w2"), **{"in": "w"}), "w2": run("b", done("ok"), **{"in": "w"}),
          "was": {"in": "w", "history": "shallow", "to": "w1"}, "rest": run("c", done("was")), "ok": OK}, []),
        # one region is counted, so the transition that enters both is
        ({**BOTH, "l": run("a", done("l2"), visits=2, **{"in": "both"}),
          "r": run("b", done("r_ok"), failed("both"), **{"in": "both"})}, []),
        # what fails inside is taken inside
        ({"s": run("a", done("ok"), failed("ok")), "ok": OK}, [failed("s")]),
        ({"s": run("e", done("ok"), failed("ok")), "ok": OK}, [on("timeout", "s")]),
        # what is around a task is not done when the task is
        ({"s": run("a", done("w_ok"), failed("w1")), "w": {"initial": "w1", "transitions": [done("w1")]},
          "w1": run("b", done("ok", **{"if": "go"}), **{"in": "w"}), "w_ok": {"in": "w", **OK}, "ok": OK}, []),
        # a final state that is left at once hears no signal
        ({"w": {"initial": "w1", "transitions": [on("pause", "rest"), done("ok")]},
          "w1": run("a", done("w_ok"), visits=1, **{"in": "w"}), "w_ok": {"in": "w", **OK},
          "was": {"in": "w", "history": "shallow", "to": "w1"}, "rest": run("c", done("was")), "ok": OK}, []),
        # no history: the state around is never entered again
        ({"w": {"initial": "w1", "transitions": [done("ok")]}, "w1": run("a", done("w2"), **{"in": "w"}, visits=2),
          "w2": run("b", done("w_ok"), on("redo", "was"), **{"in": "w"}), "w_ok": {"in": "w", **OK},
          "was": {"in": "w", "history": "shallow", "to": "w1"}, "ok": OK}, []),
    ],
)  # fmt: skip
def test_what_is_bounded_is_no_cycle(states: dict[str, Any], transitions: list[Any]) -> None:
    assert compile_document(machine(states, transitions=transitions)).machine is not None


def test_large_plans_compile_in_time() -> None:
    names = [f"s{n}" for n in range(900)]
    chain = {name: run("a", done(after)) for name, after in zip(names, [*names[1:], "ok"], strict=True)}
    assert worst.steps(compile_document(machine({**chain, "ok": OK}))).most == 900
    deep: Any = "a"
    for _ in range(38):
        deep = {"sequence": [deep]}
    assert compile_document(tree(deep)).tree is not None
    for _ in range(8):
        deep = {"type": "sequence", "children": [deep]}
    assert "nested more than" in refused(tree(deep))[0]
