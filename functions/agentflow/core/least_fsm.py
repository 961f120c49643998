"""The least of a machine that succeeds: the lightest way from its first state to a final one.

As in ``core.worst_fsm`` a machine is threads with one place active at a time. Leaving a place because what it does is
done weighs what that takes; leaving it in any other way weighs nothing. Leaving a parallel state because it is done
weighs all of its regions.
"""

from __future__ import annotations

from collections.abc import Callable

from agentflow.core.graph import lightest
from agentflow.core.machine import Machine, State, Transition
from agentflow.core.plan import Task
from agentflow.core.structure import (
    PLACES,
    entered_again,
    may_cause,
    may_enter,
    raised_events,
    reachable,
    transitions_of,
)

NONE = 10**30


def least_of_machine(machine: Machine, weight: Callable[[Task], int]) -> int:
    """What a run that succeeds weighs at least; very much when none can."""
    return _Ways(machine, weight).of(0)


class _Ways:
    def __init__(self, machine: Machine, weight: Callable[[Task], int]) -> None:
        self.machine = machine
        self.weight = weight
        self.reached = reachable(machine)
        self.again = entered_again(machine)
        self.raised = raised_events(machine)
        self.transitions = [t for state in machine.states if state.index in self.reached for t in transitions_of(state)]

    def thread(self, index: int) -> int:
        """The region that a state belongs to (its own, when it is one), or the machine."""
        states = self.machine.states
        while index and states[states[index].parent].kind != "parallel":
            index = states[index].parent
        return index

    def of(self, thread: int) -> int:
        """The lightest way from where the thread begins to where it has ended well."""
        states = self.machine.states
        places = {
            state.index: state
            for state in states
            if state.kind in PLACES and state.index in self.reached and self.thread(state.parent) == thread
        }
        edges: list[list[tuple[int, int]]] = [[] for _ in range(len(states) + 1)]
        begin = len(states)
        for index in self._begins(thread):
            if index in places:
                edges[begin].append((index, 0))
        done = {index: self._done(state) for index, state in places.items()}
        for transition in self.transitions:
            if not transition.targets or self.thread(transition.domain) != thread:
                continue
            targets = [index for index in may_enter(self.machine, transition, self.again) if index in places]
            for source in self._sources(transition, places):
                own = transition.event == "done" and transition.source == source.index
                edges[source.index] += [(target, done[source.index] if own else 0) for target in targets]
        ends = [i for i, state in places.items() if state.kind == "success" and state.parent == thread]
        found = lightest(edges, begin, ends)
        return NONE if found is None else min(found, NONE)

    def _begins(self, thread: int) -> set[int]:
        """Where the thread may begin: what is entered at first, or from outside of it."""
        found = set(self.machine.initial)
        for transition in self.transitions:
            if transition.targets and self.thread(transition.domain) != thread:
                found.update(may_enter(self.machine, transition, self.again))
        return found

    def _sources(self, transition: Transition, places: dict[int, State]) -> list[State]:
        chain = self.machine.states[transition.source].chain
        around = [p for p in places.values() if transition.source in p.chain or p.index in chain]
        return [place for place in around if may_cause(self.machine, place, transition, self.raised)]

    def _done(self, place: State) -> int:
        """What it takes at least for a place to be done."""
        if place.kind == "parallel":
            return min(sum(self.of(region) for region in place.regions), NONE)
        return self.weight(place.task) if place.task is not None else 0
