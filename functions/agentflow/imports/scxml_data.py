"""The data of an SCXML document: variables and their first values."""

from __future__ import annotations

import json
import re

from agentflow.imports.block import names, put
from agentflow.imports.findings import Findings
from agentflow.imports.naming import TooLong, field_name
from agentflow.imports.parsing import ECMASCRIPT, expression, statements
from agentflow.imports.scxml_sends import sites
from agentflow.imports.scxml_states import States
from agentflow.imports.syntax import (
    Assign,
    Items,
    Literal,
    Name,
    Node,
    Table,
    Unreadable,
)
from agentflow.imports.xml import Element

MAX_DATA = 150
_NOTHING = Literal(None)
_IDENTIFIER = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]{0,200}")


def first_values(states: States, findings: Findings) -> dict[str, Node]:
    """Each variable, by its name in the document, with the value it begins with."""
    found: dict[str, Node] = {}
    for state in [states.machine, *states.all]:
        for model in state.element.all("datamodel"):
            for element in model.all("data"):
                _one(element, found, findings, states.machine.element.get("name"))
    for script in states.machine.element.all("script"):
        _script(script, found, findings)
    for site in sites(states, "foreach"):
        for name in (site.element.get("item"), site.element.get("index")):
            if _IDENTIFIER.fullmatch(name) and name not in ECMASCRIPT:
                found.setdefault(name, _NOTHING)
    return found


def _script(element: Element, found: dict[str, Node], findings: Findings) -> None:
    """A script that runs before the machine: its assignments are first values."""
    try:
        if "src" in element.attributes:
            raise Unreadable("nothing is fetched: put the script's assignments here")
        for statement in statements(element.text):
            if not isinstance(statement, Assign) or not isinstance(statement.target, Name):
                raise Unreadable("only assignments are read in a script")
            found[statement.target.name] = _known(statement.value, found)
    except (Unreadable, TooLong) as fault:
        findings.refuse(element, str(fault), "give first values in <data>")


def _known(node: Node, found: dict[str, Node]) -> Node:
    """A value with those in place of their names that are known by then."""
    value = put(node, found)
    unknown = sorted(names(value) - {"undefined"})
    if unknown:
        raise Unreadable(f"{unknown[0]!r} is not declared before")
    return value


def _one(element: Element, found: dict[str, Node], findings: Findings, machine: str) -> None:
    name = element.get("id")
    found[name] = _NOTHING
    try:
        field_name(name)
        found[name] = _known(_value(element), {"_name": Literal(machine), **found})
    except (Unreadable, TooLong) as fault:
        findings.refuse(element, str(fault), "give a value that plan/v1 can say")
    if not name or len(found) > MAX_DATA:
        findings.refuse(element, "has no id" if not name else f"there are more than {MAX_DATA} of them")


def _value(element: Element) -> Node:
    if "src" in element.attributes:
        raise Unreadable("nothing is fetched: put the data here")
    if "expr" in element.attributes:
        return expression(element.get("expr"))
    if element.children:
        raise Unreadable("XML as a value")
    return plain_value(element.text)


def plain_value(text: str, *, texts: bool = False) -> Node:
    """What a text inside an element is: JSON, an expression (not with ``texts``), or a text with its white space made
    single."""
    text = text.strip()
    if not text:
        return _NOTHING
    try:
        return _node(json.loads(text))
    except RecursionError:
        raise Unreadable("is nested too deep") from None
    except ValueError:
        pass
    try:
        if not texts:
            return expression(text)
    except Unreadable:
        pass
    return Literal(" ".join(text.split()))


def _node(value: object) -> Node:
    if isinstance(value, dict):
        return Table(tuple((str(key), _node(entry)) for key, entry in value.items()))
    return Items(tuple(map(_node, value))) if isinstance(value, list) else Literal(value)
