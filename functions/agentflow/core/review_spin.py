"""Loops in which nothing happens: events that a machine raises by taking them, rounds of a tree without a task."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core.expressions import always
from agentflow.core.machine import ANY, OWN_EVENTS, Machine, State, Transition
from agentflow.core.node import Node, Tree
from agentflow.core.structure import raised_events, transitions_of
from agentflow.core.tick import MAX_TICKS
from agentflow.errors import Problem

_LEAVES = ("task", "delay")
"""Kinds of nodes that take time: a tick ends there."""


def endless(machine: Machine) -> Iterator[Problem]:
    """Transitions that stay where they are and raise, in any case, what they are taken for: errors. With a condition
    such a loop is a way to count, and bounded when it runs."""
    raised = raised_events(machine)
    found = set()
    for state in machine.states:
        if state.kind == "atomic":
            for event in sorted(raised):
                cycle = _cycle(machine, state, event)
                if cycle and cycle[0] not in found and not _left(machine, {each.event for each in cycle}):
                    found.update(cycle)
                    names = " → ".join([each.event for each in cycle] + [cycle[0].event])
                    message = f"raises the event that it takes, without end ({names})"
                    yield Problem(cycle[0].path, message, "give it a condition, or let it lead somewhere", "endless")
        if state.kind == "atomic" and state.eventless and _stays(state.eventless[0]) and not _left(machine, set()):
            message = "is taken again and again without end: it has no event, no condition, and leads nowhere"
            yield Problem(state.eventless[0].path, message, "give it a condition that it makes false", "endless")


def _cycle(machine: Machine, leaf: State, event: str) -> list[Transition]:
    """The transitions that ``event`` leads round through while ``leaf`` is active; none where it may stop."""
    way: list[Transition] = []
    while True:
        taken = next((found[0] for index in leaf.chain if (found := _takers(machine.states[index], event))), None)
        if taken is None or not _stays(taken) or taken.action is None or not taken.action.raises:
            return []
        if taken in way:
            return way[way.index(taken) :]
        way.append(taken)
        raised = taken.action.raises[0]
        if not always(raised.guard):
            return []
        event = raised.event


def _takers(state: State, event: str) -> tuple[Transition, ...]:
    return state.on.get(event, state.any if event not in OWN_EVENTS else ())


def _stays(transition: Transition) -> bool:
    return not transition.targets and always(transition.guard)


def _left(machine: Machine, events: set[str]) -> bool:
    """Whether something may leave a state meanwhile: for one of these events or one that follows from them, at once,
    or because an expression had no value."""
    every = [each for state in machine.states for each in transitions_of(state)]
    known: set[str] = set()
    events = {"", ANY, "error", *events}
    while events != known:
        known = set(events)
        taken = [each.action for each in every if each.event in known and each.action]
        events |= {raised.event for action in taken for raised in action.raises}
    return any(each.targets and each.event in events for each in every)


def idle(tree: Tree) -> Iterator[Problem]:
    """Loops without a task or a delay in them that may tick more nodes at once than a tree may: warnings."""
    around = -1
    for node in tree.nodes:  # in document order: the outermost first
        if node.index < around:
            continue
        ticks = _ticks(node)
        if ticks > MAX_TICKS:
            around = node.index + _size(node)
            message = (
                f"nothing in it takes time, and it may tick {ticks:,} nodes at once: a run ends at {MAX_TICKS:,}"
            )
            yield Problem(node.path, message, "let a task or a delay run in it, or lower `max`", "idle", "warning")


def _ticks(node: Node) -> int:
    """The most nodes that are ticked before the node ends; 0 where something in it takes time."""
    if node.kind in _LEAVES:
        return 0
    inside = [_ticks(child) for child in node.children]
    if 0 in inside:
        return 0
    rounds = node.max if node.kind in ("repeat", "retry", "keep", "map") else 1
    return 1 + max(rounds, 1) * sum(inside)


def _size(node: Node) -> int:
    return 1 + sum(map(_size, node.children))
