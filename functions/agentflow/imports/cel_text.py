"""Expressions of other languages as CEL text. Both ECMAScript and BehaviorTree.CPP convert as they go; CEL does not,
so each part is written with its type: ``int``, ``double``, ``string``, ``bool``, ``list``, ``json`` (anything) or
``null``.

Numbers are whole as long as what makes them is; ``/`` always gives a double, as it does there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from agentflow.core.draft import RESERVED
from agentflow.imports.syntax import (
    Binary,
    Call,
    Choice,
    Items,
    Literal,
    Member,
    Name,
    Node,
    Table,
    Unary,
    Unreadable,
)

DECLARED = {"list": "list(json)", "null": "json"}
"""How a type is written in a plan, where that is not its name."""

_CHOICE, _OR, _AND, _RELATION, _SUM, _PRODUCT, _UNARY, _POSTFIX = range(1, 9)
_LEVELS = {
    "==": _RELATION, "!=": _RELATION, "<": _RELATION, "<=": _RELATION, ">": _RELATION, ">=": _RELATION,
    "+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT, "%": _PRODUCT,
}  # fmt: skip
_NUMBERS = ("int", "double")
_TEXTS = (Member(Name("event"), Literal("name")), Member(Name("event"), Literal("message")))
_EVENT_DATA = Member(Name("event"), Literal("data"))
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TYPEOF = {"number": _NUMBERS, "string": ("string",), "boolean": ("bool",), "object": ("list",)}
_CONVERSIONS = {"String": "string", "Number": "double", "parseInt": "int", "parseFloat": "double"}
_OF_STRINGS = ("startsWith", "endsWith", "includes")


@dataclass(frozen=True, slots=True)
class Term:
    """CEL text of a type; ``level`` says how tightly it binds, ``fails`` whether it may have no value."""

    text: str
    type: str
    level: int = _POSTFIX
    fails: bool = False

    def within(self, level: int) -> str:
        """The text where something that binds as tightly as ``level`` is needed."""
        return self.text if self.level >= level else f"({self.text})"


def join(one: str, other: str) -> str:
    """The type of what may be of either."""
    if one == other:
        return one
    return "double" if one in _NUMBERS and other in _NUMBERS else "json"


def value(node: Node, types: Mapping[str, str]) -> Term:
    """``node`` as CEL, where ``types`` has the type of every name; ``Unreadable`` when CEL cannot say it."""
    return _Writer(types).value(node)


def condition(node: Node, types: Mapping[str, str]) -> Term:
    """``node`` as a CEL condition: whether it is what counts as true."""
    return _Writer(types).truth(node)


class _Writer:
    def __init__(self, types: Mapping[str, str]) -> None:
        self.types = types

    def value(self, node: Node) -> Term:
        if isinstance(node, Literal):
            return _literal(node.value)
        if isinstance(node, Name):
            if node.name not in self.types:
                raise Unreadable(f"{node.name!r} is not declared")
            return Term(node.name, self.types[node.name])
        if isinstance(node, Member):
            return self._member(node)
        if isinstance(node, Unary):
            return self._unary(node)
        if isinstance(node, Binary):
            return self._binary(node)
        if isinstance(node, Choice):
            return self._choice(self.truth(node.condition), self.value(node.then), self.value(node.other))
        if isinstance(node, Call):
            return self._call(node)
        if isinstance(node, Items):
            items = [self.value(item) for item in node.items]
            mixed = len({item.type for item in items}) > 1
            texts = [f"dyn({item.text})" if mixed else item.text for item in items]
            return Term(f"[{', '.join(texts)}]", "list", fails=any(item.fails for item in items))
        return self._table(node)

    def truth(self, node: Node) -> Term:
        """Whether ``node`` counts as true."""
        if isinstance(node, Unary) and node.op == "!":
            of = self.truth(node.of)
            return Term(f"!{of.within(_UNARY)}", "bool", _UNARY, of.fails)
        if isinstance(node, Binary) and node.op in ("&&", "||"):
            return self._logical(node.op, self.truth(node.left), self.truth(node.right))
        term = self.value(node)
        if term.type == "bool":
            return term
        if isinstance(node, Literal) or term.type in ("list", "null"):
            return _literal(term.type == "list" or bool(isinstance(node, Literal) and node.value))
        if term.type == "json":
            return Term(f'!({term.within(_SUM)} in [null, false, 0, ""])', "bool", _UNARY, term.fails)
        zero = {"int": "0", "double": "0.0", "string": '""'}[term.type]
        return Term(f"{term.within(_SUM)} != {zero}", "bool", _RELATION, term.fails)

    # -- parts

    def _table(self, node: Table) -> Term:
        entries = [(key, self.value(entry)) for key, entry in node.entries]
        mixed = len({entry.type for _, entry in entries}) > 1
        texts = [f"{_quoted(key)}: " + (f"dyn({entry.text})" if mixed else entry.text) for key, entry in entries]
        return Term("{" + ", ".join(texts) + "}", "json", fails=any(entry.fails for _, entry in entries))

    def _member(self, node: Member) -> Term:
        if node in _TEXTS:
            return Term(f"event.{node.key.value}", "string")  # type: ignore[union-attr]
        of = self.value(node.of)
        if node.key == Literal("length"):
            if of.type in _NUMBERS or of.type == "bool":
                raise Unreadable(f"a value of type {of.type} has no length")
            return Term(f"size({of.text})", "int", fails=of.fails or of.type == "json")
        if of.type not in ("json", "list"):
            raise Unreadable(f"a value of type {of.type} has no members")
        if isinstance(node.key, Literal) and isinstance(node.key.value, str):
            key = node.key.value
            plain = _IDENTIFIER.fullmatch(key) and key not in RESERVED
            return Term(of.within(_POSTFIX) + (f".{key}" if plain else f"[{_quoted(key)}]"), "json", fails=True)
        index = self.value(node.key)
        text = f"int({index.text})" if index.type == "double" else index.text
        return Term(f"{of.within(_POSTFIX)}[{text}]", "json", fails=True)

    def _unary(self, node: Unary) -> Term:
        if node.op == "!":
            return self.truth(node)
        if node.op == "typeof":
            raise Unreadable("typeof is only read where it is compared with a string")
        of = self.value(node.of)
        if of.type not in (*_NUMBERS, "json"):
            raise Unreadable(f"- is not for a value of type {of.type}")
        return Term(f"-{of.within(_POSTFIX)}", of.type, _UNARY, of.fails or of.type == "json")

    def _binary(self, node: Binary) -> Term:
        if node.op in ("==", "!="):
            return self._equality(node)
        left, right = self.value(node.left), self.value(node.right)
        if node.op in ("&&", "||"):
            if left.type == right.type == "bool":
                return self._logical(node.op, left, right)
            truth = self.truth(node.left)
            return self._choice(truth, left, right) if node.op == "||" else self._choice(truth, right, left)
        if node.op in ("<", "<=", ">", ">="):
            return self._order(node.op, left, right)
        return self._arithmetic(node.op, left, right)

    def _logical(self, op: str, left: Term, right: Term) -> Term:
        level = _OR if op == "||" else _AND
        return Term(f"{left.within(level)} {op} {right.within(level + 1)}", "bool", level, left.fails or right.fails)

    def _choice(self, condition: Term, then: Term, other: Term) -> Term:
        fails = condition.fails or then.fails or other.fails
        if then.type != other.type and then.type in _NUMBERS and other.type in _NUMBERS:
            then, other = _double(then), _double(other)
        if then.type != other.type or "[" in then.text + other.text or "{" in then.text + other.text:
            then, other = _any(then), _any(other)  # CEL knows more types than we tell apart
        text = f"{condition.within(_OR)} ? {then.within(_OR)} : {other.within(_CHOICE)}"
        return Term(text, then.type, _CHOICE, fails)

    def _equality(self, node: Binary) -> Term:
        if isinstance(node.left, Unary) and node.left.op == "typeof":
            return self._typeof(node.op, node.left.of, node.right)
        left, right = self.value(node.left), self.value(node.right)
        kinds = {left.type, right.type}
        if "null" in kinds and not kinds <= {"null", "json"}:
            return _literal(node.op == "!=")
        if kinds == {"int", "double"}:
            left, right = _double(left), _double(right)
        elif len(kinds) > 1 and "json" not in kinds:
            raise Unreadable(f"a {left.type} is compared with a {right.type}")
        return _infix(node.op, left, right, "bool", left.fails or right.fails)

    def _typeof(self, op: str, of: Node, kind: Node) -> Term:
        if not isinstance(kind, Literal) or not isinstance(kind.value, str):
            raise Unreadable("typeof is only read where it is compared with a string")
        term = self.value(of)
        if kind.value == "undefined":
            if of == _EVENT_DATA:  # it is always there
                return Term(f"event.data {op} null", "bool", _RELATION)
            if isinstance(of, Member):
                text = f"has({term.text})" if "[" not in term.text[-2:] else ""
                if text:
                    return Term(text if op == "!=" else "!" + text, "bool", _UNARY, fails=True)
            if term.type == "json":
                return Term(f"{term.within(_SUM)} {op} null", "bool", _RELATION, term.fails)
            return _literal((term.type == "null") == (op == "=="))
        if term.type == "json" or kind.value not in _TYPEOF:
            raise Unreadable(f"typeof … {op} {kind.value!r} is not read for a value of type {term.type}")
        return _literal((term.type in _TYPEOF[kind.value]) == (op == "=="))

    def _order(self, op: str, left: Term, right: Term) -> Term:
        if {left.type, right.type} == {"int", "double"}:
            left, right = _double(left), _double(right)
        comparable = left.type == right.type and left.type in (*_NUMBERS, "string")
        if not comparable and "json" not in (left.type, right.type):
            raise Unreadable(f"a {left.type} is compared with a {right.type}")
        return _infix(op, left, right, "bool", not comparable or left.fails or right.fails)

    def _arithmetic(self, op: str, left: Term, right: Term) -> Term:
        fails = left.fails or right.fails
        kinds = {left.type, right.type}
        if op == ".." or (op == "+" and "string" in kinds):
            return _infix("+", _string(left), _string(right), "string", fails or "json" in kinds)
        if op == "+" and kinds == {"list"}:
            return _infix("+", left, right, "list", fails)
        if not kinds <= {*_NUMBERS, "json"}:
            raise Unreadable(f"{op} is not for a {left.type} and a {right.type}")
        if op == "%" and "double" in kinds:
            raise Unreadable("% is for whole numbers only")
        fails = fails or "json" in kinds or (op in ("/", "%") and not re.fullmatch("[0-9.]*[1-9][0-9.]*", right.text))
        if op == "/" or "double" in kinds:
            return _infix(op, _double(left), _double(right), "double", fails)
        return _infix(op, left, right, "json" if "json" in kinds else "int", fails)

    def _call(self, node: Call) -> Term:
        arguments = [self.value(argument) for argument in node.arguments]
        fails = any(argument.fails for argument in arguments)
        if isinstance(node.function, Name) and len(arguments) == 1 and node.function.name in _CONVERSIONS:
            type_ = _CONVERSIONS[node.function.name]
            return Term(f"{type_}({arguments[0].text})", type_, fails=True)
        if isinstance(node.function, Member) and isinstance(node.function.key, Literal):
            of, method = self.value(node.function.of), node.function.key.value
            fails = fails or of.fails or of.type == "json"
            if method == "toString" and not arguments:
                return _string(of)
            if len(arguments) == 1 and of.type == "list" and method == "includes":
                return Term(f"{arguments[0].within(_SUM)} in {of.within(_SUM)}", "bool", _RELATION, fails)
            if len(arguments) == 1 and of.type == arguments[0].type and method == "concat":
                return self._arithmetic("+", of, arguments[0])
            if len(arguments) == 1 and of.type in ("string", "json") and method in _OF_STRINGS:
                name = "contains" if method == "includes" else method
                return Term(f"{of.within(_POSTFIX)}.{name}({arguments[0].text})", "bool", fails=fails)
            raise Unreadable(f"the method {method!r} is not read")
        raise Unreadable("a call of this function is not read")


def _infix(op: str, left: Term, right: Term, type_: str, fails: bool) -> Term:
    level = _LEVELS[op]
    return Term(f"{left.within(level)} {op} {right.within(level + 1)}", type_, level, fails)


def _literal(given: object) -> Term:
    if given is None:
        return Term("null", "null")
    if isinstance(given, bool):
        return Term("true" if given else "false", "bool")
    if isinstance(given, str):
        return Term(_quoted(given), "string")
    assert isinstance(given, int | float)
    level = _UNARY if given < 0 else _POSTFIX
    return Term(repr(given), "int" if isinstance(given, int) else "double", level)


def _double(term: Term) -> Term:
    if term.type == "double":
        return term
    if re.fullmatch(r"-?[0-9]+", term.text):
        return Term(term.text + ".0", "double", term.level)
    return Term(f"double({term.text})", "double", fails=term.fails)


def _string(term: Term) -> Term:
    if term.type == "string":
        return term
    if term.type in ("list", "null"):
        raise Unreadable(f"a {term.type} is not made a string")
    return Term(f"string({term.text})", "string", fails=term.fails or term.type == "json")


def _any(term: Term) -> Term:
    return Term(f"dyn({term.text})", "json", fails=term.fails)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
