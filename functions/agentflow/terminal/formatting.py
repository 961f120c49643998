"""``agentflow fmt``: a workflow file in one style."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from agentflow.errors import Rejected
from agentflow.terminal.loading import built, checked, compile_file, is_python
from agentflow.wire.document_format import format_document


def format_file(file: str, *, canonical: bool, write: bool, check: bool) -> bool:
    """Print a valid workflow file in the short or the canonical form, or write it; False when ``check`` finds that it
    is written otherwise. ``Invalid`` names every fault of a file that does not compile.
    """
    if is_python(file):
        return _print_built(file, canonical=canonical, write=write or check)
    compile_file(file)
    path = Path(file)
    before = path.read_bytes()
    formatted = format_document(before, canonical=canonical)
    same = formatted.text.encode() == before
    if check:
        if not same:
            print(f"{file} is not formatted: agentflow fmt {file} --write", file=sys.stderr)
        return same
    if formatted.lost:
        _say_lost(file, formatted.lost, write=write)
    if not write:
        print(formatted.text, end="")
    elif not same:
        path.write_text(formatted.text, encoding="utf-8", newline="\n")
    return True


def _print_built(file: str, *, canonical: bool, write: bool) -> bool:
    if write:
        mend = "to see the document: agentflow fmt " + file
        raise Rejected("is Python, which fmt does not write", code="usage", path=file, mend=mend)
    workflow = built(file)
    checked(workflow, file)
    print(format_document(json.dumps(workflow.document()).encode(), canonical=canonical).text, end="")
    return True


def _say_lost(file: str, lost: tuple[str, ...], *, write: bool) -> None:
    count = f"{len(lost)} comment{'s' if len(lost) > 1 else ''}"
    if write:
        message = f"{count} would be lost, the first is: {lost[0][:80]}"
        raise Rejected(message, code="comments", path=file, mend="move it to a line of its own, above a key")
    print(f"{file}: {count} dropped, the first is: {lost[0][:80]}", file=sys.stderr)
