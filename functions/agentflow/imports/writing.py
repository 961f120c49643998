"""The last step of an import: expressions become CEL text, once it is known what types the variables have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentflow.imports.cel_text import DECLARED, condition, join, value
from agentflow.imports.findings import Findings
from agentflow.imports.syntax import Node, Unreadable
from agentflow.imports.xml import Element

LOCALS = {"event": "json", "result": "json", "item": "json"}
_NUMBER = re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")
_SETS = ("set", "on_success", "on_failure", "on_halt", "post")


@dataclass(frozen=True, slots=True)
class Said:
    """An expression in a document that is not written yet; ``truth``: a condition; ``locals``: the types of names that
    only it sees."""

    node: Node
    at: Element
    truth: bool = False
    locals: Mapping[str, str] = field(default_factory=dict)


def write(document: dict[str, Any], first: Mapping[str, Node], findings: Findings) -> bool:
    """Put CEL text in place of every ``Said``, and the types of the variables (``first``: the values they begin with)
    into ``vars``. Whether some expression may have no value."""
    types = inferred(
        {name: _type(node, {}) or "json" for name, node in first.items()},
        [(name, said.node, said.locals) for name, said in assignments(document)],
    )
    writer = Writer({**LOCALS, **types}, findings)
    for key, part in document.items():
        document[key] = writer.written(part)
    document["vars"] = {name: DECLARED.get(type_, type_) for name, type_ in types.items()}
    return writer.fails


def inferred(first: Mapping[str, str], sets: Sequence[tuple[str, Node, Mapping[str, str]]]) -> dict[str, str]:
    """The type of each variable: of all that it is ever assigned (``sets``: what, and the names that only it sees)."""
    types = dict(first)
    changed = True
    while changed:  # a type only ever becomes wider, three times at most
        changed = False
        for name, node, local in sets:
            type_ = _type(node, {**LOCALS, **types, **local})
            wider = join(types[name], type_) if type_ and name in types else type_
            if wider and types.get(name) != wider:
                types[name] = wider
                changed = True
    return types


def _type(node: Node, types: Mapping[str, str]) -> str:
    try:
        type_ = value(node, types).type
    except Unreadable:
        return ""
    return "json" if type_ == "null" else type_


def assignments(part: Any) -> Iterator[tuple[str, Said]]:
    """What a part assigns to which variable."""
    if isinstance(part, dict):
        for key, inner in part.items():
            if key in _SETS and isinstance(inner, dict):
                yield from ((name, said) for name, said in inner.items() if isinstance(said, Said))
            else:
                yield from assignments(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from assignments(inner)


class Writer:
    """Writes the expressions of a part, where ``types`` are known; ``fails``: some may have no value."""

    def __init__(self, types: Mapping[str, str], findings: Findings) -> None:
        self.types = types
        self.findings = findings
        self.fails = False

    def written(self, part: Any) -> Any:
        if isinstance(part, dict):
            part = self._numbered(part) if part.get("type") == "switch" else part
            return {key: self.written(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [self.written(inner) for inner in part]
        return self._text(part) if isinstance(part, Said) else part

    def _numbered(self, switch: dict[str, Any]) -> dict[str, Any]:
        """A switch over a number: its cases are compared as text, so 2 is 2.0. The first of two that are the same is
        taken."""
        type_ = _type(switch["value"].node, self.types)
        if type_ not in ("int", "double"):
            return switch
        cases: dict[str, Any] = {}
        for key, case in switch["cases"].items():
            number = float(key) if _NUMBER.fullmatch(key) else None
            whole = type_ == "int" and number is not None and number.is_integer()
            cases.setdefault(key if number is None else str(int(number)) if whole else str(number), case)
        return {**switch, "cases": cases}

    def _text(self, said: Said) -> str:
        try:
            term = (condition if said.truth else value)(said.node, {**self.types, **said.locals})
        except Unreadable as fault:
            self.findings.refuse(said.at, str(fault), "write it in CEL after the import")
            return "null"
        self.fails = self.fails or term.fails
        return term.text
