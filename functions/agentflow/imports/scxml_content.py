"""Executable content of SCXML as blocks of assignments and raised events, and its names as those of a plan."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import reduce

from agentflow.imports.block import FALSE, TRUE, Block, both, children, folded, negated, rebuilt
from agentflow.imports.findings import Findings
from agentflow.imports.naming import TooLong, event_name, field_name
from agentflow.imports.parsing import ECMASCRIPT, expression, statements
from agentflow.imports.scxml_data import plain_value
from agentflow.imports.scxml_events import ERROR, Events, Heard
from agentflow.imports.scxml_names import GLOBALS, asked, assigned, locations, surely_fails, texts
from agentflow.imports.scxml_sends import Send, Sends
from agentflow.imports.scxml_states import State, States
from agentflow.imports.syntax import (
    Assign,
    Binary,
    Call,
    Illegal,
    Items,
    Literal,
    Member,
    Name,
    Node,
    Table,
    Unreadable,
)
from agentflow.imports.xml import Element

MAX_ROUNDS = 100
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,200}")
MAX_POWER = 8
_EVENT = Name("_event")
_POW = Member(Name("Math"), Literal("pow"))


class _Fails(Exception):
    """What an element does is an error whenever it is done: SCXML's error.execution, and what follows is left."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where content stands: in a state, on an event where that is known."""

    state: State
    heard: Heard | None = None


class Content:
    """Reads content. ``data``: the variables by their names there, with their first values; ``assigned``: those that
    change; ``inside``: the variables that say whether a state is active, for the states that something asks about;
    ``carried``: those that keep the data of delayed sends until they are due; ``sent``: the sends that a state times
    itself and comes to; ``errs``: some content surely fails; ``never``: an empty text."""

    def __init__(
        self, states: States, events: Events, sends: Sends, data: dict[str, Node], findings: Findings
    ) -> None:
        self.states = states
        self.events = events
        self.sends = sends
        self.data = data
        self.findings = findings
        self.taken = {field_name(name) for name in data}
        self.inside: dict[State, str] = {}
        for state in asked(states):
            self.is_inside(state)
        self.carried: dict[str, str] = {}
        self.sent: set[str] = set()
        self.errs = False
        self.never = ""
        self.reads_data = any("_event" in text for text in texts(states))
        self.assigned = set(assigned(states))

    # -- expressions

    def condition(self, element: Element, place: Place, attribute: str = "cond") -> Node:
        """The condition in an attribute; constants worked out, true where there is none."""
        if attribute not in element.attributes:
            return TRUE
        try:
            node = self._read(element, element.get(attribute), place)
        except _Fails as fault:
            self.findings.note(element, f"its condition always fails: {fault}; that is false", "mend or remove it")
            self.errs = True
            self.never = "never" if "never" not in self.taken else "never_now"
            return Member(Table((("always", TRUE),)), Name(self.never))  # it has no such entry
        if isinstance(node, Literal):
            return TRUE if node.value else FALSE
        return node

    def read(self, element: Element, source: str, place: Place) -> Node:
        """An expression with the plan's names; null after it was refused."""
        try:
            return self._named(expression(source), place)
        except (Unreadable, TooLong) as fault:
            self.findings.refuse(element, f"`{source.strip()[:80]}`: {fault}", "write it in CEL after the import")
            return Literal(None)

    def _read(self, element: Element, source: str, place: Place) -> Node:
        """The same; one that never has a value is an error when it comes to that."""
        try:
            self._named(expression(source), place)
        except Illegal as fault:
            raise _Fails(str(fault)) from None
        except (Unreadable, TooLong):
            pass
        return self.read(element, source, place)

    def _named(self, node: Node, place: Place) -> Node:
        """``node`` with the plan's names in place of the document's."""
        if isinstance(node, Name):
            if node.name in self.data:
                return Name(field_name(node.name))
            if node.name == "_name":
                return Literal(self.states.machine.element.get("name"))
            if node == _EVENT:
                return Literal(None)
            raise (Unreadable if node.name in GLOBALS else Illegal)(f"{node.name!r} is not declared")
        if isinstance(node, Member) and node.of == _EVENT:
            return self._of_event(node.key, place)
        if isinstance(node, Binary) and node.op in ("==", "!=") and node.left == Member(_EVENT, Literal("name")):
            return _compared(node, self._named(node.left, place))
        if isinstance(node, Call) and isinstance(node.function, Name):
            if node.function.name == "In":
                return self._in(node)
            return Call(node.function, tuple(self._named(argument, place) for argument in node.arguments))
        if isinstance(node, Call) and node.function == _POW:
            return _power(tuple(self._named(argument, place) for argument in node.arguments))
        return folded(rebuilt(node, tuple(self._named(child, place) for child in children(node))))

    def _of_event(self, key: Node, place: Place) -> Node:
        if place.heard is None:
            raise Unreadable("the event is known only in a transition that names it")
        if key == Literal("name"):
            return place.heard.name
        if key == Literal("data"):
            return place.heard.data
        if isinstance(place.heard.name, Literal):
            return self.sends.about(str(place.heard.name.value), key)
        raise Unreadable("of an event only the name and the data are known")

    def _in(self, node: Call) -> Node:
        if len(node.arguments) != 1 or not isinstance(node.arguments[0], Literal):
            raise Unreadable("In() is read with the id of a state")
        state = self.states.by_id.get(str(node.arguments[0].value))
        if state is None:
            return FALSE
        return self.is_inside(state)

    def is_inside(self, state: State) -> Node:
        """The variable that says whether a state is active."""
        if state not in self.inside:
            field = field_name("in_" + (state.id or state.name))
            self.inside[state] = field if field not in self.taken else field + "_now"
        return Name(self.inside[state])

    # -- content

    def run(self, elements: list[Element], block: Block, place: Place, when: Node = TRUE) -> Block:
        """What the elements do after what the block does already, where ``when`` holds."""
        self._run(elements, block, place, when)
        return block

    def _run(self, elements: list[Element], block: Block, place: Place, when: Node) -> Node:
        """The same; on which condition none of them has failed, so that what stands behind them is done."""
        for element in elements:
            if when == FALSE:
                break
            try:
                when = self._one(element, block, place, when)
            except _Fails as fault:
                self._error(element, f"always fails: {fault}; what stands behind it is never done", block, when)
                return FALSE
            except (Unreadable, TooLong) as fault:
                self.findings.refuse(element, str(fault), "write it in CEL after the import")
        return when

    def _one(self, element: Element, block: Block, place: Place, when: Node) -> Node:
        tag = element.tag
        if tag == "assign":
            target = self._target(element.get("location"))
            source = element.get("expr") or element.text.strip()
            self._assign(target, self._read(element, source, place), block, when)
        elif tag == "raise":
            if self.events.heard(element.get("event")):
                block.raised(element.get("event"), when)
        elif tag == "if":
            return self._if(element, block, place, when)
        elif tag == "script":
            self._script(element, block, place, when)
        elif tag == "send":
            self._send(element, block, place, when)
        elif tag == "cancel":
            self._cancel(element, block, place, when)
        elif tag == "foreach":
            return self._foreach(element, block, place, when)
        elif tag == "log":
            self.findings.note(element, "is left out: a run's history says what happened")
        else:
            self.findings.refuse(element, f"<{tag}> is not read", "let a state run a task that does it")
        return when

    def _error(self, element: Element, message: str, block: Block, when: Node) -> None:
        """What fails whenever it is done is SCXML's error.execution, raised like any event."""
        self.findings.note(element, message, "mend or remove it")
        self.errs = True
        if self.events.heard(ERROR):
            block.raised(ERROR, when)

    def _target(self, location: str) -> Node:
        """Where an assignment goes. One to what nobody has declared fails whenever it is made."""
        if not surely_fails(location, self.data):
            return expression(location)
        raise _Fails(f"{location[:64]!r} is not declared")

    def _assign(self, target: Node, value: Node, block: Block, when: Node) -> None:
        if not isinstance(target, Name):
            raise Unreadable("only a whole variable can be assigned")
        if target.name not in self.data:
            raise Unreadable(f"{target.name!r} is not declared")
        block.assign(field_name(target.name), value, when)

    def _script(self, element: Element, block: Block, place: Place, when: Node) -> None:
        if "src" in element.attributes:
            raise Unreadable("nothing is fetched: put the script's assignments here")
        for statement in statements(element.text):
            if not isinstance(statement, Assign):
                raise Unreadable("only assignments are read in a script")
            self._assign(statement.target, self._named(statement.value, place), block, when)

    def _if(self, element: Element, block: Block, place: Place, when: Node) -> Node:
        branches: list[tuple[Element | None, list[Element]]] = [(element, [])]
        for child in element.children:
            if child.tag in ("elseif", "else"):
                branches.append((child if child.tag == "elseif" else None, []))
            else:
                branches[-1][1].append(child)
        # All are asked before any branch assigns; only one is taken.
        asked = [block.seen(self.condition(at, place)) if at is not None else TRUE for at, _ in branches]
        after = when
        for asks, (_, inner) in zip(asked, branches, strict=True):
            taken = both(when, asks)
            if taken != FALSE and self._run(inner, block, place, taken) == FALSE:
                after = both(after, negated(taken))
            when = both(when, negated(asks))
        return after

    def _send(self, element: Element, block: Block, place: Place, when: Node) -> None:
        send = self.sends.by_element[id(element)]
        if element.get("idlocation"):
            self._assign(self._target(element.get("idlocation")), Literal(send.id), block, when)
        data = self._data(element, place) if send.how else None
        if send.how == "raise":
            block.raised(send.event, when, data)
            return
        if send.how and data is not None:
            self.carried[send.id] = kept = f"sent_{len(self.carried) + 1}"
            block.assign(kept, data, when)
        if send.how == "timer":
            flag = timer_flag(self.sends, send, "send")
            block.assign(flag, Binary("+", Name(flag), Literal(1)), when)
        elif send.how == "after":
            if when != TRUE:
                raise Unreadable("sends after some time, under a condition")
            self.sent.add(send.id)

    def _data(self, element: Element, place: Place) -> Node | None:
        """What a send or a final state gives: None for nothing, or where no transition looks at it."""
        if content := element.first("content"):
            if "expr" in content.attributes:
                return self._read(content, content.get("expr"), place)
            if not self.reads_data:
                return None
            if content.children:
                self.findings.leave_out(content, "XML as data", "give it as an expression")
                return None
            return plain_value(content.text, texts=True)
        for location in locations(element):
            self._target(location)
        given = [(name, self._read(element, name, place)) for name in element.get("namelist").split()]
        for param in element.all("param"):
            source = param.get("expr") or param.get("location")
            given.append((param.get("name"), self._read(param, source, place)))
        return Table(tuple(dict(given).items())) if given and self.reads_data else None

    def done(self, event: str, state: State, block: Block) -> None:
        """A final state raises the event that the state around it is done, with what it gives."""
        data = None
        if element := state.element.first("donedata"):
            try:
                data = self._data(element, Place(state))
            except _Fails as fault:
                self._error(element, f"always fails: {fault}; nothing is given", block, TRUE)
        block.raised(event, TRUE, data)

    def _cancel(self, element: Element, block: Block, place: Place, when: Node) -> None:
        wanted: Node = Literal(element.get("sendid"))
        if "sendidexpr" in element.attributes:
            wanted = block.seen(self._read(element, element.get("sendidexpr"), place))
        for send in self.sends.timers:
            if send.soon:  # it is in the queue already
                continue
            asks = Binary("==", wanted, Literal(send.id))
            if isinstance(wanted, Literal):
                asks = TRUE if wanted.value == send.id else FALSE  # type: ignore[assignment]
            taken = both(when, asks)
            if taken != FALSE:
                block.assign(timer_flag(self.sends, send, "cancel"), TRUE, taken)

    def _foreach(self, element: Element, block: Block, place: Place, when: Node) -> Node:
        source = element.get("array").strip()
        items = self._read(element, source, place)
        if source in self.data and source not in self.assigned:
            items = self.data[source]
        for name in filter(None, (element.get("item"), element.get("index"))):
            if _IDENTIFIER.fullmatch(name) is None or name in ECMASCRIPT:
                raise _Fails(f"{name[:40]!r} is no name of a variable")
        if isinstance(items, Literal) and items.value is not None:
            raise _Fails(f"{source[:40]!r} is no list")
        if not isinstance(items, Items) or len(items.items) > MAX_ROUNDS or source in self.assigned:
            raise Unreadable("a loop over a list that changes")
        for index, item in enumerate(items.items):
            self._assign(Name(element.get("item")), item, block, when)
            if element.get("index"):
                self._assign(Name(element.get("index")), Literal(index), block, when)
            when = self._run(element.children, block, place, when)
        return when


def timer_flag(sends: Sends, send: Send, what: str) -> str:
    """The variable that asks a send's timer to begin, or to stop."""
    return f"{what}_{sends.timers.index(send) + 1}"


def _power(arguments: tuple[Node, ...]) -> Node:
    """``Math.pow(x, 3)`` is a product in CEL."""
    times = arguments[1].value if len(arguments) == 2 and isinstance(arguments[1], Literal) else None
    if not isinstance(times, int) or not 1 <= times <= MAX_POWER:
        raise Unreadable(f"Math.pow is read with a whole number from 1 to {MAX_POWER}")
    return reduce(lambda power, base: Binary("*", power, base), (arguments[0],) * times)


def _compared(node: Binary, name: Node) -> Node:
    """``_event.name == 'foo.bar'``: known where the event is, else compared with the plan's name of it."""
    if not isinstance(node.right, Literal) or not isinstance(node.right.value, str):
        raise Unreadable("the event's name is compared with something that is not a text")
    if isinstance(name, Literal):
        return Literal((name.value == node.right.value) == (node.op == "=="))
    return Binary(node.op, name, Literal(event_name(node.right.value)))
