"""XML from outside as elements with their lines: bounded, without document types, entities or anything fetched."""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.parsers import expat

from agentflow.errors import Invalid, Problem

MAX_BYTES = 1024 * 1024
MAX_DEPTH = 60
MAX_ELEMENTS = 20_000
MAX_ATTRIBUTES = 50
MAX_TEXT = 65_536
_ENCODINGS = frozenset({"utf-8", "us-ascii", "utf-16", "iso-8859-1"})


@dataclass(slots=True, eq=False)
class Element:
    """One element: ``tag`` without its namespace, which is ``space`` ('' for none); ``text`` is the text in it."""

    tag: str
    space: str
    line: int
    attributes: dict[str, str]
    children: list[Element] = field(default_factory=list)
    text: str = ""

    def get(self, name: str, default: str = "") -> str:
        return self.attributes.get(name, default)

    def all(self, *tags: str) -> list[Element]:
        """The elements directly inside that have one of these tags."""
        return [child for child in self.children if child.tag in tags]

    def first(self, tag: str) -> Element | None:
        return next(iter(self.all(tag)), None)


def read(data: bytes) -> Element:
    """The root element of an XML text; ``Invalid`` with the line when it is none, or more than is allowed."""
    if len(data) > MAX_BYTES:
        raise _refused(0, f"has {len(data):,} bytes; at most {MAX_BYTES:,} are read", "too_large")
    reader = _Reader()
    try:
        reader.parser.Parse(data, True)
    except expat.ExpatError as fault:
        message = f"is not XML: {expat.ErrorString(fault.code)} (column {fault.offset + 1})"
        raise _refused(fault.lineno, message, "syntax") from None
    except (LookupError, ValueError):  # an encoding that Python does not have, or not as one of single bytes
        raise _refused(1, "is in an encoding that is not read", "syntax", "save it as UTF-8") from None
    assert reader.root is not None
    return reader.root


class _Reader:
    """Builds the elements, and refuses what is not wanted as soon as it is seen."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = self._doctype
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        self.root: Element | None = None
        self.open: list[Element] = []
        self.count = 0

    def _declaration(self, version: str, encoding: str | None, standalone: int) -> None:
        if encoding is not None and encoding.lower() not in _ENCODINGS:
            raise _refused(1, f"is in {encoding[:40]!r}, which is not read", "syntax", "save it as UTF-8")

    def _doctype(self, *_: object) -> None:
        message = "has a document type, which may define entities"
        raise _refused(self.parser.CurrentLineNumber, message, "doctype", "remove <!DOCTYPE …>")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        line = self.parser.CurrentLineNumber
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise _refused(line, f"has more than {MAX_ELEMENTS:,} elements", "too_large")
        if len(self.open) >= MAX_DEPTH:
            raise _refused(line, f"is nested more than {MAX_DEPTH} deep", "too_deep")
        if len(attributes) > MAX_ATTRIBUTES:
            raise _refused(line, f"has an element with more than {MAX_ATTRIBUTES} attributes", "too_large")
        space, _, tag = name.rpartition(" ")
        plain = {key: value for key, value in attributes.items() if " " not in key}
        if self.root is not None and space != self.root.space:
            tag = f"{tag} of {space or 'no namespace'}"  # nobody takes it for one of the format's own
        element = Element(tag, space, line, plain)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def _end(self, _: str) -> None:
        self.open.pop()

    def _characters(self, text: str) -> None:
        element = self.open[-1]
        if len(element.text) + len(text) > MAX_TEXT:
            line = self.parser.CurrentLineNumber
            raise _refused(line, f"has an element with more than {MAX_TEXT:,} characters of text", "too_large")
        element.text += text


def _refused(line: int, message: str, code: str, mend: str = "") -> Invalid:
    return Invalid([Problem(f"line {line}" if line else "", message, mend, code)])
