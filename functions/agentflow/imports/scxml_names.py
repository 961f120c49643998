"""What an SCXML document names: states that ``In`` asks about, and places that are assigned."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from agentflow.imports.parsing import statements
from agentflow.imports.scxml_sends import sites
from agentflow.imports.scxml_states import State, States
from agentflow.imports.syntax import Assign, Name, Unreadable
from agentflow.imports.xml import Element

GLOBALS = frozenset(
    {"Array", "Boolean", "Date", "JSON", "Math", "NaN", "Infinity", "Number", "Object", "RegExp", "String", "console"}
    | {"globalThis", "isFinite", "isNaN", "parseFloat", "parseInt", "undefined"}
    | {"_event", "_ioprocessors", "_name", "_sessionid", "_x"}
)
"""What an ECMAScript expression may name that is not data."""

_BASE = re.compile(r"[A-Za-z_$][A-Za-z0-9_$]*")
_IN = re.compile(r"\bIn\s*\(\s*['\"]([^'\"]{1,200})['\"]\s*\)")


def texts(states: States) -> Iterator[str]:
    """All attributes and texts of the document."""
    todo = [states.machine.element]
    while todo:
        element = todo.pop()
        todo += element.children
        yield from (*element.attributes.values(), element.text)


def asked(states: States) -> list[State]:
    """The states that some ``In`` may ask about."""
    names = dict.fromkeys(name for text in texts(states) for name in _IN.findall(text))
    return [states.by_id[name] for name in names if name in states.by_id]


def surely_fails(location: str, data: Collection[str]) -> bool:
    """Whether nothing can be assigned there: it is no variable that is declared, nor a part of one."""
    base = _BASE.match(location.strip())
    return base is None or base[0] not in data


def locations(element: Element) -> list[str]:
    """The places that an element with data reads or writes."""
    found = [*element.get("namelist").split(), *(each.get("location") for each in element.all("param"))]
    found += [element.get(key) for key in ("location", "idlocation") if key in element.attributes]
    return [place for place in found if place or element.tag == "assign"]


def assigned(states: States) -> Iterator[str]:
    """The variables that some content changes."""
    for site in sites(states, "assign", "foreach", "script"):
        yield from (site.element.get(key).strip() for key in ("location", "item", "index"))
        try:
            for statement in statements(site.element.text if site.element.tag == "script" else ""):
                if isinstance(statement, Assign) and isinstance(statement.target, Name):
                    yield statement.target.name
        except Unreadable:
            pass  # said where the script is read
