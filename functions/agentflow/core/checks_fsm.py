"""What a machine must be before it may run: every state reached, no way without an end, no loop without a bound."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from agentflow.core.draft import Draft
from agentflow.core.graph import looping
from agentflow.core.machine import OWN_EVENTS, Machine, State
from agentflow.core.structure import (
    FINAL,
    counted,
    entered_again,
    from_outside,
    may_be,
    may_cause,
    may_enter,
    reachable,
    transitions_of,
)


def check(draft: Draft, machine: Machine, raised: Mapping[str, str]) -> None:
    """Note what is wrong with the machine as a whole. ``raised``: where each event is raised."""
    if any(problem.code in ("unknown_state", "unknown_task") for problem in draft.problems):
        return  # what hangs on a missing name would only repeat it
    reached = reachable(machine)
    for state in machine.states:
        if state.index not in reached and state.kind != "region":
            draft.note(
                state.path,
                f"no way leads to {state.name!r}",
                "add a transition to it, or remove it",
                "unreachable",
            )
    for state in machine.states:
        if state.index in reached:
            _dead_end(draft, machine, state)
    if not any(s.parent == 0 and s.kind in FINAL and s.index in reached for s in machine.states):
        draft.note(
            "states", "no final state can be reached: a run would never end", "add {final: success}", "no_end"
        )
    for name, path in raised.items():
        if name not in OWN_EVENTS and not any(name in state.on or state.any for state in machine.states):
            draft.note(path, f"no transition takes {name!r}", "add one, or do not raise it", "unheard")
    for names in cycles(machine, raised):
        draft.note(
            f"states.{names[0]}",
            f"the cycle {' → '.join([*names, names[0]])} has no bound",
            "give one of its states `visits: N`",
            "unbounded_cycle",
        )


def _dead_end(draft: Draft, machine: Machine, state: State) -> None:
    """A state that can be done (or runs nothing) needs a way on."""
    around = [machine.states[index] for index in state.chain]
    if state.kind in (*FINAL, "machine", "region", "history") or any(s.eventless for s in around):
        return
    in_region = any(s.kind == "parallel" for s in around[1:])
    if state.kind == "atomic" and state.task is None:
        if any(s.timed or s.listens for s in around):
            return
        if not in_region:
            mend = "give it a `run`, or a transition: on a signal, `after` some time, or without `event`"
            draft.note(
                state.path, f"nothing runs in {state.name!r} and nothing leads out of it", mend, "dead_end"
            )
        elif not any(s.on for s in around):
            draft.note(
                state.path,
                f"nothing leads out of {state.name!r}",
                "make it final, or add a transition",
                "dead_end",
            )
        return
    if state.kind == "compound" and (
        machine.states[state.parent].kind == "parallel" or not may_be(machine, state, "done")
    ):
        return
    if state.kind == "parallel" and machine.states[state.parent].kind == "parallel":
        return
    if "done" not in state.on:
        what = "its task" if state.kind == "atomic" else "it"
        mend = "add a transition with event: done"
        draft.note(state.path, f"when {what} is done, nothing leads out of {state.name!r}", mend, "dead_end")


# ------------------------------------------------------------------------------------------------------ cycles


def cycles(machine: Machine, raised: Collection[str]) -> list[list[str]]:
    """The cycles (as sets of leaf states, by name) that no ``visits`` bounds. ``raised``: what the machine raises."""
    found = looping(free_edges(machine, raised))
    return [[machine.states[index].name for index in sorted(component)] for component in found]


def free_edges(machine: Machine, raised: Collection[str]) -> dict[int, set[int]]:
    """Which leaf may follow which without a counted entry. A transition from around a leaf counts for the leaf. Signals
    to the whole machine do not count: they come from outside, and ``limits.steps`` bounds them.
    """
    leaves = [s for s in machine.states if s.kind == "atomic" or (s.kind in FINAL and s.parent != 0)]
    edges: dict[int, set[int]] = {leaf.index: set() for leaf in leaves}
    again = entered_again(machine)
    for state in machine.states:
        inside = [leaf for leaf in leaves if state.index in leaf.chain]
        for transition in transitions_of(state):
            if state.index == 0 and from_outside(transition, raised):
                continue
            enters = may_enter(machine, transition, again)
            entered = {i for i in enters if i in edges and not counted(machine, transition, machine.states[i])}
            for leaf in inside:
                if may_cause(machine, leaf, transition, raised):
                    edges[leaf.index] |= entered
    return edges
