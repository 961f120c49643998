"""CEL expressions of a plan: compiled once and typed.

``compile_expr`` checks an expression against declared names (``amount``, ``result.score``, ``item``, ``event``)
and the wanted type, and gives an ``Expr``. Beyond CEL's own functions there is ``list(x)``: a json value that must
be a list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cel_expr_python import cel

from agentflow.core import cel_ast
from agentflow.core.expr import CelFault, Expr, first_line
from agentflow.core.types import JSON, Type, parse

__all__ = ["MAX_EXPRESSION", "CelFault", "Expr", "Names", "assignable", "cel_type", "compile_expr", "value_of"]

MAX_EXPRESSION = 1_000
MAX_GROWTH = 1_000
"""How much larger loops over each other's results may make what they begin with, as far as the text tells: CEL bounds
no memory, and a thousand characters can double a text a hundred times."""

Names = Mapping[str, Type]


def compile_expr(source: str, names: Names, want: Type | None = None) -> Expr:
    """``source`` compiled against the declared ``names``; its value conforms to ``want`` (None: any JSON).

    CelFault, with the mend, when it does not compile, has another type, is not JSON, or depends on map order.
    """
    return _compile(source, tuple(sorted((name, type_.name) for name, type_ in names.items())), want)


def value_of(source: str) -> JSON:
    """The value of an expression that reads no names and is not met again."""
    return _compile.__wrapped__(source, (), None).value({})


@lru_cache(maxsize=8192)
def _compile(source: str, names: tuple[tuple[str, str], ...], want: Type | None) -> Expr:
    if len(source) > MAX_EXPRESSION:
        raise CelFault(f"has {len(source):,} characters; at most {MAX_EXPRESSION:,} are allowed")
    source = source.strip()
    if not source:
        raise CelFault("is empty", "write a CEL expression")
    if _HAS_RESULT.search(_STRING_LITERAL.sub("''", source)):
        raise CelFault(
            "has() on a result field", "declared result fields are always there: use the field itself"
        )
    try:
        program = _environment(names).compile(source)
        ast = cel_ast.read(program.serialize())
    except (RuntimeError, ValueError, TypeError) as fault:
        raise _compile_fault(str(fault), names) from None
    declared = dict(names)
    _refuse_unordered(ast)
    if ast.growth > MAX_GROWTH:
        mend = "name the loops' variables less often, or let a tool task do it"
        raise CelFault(f"loops over each other's results that may grow {ast.growth:,} times", mend)
    type_ = _from_cel(program.return_type().name())
    if want is not None and not assignable(want, type_):
        raise _type_fault(want, type_)
    exact = want is None or (want.name == type_.name and "json" not in want.name)
    used = frozenset(ast.names & declared.keys())
    bulky = {name for name in used if declared[name] not in ("int", "double", "bool")}
    collects = any(loop.ordered for loop in ast.loops)
    repeats = frozenset().union(*(used if loop.nested else loop.outer & bulky for loop in ast.loops))
    return Expr(
        source, program, want or type_, None if exact else want, tuple(sorted(used)), repeats, collects
    )


_HAS_RESULT = re.compile(r"\bhas\s*\(\s*result\b")
_STRING_LITERAL = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def _as_list(value: list[Any]) -> list[Any]:
    return value


@lru_cache(maxsize=512)
def _environment(names: tuple[tuple[str, str], ...]) -> Any:
    overload = cel.Overload("list_of_json", cel.Type.LIST, [cel.Type.LIST], False, _as_list)
    return cel.NewEnv(
        variables={name: cel_type(parse(text)) for name, text in names},
        functions=[cel.FunctionDecl("list", [overload])],
    )


def cel_type(type_: Type) -> Any:
    """The CEL type of a declared type."""
    if type_.of is not None:
        inner = cel_type(type_.of)
        return cel.Type.List(inner) if type_.kind == "list" else cel.Type.Map(cel.Type.STRING, inner)
    return _CEL_TYPES[type_.kind]


_CEL_TYPES = {
    "string": cel.Type.STRING, "file": cel.Type.STRING, "int": cel.Type.INT, "double": cel.Type.DOUBLE,
    "bool": cel.Type.BOOL, "json": cel.Type.DYN,
}  # fmt: skip
_FROM_CEL = {"STRING": "string", "INT": "int", "DOUBLE": "double", "BOOL": "bool", "DYN": "json"}


@lru_cache(maxsize=1024)
def _from_cel(name: str) -> Type:
    """The type that a CEL type's name says; CelFault when JSON has no such values."""
    if name in _FROM_CEL:
        return parse(_FROM_CEL[name])
    if name == "NULL":
        return Type("null", "null")
    for prefix, kind in (("LIST<", "list"), ("MAP<STRING, ", "map"), ("MAP<DYN, ", "map")):
        if name.startswith(prefix):
            of = _from_cel(name[len(prefix) : -1])
            return Type(f"{kind}({of.name})", kind, of)
    if name.startswith("MAP<"):
        raise CelFault(f"gives a map with keys that are not strings ({name})", "use string keys")
    mend = "use int(...)" if name == "UINT" else "convert it with string(...)"
    raise CelFault(f"gives a value of type {name.lower()}, which JSON does not have", mend)


def assignable(want: Type, got: Type) -> bool:
    """Whether a value of static type ``got`` may be one of ``want`` (json is checked when it is there)."""
    if want.kind == "json" or got.kind == "json":
        return True
    if want.of is not None and got.of is not None:
        return want.kind == got.kind and assignable(want.of, got.of)
    return got.kind == want.kind or (want.kind, got.kind) in (("double", "int"), ("file", "string"))


def _type_fault(want: Type, got: Type) -> CelFault:
    mend = {
        ("int", "double"): "wrap it in int(...), which cuts the fraction off, or declare a double",
        ("string", "int"): "wrap it in string(...)",
        ("string", "double"): "wrap it in string(...)",
        ("string", "bool"): "wrap it in string(...)",
        ("int", "string"): "wrap it in int(...)",
        ("double", "string"): "wrap it in double(...)",
    }.get((want.kind, got.kind), "")
    if want.kind == "bool":
        mend = "compare it with something, e.g. `x != ''` or `x > 0`"
    return CelFault(f"gives {got}, but {want} is needed", mend)


def _refuse_unordered(ast: cel_ast.Ast) -> None:
    for loop in ast.loops:
        if loop.ordered and loop.over != "list":
            what = "a map" if loop.over == "map" else "a value that may be a map"
            raise CelFault(
                f"loops over {what}, whose order is not stable; only all and exists may",
                "declare the value as list(...)" if loop.over == "map" else "wrap it in list(...)",
            )


def _compile_fault(text: str, names: tuple[tuple[str, str], ...]) -> CelFault:
    """CEL's message in our words, with a mend where one is known."""
    known = [name for name, _ in names]
    if match := re.search(r"undeclared reference to '([^']*)'", text):
        name = match[1]
        fields = [k for k in known if k.startswith("result.")]
        if name.split(".")[0] == "result":
            if fields:
                return CelFault(
                    f"unknown result field {name!r}", f"the task's result has {', '.join(fields)}"
                )
            return CelFault("there is no `result` here", "a result is only known where its own task is done")
        if name == "item":
            return CelFault("there is no `item` here", "`item` is known inside a map only")
        close = difflib.get_close_matches(name, known, 1)
        mend = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known) or 'nothing'}"
        return CelFault(f"unknown name or function {name!r}", mend)
    if match := re.search(r"no matching overload for '([^']*)' applied to '\((.*)\)'", text):
        operator, types = match[1].strip("_"), match[2]
        mend = ""
        if "int" in types and "double" in types:
            mend = "CEL never mixes int and double: write double(n), int(x), or a literal with a point such as 1.0"
        return CelFault(f"`{operator.replace('_', ' ').strip()}` does not work on ({types})", mend)
    if match := re.search(r"ERROR: [^:]*:(\d+):(\d+): (.*)", text):
        return CelFault(f"{match[3].split(' [INVALID')[0]} (character {match[2]})")
    return CelFault(first_line(text))
