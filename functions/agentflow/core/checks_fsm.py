"""What a machine must be before it may run: every state reached, no way without an end, no loop without a bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agentflow.core.draft import Draft
from agentflow.core.graph import components
from agentflow.core.machine import NOWHERE, OWN_EVENTS, TASK_EVENTS, Machine, State, Transition

_FINAL = ("success", "failure")


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
    if not any(s.parent == 0 and s.kind in _FINAL and s.index in reached for s in machine.states):
        draft.note(
            "states", "no final state can be reached: a run would never end", "add {final: success}", "no_end"
        )
    for name, path in raised.items():
        if name not in OWN_EVENTS and not any(name in state.on or state.any for state in machine.states):
            draft.note(path, f"no transition takes {name!r}", "add one, or do not raise it", "unheard")
    for names in cycles(machine):
        draft.note(
            f"states.{names[0]}",
            f"the cycle {' → '.join([*names, names[0]])} has no bound",
            "give one of its states `visits: N`",
            "unbounded_cycle",
        )


def reachable(machine: Machine) -> set[int]:
    """The indexes of all states that some run may enter."""
    reached = {0, *machine.initial}
    todo = list(reached)
    while todo:
        for transition in transitions_of(machine.states[todo.pop()]):
            new = {*transition.enter, *transition.may_enter}
            if transition.target != NOWHERE:
                new.add(transition.target)
            new -= reached
            reached |= new
            todo.extend(new)
    return reached


def transitions_of(state: State) -> Iterable[Transition]:
    """All transitions of one state."""
    yield from state.eventless
    yield from state.timed
    yield from state.any
    for transitions in state.on.values():
        yield from transitions


def _dead_end(draft: Draft, machine: Machine, state: State) -> None:
    """A state that can be done (or runs nothing) needs a way on."""
    around = [machine.states[index] for index in state.chain]
    if state.kind in (*_FINAL, "machine", "region", "history") or any(s.eventless for s in around):
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
        machine.states[state.parent].kind == "parallel" or not _may_be_done(machine, state)
    ):
        return
    if state.kind == "parallel" and machine.states[state.parent].kind == "parallel":
        return
    if "done" not in state.on:
        what = "its task" if state.kind == "atomic" else "it"
        mend = "add a transition with event: done"
        draft.note(state.path, f"when {what} is done, nothing leads out of {state.name!r}", mend, "dead_end")


def _may_be_done(machine: Machine, state: State) -> bool:
    return any(s.parent == state.index and s.kind == "success" for s in machine.states)


# ------------------------------------------------------------------------------------------------------ cycles


def leaf_edges(machine: Machine, *, bounded: bool) -> dict[int, set[int]]:
    """Which leaf may follow which. A transition from around a leaf counts for the leaf; without ``bounded``,
    transitions that enter a state with ``visits`` do not count. Signals to the whole machine never do: they come
    from outside, and ``limits.steps`` bounds them.
    """
    leaves = [s for s in machine.states if s.kind == "atomic"]
    edges: dict[int, set[int]] = {leaf.index: set() for leaf in leaves}
    for state in machine.states:
        for transition in transitions_of(state):
            if state.index == 0 and transition.event not in TASK_EVENTS and transition.event:
                continue
            enters = transition.may_enter or transition.enter
            if not bounded and any(machine.states[i].visits for i in transition.enter):
                continue
            entered = {i for i in enters if i in edges}
            for leaf in leaves:
                if state.index in leaf.chain:
                    edges[leaf.index] |= entered
    return edges


def cycles(machine: Machine) -> list[list[str]]:
    """The cycles (as sets of leaf states, by name) that no ``visits`` bounds."""
    edges = leaf_edges(machine, bounded=False)
    return [
        [machine.states[index].name for index in sorted(component)]
        for component in components(edges)
        if len(component) > 1 or component[0] in edges[component[0]]
    ]


def worst_steps(machine: Machine) -> int | None:
    """The most steps a run can start, None when signals to the whole machine can add to them without bound.

    A leaf of a strongly connected part is entered at most once between two bounded entries of that part.
    """
    if machine.states[0].any or any(event not in TASK_EVENTS for event in machine.states[0].on):
        return None
    total = 0
    reached = reachable(machine)
    edges = leaf_edges(machine, bounded=True)
    for component in components(edges):
        around = {index for leaf in component for index in machine.states[leaf].chain}
        loops = len(component) > 1 or component[0] in edges[component[0]]
        entries = 1 + (sum(machine.states[index].visits for index in around) if loops else 0)
        for state in (machine.states[index] for index in component if index in reached):
            if state.task is not None:
                total += min(entries, state.visits or entries)
    return total
