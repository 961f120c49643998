"""The last step of an import: expressions become CEL text, once it is known what types the variables have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from agentflow.imports.cel_text import DECLARED, condition, join, value
from agentflow.imports.findings import Findings
from agentflow.imports.syntax import Node, Unreadable
from agentflow.imports.xml import Element

LOCALS = {"event": "json", "result": "json", "item": "json"}
_SETS = ("set", "on_success", "on_failure", "on_halt", "post")


@dataclass(frozen=True, slots=True)
class Said:
    """An expression in a document that is not written yet; ``truth``: a condition."""

    node: Node
    at: Element
    truth: bool = False


def write(document: dict[str, Any], first: Mapping[str, Node], findings: Findings) -> bool:
    """Put CEL text in place of every ``Said``, and the types of the variables (``first``: the values they begin with)
    into ``vars``. Whether some expression may have no value."""
    types = inferred(document, first)
    writer = _Writer({**LOCALS, **types}, findings)
    for key, part in document.items():
        document[key] = writer.written(part)
    document["vars"] = {name: DECLARED.get(type_, type_) for name, type_ in types.items()}
    return writer.fails


def inferred(document: dict[str, Any], first: Mapping[str, Node]) -> dict[str, str]:
    """The type of each variable: of all that it is ever assigned."""
    types: dict[str, str] = {}
    for name, node in first.items():
        types[name] = _type(node, {}) or "json"
    sets = list(_assignments(document))
    changed = True
    while changed:  # a type only ever becomes wider, three times at most
        changed = False
        for name, said in sets:
            type_ = _type(said.node, {**LOCALS, **types})
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


def _assignments(part: Any) -> Iterator[tuple[str, Said]]:
    if isinstance(part, dict):
        for key, inner in part.items():
            if key in _SETS and isinstance(inner, dict):
                yield from ((name, said) for name, said in inner.items() if isinstance(said, Said))
            else:
                yield from _assignments(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _assignments(inner)


class _Writer:
    def __init__(self, types: Mapping[str, str], findings: Findings) -> None:
        self.types = types
        self.findings = findings
        self.fails = False

    def written(self, part: Any) -> Any:
        if isinstance(part, dict):
            return {key: self.written(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [self.written(inner) for inner in part]
        return self._text(part) if isinstance(part, Said) else part

    def _text(self, said: Said) -> str:
        try:
            term = (condition if said.truth else value)(said.node, self.types)
        except Unreadable as fault:
            self.findings.refuse(said.at, str(fault), "write it in CEL after the import")
            return "null"
        self.fails = self.fails or term.fails
        return term.text
