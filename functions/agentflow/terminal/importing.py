"""``agentflow import``: documents of other formats as plan/v1."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentflow.errors import Invalid, Problem

if TYPE_CHECKING:
    from agentflow.imports.findings import Imported

import_app = typer.Typer(help="Read a plan in another format and print it as plan/v1.", no_args_is_help=True)

File = Annotated[str, typer.Argument(metavar="FILE", help="An XML file.")]
Partial = Annotated[bool, typer.Option("--partial", help="Print what can be said, though something is missing.")]
Steps = Annotated[int, typer.Option(min=1, max=100_000, help="limits.steps of the plan.")]


@import_app.command("scxml")
def import_scxml(
    file: File,
    partial: Partial = False,
    steps: Steps = 1_000,
    visits: Annotated[int, typer.Option(min=1, max=10_000, help="Most times a state of a loop is entered.")] = 1_000,
    failure: Annotated[
        list[str] | None,
        typer.Option(help="Id of a final state that is a failure; default: fail, failed, failure, error."),
    ] = None,
) -> None:
    """An SCXML state machine; what is worth knowing about it goes to stderr."""
    from agentflow.imports.scxml import FAILURES, Options, read_scxml

    options = Options(visits=visits, steps=steps, failures=tuple(failure) if failure is not None else FAILURES)
    _print(read_scxml(_read(file), options), partial=partial)


@import_app.command("btcpp")
def import_btcpp(
    file: File,
    partial: Partial = False,
    steps: Steps = 1_000,
    loops: Annotated[int, typer.Option(min=1, max=10_000, help="Rounds of a loop that has no bound.")] = 1_000,
    tree: Annotated[str, typer.Option(help="ID of the tree to read; default: the main one.")] = "",
    enum: Annotated[
        list[str] | None, typer.Option(metavar="NAME=NUMBER", help="A name that the C++ code registers for scripts.")
    ] = None,
) -> None:
    """A BehaviorTree.CPP tree; what is worth knowing about it goes to stderr."""
    from agentflow.imports.btcpp import Options, read_btcpp

    options = Options(tree=tree, steps=steps, loops=loops, enums=_enums(enum or []))
    _print(read_btcpp(_read(file), options), partial=partial)


def _enums(given: list[str]) -> dict[str, int]:
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = int(number)
        except ValueError:
            raise Invalid([Problem("--enum", f"{text!r} has no number", "write NAME=3", "enum")]) from None
    return found


def _read(file: str) -> bytes:
    from agentflow.imports.xml import MAX_BYTES

    try:
        with Path(file).open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as fault:
        message = f"{file} cannot be read: {fault.strerror or fault}"
        raise Invalid([Problem("FILE", message, "name a file that is there", "file")]) from None


def _print(imported: Imported, *, partial: bool) -> None:
    import json

    from agentflow.wire.document_format import format_document

    for problem in imported.notes:
        print(f"note: {problem}", file=sys.stderr)
    for problem in imported.left_out:
        print(f"left out: {problem}", file=sys.stderr)
    if imported.left_out and not partial:
        raise Invalid(
            [Problem("", "something is missing in the plan", "say --partial to print it nevertheless", "left_out")]
        )
    print(format_document(json.dumps(imported.document).encode()).text, end="")
