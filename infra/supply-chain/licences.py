"""Check that every licence in an image is one that licences.yaml allows.

    licences.py SBOM... [--exceptions FILE]...

Exit status 0: all are; 1: some are not, or nobody can tell; 2: nothing could be checked.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from cyclonedx.model.component import Component
from cyclonedx.model.license import LicenseExpression
from document import described, load, prop
from findings import Finding, conclude, parser, run
from license_expression import ExpressionError, get_spdx_licensing
from license_expression import LicenseExpression as Parsed

RULES = Path(__file__).with_name("licences.yaml")


@cache
def rules() -> dict[str, Any]:
    return dict(yaml.safe_load(RULES.read_text()))


def spdx(package: str, said: tuple[str, ...]) -> str:
    """A Python package's licence as an SPDX expression; nothing where that cannot be told."""
    looked_up = rules()["looked_up"].get(package)
    if looked_up is not None:
        return str(looked_up["licence"]) if looked_up["saying"] in said else ""
    for each in said:
        if each in rules()["names"]:
            return str(rules()["names"][each])
        if len(each) < 200 and _parsed(each) is not None:
            return each
    return ""


@cache
def _licensing() -> Any:
    return get_spdx_licensing()


def _parsed(expression: str) -> Parsed | None:
    try:
        return _licensing().parse(expression, validate=True)
    except ExpressionError:
        return None


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be kept to with what is allowed."""
    parsed = _parsed(expression)
    if parsed is None:
        return False
    algebra = _licensing()
    permitted = {key: algebra.TRUE for name in rules()["allowed"] for key in [algebra.parse(name)]}
    return bool(parsed.subs(permitted).simplify() == algebra.TRUE)


def findings(component: Component) -> list[Finding]:
    """What is wrong with a component's licence."""
    purl = component.purl
    if prop(component, "agentflow:ours"):
        return []
    if not component.licenses:
        return [Finding("licence", described(component), "", "its licence is not known")]
    if purl is not None and purl.type == "deb":
        area = (prop(component, "agentflow:section") or "").rpartition("/")[0]
        refused = area in rules()["debian_sections_refused"]
        return [Finding("licence", described(component), "", f"is of Debian's {area}")] if refused else []
    (licence,) = list(component.licenses)[:1]
    expression = licence.value if isinstance(licence, LicenseExpression) else (licence.id or licence.name or "")
    if len(component.licenses) > 1 or not allowed(expression):
        words = ", ".join(sorted(str(getattr(each, "value", None) or getattr(each, "id", None) or each.name)
                                 for each in component.licenses))  # fmt: skip
        return [Finding("licence", described(component), "", f"{words} is not allowed by licences.yaml")]
    return []


def main(arguments: list[str]) -> int:
    given = parser(__doc__).parse_args(arguments)
    found: set[Finding] = set()
    seen: set[str] = set()
    for path in given.sboms:
        for component in load(path).components:
            if component.purl is not None:
                seen.add(described(component))
                found.update(findings(component))
    return conclude("licences", found, given, f"{len(seen)} packages")


if __name__ == "__main__":
    run("licences", main)
