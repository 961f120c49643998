"""Machines: transitions that can never be taken, because another one always comes first."""

from __future__ import annotations

from collections.abc import Iterator

from agentflow.core.expressions import always, never
from agentflow.core.machine import ANY, OWN_EVENTS, Machine, State, Transition
from agentflow.core.review_handlers import ends
from agentflow.core.structure import (
    FINAL,
    answers,
    leaves,
    may_be,
    passes,
    raised_events,
    reachable,
    taken_inside,
    transitions_of,
)
from agentflow.errors import Problem


def shadowed(machine: Machine) -> Iterator[Problem]:
    """Transitions behind another of the same state that is always taken before them: errors."""
    for state in machine.states:
        seen: set[Transition] = set()
        for transitions in (*state.on.values(), state.any, state.eventless):
            for place, later in enumerate(transitions):
                # `*` is a loser where it loses against other `*`: behind a name it still takes the rest.
                if later in seen or (later.event == ANY and transitions is not state.any):
                    continue
                for first in transitions[:place]:
                    if always(first.guard) or (later.guard is not None and _same(first, later)):
                        seen.add(later)
                        yield _never_taken(later, first)
                        break
        yield from _too_late(state)


def _same(first: Transition, later: Transition) -> bool:
    return first.guard is not None and later.guard is not None and first.guard.source == later.guard.source


def _never_taken(later: Transition, first: Transition) -> Problem:
    why = "has no condition" if first.guard is None else "always holds"
    if first.guard is not None and not always(first.guard):
        why = "has the same condition"
    message = f"is never taken: {first.path} comes before it and {why}"
    return Problem(later.path, message, "put it first, or remove it", "shadowed")


def _too_late(state: State) -> Iterator[Problem]:
    """``after`` transitions of a state that has been left by then."""
    leaving = [t for t in state.timed if always(t.guard) and leaves(t)]
    for later in state.timed:
        for first in leaving:
            if first.after_ms < later.after_ms:
                message = f"is never taken: the state is left before, by {first.path}"
                yield Problem(later.path, message, "give it a shorter time, or remove it", "shadowed")
                break


def overruled(machine: Machine) -> Iterator[Problem]:
    """Transitions that cannot be taken for what is inside their state, or because nothing brings their event."""
    reached = reachable(machine)
    raised = raised_events(machine)
    for state in machine.states:
        if state.index not in reached:
            continue
        for transition in transitions_of(state):
            if never(transition.guard):
                message = "is never taken: its condition is always false"
                yield Problem(transition.path, message, "remove it, or mend its `if`", "constant", "warning")
            elif reason := _hidden(machine, state, transition, reached, raised):
                mend = "remove it, or give the inner one an `if`" if "inner" in reason else "remove it"
                yield Problem(transition.path, f"is never taken: {reason}", mend, "never_taken", "warning")
        if state.task is not None and any(leaves(t) for t in state.eventless if always(t.guard)):
            message = f"task {state.task.name!r} never starts: {state.name!r} is left as soon as it is entered"
            mend = "give the way out an event or an `if`"
            yield Problem(f"{state.path}.run", message, mend, "never_taken", "warning")


def _hidden(machine: Machine, state: State, transition: Transition, reached: set[int], raised: set[str]) -> str:
    event = transition.event
    inside = [s for s in machine.states if s.index in reached and state.index in s.chain]
    if event in ("failed", "timeout"):
        return _nothing_fails(machine, state, event, inside)
    if event == "done":
        if state.kind in ("compound", "parallel") and not may_be(machine, state, "done"):
            return f"what is inside {state.name!r} never ends well, so it is never done"
        return ""
    if not event or transition.after_ms:
        return ""
    below = [s for s in inside if s.kind in ("atomic", *FINAL) and s is not state]
    open_to_it = [leaf for leaf in below if not taken_inside(machine, leaf, state, event)]
    if event not in OWN_EVENTS and event not in raised and not (event == ANY and raised):
        open_to_it = [leaf for leaf in open_to_it if not passes(machine, leaf)]
    return "an inner state always takes it" if below and not open_to_it else ""


def _nothing_fails(machine: Machine, state: State, event: str, inside: list[State]) -> str:
    """Why no failure inside (or of) ``state`` reaches its transition; '' when one may."""
    sources = [s for s in inside if "failed" in ends(s) or "timeout" in ends(s)]
    if event == "failed":
        compound = [s for s in inside if s.kind in ("compound", "parallel") and may_be(machine, s, "failed")]
        sources += [s for s in compound if s is state or answers(machine, s)]
    for source in sources:
        if not taken_inside(machine, source, state, event):
            return ""
    what = state.name or "the machine"
    return "an inner state always takes it" if sources else f"nothing in {what!r} can be `{event}`"
