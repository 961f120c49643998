"""The data of an SCXML document: variables and their first values."""

from __future__ import annotations

import json

from agentflow.imports.block import names, put
from agentflow.imports.findings import Findings
from agentflow.imports.naming import TooLong, field_name
from agentflow.imports.parsing import expression
from agentflow.imports.scxml_states import States
from agentflow.imports.syntax import (
    Items,
    Literal,
    Node,
    Table,
    Unreadable,
)
from agentflow.imports.xml import Element

MAX_DATA = 150
_NOTHING = Literal(None)


def first_values(states: States, findings: Findings) -> dict[str, Node]:
    """Each variable, by its name in the document, with the value it begins with."""
    found: dict[str, Node] = {}
    for state in [states.machine, *states.all]:
        for model in state.element.all("datamodel"):
            for element in model.all("data"):
                _one(element, found, findings)
    for script in states.machine.element.all("script"):
        mend = "give first values in <data>"
        findings.refuse(script, "a script that runs before the machine is not read", mend)
    return found


def _one(element: Element, found: dict[str, Node], findings: Findings) -> None:
    name = element.get("id")
    found[name] = _NOTHING
    try:
        field_name(name)
        value = put(_value(element), found)
        unknown = sorted(names(value) - {"undefined"})
        if unknown:
            raise Unreadable(f"{unknown[0]!r} is not declared before")
        found[name] = value
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
    text = element.text.strip()
    if not text:
        return _NOTHING
    try:
        return _node(json.loads(text))
    except RecursionError:
        raise Unreadable("is nested too deep") from None
    except ValueError:
        pass
    try:
        return expression(text)
    except Unreadable:
        return Literal(" ".join(text.split()))


def _node(value: object) -> Node:
    if isinstance(value, dict):
        return Table(tuple((str(key), _node(entry)) for key, entry in value.items()))
    return Items(tuple(map(_node, value))) if isinstance(value, list) else Literal(value)
