"""SCXML documents, in the manner of the topics of W3C's tests, are imported, printed, compiled and played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
import yaml
from core.driving import play

from agentflow.errors import Invalid
from agentflow.imports.scxml import Options, read_scxml
from agentflow.wire.document_format import format_document

FOLDER = Path(__file__).parent / "scxml"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]


def scxml(body: str, data: dict[str, Any] | None = None, **attributes: str) -> bytes:
    """A document around its states."""
    values = "".join(f"<data id={quoteattr(name)} expr={quoteattr(_text(v))}/>" for name, v in (data or {}).items())
    given = {"datamodel": "ecmascript", **attributes}
    head = " ".join(f"{key}={quoteattr(value)}" for key, value in given.items())
    model = f"<datamodel>{values}</datamodel>" if values else ""
    return f'<scxml xmlns="http://www.w3.org/2005/07/scxml" version="1.0" {head}>{model}{body}</scxml>'.encode()


def _text(value: Any) -> str:
    return "null" if value is None else "''" if value == "" else str(value)


def source(case: dict[str, Any]) -> bytes:
    """The document of a case."""
    attributes = {key: case[key] for key in ("initial", "datamodel") if key in case}
    return scxml(case["scxml"], case.get("data"), **attributes)


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    if "refused" in case:
        with pytest.raises(Invalid) as refusal:
            read_scxml(source(case))
        assert case["refused"] in str(refusal.value)
        return
    imported = read_scxml(source(case), Options(visits=20, steps=20))
    assert imported.left_out == ()
    document = yaml.safe_load(format_document(json.dumps(imported.document).encode()).text)
    drive = play(document, case["play"])
    assert drive.state is not None
    for name, value in case.get("vars", {}).items():
        assert drive.state.vars[name] == value, (name, drive.state.vars)
