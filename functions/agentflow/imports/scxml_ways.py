"""Transitions of an SCXML state as those of a plan: one for each event that a descriptor stands for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from agentflow.imports.block import FALSE, TRUE, Block, Raised, both, negated
from agentflow.imports.findings import Findings, duration
from agentflow.imports.naming import event_name
from agentflow.imports.scxml_content import Content, Place
from agentflow.imports.scxml_events import Events, Heard, done, invoked
from agentflow.imports.scxml_sends import Send, Sends
from agentflow.imports.scxml_states import State, States
from agentflow.imports.syntax import Binary, Literal, Name, Node
from agentflow.imports.syntax import Table as Tabled
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
Table = dict[str, Any]


class Ways:
    """Writes transitions. ``first``: the variables and what they begin with, to which it adds ``ignored``, the one that
    notes events which are taken and nothing follows; ``fails``: some expression may have no value."""

    def __init__(
        self, content: Content, first: dict[str, Node], findings: Findings, *, ignored: str, fails: bool
    ) -> None:
        self.content = content
        self.states: States = content.states
        self.events: Events = content.events
        self.sends: Sends = content.sends
        self.first = first
        self.findings = findings
        self.ignored = ignored
        self.fails = fails
        self.idle: set[str] = set()  # states in which something beside the machine waits for it

    def of(self, state: State, element: Element) -> list[Table]:
        way: Table = {}
        targets = self.states.targets(element)
        if targets:
            inside = state.kind == "compound" and all(each is not state and state.has(each) for each in targets)
            if targets == [state] and state.kind == "atomic":
                # SCXML leaves what is parallel around it, too; a plan's region would stay.
                while (around := targets[0].parent) is not None and around.kind == "parallel":
                    targets = [around]
            way["to"] = written(targets)
            if inside and element.get("type") == "internal":
                way["internal"] = True
        if "event" not in element.attributes:
            return self._on(state, element, way, None, FALSE if targets else self._before(state, element))
        found: list[Table] = []
        for heard in self.events.meant(state, element, fails=self.fails):
            found += self._on(state, element, {"event": heard.event, **way}, heard)
        if not found:
            self.findings.note(element, "is left out: nothing it waits for ever happens")
        return found

    def _before(self, state: State, element: Element) -> Node:
        """Whether a transition before this one is taken, when neither waits for an event."""
        before: Node = FALSE
        for other in state.element.all("transition"):
            if other is element:
                break
            if "event" not in other.attributes:
                asks = self.content.condition(other, Place(state))
                before = asks if before == FALSE else Binary("||", before, asks)
        return before

    def _on(
        self, state: State, element: Element, way: Table, heard: Heard | None, before: Node = FALSE
    ) -> list[Table]:
        place = Place(state, heard)
        guard = self.content.condition(element, place)
        if guard == TRUE:  # what is taken again and again has a condition in a plan
            guard = negated(before)
        if heard is not None and heard.guard is not None:
            guard = both(heard.guard, guard)
        block = self.content.run(element.children, Block(), place)
        return [] if guard == FALSE else [self.one(element, way, guard, block)]

    def one(self, element: Element, way: Table, guard: Node, block: Block) -> Table:
        """A transition with its condition and what it does."""
        entry: Table = {key: way[key] for key in ("event", "after") if key in way}
        if guard != TRUE:
            entry["if"] = Said(guard, element, True)
        entry |= self.acts(block, element)
        if "to" not in way and "set" not in entry and "raise" not in entry:
            entry["set"] = self.ignoring(Literal(way.get("event", "")))
        return {**entry, **{key: way[key] for key in ("to", "internal") if key in way}}

    def ignoring(self, what: Node) -> Table:
        """An event is taken and nothing follows: a plan's transition has to do something, so it notes that."""
        self.first.setdefault(self.ignored, Literal(""))
        return {self.ignored: Said(what, self.states.machine.element)}

    def done(self, state: State, transitions: list[Table]) -> list[Table]:
        """What a plan wants said where a state is done and the document says nothing."""
        if state.kind == "atomic" and state in self.events.raised_done:
            return [{"event": "done", "raise": [event_name(done(state))]}]
        ends = state.kind == "parallel" or (state.kind == "atomic" and invoked(state))
        ends = ends or (state.kind == "compound" and any(child.kind == "final" for child in state.children))
        if not ends or any(each.get("event") == "done" for each in transitions):
            return []
        return [{"event": "done", "set": self.ignoring(Literal(f"{state.name} is done"))}]

    def delays(self, state: State) -> list[Table]:
        return [
            {"after": duration(send.ms), "raise": [self.due(send)]}
            for send in self.sends.by_element.values()
            if send.state is state and send.id in self.content.sent
        ]

    def due(self, send: Send) -> str | Table:
        """What is raised when the time of a send is over."""
        kept = self.content.carried.get(send.id)
        raised = Raised(send.event, TRUE, None if kept is None else Name(kept))
        return self._raised(raised, send.element)

    def acts(self, block: Block, at: Element) -> Table:
        """``set`` and ``raise`` of a block."""
        acts: Table = {}
        sets = {name: Said(value, at) for name, value in block.sets.items() if value != Name(name)}
        if sets:
            acts["set"] = sets
        if block.raises:
            acts["raise"] = [self._raised(each, at) for each in block.raises]
        return acts

    def _raised(self, raised: Raised, at: Element) -> str | Table:
        """An event, with its condition and data. After an assignment that may fail it is raised only if it does not."""
        name = event_name(raised.event)
        entry: Table = {"event": name}
        if raised.when != TRUE:
            entry["if"] = Said(raised.when, at, True)
        if isinstance(raised.data, Tabled) and all(_KEY.fullmatch(key) for key, _ in raised.data.entries):
            entry["data"] = {key: Said(value, at) for key, value in raised.data.entries}
        elif raised.data is not None:
            entry["data"] = Said(raised.data, at)
        return entry if len(entry) > 1 or (raised.late and self.fails) else name


def written(states: Sequence[State]) -> str | list[str]:
    """The names of states where a plan takes one, or several."""
    names = [state.name for state in states]
    return names[0] if len(names) == 1 else names
