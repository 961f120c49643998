"""What the structure of a machine alone says: which states can be reached, what may follow what, what is sure."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import chain

from agentflow.core.expressions import always
from agentflow.core.machine import ANY, OWN_EVENTS, Machine, State, Transition

FINAL = {"success": "done", "failure": "failed"}
"""What a final state makes of the state around it."""

PLACES = ("atomic", *FINAL, "parallel")
"""Kinds of states that a run can be in."""


def reachable(machine: Machine) -> set[int]:
    """The indexes of all states that some run may enter."""
    reached = {0, *machine.initial}
    todo = list(reached)
    reached |= {index for index in machine.first if machine.states[index].kind == "history"}
    while todo:
        state = machine.states[todo.pop()]
        new = {index for index in state.first if machine.states[index].kind == "history"}
        for transition in transitions_of(state):
            new |= {*transition.enter, *transition.may_enter, *transition.targets, *transition.memories}
        new -= reached
        reached |= new
        todo.extend(new)
    return reached


def transitions_of(state: State) -> Iterable[Transition]:
    """All transitions of one state, each once."""
    return dict.fromkeys((*state.eventless, *state.timed, *state.any, *chain.from_iterable(state.on.values())))


def raised_events(machine: Machine) -> set[str]:
    """The events that the machine raises itself."""
    actions = [action for state in machine.states for action in (state.entry, state.exit)]
    actions += [each.action for state in machine.states for each in transitions_of(state)]
    return {raised.event for action in actions if action is not None for raised in action.raises}


def from_outside(transition: Transition, raised: Collection[str]) -> bool:
    """Whether only somebody's signal brings its event."""
    event = transition.event
    if event in OWN_EVENTS or not event:
        return False
    return not raised if event == ANY else event not in raised


def sure(transitions: tuple[Transition, ...]) -> bool:
    """Whether one of them is taken in any case."""
    return any(always(each.guard) for each in transitions)


def leaves(transition: Transition) -> bool:
    """Whether its source is left when it is taken."""
    return bool(transition.targets) and transition.domain != transition.source


def may_be(machine: Machine, state: State, event: str) -> bool:
    """Whether a compound or parallel state can be ``done`` or ``failed`` by what is inside it."""
    inner = [each for each in machine.states if each.parent == state.index and each.kind != "history" and each.index]
    if state.kind == "parallel":
        fails = [may_be(machine, each, "failed") for each in inner]
        ends_well = [may_be(machine, each, "done") for each in inner]
        over = all(a or b for a, b in zip(fails, ends_well, strict=True))
        return over and any(fails) if event == "failed" else all(ends_well)
    return any(each.kind == ("success" if event == "done" else "failure") for each in inner)


def answers(machine: Machine, state: State) -> bool:
    """Whether a compound or parallel state's failure looks for a transition outside it: a region's does not."""
    return machine.states[state.parent].kind != "parallel"


def passes(machine: Machine, leaf: State) -> bool:
    """Whether nothing from outside finds this final state active: the one around it goes on at once."""
    if leaf.kind not in FINAL:
        return False
    around = machine.states[leaf.parent]
    if around.index == 0:
        return True
    if around.kind != "compound" or not answers(machine, around):
        return False
    ways = around.on.get(FINAL[leaf.kind], ())
    return sure(ways) and all(map(leaves, ways))


def taken_inside(machine: Machine, leaf: State, around: State, event: str) -> bool:
    """Whether a state between the leaf and ``around``, the leaf included, takes the event in any case."""
    names = ("timeout", "failed") if event == "timeout" else (event,)
    for index in leaf.chain[: leaf.chain.index(around.index)]:
        inner = machine.states[index]
        other = () if event in OWN_EVENTS else inner.any
        if any(sure(inner.on.get(name, other)) for name in names):
            return True
    return False


def may_cause(machine: Machine, leaf: State, transition: Transition, raised: Collection[str]) -> bool:
    """Whether ``transition``, of a state around the leaf or its own, may be taken for what the leaf does or hears."""
    source = machine.states[transition.source]
    if from_outside(transition, raised) and passes(machine, leaf):
        return False
    if leaf.kind != "atomic" or leaf is source or not transition.event:
        return True
    # What is around a task is done when an inner state is final, never by the task itself.
    return transition.event != "done" and not taken_inside(machine, leaf, source, transition.event)


def entered_again(machine: Machine) -> set[int]:
    """The states that some transition enters: those that may be entered after they have been left."""
    return {index for state in machine.states for each in transitions_of(state) for index in each.enter}


def may_enter(machine: Machine, transition: Transition, again: Collection[int]) -> tuple[int, ...]:
    """All that a transition may enter. What is never entered again has no history."""
    if any(machine.states[memory].parent in again for memory in transition.memories):
        return transition.may_enter
    return transition.enter


def counted(machine: Machine, transition: Transition, leaf: State) -> frozenset[int]:
    """The states with ``visits`` that are sure to be entered when ``transition`` enters ``leaf``.

    Where history states are on the way only what is before them is sure: not what is inside the state whose history it
    is, but for the states around the leaf, and not what may stay active because the source is in it.
    """
    states = machine.states
    entered = set(transition.enter)
    if transition.memories:
        around = {states[memory].parent for memory in transition.memories}
        entered = {index for index in entered if not around & {*states[index].chain[1:]}}
        entered |= {*leaf.chain[: leaf.chain.index(transition.domain)]}
        source = states[transition.source].chain[1:]
        if around & {*source}:
            entered -= {*source}
    return frozenset(index for index in entered if states[index].visits)
