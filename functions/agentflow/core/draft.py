"""A plan under construction: the problems found so far, and the compilation of single expressions and scalars."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any

from agentflow.core.cel import CelFault, Expr, compile_expr
from agentflow.core.plan import Agent, Task, ToolSpec
from agentflow.core.types import Type, parse
from agentflow.errors import Problem

MAX_PROBLEMS = 200

Table = Mapping[str, Any]
Scope = Mapping[str, Type]

JSON_TYPE = parse("json")
BOOL = parse("bool")
INT = parse("int")
STRING = parse("string")

RESERVED = frozenset(
    {
        *("result", "event", "item"),
        *("true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if"),
        *("import", "let", "loop", "package", "namespace", "return", "var", "void", "while"),
    }
)
"""Names that variables, inputs and fields may not have: ours, and CEL's."""

_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h|d)")
_SIZE = re.compile(r"([0-9]{1,9})(B|KiB|MiB|GiB)")
_SIZES = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Draft:
    """What a compilation knows: the canonical document, the declared names and tasks, the problems."""

    def __init__(self, document: Table) -> None:
        self.document = document
        self.problems: list[Problem] = []
        self.names: dict[str, Type] = {}
        self.vars: dict[str, Type] = {}
        self.tools: dict[str, ToolSpec] = {}
        self.agents: dict[str, Agent] = {}
        self.tasks: dict[str, Task] = {}
        self.events: dict[str, dict[str, Type]] = {}  # what signals carry, where that is declared
        self.elsewhere: frozenset[str] = frozenset()  # tasks that only subtrees run: the names outside are not theirs

    def note(self, path: str, message: str, mend: str = "", code: str = "invalid") -> None:
        """One more problem; one that is there already (a subtree is compiled wherever it is used) counts once."""
        problem = Problem(path, message, mend, code)
        if len(self.problems) < MAX_PROBLEMS and problem not in self.problems:
            self.problems.append(problem)

    def later(self, path: str, what: str, mend: str) -> None:
        """Something that plan/v1 names and this version does not do."""
        self.note(path, f"{what} is not yet available", mend, "not_yet_available")

    def unknown(self, path: str, what: str, name: str, known: Iterable[str]) -> None:
        """A name that refers to nothing."""
        known = sorted(known)
        close = difflib.get_close_matches(name, known, 1)
        mend = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known[:20]) or 'none'}"
        self.note(path, f"unknown {what} {name!r}", mend, f"unknown_{what}")

    def type(self, text: str, path: str) -> Type:
        """The declared type; json after a problem."""
        try:
            return parse(text)
        except ValueError as fault:
            self.note(path, str(fault), code="unknown_type")
            return JSON_TYPE

    def types(self, table: Table, path: str) -> dict[str, Type]:
        """A table of names and types, sorted by name."""
        found = {}
        for name in sorted(table):
            if name in RESERVED:
                self.note(
                    f"{path}.{name}", f"{name!r} is a reserved word", "choose another name", "reserved_name"
                )
                continue
            found[name] = self.type(table[name], f"{path}.{name}")
        return found

    def expr(self, source: str, scope: Scope, want: Type | None, path: str, what: str = "") -> Expr | None:
        """The compiled expression, None after a problem; ``what`` it is, where ``path`` does not say."""
        try:
            return compile_expr(source, scope, want)
        except CelFault as fault:
            self.note(path, f"{what}`{source}`: {fault.message}"[:500], fault.mend, "cel")
            return None

    def exprs(self, table: Table, scope: Scope, path: str, want: Scope | None = None) -> dict[str, Expr]:
        """A table of names and expressions, sorted by name; ``want`` types them."""
        found = {}
        for name in sorted(table):
            expr = self.expr(table[name], scope, want[name] if want else None, f"{path}.{name}")
            if expr is not None:
                found[name] = expr
        return found

    def sets(
        self, table: Table, scope: Scope, path: str, names: Scope | None = None
    ) -> tuple[tuple[str, Expr], ...]:
        """Assignments to ``names`` (the plan's): the targets are declared and the types match."""
        names = self.names if names is None else names
        known = {}
        for name in sorted(table):
            if name in names:
                known[name] = table[name]
            else:
                self.unknown(f"{path}.{name}", "var", name, names)
        return tuple(self.exprs(known, scope, path, names).items())

    def task(self, name: str, path: str) -> Task | None:
        """The task that a state or node names."""
        task = self.tasks.get(name)
        if task is None:
            self.unknown(path, "task", name, self.tasks)
        elif reads := next((key for key, expr in task.inputs.items() if "result" in expr.names), None):
            message = f"task {name!r} reads `result` (in.{reads}), which is there only where it undoes another"
            self.note(path, message, "read a variable, or use another task here", "cel")
        return task


def result_scope(task: Task) -> dict[str, Type]:
    """The names that a task's result adds where it is done."""
    return {dotted: type_ for _, dotted, type_ in task.fields}


def milliseconds(text: str) -> int:
    """A duration of a plan (``90s``) in milliseconds; ValueError when it is none."""
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write e.g. 500ms, 30s, 5m, 2h or 1d")
    return int(match[1]) * _UNITS[match[2]]


def size(text: str) -> int:
    """A size of a plan (``64KiB``) in bytes; ValueError when it is none."""
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a size: write e.g. 64KiB or 256MiB")
    return int(match[1]) * _SIZES[match[2]]


def micro(usd: float, of: int = 1) -> int:
    """US dollars in micro-dollars, or in parts of those, rounded up."""
    return int((Decimal(repr(usd)) * 1_000_000 * of).to_integral_value(ROUND_CEILING))
