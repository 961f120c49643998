"""What is entered: SCXML's entry set, with history states as what they stand for."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentflow.core.machine import State

Stands = Callable[[State], tuple[int, ...]]
"""The states that a history state stands for."""


def at_first(memory: State) -> tuple[int, ...]:
    """What a history state stands for as long as there is no history."""
    return memory.first


def effective(states: tuple[State, ...], targets: Iterable[int], stands: Stands) -> list[int]:
    """The targets, with what they stand for in place of history states."""
    found: list[int] = []
    for target in targets:
        state = states[target]
        found += stands(state) if state.kind == "history" else (target,)
    return found


def entry_set(
    states: tuple[State, ...], targets: Iterable[int], domain: int, stands: Stands = at_first
) -> set[int]:
    """The targets with what is entered by default inside them, what is between them and the domain, and by default the
    other regions of parallel states on the way."""
    entered: set[int] = set()
    _enter(states, targets, domain, stands, entered)
    return entered


def _enter(
    states: tuple[State, ...], targets: Iterable[int], domain: int, stands: Stands, entered: set[int]
) -> None:
    between: set[int] = set()
    for target in effective(states, targets, stands):
        _by_default(states, target, stands, entered)
        for index in states[target].chain[1:]:
            if index == domain:
                break
            between.add(index)
    entered |= between
    for index in sorted(between):
        for region in states[index].regions:
            if region not in entered:
                _by_default(states, region, stands, entered)


def _by_default(states: tuple[State, ...], index: int, stands: Stands, entered: set[int]) -> None:
    state = states[index]
    entered.add(index)
    for region in state.regions:
        _by_default(states, region, stands, entered)
    if state.first:
        _enter(states, state.first, index, stands, entered)
