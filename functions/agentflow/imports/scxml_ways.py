"""Transitions of an SCXML state as those of a plan: one for each event that a descriptor stands for."""

from __future__ import annotations

from typing import Any

from agentflow.imports.block import FALSE, TRUE, Block, both, names, negated
from agentflow.imports.findings import Findings, duration
from agentflow.imports.naming import event_name
from agentflow.imports.scxml_content import Content, Place
from agentflow.imports.scxml_events import NOTHING, Events, Heard, done, invoked
from agentflow.imports.scxml_sends import Sends
from agentflow.imports.scxml_states import State, States
from agentflow.imports.syntax import Literal, Name, Node
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

MAX_SPLIT = 3
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

    def of(self, state: State, element: Element) -> list[Table]:
        way: Table = {}
        target = self.states.one_target(element)
        if target is not None:
            inside = state.kind == "compound" and target is not state and state.has(target)
            if target is state and state.kind == "atomic":
                # SCXML leaves what is parallel around it, too; a plan's region would stay.
                while target.parent is not None and target.parent.kind == "parallel":
                    target = target.parent
            way["to"] = target.name
            if inside and element.get("type") == "internal":
                way["internal"] = True
        if "event" not in element.attributes:
            return self._on(state, element, way, None)
        found: list[Table] = []
        for heard in self.events.meant(state, element, fails=self.fails):
            found += self._on(state, element, {"event": heard.event, **way}, heard)
        if not found:
            self.findings.note(element, "is left out: nothing it waits for ever happens")
        return found

    def _on(self, state: State, element: Element, way: Table, heard: Heard | None) -> list[Table]:
        place = Place(state, heard)
        guard = self.content.condition(element, place)
        if heard is not None and heard.guard is not None:
            guard = both(heard.guard, guard)
        block = self.content.run(element.children, Block(), place)
        return self.cases(state, element, way, guard, block)

    def cases(self, state: State, element: Element, way: Table, guard: Node, block: Block) -> list[Table]:
        """One transition, or one for each way that conditions around its ``raise`` may turn out."""
        asked = list(dict.fromkeys(when for _, when in block.raises if when != TRUE))
        if len(asked) > MAX_SPLIT or any(names(when) & self._may_change(state) for when in asked):
            self.findings.refuse(element, "raises events under conditions", "write a transition for each condition")
            asked = []
        found: list[Table] = []
        for number in range(2 ** len(asked)):
            holds = {when: not number >> bit & 1 for bit, when in enumerate(asked)}
            case = guard
            for when, yes in holds.items():
                case = both(case, when if yes else negated(when))
            if case == FALSE:
                continue
            raises: list[tuple[str, Node]] = [(event, TRUE) for event, when in block.raises if holds.get(when, True)]
            found.append(self._written(element, way, case, Block(block.sets, raises)))
        return found

    def _may_change(self, state: State) -> set[str]:
        """What exit handlers, or content of other regions, may assign between a guard and the transition's content."""
        tags = ("onexit", "transition") if any(each.kind == "parallel" for each in self.states.all) else ("onexit",)
        found = set()
        for each in self.states.all:
            for container in each.element.all(*tags):
                if container.tag == "onexit" or each is not state:
                    block = Block()
                    quiet, self.content.findings = self.content.findings, Findings()
                    self.content.run(container.children, block, Place(each, Heard("*", NOTHING)))
                    self.content.findings = quiet
                    found |= set(block.sets)
        return found | {self.content.inside[each.id] for each in self.states.all if each.id in self.content.inside}

    def _written(self, element: Element, way: Table, guard: Node, block: Block) -> Table:
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
        if state.kind in ("parallel", "atomic") and state in self.events.raised_done:
            return [{"event": "done", "raise": [event_name(done(state))]}]
        ends = state.kind == "parallel" or (state.kind == "atomic" and invoked(state))
        ends = ends or (state.kind == "compound" and any(child.kind == "final" for child in state.children))
        if not ends or any(each.get("event") == "done" for each in transitions):
            return []
        return [{"event": "done", "set": self.ignoring(Literal(f"{state.name} is done"))}]

    def delays(self, state: State) -> list[Table]:
        sends = [send for send in self.sends.by_element.values() if send.how == "after" and send.state is state]
        return [{"after": duration(send.ms), "raise": [event_name(send.event)]} for send in sends]

    def acts(self, block: Block, at: Element) -> Table:
        """``set`` and ``raise`` of a block whose events are all raised."""
        acts: Table = {}
        sets = {name: Said(value, at) for name, value in block.sets.items() if value != Name(name)}
        if sets:
            acts["set"] = sets
        if block.raises:
            acts["raise"] = [event_name(event) for event, _ in block.raises]
        return acts
