"""A plan document written anew: in the short or the canonical form, in one style, with its comments."""

from __future__ import annotations

from dataclasses import dataclass

from agentflow.core.canonical import around, normalise, written_path
from agentflow.core.short import shorten
from agentflow.errors import Invalid
from agentflow.wire.document_notes import Notes, notes
from agentflow.wire.document_print import paths, printed
from agentflow.wire.document_text import decode, load, load_json


@dataclass(frozen=True, slots=True)
class Formatted:
    """The text, and the comments that it does not have any more."""

    text: str
    lost: tuple[str, ...]


def format_document(data: bytes, *, canonical: bool = False) -> Formatted:
    """The document in ``data`` (YAML or JSON text of a plan that compiles) in the canonical or the short form."""
    document = load(data)
    written = _notes(data)
    full, before = normalise(document)
    after = full if canonical else shorten(full)
    _, author = normalise(after)
    there = set(paths(after))
    # Of paths that were one the outer counts: a task's name is where its node is.
    moves = {written_path(path, before): written_path(path, author) for path in reversed([*paths(full)])}

    def place(path: str) -> str:
        moved = next((moves[part] + path[len(part) :] for part in around(path) if part in moves), path)
        return next((part for part in around(moved) if part in there), "agentflow")

    text = printed(after, written.moved(place))
    again = text.encode()
    if normalise(load(again))[0] != full:
        raise AssertionError("what was printed is another document")
    kept = notes(text).comments()
    return Formatted(text, tuple((written.comments() - kept).elements()))


def _notes(data: bytes) -> Notes:
    try:
        load_json(data)
    except Invalid:
        return notes(decode(data))
    return Notes()  # JSON has none
