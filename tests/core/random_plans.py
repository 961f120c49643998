"""Random plans that compile and mostly come to a good end: by a seed, so that there are exactly as many as wanted."""

from __future__ import annotations

import random
from typing import Any

from .driving import document
from .test_fsm import BAD, OK, done, failed, run

GUARDS = ["go", "!go", "x > 1", "true", "false"]
SETS = [{"go": "!go"}, {"x": "x + 1"}, {"go": "result.ok", "x": "result.n"}]


def random_plan(seed: int, tasks: dict[str, Any], **parts: Any) -> dict[str, Any]:
    """The document of a plan of tasks a, b and c: a tree for even seeds, a machine for odd ones."""
    chance = random.Random(seed)
    whole = {"tasks": tasks, **parts}
    if seed % 2:
        return document(kind="fsm", initial="s0", states=_states(chance), **whole)
    return document(kind="bt", root=_node(chance, 3), **whole)


def _node(chance: random.Random, depth: int) -> Any:
    def some(least: int = 1) -> list[Any]:
        return [_node(chance, depth - 1) for _ in range(chance.randint(least, 3))]

    if depth == 0 or chance.random() < 0.2:
        task: dict[str, Any] = {"task": chance.choice("abc")}
        if chance.random() < 0.4:
            task["set"] = chance.choice(SETS)
        return task
    kind = chance.choice([
        "sequence", "sequence", "fallback", "fallback", "parallel", "all", "retry", "repeat", "if", "switch", "invert",
        "force", "map", "try", "once", "while", "timeout", "memory",
    ])  # fmt: skip
    one = lambda: _node(chance, depth - 1)  # noqa: E731
    children = some(2)
    made: dict[str, Any] = {
        "sequence": {"sequence": children, "reactive": chance.random() < 0.2},
        "fallback": {"fallback": children},
        "parallel": {"parallel": children, "need": chance.randint(1, len(children))},
        "all": {"parallel": children, "wait": "all", "fail_at": chance.randint(1, len(children))},
        "retry": {"retry": one(), "max": chance.randint(1, 3)},
        "repeat": {"repeat": one(), "max": chance.randint(1, 3)},
        "if": {"if": chance.choice(GUARDS), "then": one(), "else": one()},
        "switch": {"switch": "x", "cases": {"0": one(), "1": one()}, "default": one()},
        "invert": {"type": "invert", "child": one()},
        "force": {"force": one(), "as": "success"},
        "map": {"map": one(), "over": "['p', 'q', 'r']", "max": 3, "fail_at": chance.randint(1, 3)},
        "try": {"try": some(), "catch": one()},
        "once": {"once": one()},
        "while": {"while": chance.choice(GUARDS), "do": one(), "else": one()},
        "timeout": {"timeout": "1h", "child": one()},
        "memory": {"sequence": children, "memory": True},
    }
    return made[kind]


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
