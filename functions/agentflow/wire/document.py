"""Plan documents at the door: bytes to values, values to a compiled plan, and the JSON Schema of the format.

``check_document`` is the way in for everything new from outside, ``compile_stored`` for what was accepted before;
``load_document_file`` is the command line's, which puts the tools' files into the document.
``python -m agentflow.wire.document`` prints the schema.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentflow.core.canonical import as_written, normalise
from agentflow.core.compile import compile_plan
from agentflow.core.plan import Plan
from agentflow.core.review import review
from agentflow.errors import Invalid, Problem
from agentflow.wire.document_bounds import MAX_BYTES, check_bounds
from agentflow.wire.document_text import load, load_json, load_yaml

__all__ = [
    "MAX_BYTES",
    "Checked",
    "check_document",
    "compile_document",
    "compile_stored",
    "json_schema",
    "load_document",
    "load_document_file",
    "load_json",
    "load_yaml",
    "with_tool_files",
]

MAX_PROBLEMS = 100


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the format, short forms included (schemas/plan.schema.json)."""
    from agentflow.wire import document_schema

    return document_schema.json_schema()


def load_document(data: bytes) -> dict[str, Any]:
    """The document in YAML or JSON text; ``Invalid`` with line and path. Not checked further."""
    return load(data)


def load_document_file(path: Path | str) -> dict[str, Any]:
    """The document in a file, with ``tools.*.file`` replaced by the code in that file (relative to the document).

    ``Invalid`` when the text, or a file it names, cannot be used.
    """
    path = Path(path)
    return with_tool_files(load(_read(path, "", MAX_BYTES)), path.parent)


def with_tool_files(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The document, changed: ``tools.*.file`` is replaced by the code in that file of the folder."""
    tools = document.get("tools")
    if not isinstance(tools, dict):
        return document
    folder = folder.resolve()
    for name, tool in tools.items():
        if isinstance(tool, dict) and isinstance(tool.get("file"), str) and "code" not in tool:
            where = f"tools.{name}.file"
            file = (folder / tool["file"]).resolve()
            if not file.is_relative_to(folder):
                mend = "keep tools in the document's folder"
                raise Invalid(
                    [Problem(where, f"{tool['file']!r} is outside the document's folder", mend, "tool_file")]
                )
            try:
                code = _read(file, where, MAX_BYTES).decode()
            except UnicodeDecodeError:
                raise Invalid(
                    [Problem(where, f"{tool['file']!r} is not UTF-8 text", "", "tool_file")]
                ) from None
            del tool["file"]
            tool["code"] = code
    return document


def _read(path: Path, where: str, limit: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as fault:
        message = f"{path} cannot be read: {fault.strerror or fault}"
        raise Invalid(
            [Problem(where, message, "name a file that is there", "tool_file" if where else "file")]
        ) from None
    if len(data) > limit:
        raise Invalid(
            [Problem(where, f"{path} has more than {limit:,} bytes", "make it smaller", "too_large")]
        )
    return data


@dataclass(frozen=True, slots=True)
class Checked:
    """A plan that may be registered, and what was said against it all the same: ``warnings``, paths as written."""

    plan: Plan
    warnings: tuple[Problem, ...]


def compile_document(document: bytes | Mapping[str, Any]) -> Plan:
    """The plan of a document, given as text or as values; ``Invalid`` with every problem that was found."""
    return _compiled(document)[0]


def compile_stored(document: Mapping[str, Any]) -> Plan:
    """The plan of a document that was accepted before, perhaps by an earlier version: it means what it meant then."""
    return _compiled(document, stored=True)[0]


def check_document(document: bytes | Mapping[str, Any]) -> Checked:
    """As ``compile_document``, and more closely: what comes in anew is refused for more than what is there already."""
    plan, author = _compiled(document)
    found = [as_written(problem, author) for problem in review(plan)]
    errors = [problem for problem in found if problem.severity == "error"]
    if errors:
        raise Invalid(errors[:MAX_PROBLEMS], code="invalid_plan")
    return Checked(plan, tuple(found))


def _compiled(document: bytes | Mapping[str, Any], *, stored: bool = False) -> tuple[Plan, dict[str, str]]:
    """The plan, and where its author wrote what is elsewhere in the canonical form."""
    if isinstance(document, bytes):
        document = load(document)
    else:
        document = dict(document)
        check_bounds(document)
    canonical, author = normalise(document)
    problems, rest = _shape_problems(canonical)
    if not problems:
        problems, rest = _kind_problems(canonical), canonical
    found = [as_written(fault, author) for fault in problems[:MAX_PROBLEMS]]
    if rest is None:
        raise Invalid(found, code="invalid_plan")
    try:
        plan = compile_plan(rest, stored=stored)
    except Invalid as more:
        # That the core cannot read it says nothing more where the shape has said why.
        found += [as_written(fault, author) for fault in more.problems if not found or fault.code != "shape"]
        raise Invalid(list(dict.fromkeys(found)), code="invalid_plan") from None
    if found:
        raise Invalid(found, code="invalid_plan")
    return plan, author


def _shape_problems(canonical: dict[str, Any]) -> tuple[list[Problem], dict[str, Any] | None]:
    """The faults of the shape, and what can still be compiled: the document without keys that nobody knows, or
    None when its shape says too little.
    """
    # Here and not above: the models take 0.1 s to build, and most processes only ever compile a few documents.
    from pydantic import ValidationError

    from agentflow.wire.document_problems import problem
    from agentflow.wire.document_shape import Document

    try:
        Document.model_validate(canonical)
    except ValidationError as refusal:
        errors = refusal.errors(include_url=False)
    else:
        return [], canonical
    problems = list(dict.fromkeys(problem(error, canonical) for error in errors))
    if any(error["type"] != "extra_forbidden" for error in errors):
        return problems, None
    rest = copy.deepcopy(canonical)
    for fault in problems:
        _remove(rest, fault.path)
    try:
        Document.model_validate(rest)
    except ValidationError:
        return problems, None
    return problems, None if _kind_problems(rest) else rest


def _remove(document: Any, path: str) -> None:
    *way, last = path.replace("[", ".[").split(".")
    for part in way:
        document = document[int(part[1:-1])] if part.startswith("[") else document[part]
    document.pop(last, None)


_BELONGS = {"fsm": ("initial", "states"), "bt": ("root",), "goal": ("plan",)}


def _kind_problems(document: Mapping[str, Any]) -> list[Problem]:
    """What the kind of plan needs, and what belongs to the other kind."""
    kind = document["kind"]
    problems = [
        Problem(key, f"is missing: a plan of kind {kind} needs it", "add it", "schema")
        for key in _BELONGS[kind]
        if key not in document
    ]
    own = (*_BELONGS[kind], *{"fsm": ("transitions",), "bt": ("trees",)}.get(kind, ()))
    foreign = [key for key in ("root", "trees", "initial", "states", "transitions", "plan") if key not in own]
    problems += [
        Problem(key, f"does not belong to a plan of kind {kind}", "remove it, or change `kind`", "schema")
        for key in foreign
        if key in document
    ]
    return problems


if __name__ == "__main__":
    print(json.dumps(json_schema(), indent=2))
