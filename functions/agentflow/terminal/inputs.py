"""``--input name=value`` and ``--set``: each value is read as the type that the workflow declares for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from agentflow.core.types import Mismatch, Type, conform
from agentflow.errors import Invalid, Problem

MAX_FILE = 12 * 1024 * 1024
"""Most bytes of a file: quoted as JSON it still has to fit into one request of 16 MiB."""

NAMES = {"--input": "input", "--set": "variable", "--result": "result"}


def read_inputs(
    given: Sequence[str], types: Mapping[str, Type], *, option: str = "--input", of: str = "workflow"
) -> dict[str, Any]:
    """The values in arguments ``name=value``, ``name=@file`` or ``name=@@text`` (text that starts with @) of an option.

    ``types`` are what is asked for (a workflow's inputs and vars, a task's answer), ``option`` is what gives them and
    ``of`` what asks. ``Invalid`` names every argument at fault.
    """
    found: dict[str, Any] = {}
    problems: list[Problem] = []
    for argument in given:
        name, equals, text = argument.partition("=")
        path = f"{option} {name[:64]}"
        kind = types.get(name)
        if not equals or not name:
            problems.append(
                Problem(option, f"{argument[:64]!r} has no name", "write name=value or name=@file")
            )
        elif kind is None:
            known = ", ".join(types) or "none"
            problems.append(Problem(path, f"is no {NAMES[option]} of this {of}", f"it has: {known}"))
        elif name in found:
            problems.append(Problem(path, "is given twice", "give it once"))
        else:
            try:
                found[name] = _value(text, kind)
            except ValueError as fault:
                problems.append(Problem(path, str(fault), f"it is declared as {kind}"))
    if problems:
        raise Invalid(problems)
    return found


def _value(text: str, kind: Type) -> Any:
    if text.startswith("@@"):
        text = text[1:]
    elif text.startswith("@"):
        text = _content(Path(text[1:]).expanduser())
    if kind.kind in ("string", "file"):
        return text
    try:
        return conform(orjson.loads(text), kind)
    except orjson.JSONDecodeError:
        raise ValueError(
            f"{text[:40]!r} is not {'JSON' if kind.kind in ('json', 'list', 'map') else kind}"
        ) from None
    except Mismatch as fault:
        raise ValueError(f"{fault.where.lstrip('.')} {fault.message}".strip()) from None


def _content(path: Path) -> str:
    try:
        size = path.stat().st_size
        if size > MAX_FILE:
            raise ValueError(f"{path} has {size} bytes, more than {MAX_FILE}")
        return path.read_bytes().decode()
    except OSError as fault:
        raise ValueError(f"{path} cannot be read: {fault.strerror or fault}") from None
    except UnicodeDecodeError as fault:
        raise ValueError(f"{path} is not UTF-8 text (byte {fault.start})") from None
