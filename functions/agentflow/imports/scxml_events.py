"""Events of SCXML: which descriptors match what, who listens, and their names in a plan.

``done.state.X`` stays the plan's own ``done`` where X alone listens to it. Where others do, or ``*`` would see it, it
is raised under a name of its own when a final state of X is entered, which is when SCXML raises it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agentflow.imports.naming import event_name
from agentflow.imports.scxml_states import State, States
from agentflow.imports.syntax import Call, Literal, Member, Name, Node
from agentflow.imports.xml import Element

ERROR = "error.execution"
EVENT = Name("event")
NAME = Member(EVENT, Literal("name"))
DATA = Member(EVENT, Literal("data"))
NOTHING = Literal(None)


@dataclass(frozen=True, slots=True)
class Heard:
    """An event of a plan that a descriptor stands for. ``name`` and ``data`` are what ``_event`` has then; ``guard`` is
    a further condition."""

    event: str
    name: Node
    data: Node = NOTHING
    guard: Node | None = None


def descriptors(element: Element) -> list[str]:
    """The events a transition names: ``foo`` and ``foo.*`` match the same, and '' any."""
    return [
        "" if token == "*" else token.removesuffix("*").removesuffix(".") for token in element.get("event").split()
    ]


def matches(descriptor: str, event: str) -> bool:
    return not descriptor or event == descriptor or event.startswith(descriptor + ".")


class Events:
    """All events of a document. ``sent``: the names of those it raises or sends itself."""

    def __init__(self, states: States, sent: list[str]) -> None:
        self.states = states
        self.sent = frozenset(sent)
        self.listeners = [
            (state, descriptor, element)
            for state, element in states.transitions()
            for descriptor in descriptors(element)
        ]
        self.invoking = [state for state in states.all if invoked(state)]
        self.known = list(dict.fromkeys([*sent, *(name for _, name, _ in self.listeners if name)]))
        self.raised_done = [state for state in states.all if self._raises_done(state)]
        own = [name for name in self.known if not name.startswith(("done.", "error."))]
        self.dotted = any("." in name for name in own)  # then others may have names that go on, too
        ends = [done(state) for state in [*self.raised_done, *self.invoking]]
        self.known += [name for name in ends if name not in self.known]

    def heard(self, event: str) -> list[State]:
        """The states with a transition that the event may take."""
        return [state for state, descriptor, _ in self.listeners if matches(descriptor, event)]

    def meant(self, state: State, element: Element, *, fails: bool) -> Iterator[Heard]:
        """What a transition of ``state`` waits for. ``fails``: some expression may have no value."""
        tokens = element.get("event").split()
        for token, descriptor in zip(tokens, descriptors(element), strict=True):
            if not descriptor:
                yield Heard("*", NAME, DATA)
            else:
                yield from self._named(state, descriptor, any_after=token.endswith("*") or self.dotted)
            if matches(descriptor, ERROR) and (fails or descriptor):
                yield Heard("error", Literal(ERROR))
            if descriptor and matches(descriptor, "error.communication") and any(map(state.has, self.invoking)):
                yield Heard("failed", Literal("error.communication"))

    def _named(self, state: State, descriptor: str, *, any_after: bool) -> Iterator[Heard]:
        for name in self.known:
            if name == descriptor or (matches(descriptor, name) and not any_after):
                yield from self._event(state, name)
        if any_after and not descriptor.startswith(("done", "error")):
            yield Heard("*", NAME, DATA, Call(Member(NAME, Literal("startsWith")), (_prefix(descriptor),)))

    def _event(self, state: State, name: str) -> Iterator[Heard]:
        if name in ("error", ERROR) and name not in self.sent:
            return
        if invoked(state) and name.startswith("done.invoke") and matches(name, done(state)):
            yield Heard("done", Literal(name), Name("result"))
            return
        about = self.states.by_id.get(name.removeprefix("done.state.")) if name.startswith("done.state.") else None
        if about is not None and about not in self.raised_done:
            yield Heard("done", Literal(name))
            return
        yield Heard(event_name(name), Literal(name), DATA)

    def _raises_done(self, state: State) -> bool:
        """Whether somebody else than the state itself, or for more than that, hears that it is done."""
        if not invoked(state) and (state.kind not in ("compound", "parallel") or not state.id):
            return False
        own = "done.invoke" if invoked(state) else done(state)
        heard = [(listener, name) for listener, name, _ in self.listeners if matches(name, done(state))]
        if heard and any(child.element.all("donedata") for child in state.children if child.kind == "final"):
            return True
        if heard and state.kind == "parallel" and any(child.kind == "parallel" for child in state.children):
            return True  # appendix D knows of regions that are states only, a plan of parallel ones, too
        return any(listener is not state or not matches(own, name) for listener, name in heard)


def done(state: State) -> str:
    """The event that says that the state is done, or what it invokes."""
    return f"done.invoke.{invoked(state)}" if invoked(state) else f"done.state.{state.id}"


def invoked(state: State) -> str:
    """The id of what the state invokes; '' for nothing."""
    element = state.element.first("invoke")
    return (element.get("id") or f"{state.id}.invoked") if element is not None else ""


def _prefix(descriptor: str) -> Node:
    return Literal(event_name(descriptor + ".x").removesuffix("_").removesuffix("x"))
