"""The states of machines and the ways between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, Unpack

from agentflow.plan.expression import Condition, Sets
from agentflow.plan.part import Part


class Lead(TypedDict, total=False):
    """Where a transition leads and what it does. Without ``to`` nothing is left or entered."""

    to: State | str | Sequence[State | str]
    set: Sets
    raise_: str | Part | Sequence[str | Part]
    internal: bool


class Way(Lead, total=False):
    """What a transition may have."""

    if_: Condition


class Action(Part):
    """What is done when a state is entered or left."""


def action(*, set: Sets | None = None, raise_: str | Part | Sequence[str | Part] | None = None) -> Action:
    """Variables are set, all at once, then events raised for the machine itself."""
    return Action(set=set, raise_=raise_)


def raised(event: str, *, if_: Condition | None = None, data: Any = None) -> Part:
    """An event to raise under a condition, or with data: an expression, or expressions by name."""
    return Part(event=event, if_=if_, data=data)


def approval(by: str, timeout: str | None = None) -> Part:
    """A person looks at a plan that a model has written, before it runs."""
    return Part(by=by, timeout=timeout)


class State(Part):
    """A state; the methods add ways out of it, in the order in which they are tried."""

    def __init__(self, name: str, **keys: Any) -> None:
        super().__init__(**keys, transitions=None)
        self.name = name

    def region(self, name: str) -> str:
        """One of its regions, for ``in_``."""
        return f"{self.name}.{name}"

    def on(self, event: str, **way: Unpack[Way]) -> State:
        """Taken at ``done``, ``failed``, ``timeout``, ``error``, a signal, a raised event, or ``*``: any signal."""
        return self._with(transition(event=event, **way))

    def after(self, time: str, **way: Unpack[Way]) -> State:
        """Taken when the state has been active so long (``5m``)."""
        return self._with(transition(after=time, **way))

    def when(self, if_: Condition, **lead: Unpack[Lead]) -> State:
        """Taken at once, as soon as the condition holds."""
        return self._with(transition(if_=if_, **lead))

    def always(self, **lead: Unpack[Lead]) -> State:
        """Taken at once."""
        return self._with(transition(**lead))

    def _with(self, way: Part) -> State:
        self.keys["transitions"] = [*(self.keys["transitions"] or []), way]
        return self


def transition(event: str | None = None, after: str | None = None, **way: Unpack[Way]) -> Part:
    """A way from one state to another."""
    to = all_named(way.pop("to", None))
    return Part(event=event, after=after, **way, to=to)


def named(state: State | str | None) -> str | None:
    """A state's name, given either way."""
    return state.name if isinstance(state, State) else state


def all_named(states: State | str | Sequence[State | str] | None) -> str | list[str | None] | None:
    """The name of one, or of several."""
    if isinstance(states, Sequence) and not isinstance(states, str):
        return [named(state) for state in states]
    return named(states)
