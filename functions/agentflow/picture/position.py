"""Where a run is, as marks on the boxes of its plan's diagram: from its state, and what its steps have come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from agentflow.core.machine import Machine
from agentflow.core.moves import PlanState
from agentflow.core.node import Node, Tree
from agentflow.core.plan import Plan
from agentflow.picture.diagram import Mark
from agentflow.picture.trees import key

Cursor = Mapping[str, Any]
Places = Mapping[int, str]
"""Step -> the key of the box that has started it."""


def started_at(plan: Plan, state: PlanState, step: int) -> str | None:
    """The key of the box that runs a step now; None when none does."""
    running = state.cursor.get("run", {})
    if plan.tree is not None:
        found = running.get(str(step))
        return None if found is None else key(_node(plan.tree, found))
    return next((name for name, number in running.items() if number == step), None)


class Trail:
    """Where a run has been: which box has started each step, which states were active. It is shown every decision of
    the run, one after the other."""

    def __init__(self) -> None:
        self._places: dict[int, str] = {}
        self._been: dict[str, None] = {}
        self._state: PlanState | None = None

    def see(self, plan: Plan, state: PlanState | None, started: Iterable[int]) -> None:
        """One more decision: the state after it, and the steps that it started."""
        self._state = state
        if state is None:
            return
        self._been |= dict.fromkeys(sorted(entered(plan, state)))
        for step in started:
            place = started_at(plan, state, step)
            if place is not None:
                self._places[step] = place

    def marks(self, plan: Plan, outcomes: Mapping[int, str]) -> dict[str, Mark]:
        """The marks by key. ``outcomes``: what the last attempts of steps have come to, by step."""
        return marks(plan, self._state, self._places, outcomes, self._been)


def entered(plan: Plan, state: PlanState | None) -> frozenset[str]:
    """The keys of the states that are active, with those around them; of a tree none."""
    if state is None or plan.machine is None or "ended" in state.cursor:
        return frozenset()
    states = plan.machine.states
    chains = (plan.machine.by_name[name].chain for name in state.cursor["at"])
    return frozenset(states[index].name for chain in chains for index in chain if index)


def marks(
    plan: Plan, state: PlanState | None, places: Places, outcomes: Mapping[int, str], been: Iterable[str] = ()
) -> dict[str, Mark]:
    """The marks by key. ``outcomes``: what steps have come to, by number (those of attempts that are shown by the API);
    ``been``: states that have been active."""
    now: Cursor = {} if state is None or "ended" in state.cursor else state.cursor
    if plan.machine is not None:
        return _machine(plan.machine, now, places, outcomes, been)
    assert plan.tree is not None
    return _tree(plan.tree, now, places, outcomes)


def _machine(
    machine: Machine, cursor: Cursor, places: Places, outcomes: Mapping[int, str], been: Iterable[str]
) -> dict[str, Mark]:
    found = {name: Mark("done") for name in been}
    for step, name in sorted(places.items()):
        if outcomes.get(step) in ("succeeded", "failed"):
            found[name] = Mark("done" if outcomes[step] == "succeeded" else "failed")
    for name in cursor.get("at", ()):
        for index in machine.by_name[name].chain[1:-1]:
            found[machine.states[index].name] = Mark("around")
    for name in cursor.get("at", ()):
        final = machine.by_name[name].kind in ("success", "failure")
        found[name] = Mark("done" if final else "active")
    for name, visits in cursor.get("visits", {}).items():
        mark = found.get(name, Mark())
        found[name] = Mark(mark.state, f"entered {visits}×")
    return found


def _tree(tree: Tree, cursor: Cursor, places: Places, outcomes: Mapping[int, str]) -> dict[str, Mark]:
    parents = {child.index: node for node in tree.nodes for child in node.children}
    counts: dict[str, Counter[str]] = {}
    for step, place in places.items():
        counts.setdefault(place, Counter())[outcomes.get(step, "requested")] += 1
    found = {place: _of_steps(count) for place, count in counts.items()}
    for place, note in _progress(tree, cursor).items():
        found[place] = Mark(found[place].state if place in found else "", note)
    live = [*cursor.get("run", {}).values(), *cursor.get("timers", {}).values()]
    for node in {_node(tree, each) for each in live}:
        found[key(node)] = Mark("active", found[key(node)].note if key(node) in found else "")
        above = parents.get(node.index)
        while above is not None:
            place = key(above)
            mark = found.get(place, Mark())
            if mark.state == "around":
                break
            found[place] = Mark("around" if mark.state != "active" else "active", mark.note)
            above = parents.get(above.index)
    return found


def _of_steps(count: Counter[str]) -> Mark:
    """What a task has come to that may have been started more than once."""
    said = [f"{number} {what}" for what, number in (
        ("succeeded", count["succeeded"]), ("failed", count["failed"]), ("halted", count["halted"]),
        ("running", count["requested"]),
    ) if number]  # fmt: skip
    note = ", ".join(said) if count.total() > 1 else ""
    if count["succeeded"]:
        return Mark("done", note)
    return Mark("failed" if count["failed"] else "", note)


def _progress(tree: Tree, cursor: Cursor) -> dict[str, str]:
    """How far maps and loops are that run, all together where they run for several items."""
    maps: dict[str, list[int]] = {}
    times: dict[str, int] = {}
    for entry, held in cursor.get("n", {}).items():
        if held.__class__ is not list or entry.endswith("!"):
            continue
        node = _node(tree, entry)
        if node.kind == "map":
            counts = maps.setdefault(key(node), [0, 0, 0])
            _, _, ok, failed, skipped = held
            for which, number in enumerate((ok + failed + skipped, failed, len(cursor["items"][entry]))):
                counts[which] += number
        elif node.kind in ("retry", "repeat", "keep"):
            times[key(node)] = max(times.get(key(node), 0), held[0] + 1)
    said = {place: f"time {time}" for place, time in times.items()}
    for place, (ended, failed, count) in maps.items():
        said[place] = f"{ended} of {count}" + (f", {failed} failed" if failed else "")
    return said


def _node(tree: Tree, entry: str) -> Node:
    return tree.nodes[int(entry.rpartition("/")[2].rstrip("!"))]
