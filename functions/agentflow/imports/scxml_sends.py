"""Events that an SCXML document sends to itself: what each is in a plan.

A delayed one becomes ``after`` of the state that sends it, where that comes to the same: nobody outside the state hears
it, and the state is not entered again while it is under way. Otherwise it has a timer of its own, a region beside the
machine. One without delay comes from outside, too: after all that the machine does at once. It has a very short one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from agentflow.imports.findings import Findings
from agentflow.imports.parsing import expression
from agentflow.imports.scxml_events import Events
from agentflow.imports.scxml_states import State, States, reentered
from agentflow.imports.syntax import (
    Literal,
    Node,
    Unreadable,
)
from agentflow.imports.xml import Element

SOON_MS = 1
_DELAY = re.compile(r"(\d{1,9}(?:\.\d{1,6})?|\.\d{1,6})\s*(ms|s|m|h|d)?")
_UNITS = {"ms": 1, "": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_HERE = ("", "#_internal", "#_scxml_self")
_SCXML = ("", "scxml", "http://www.w3.org/TR/scxml", "http://www.w3.org/TR/scxml/#SCXMLEventProcessor")


@dataclass(frozen=True, slots=True, eq=False)
class Send:
    """One place where an event is sent. ``how``: raise, after, timer, or '' when it is left out. ``id`` is the one that
    the document gives it, or its place among all; ``soon``: it has no delay."""

    element: Element
    state: State
    event: str
    how: str
    id: str
    ms: int = 0
    soon: bool = False

    @property
    def named(self) -> bool:
        """Whether the document knows its id."""
        return bool(self.element.get("id") or self.element.get("idlocation"))


@dataclass(frozen=True, slots=True)
class Site:
    """An element of executable content: the state it belongs to, and where it stands directly (onentry, if …)."""

    element: Element
    state: State
    parent: Element


def sites(states: States, *tags: str) -> Iterator[Site]:
    """All elements with these tags in executable content, in document order."""
    for state in [states.machine, *states.all]:
        for container in state.element.all("onentry", "onexit", "transition", "initial", "invoke"):
            yield from _below(container, state, tags)


def _below(parent: Element, state: State, tags: tuple[str, ...]) -> Iterator[Site]:
    for child in parent.children:
        if child.tag in tags:
            yield Site(child, state, parent)
        yield from _below(child, state, tags)


def sent_event(element: Element) -> str:
    """The event's name, when the document says it; '' otherwise."""
    if element.get("event") or "eventexpr" not in element.attributes:
        return element.get("event")
    return _text(element, "eventexpr")


class Sends:
    """What every ``send`` becomes, by element, and what every ``cancel`` cancels."""

    def __init__(self, states: States, events: Events, findings: Findings) -> None:
        self.states = states
        self.events = events
        self.findings = findings
        self.cancels = list(sites(states, "cancel"))
        found = list(enumerate(sites(states, "send"), 1))
        self.by_element = {id(site.element): self._send(site, number) for number, site in found}
        late = {send.state for send in self.by_element.values() if send.soon and send.how == "timer"}
        for key, send in self.by_element.items():
            if send.soon and send.state in late:  # what one state sends comes in its order
                self.by_element[key] = replace(send, how="timer")
        self.timers = [send for send in self.by_element.values() if send.how == "timer"]

    def about(self, event: str, key: Node) -> Node:
        """What ``_event`` says of where an event comes from; what is not known of it is undefined there."""
        sent = [send for send in self.by_element.values() if send.event == event]
        outside = [send for send in sent if send.how != "raise"]
        raised = any(site.element.get("event") == event for site in sites(self.states, "raise"))
        internal = raised or event.startswith(("done.", "error.")) or len(outside) < len(sent)
        name = key.value if isinstance(key, Literal) else None
        if name == "type" and not (internal and outside):
            platform = "platform" if event.startswith(("done.", "error.")) else "internal"
            return Literal(platform if internal else "external")
        if name == "sendid":
            ids = {send.id if send.named else None for send in sent}
            if len(ids) < 2 and not (ids - {None} and raised):
                return Literal(next(iter(ids), None))
        if name in ("origin", "origintype", "invokeid") and not outside:
            return Literal(None)
        if name == "origintype" and not internal:
            return Literal(_SCXML[-1])
        raise Unreadable("this is not known of the event")

    def _send(self, site: Site, number: int) -> Send:
        element = site.element
        name = element.get("id") or f"send.{number}"
        none = Send(element, site.state, "", "", name)
        if not self._here(element):
            return none
        event = sent_event(element)
        if not event:
            self.findings.refuse(element, "sends an event whose name is worked out", "name the event")
            return none
        if not self.events.heard(event):
            self.findings.note(element, f"nobody hears {event[:64]!r}, so it is not sent")
            return none
        ms = self._delay(element)
        if not ms and element.get("target") == "#_internal":
            return Send(element, site.state, event, "raise", name)
        how = "after" if self._stays(site, event) else "timer"
        return Send(element, site.state, event, how, name, ms or SOON_MS, soon=not ms)

    def _here(self, element: Element) -> bool:
        target = element.get("target") or _text(element, "targetexpr")
        kind = element.get("type") or _text(element, "typeexpr")
        if target in _HERE and kind.rstrip("/") in _SCXML and "targetexpr" not in element.attributes:
            return True
        mend = "let a state run a task that sends it"
        self.findings.leave_out(element, f"sends to {target[:64] or kind[:64] or 'elsewhere'!r}", mend)
        return False

    def _delay(self, element: Element) -> int:
        text = element.get("delay") or _text(element, "delayexpr")
        if not text and "delayexpr" not in element.attributes:
            return 0
        match = _DELAY.fullmatch(text.strip())
        if match is None:
            self.findings.refuse(element, f"the delay {text[:40]!r} is not known beforehand", "write e.g. 5s")
            return 0
        return round(float(match[1]) * _UNITS[match[2] or ""])

    def _stays(self, site: Site, event: str) -> bool:
        """Whether the time may be counted by the state itself."""
        state = site.state
        if site.parent.tag != "onentry" or state.kind in ("final", "machine"):
            return False
        if not all(state.has(listener) for listener in self.events.heard(event)):
            return False
        named = site.element.get("id") or site.element.get("idlocation")
        cancels = [each for each in self.cancels if named and each.element.get("sendid") in ("", named)]
        if any(cancel.state is not state or cancel.parent.tag != "onexit" for cancel in cancels):
            return False
        return bool(cancels) or not reentered(self.states, state)


def _text(element: Element, attribute: str) -> str:
    """The text that an expression is, when it is nothing but that."""
    try:
        node = expression(element.get(attribute))
    except Unreadable:
        return ""
    return str(node.value) if isinstance(node, Literal) else ""
