"""The blackboard of one BehaviorTree.CPP tree: its entries as variables of a plan, its scripts as assignments."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agentflow.imports.block import Block, children, negated, put, rebuilt
from agentflow.imports.cel_text import value
from agentflow.imports.findings import Findings
from agentflow.imports.naming import TooLong, field_name
from agentflow.imports.parsing import expression, statements
from agentflow.imports.syntax import Assign, Call, Literal, Member, Name, Node, Unreadable
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

MAX_ENTRIES = 200
MEND = "write it in CEL after the import"
_ENTRY = re.compile(r"\{([^{}]{1,200})\}")
_NUMBER = re.compile(r"[+-]?(\d{1,18}|\d*\.\d+|\d+\.\d*)([eE][+-]?\d{1,3})?")


def entry_of(text: str, port: str = "") -> str:
    """The entry that a port's text names, as ``{x}`` does (``{=}``: the one of the port's name); '' for none."""
    match = _ENTRY.fullmatch(text.strip())
    if match is None:
        return ""
    name = match[1].strip()
    return port if name == "=" else name


def literal(text: str, type_: str = "") -> Literal:
    """A port's text as a value: of its type or, where that is not known, a number where it reads as one."""
    plain = text.strip()
    if type_ == "bool" or (not type_ and plain in ("true", "false")):
        return Literal(plain in ("true", "1"))
    if type_ in ("", "int", "double") and _NUMBER.fullmatch(plain):
        number = float(plain)
        whole = type_ != "double" and number.is_integer() and "." not in plain
        return Literal(int(plain) if whole and plain.lstrip("+-").isdigit() else number)
    if type_ in ("int", "double"):
        raise Unreadable(f"{plain[:40]!r} is not a number")
    return Literal(text)


class Board:
    """The entries of one tree, ``fields``: the plan's name of each. ``set`` are those that something in the
    tree assigns, ``types`` what ports that read or set them say, ``kept`` those
    that are another tree's. ``main``: nothing is around the tree, so ``@x`` is its own ``x``."""

    def __init__(self, findings: Findings, enums: Mapping[str, int], *, main: bool) -> None:
        self.findings = findings
        self.enums = enums
        self.main = main
        self.fields: dict[str, str] = {}
        self.set: set[str] = set()
        self.kept: set[str] = set()
        self.types: dict[str, set[str]] = {}

    def field(self, entry: str, type_: str = "") -> str:
        """The variable of an entry."""
        if self.main:
            entry = entry.removeprefix("@")
        name = self.fields.setdefault(entry, field_name(entry))
        if type_:
            self.types.setdefault(name, set()).add(type_)
        return name

    def output(self, entry: str, type_: str = "") -> str:
        """The variable of an entry that something sets."""
        name = self.field(entry, type_)
        self.set.add(name)
        return name

    def fresh(self, wanted: str) -> str:
        """A variable that keeps an entry of another tree."""
        if len(self.fields) >= MAX_ENTRIES:
            raise Unreadable(f"needs more than {MAX_ENTRIES} entries outside")
        name, number = wanted, 1
        while name in self.fields.values():
            number += 1
            name = f"{wanted}_{number}"
        self.fields[f"{name} of another tree"] = name
        self.kept.add(name)
        return name

    def condition(self, at: Element, source: str, *, unless: bool = False) -> Said:
        """A script that is a condition (or, with ``unless``, its opposite)."""
        node = self._read(at, source)
        return Said(negated(node) if unless else node, at, True)

    def assignments(self, at: Element, source: str) -> dict[str, Said]:
        """What a script assigns, all at once."""
        sets, last = self.script(at, source)
        if last is not None:
            mend = "assign what it comes to, or leave it out"
            self.findings.refuse(at, f"`{source.strip()[:80]}`: ends with what is not assigned", mend)
        return sets

    def script(self, at: Element, source: str) -> tuple[dict[str, Said], Said | None]:
        """What a script assigns, all at once, and its last statement where that is a condition."""
        block = Block()
        last: Node | None = None
        try:
            for statement in statements(source, ()):
                last = None if isinstance(statement, Assign) else self._named(statement)
                if isinstance(statement, Assign):
                    if not isinstance(statement.target, Name):
                        raise Unreadable("only assignments to whole entries are read in a script")
                    block.assign(self.output(statement.target.name), self._named(statement.value))
        except (Unreadable, TooLong) as fault:
            self.findings.refuse(at, f"`{source.strip()[:80]}`: {fault}", MEND)
        sets = {name: Said(node, at) for name, node in block.sets.items()}
        return sets, None if last is None else Said(last, at, True)

    def value(self, at: Element, text: str, port: str = "", type_: str = "") -> Node:
        """What a port's text stands for: an entry, a number that has a name, or the text as a value."""
        try:
            entry = entry_of(text, port)
            if not entry and type_ != "string" and text.strip() in self.enums:
                return Literal(self.enums[text.strip()])
            return Name(self.field(entry, type_)) if entry else literal(text, type_)
        except (Unreadable, TooLong) as fault:
            self.findings.refuse(at, str(fault), "give a value of the port's type")
            return Literal(None)

    def written(self, at: Element, text: str, port: str, type_: str) -> str:
        """The same as CEL."""
        node = self.value(at, text, port, type_)
        return node.name if isinstance(node, Name) else value(node, {}).text

    def _read(self, at: Element, source: str) -> Node:
        try:
            return self._named(expression(source, ()))
        except (Unreadable, TooLong) as fault:
            self.findings.refuse(at, f"`{source.strip()[:80]}`: {fault}", MEND)
            return Literal(None)

    def _named(self, node: Node) -> Node:
        if isinstance(node, Name):
            return Literal(self.enums[node.name]) if node.name in self.enums else Name(self.field(node.name))
        if isinstance(node, Call | Member):
            raise Unreadable("scripts have no functions and no members")
        return rebuilt(node, tuple(self._named(child) for child in children(node)))


def renamed(said: Said, names: Mapping[str, str]) -> Node:
    """The expression with other names for variables."""
    return put(said.node, {name: Name(other) for name, other in names.items()})
