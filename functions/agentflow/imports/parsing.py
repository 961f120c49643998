"""Texts of expressions and assignments as trees of ``syntax``; bounded in length and depth."""

from __future__ import annotations

import re
from collections.abc import Collection

from agentflow.imports.syntax import (
    Assign,
    Binary,
    Call,
    Choice,
    Illegal,
    Items,
    Literal,
    Member,
    Name,
    Node,
    Table,
    Unary,
    Unreadable,
)

ECMASCRIPT = frozenset(
    {"new", "function", "delete", "void", "this", "instanceof", "in", "return", "while", "for", "if"}
)
"""Words of that language with which begins what is not read."""

_STATEMENTS = frozenset({"return", "instanceof", "in", "while", "for", "if"})
"""Those of them that begin no expression."""

MAX_SOURCE = 4_000
MAX_NESTING = 30
MAX_STATEMENTS = 200

_TOKEN = re.compile(
    r"""(?:\s|//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)*(?:
        (?P<number>0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
      | (?P<string>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
      | (?P<name>[A-Za-z_$@][A-Za-z0-9_$@]*)
      | (?P<op>\.\.|===|!==|==|!=|<=|>=|&&|\|\||\+\+|--|\+=|-=|\*=|/=|:=|[-+*/%<>!=?:;,.()\[\]{}])
    )""",
    re.VERBOSE,
)
_SPACE = re.compile(r"(?:\s|//[^\n]*|/\*(?:[^*]|\*(?!/))*\*/)*")
_BINDS = {
    "||": 2, "&&": 3, "==": 4, "!=": 4, "===": 4, "!==": 4, "<": 5, "<=": 5, ">": 5, ">=": 5, "+": 6, "-": 6,
    "..": 6, "*": 7, "/": 7, "%": 7,
}  # fmt: skip
_SAME = {"===": "==", "!==": "!="}
_WORDS = {"true": True, "false": False, "null": None, "undefined": None}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "0": "\0"}


def expression(source: str, refused: Collection[str] = ECMASCRIPT) -> Node:
    """The one expression in ``source``; ``refused`` are words that are no names."""
    reader = _Reader(source, refused)
    node = reader.expression()
    reader.end()
    return node


def statements(source: str, refused: Collection[str] = ECMASCRIPT) -> list[Assign | Node]:
    """Assignments (and expressions among them), separated by ``;`` or lines."""
    reader = _Reader(source, refused)
    found: list[Assign | Node] = []
    while not reader.at_end():
        if reader.take(";"):
            continue
        if len(found) == MAX_STATEMENTS:
            raise Unreadable(f"has more than {MAX_STATEMENTS} statements")
        found.append(reader.statement())
        if not reader.at_end() and not reader.begins_line():
            reader.expect(";")
    return found


class _Reader:
    """A recursive descent over the tokens: (kind, text, whether it begins a line)."""

    def __init__(self, source: str, refused: Collection[str]) -> None:
        if len(source) > MAX_SOURCE:
            raise Unreadable(f"has {len(source):,} characters; at most {MAX_SOURCE:,} are read")
        self.tokens = _tokens(source)
        self.at = 0
        self.depth = 0
        self.refused = refused

    # -- tokens

    def at_end(self) -> bool:
        return self.at >= len(self.tokens)

    def begins_line(self) -> bool:
        return self.tokens[self.at][2]

    def peek(self) -> str:
        """The next operator; '' when something else comes."""
        return self.tokens[self.at][1] if not self.at_end() and self.tokens[self.at][0] == "op" else ""

    def take(self, *ops: str) -> str:
        """The next operator when it is one of these."""
        op = self.peek()
        if op and op in ops:
            self.at += 1
            return op
        return ""

    def expect(self, op: str) -> None:
        if not self.take(op):
            found = "the end" if self.at_end() else repr(self.tokens[self.at][1][:20])
            raise Unreadable(f"{op!r} is expected, not {found}")

    def end(self) -> None:
        if not self.at_end():
            raise Unreadable(f"{self.tokens[self.at][1][:20]!r} is not expected")

    # -- statements

    def statement(self) -> Assign | Node:
        """``var x = 1``, ``x += 1``, ``x++``, or an expression."""
        following = self.tokens[self.at + 1 : self.at + 2]
        if self.tokens[self.at][1] in ("var", "let", "const") and following and following[0][0] == "name":
            self.at += 1
        target = self.expression()
        if op := self.take("=", ":="):
            return Assign(target, op, self.expression())
        if op := self.take("+=", "-=", "*=", "/="):
            return Assign(target, "=", Binary(op[0], target, self.expression()))
        if op := self.take("++", "--"):
            return Assign(target, "=", Binary(op[0], target, Literal(1)))
        return target

    # -- expressions

    def expression(self) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Unreadable(f"is nested more than {MAX_NESTING} deep")
        node = self.binary(2)
        if self.take("?"):
            then = self.expression()
            self.expect(":")
            node = Choice(node, then, self.expression())
        self.depth -= 1
        return node

    def binary(self, least: int) -> Node:
        node = self.unary()
        while _BINDS.get(op := self.peek(), 0) >= least:
            self.at += 1
            node = Binary(_SAME.get(op, op), node, self.binary(_BINDS[op] + 1))
        return node

    def unary(self) -> Node:
        self.depth += 1
        if self.depth > MAX_NESTING:
            raise Unreadable(f"is nested more than {MAX_NESTING} deep")
        try:
            if op := self.take("!", "-", "+"):
                of = self.unary()
                if op == "-" and isinstance(of, Literal) and isinstance(of.value, int | float):
                    return Literal(-of.value)
                return of if op == "+" else Unary(op, of)
            if not self.at_end() and self.tokens[self.at][:2] == ("name", "typeof"):
                self.at += 1
                return Unary("typeof", self.unary())
            return self.after(self.primary())
        finally:
            self.depth -= 1

    def after(self, node: Node) -> Node:
        """Members, elements and calls behind ``node``."""
        for _ in range(MAX_NESTING):
            if self.take("."):
                node = Member(node, Literal(self.word()))
            elif self.take("["):
                node = Member(node, self.expression())
                self.expect("]")
            elif self.take("("):
                node = Call(node, self.list(")"))
            else:
                return node
        raise Unreadable(f"has more than {MAX_NESTING} members in a row")

    def word(self) -> str:
        if self.at_end() or self.tokens[self.at][0] != "name":
            raise Unreadable("a name is expected after the dot")
        self.at += 1
        return self.tokens[self.at - 1][1]

    def primary(self) -> Node:
        if self.at_end():
            raise Unreadable("it ends where a value is expected")
        kind, text, _ = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return Literal(_number(text))
        if kind == "string":
            return Literal(_unquoted(text))
        if kind == "name":
            if text in self.refused:
                raise (Illegal if text in _STATEMENTS else Unreadable)(f"{text!r} is not read")
            return Literal(_WORDS[text]) if text in _WORDS else Name(text)
        if text == "(":
            node = self.expression()
            self.expect(")")
            return node
        if text == "[":
            return Items(self.list("]"))
        if text == "{":
            return self.table()
        raise Unreadable(f"{text!r} is not expected")

    def list(self, end: str) -> tuple[Node, ...]:
        found: list[Node] = []
        while not self.take(end):
            if found:
                self.expect(",")
            found.append(self.expression())
        return tuple(found)

    def table(self) -> Node:
        found: list[tuple[str, Node]] = []
        while not self.take("}"):
            if found:
                self.expect(",")
            if self.at_end() or self.tokens[self.at][0] == "op":
                raise Unreadable("a key is expected")
            kind, text, _ = self.tokens[self.at]
            self.at += 1
            self.expect(":")
            found.append((_unquoted(text) if kind == "string" else text, self.expression()))
        return Table(tuple(found))


def _tokens(source: str) -> list[tuple[str, str, bool]]:
    found = []
    at = 0
    end = len(source)
    while at < end and _SPACE.fullmatch(source, at) is None:
        match = _TOKEN.match(source, at)
        if match is None:
            raise Unreadable(f"{source[at:].strip()[:20]!r} is not read")
        kind = str(match.lastgroup)
        found.append((kind, match[kind], "\n" in source[at : match.start(kind)]))
        at = match.end()
    return found


def _number(text: str) -> int | float:
    if text[:2] in ("0x", "0X"):
        value: int | float = int(text, 16)
    elif text.isdigit():
        if len(text) > 20:
            raise Unreadable(f"the number {text[:24]} does not fit in 64 bits")
        value = int(text)
    else:
        value = float(text)
    if abs(value) >= 2**63:
        raise Unreadable(f"the number {text[:24]} does not fit in 64 bits")
    return value


def _unquoted(text: str) -> str:
    def char(match: re.Match[str]) -> str:
        code = match[1]
        if len(code) > 1:
            return chr(int(code[1:], 16))
        return _ESCAPES.get(code, code)

    return re.sub(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", char, text[1:-1])
