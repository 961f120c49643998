"""Random plans that compile and mostly come to a good end: by a seed, so that there are exactly as many as wanted."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from .driving import VARS, document
from .test_fsm import BAD, OK, done, failed, run

GUARDS = ["go", "!go", "x > 1", "true", "false"]
SETS = [{"go": "!go"}, {"x": "x + 1"}, {"go": "result.ok", "x": "result.n"}]
OTHERS = {"up": "bool", "y": "int"}
OUTSIDE = [{"up": "!up"}, {"y": "y + 1"}]
"""Sets what no condition asks but in a subtree that knows it as ``go`` or ``x``."""
ASKED = ("fail_if", "success_if", "skip_if", "while")


def random_plan(seed: int, tasks: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The document of a plan of tasks a, b and c: a tree for even seeds, a machine for odd ones."""
    chance = random.Random(seed)
    whole = {"tasks": tasks, **parts}
    if seed % 2:
        return document(kind="fsm", initial="s0", states=_states(chance), **whole)
    growing = _Growing(chance)
    root = growing.node(3)
    if growing.looks:  # beside something that changes a variable again and again
        ways = [root, growing.looking(), {"repeat": growing.flip(), "max": 8}]
        root = {"parallel": ways, "wait": "all", "fail_at": 3}
    whole["vars"] = {**whole.get("vars", VARS), **OTHERS}
    if growing.trees:
        whole["trees"] = growing.trees
    return document(kind="bt", root=root, **whole)


class _Growing:
    """A tree in the making. Every other one mostly looks at conditions again, all of them upon one variable, and sets
    one, which may be another."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.looks = chance.random() < 0.5
        self.guards = chance.choice([["go", "!go", "true"], ["x > 1", "x == 0", "false"]]) if self.looks else GUARDS
        self.sets = [chance.choice([*OUTSIDE, *OUTSIDE, *SETS])] if self.looks else [*SETS, *OUTSIDE]
        self.trees: dict[str, Any] = {}
        self.inside = False

    def often(self, share: float) -> bool:
        return self.chance.random() < (share * 2 if self.looks else share)

    def node(self, depth: int) -> Any:
        made = self.task() if depth == 0 or self.chance.random() < 0.2 else self.inner(depth - 1)
        if self.often(0.15):
            made.setdefault(self.chance.choice(ASKED), self.chance.choice(self.guards))
        return made

    def looking(self) -> Any:
        """What looks at conditions again: before what it has begun, or in a tree of its own."""
        if self.chance.random() < 0.5:
            return self.subtree(1, lambda: {"while": self.chance.choice(self.guards), "do": self.node(1), "else": "a"})
        guarded = {"task": "c", self.chance.choice(ASKED[2:]): self.chance.choice(self.guards)}
        waits: Any = {"delay": "1s", "child": guarded}
        around = [waits, {"timeout": "1h", "child": waits}, {"once": waits}, {"type": "invert", "child": waits}]
        waits = self.chance.choice(around)
        return {self.chance.choice(["sequence", "fallback"]): [waits, self.flip(), self.flip()], "reactive": True}

    def task(self) -> Any:
        return self.flip() if self.often(0.4) else {"task": self.chance.choice("abc")}

    def flip(self) -> Any:
        """A task that sets something."""
        sets = [each for each in self.sets if not (self.inside and each in OUTSIDE)]
        return {"task": self.chance.choice("abc"), **({"set": self.chance.choice(sets)} if sets else {})}

    def inner(self, below: int) -> Any:
        chance = self.chance

        def some(least: int = 1) -> list[Any]:
            return [one() for _ in range(chance.randint(least, 3))]

        def one() -> Any:
            return self.node(below)

        def series(kind: str) -> Any:
            return {kind: some(2), "reactive": self.often(0.3)}

        def parallel(more: Callable[[int], dict[str, Any]]) -> Any:
            children = some(2)
            return {"parallel": children, **more(len(children))}

        def again(kind: str) -> Any:
            return {kind: one(), "max": chance.randint(1, 3)}

        kinds: dict[str, Callable[[], Any]] = {
            "sequence": lambda: series("sequence"),
            "fallback": lambda: series("fallback"),
            "all": lambda: parallel(lambda count: {"wait": "all", "fail_at": chance.randint(1, count)}),
            "repeat": lambda: again("repeat"),
            "while": lambda: {"while": chance.choice(self.guards), "do": one(), "else": one()},
            "delay": lambda: {"delay": "1s", "child": one()},
            "subtree": lambda: self.subtree(below),
            "parallel": lambda: parallel(lambda count: {"need": chance.randint(1, count)}),
            "retry": lambda: again("retry"),
            "keep": lambda: again("keep"),
            "if": lambda: {"if": chance.choice(self.guards), "then": one(), "else": one()},
            "switch": lambda: {"switch": "x", "cases": {"0": one(), "1": one()}, "default": one()},
            "invert": lambda: {"type": "invert", "child": one()},
            "force": lambda: {"force": one(), "as": "success"},
            "map": lambda: {"map": one(), "over": "['p', 'q', 'r']", "max": 3, "fail_at": chance.randint(1, 3)},
            "try": lambda: {"try": some(), "catch": one()},
            "once": lambda: {"once": one()},
            "timeout": lambda: {"timeout": "1h", "child": one()},
            "memory": lambda: {"sequence": some(2), "memory": True},
        }
        names = [*list(kinds)[: 7 if self.looks else None], "sequence", "fallback"]
        if self.inside:
            names.remove("subtree")
        return kinds[chance.choice(names)]()

    def subtree(self, below: int, root: Callable[[], Any] | None = None) -> Any:
        """One that shares what it sets and asks, by the same name or another."""
        name, self.inside = f"t{len(self.trees)}", True
        self.trees[name] = {"vars": {"x": "int", "go": "bool"}, "root": root() if root else self.node(below)}
        self.inside = False
        share = {"x": self.chance.choice(["x", "y"]), "go": self.chance.choice(["go", "up"])}
        return {"subtree": name, "share": share}


def _states(chance: random.Random) -> dict[str, Any]:
    """States one after the other, with ways ahead and a few back; one of them may have two regions."""
    count = chance.randint(2, 6)
    names = [f"s{n}" for n in range(count)]
    states: dict[str, Any] = {"ok": OK, "bad": BAD}
    for place, name in enumerate(names):
        ahead = [*names[place + 1 :], "ok"]
        ways = [done(chance.choice(names), **{"if": "go"})] if chance.random() < 0.3 else []
        ways += [done(ahead[0], **{"if": chance.choice(GUARDS[:3])}), done(chance.choice(ahead))]
        ways.append(failed("bad" if name == names[-1] else chance.choice([*ahead, "bad"])))
        if place and chance.random() < 0.25:
            states[name] = {"regions": [f"{name}l", f"{name}r"], "transitions": ways, "visits": 3}
            for side in "lr":
                states[f"{name}{side}"] = run(
                    chance.choice("abc"), done(f"{name}{side}_end"), failed(f"{name}{side}_end"), **{"in": name}
                )
                states[f"{name}{side}_end"] = {"in": f"{name}.{name}{side}", "final": "success"}
        else:
            way = {"set": chance.choice(SETS)} if chance.random() < 0.5 else {}
            ways[-2] = {**ways[-2], **way}
            states[name] = run(chance.choice("abc"), *ways, visits=chance.randint(2, 4))
    return states
