"""Our SBOMs as documents: CycloneDX 1.6, JSON, written the same each time, and read only when they are valid."""

from __future__ import annotations

import json
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from findings import Unreadable

MOST_BYTES = 64 * 1024 * 1024


def text(bom: Bom) -> str:
    """A document's text, after it was checked against the schema of CycloneDX 1.6."""
    written = str(JsonV1Dot6(bom).output_as_string(indent=1)) + "\n"
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    if fault is not None:
        raise Unreadable(f"the SBOM that was made is not valid: {_line(fault)}")
    return written


def load(path: Path) -> Bom:
    """A document of a file."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise Unreadable(f"{path}: is larger than {MOST_BYTES} bytes: no SBOM of ours")
        written = path.read_text()
        content = json.loads(written)
    except (OSError, UnicodeDecodeError) as error:
        raise Unreadable(f"{path}: {getattr(error, 'strerror', None) or 'is no text'}") from None
    except ValueError:
        raise Unreadable(f"{path}: is no JSON: make it anew with `make sbom`") from None
    if not isinstance(content, dict) or content.get("bomFormat") != "CycloneDX":
        raise Unreadable(f"{path}: is no CycloneDX document: make it anew with `make sbom`")
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(written)
    if fault is not None:
        raise Unreadable(f"{path}: is no valid CycloneDX 1.6: {_line(fault)}")
    bom: Bom = Bom.from_json(content)  # type: ignore[attr-defined]
    if not any(each.purl for each in bom.components):
        raise Unreadable(f"{path}: names no package at all")
    return bom


def _line(fault: object) -> str:
    return str(getattr(fault, "data", fault)).splitlines()[0][:200]


def prop(component: Component, name: str) -> str | None:
    """A property of a component."""
    return next((each.value for each in component.properties if each.name == name), None)


def described(component: Component) -> str:
    """A component's purl without its qualifiers, which is how findings and exceptions name it."""
    purl = component.purl
    if purl is None:
        return f"{component.name}@{component.version}"
    parts = [purl.type, *([purl.namespace] if purl.namespace else []), purl.name]
    return f"pkg:{'/'.join(parts)}@{purl.version}"
