"""What a planner holds between two events, without the numbers it gives: two states that hold the same go on alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from agentflow.core.moves import PlanState
from agentflow.core.node import TIMED, Tree
from agentflow.core.plan import Plan

_CATCH = re.compile(r"~(\d+)/")


def held(plan: Plan, state: PlanState, *, counts: bool = True) -> list[Any]:
    """The cursor without the numbers of steps and timers, and what could be undone; without ``counts`` also without how
    often states were entered. What variables are set to does not count."""
    cursor: Mapping[str, Any] = state.cursor
    if plan.tree is not None:
        return [_tree(plan.tree, cursor), _undone(state)]
    machine = [
        cursor["at"],
        sorted(cursor["run"]),
        cursor["visits"] if counts else {},
        cursor.get("history"),
        sorted(cursor.get("timers", {}).values()),
    ]
    return [machine, _undone(state)]


def _tree(tree: Tree, cursor: Mapping[str, Any]) -> list[Any]:
    """What a tree's cursor says, but for the numbers of steps, timers, catches and subtrees' variables."""
    rank = {number: str(place) for place, number in enumerate(sorted(cursor.get("loose", ()), key=int))}

    def named(key: str) -> str:
        return _CATCH.sub(lambda match: f"~{rank.get(match[1], '?')}/", key)

    def known(key: str, value: Any) -> Any:
        kind = tree.nodes[int(key.rpartition("/")[2].rstrip("!m"))].kind
        if value.__class__ is int:
            return 0
        if value.__class__ is not list:
            return value
        if kind in TIMED:
            return value[1:]
        if kind == "subtree":
            return value[:1]
        return [value[0], rank.get(value[1], "?")] if kind == "try" and len(value) == 3 else value

    loose = {rank[number]: [held["catch"], named(held["at"])] for number, held in cursor.get("loose", {}).items()}
    return [
        {named(key): known(key, value) for key, value in cursor["n"].items()},
        sorted(named(key) for key in cursor["run"].values()),
        {named(key): len(items) for key, items in cursor["items"].items()},
        sorted(named(key) for key in cursor.get("timers", {}).values()),
        loose,
        cursor.get("outcome", [None])[0],
    ]


def _undone(state: PlanState) -> list[Any]:
    """What could be undone, in order, and how far compensations are."""
    if not state.undo:
        return []
    done = sorted(state.undo["done"].values())
    going = sorted([len(left), bool(busy), bool(failed)] for left, busy, _, _, failed in state.undo["now"].values())
    return [[[place, task] for _, place, task, _ in done], going]
