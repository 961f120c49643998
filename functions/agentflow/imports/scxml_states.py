"""The states of an SCXML document: their hierarchy, ids and names, and the ways between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from agentflow.imports.findings import Findings
from agentflow.imports.naming import state_name
from agentflow.imports.xml import Element

MAX_STATES = 900
_STATES = ("state", "parallel", "final", "history")


@dataclass(slots=True, eq=False)
class State:
    """One state. ``kind``: machine, atomic, compound, parallel, final or history."""

    id: str
    kind: str
    element: Element
    parent: State | None
    name: str = ""
    children: list[State] = field(default_factory=list)

    def around(self) -> Iterator[State]:
        """The states around it, inner first, the machine last."""
        state = self.parent
        while state is not None:
            yield state
            state = state.parent

    def has(self, other: State) -> bool:
        """Whether ``other`` is inside it, or is it."""
        return other is self or self in other.around()

    @property
    def within_parallel(self) -> bool:
        return any(state.kind == "parallel" for state in self.around())


class States:
    """All states in document order, by id, and their transitions; the machine itself is first."""

    def __init__(self, root: Element, findings: Findings) -> None:
        self.findings = findings
        self.machine = State("", "machine", root, None)
        self.all: list[State] = []
        self.by_id: dict[str, State] = {}
        self.names: set[str] = set()
        self._inside(self.machine)

    def fresh(self, wanted: str) -> str:
        """A state's name that none has."""
        name = wanted
        number = 1
        while name in self.names:
            number += 1
            name = f"{wanted}-{number}"
        self.names.add(name)
        return name

    def targets(self, element: Element, attribute: str = "target") -> list[State]:
        """The states that an attribute names; unknown ones are refused."""
        found = []
        for name in element.get(attribute).split():
            if name in self.by_id:
                found.append(self.by_id[name])
            else:
                self.findings.refuse(element, f"there is no state {name[:64]!r}", "name one that is there")
        return found

    def transitions(self) -> Iterator[tuple[State, Element]]:
        """Every transition with the state it leaves, in document order."""
        for state in self.all:
            if state.kind != "history":
                for element in state.element.all("transition"):
                    yield state, element

    def _inside(self, parent: State) -> None:
        for element in parent.element.all(*_STATES):
            if len(self.all) >= MAX_STATES:
                self.findings.refuse(element, f"there are more than {MAX_STATES} states", "split the machine")
                return
            state = State(element.get("id"), _kind(element), element, parent)
            parent.children.append(state)
            self.all.append(state)
            if state.id in self.by_id:
                self.findings.refuse(element, f"there are two states {state.id[:64]!r}", "name each once")
            if state.id:
                self.by_id[state.id] = state
            state.name = self._named(state)
            self._inside(state)

    def _named(self, state: State) -> str:
        if not state.id:
            return self.fresh(f"{state.element.tag}-{len(self.all)}")
        name = self.findings.named(state_name, state.id, state.element, f"state-{len(self.all)}")
        self.names.add(name)
        return name


def _kind(element: Element) -> str:
    if element.tag == "state":
        return "compound" if element.all("state", "parallel", "final") else "atomic"
    return element.tag


def reentered(states: States, state: State) -> bool:
    """Whether ``state`` may be left and entered again; True when in doubt."""
    reached: set[State] = set()

    def reach(other: State) -> None:
        reached.update((other, *other.around(), *(each for each in states.all if other.has(each))))

    reach(state)
    ways = [(source, target) for source, element in states.transitions() for target in states.targets(element)]
    while True:
        before = len(reached)
        for source, target in ways:
            if source not in reached:
                continue
            inside = state is not source and state.has(source) and state is not target and state.has(target)
            if not inside and (target.has(state) or state.has(target) or target.kind == "history"):
                return True
            reach(target)
        if len(reached) == before:
            return False
