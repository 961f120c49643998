"""How often each state of a machine can be entered in one run.

A machine is threads: the whole machine is one, and so is each region of a parallel state, from when it is entered
until it is left. In each thread one place is active at a time: a state without states inside, or a parallel state,
which counts as one place however many threads it holds. A place that no way leads back to is entered once in each
life of its thread; on a loop, once between two entries that `visits` count, and those are counted for the whole run.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

from agentflow.core.graph import looping
from agentflow.core.machine import Machine, State, Transition
from agentflow.core.structure import (
    FINAL,
    PLACES,
    counted,
    entered_again,
    may_cause,
    may_enter,
    raised_events,
    reachable,
    transitions_of,
)


def entries(machine: Machine) -> Iterator[tuple[State, int | None]]:
    """Every state without states inside that can be reached, and how often it is entered at most; None: no bound."""
    threads = _Threads(machine)
    for state in machine.states:
        if state.kind == "atomic" and state.index in threads.reached:
            yield state, threads.times(state)


class _Threads:
    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.reached = reachable(machine)
        self.known: dict[int, int | None] = {}
        self._again = entered_again(machine)
        self._raised = raised_events(machine)

    def times(self, place: State) -> int | None:
        """How often the place is entered in a run."""
        if place.index not in self.known:
            self.known[place.index] = self._times(place)
        return self.known[place.index]

    def _times(self, place: State) -> int | None:
        thread = self.thread(place.parent)
        times = self.lives(thread)
        loop = self._loop_of[thread].get(place.index)
        if loop is not None:
            returns = self._returns(thread, loop)
            times = None if times is None or returns is None else times + returns
        return _least(times, place.visits)

    def lives(self, thread: int) -> int | None:
        """How often the thread begins: the machine once, a region when its parallel state does."""
        if thread == 0:
            return 1
        region = self.machine.states[thread]
        return _least(self.times(self.machine.states[region.parent]), region.visits)

    def thread(self, index: int) -> int:
        """The thread that a state belongs to (its own, when it is one)."""
        states = self.machine.states
        while index and states[states[index].parent].kind != "parallel":
            index = states[index].parent
        return index

    def _returns(self, thread: int, loop: frozenset[int]) -> int | None:
        """How often something that `visits` count is entered on ways within the loop; None when a way back is free."""
        counting: set[int] = set()
        free: dict[int, set[int]] = {index: set() for index in loop}
        for source, target, counts in self._ways[thread]:
            if source in loop and target in loop:
                counting |= counts
                if not counts:
                    free[source].add(target)
        if any(looping(free)):
            return None
        return sum(self.machine.states[index].visits for index in counting)

    @cached_property
    def _loop_of(self) -> dict[int, dict[int, frozenset[int]]]:
        """Of each thread the loop that a place is on, for those that are on one."""
        found: dict[int, dict[int, frozenset[int]]] = {}
        for thread, ways in self._ways.items():
            edges: dict[int, set[int]] = {}
            for source, target, _ in ways:
                edges.setdefault(source, set()).add(target)
                edges.setdefault(target, set())
            found[thread] = {index: frozenset(loop) for loop in looping(edges) for index in loop}
        return found

    @cached_property
    def _ways(self) -> dict[int, list[tuple[int, int, frozenset[int]]]]:
        """Of each thread the ways between its places, and which states with `visits` they are sure to enter."""
        places: dict[int, list[State]] = {}
        for state in self.machine.states:
            if state.kind in PLACES and state.index in self.reached and (state.parent or state.kind not in FINAL):
                places.setdefault(self.thread(state.parent), []).append(state)
        ways: dict[int, list[tuple[int, int, frozenset[int]]]] = {thread: [] for thread in places}
        for state in self.machine.states:
            for transition in transitions_of(state) if state.index in self.reached else ():
                if transition.targets:
                    thread = self.thread(transition.domain)
                    ways[thread] += self._ways_of(transition, places[thread])
        return ways

    def _ways_of(self, transition: Transition, places: list[State]) -> Iterator[tuple[int, int, frozenset[int]]]:
        chain = self.machine.states[transition.source].chain
        around = [p for p in places if transition.source in p.chain or p.index in chain]
        sources = [p.index for p in around if may_cause(self.machine, p, transition, self._raised)]
        targets = may_enter(self.machine, transition, self._again)
        for place in places:
            if place.index in targets:
                counts = counted(self.machine, transition, place)
                for source in sources:
                    yield source, place.index, counts


def _least(times: int | None, visits: int) -> int | None:
    """``visits`` 0 bounds nothing."""
    return times if not visits else visits if times is None else min(times, visits)
