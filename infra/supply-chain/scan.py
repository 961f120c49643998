"""Scan SBOMs for packages with known vulnerabilities. What cannot be checked fails, too.

    scan.py SBOM... [--exceptions FILE]... [--index URL] [--mirror URL] [--security-mirror URL]

Findings, one line each:
    vulnerable   the index has an advisory about this version of a Python package
    superseded   the index tells advisories of a project's newest version only, and this one is older
    outdated     Debian offers a newer version of this package for the same release
    stale        the mirror's index of a Debian suite is out of date, so newer versions may have been missed
    unchecked    nobody could tell: unknown to its source, a source out of reach, a program without a source
    stand-in     the image's base is a stand-in: what is shipped is made on another one

Exit status 0: none, or all are excused (see findings.py); 1: some are not; 2: nothing could be scanned.
"""

from __future__ import annotations

import advisories
import debian_archive
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from debian_archive import Deb, Mirrors
from document import described, load, prop
from findings import Finding, conclude, parser, run
from packageurl import PackageURL


def main(arguments: list[str]) -> int:
    made = parser(__doc__)
    made.add_argument("--index", default="https://pypi.org", metavar="URL", help="PyPI, or a mirror of its JSON API")
    made.add_argument("--mirror", default="http://deb.debian.org/debian", metavar="URL", help="of Debian")
    made.add_argument("--security-mirror", default="http://deb.debian.org/debian-security", metavar="URL")
    given = made.parse_args(arguments)
    found, wheels, debs = _gathered(list(map(load, given.sboms)))
    found |= advisories.check(wheels, given.index)
    for codename, packages in debs.items():
        found |= debian_archive.check(packages, codename, Mirrors(given.mirror, given.security_mirror))
    count = sum(map(len, debs.values()))
    return conclude("scan", found, given, f"{len(wheels)} Python and {count} Debian packages")


def _gathered(boms: list[Bom]) -> tuple[set[Finding], set[tuple[str, str]], dict[str, set[Deb]]]:
    """What has no source to ask, as findings; Python's packages; and Debian's, by the release's name."""
    found: set[Finding] = set()
    wheels: set[tuple[str, str]] = set()
    debs: dict[str, set[Deb]] = {}
    for bom in boms:
        found.update(_base(bom))
        codename = _codename(bom)
        for component in bom.components:
            purl = component.purl
            if component.type == ComponentType.OPERATING_SYSTEM or (purl and _is_ours(component, purl)):
                continue
            if purl is None:
                found.add(_unchecked(component))
            elif purl.type == "pypi" and purl.version:
                wheels.add((purl.name, purl.version))
            elif purl.type == "deb" and purl.namespace == "debian" and purl.version and codename:
                debs.setdefault(codename, set()).add(Deb(purl.name, purl.version, _architecture(purl)))
            else:
                found.add(_unchecked(component))
    return found, wheels, debs


def _base(bom: Bom) -> list[Finding]:
    root = bom.metadata.component
    recipe = prop(root, "agentflow:stand-in") if root is not None else None
    said = "the base of these images is not the one that is shipped"
    return [Finding("stand-in", recipe, "", said)] if recipe else []


def _codename(bom: Bom) -> str:
    """The release of the image's Debian; nothing where there is none."""
    systems = [each for each in bom.components if each.type == ComponentType.OPERATING_SYSTEM and each.name == "debian"]
    return (prop(systems[0], "agentflow:codename") or "") if len(systems) == 1 else ""


def _is_ours(component: Component, purl: PackageURL) -> bool:
    return purl.type == "generic" and bool(prop(component, "agentflow:ours"))


def _architecture(purl: PackageURL) -> str:
    return str(purl.qualifiers.get("arch", "")) if isinstance(purl.qualifiers, dict) else ""


def _unchecked(component: Component) -> Finding:
    return Finding("unchecked", described(component), "", "no source of ours tells of it")


if __name__ == "__main__":
    run("scan", main)
