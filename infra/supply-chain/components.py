"""An image as CycloneDX components: the image itself, its operating system, and every package in it."""

from __future__ import annotations

import re
import uuid
from datetime import UTC, datetime

from accounted import Account, Program
from contents import Image
from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import ExternalReference, ExternalReferenceType, HashAlgorithm, HashType, Property, XsUri
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense, License
from licences import spdx
from locked import OURS, hashes
from packages import Package
from packageurl import PackageURL

NAMESPACE = uuid.UUID("9f0c6a52-4f7e-5f0f-9a52-5b8f2d1f6c11")  # of our documents' serial numbers, nothing else
licence = LicenseFactory()


def bom(image: Image, packages: list[Package], accounts: Account, os_release: str, epoch: int | None) -> Bom:
    """The document of an image. Nothing in it depends on when or where it is made, but for ``epoch``."""
    system = dict(re.findall(r'(?m)^([A-Z_]+)="?([^"\n]*)"?$', os_release))
    date = datetime.fromtimestamp(epoch, UTC) if epoch is not None else datetime.fromisoformat(_seconds(image.created))
    root = _image(image, accounts)
    installed = [(each, _package(each, image, system)) for each in packages]
    parts = [_system(system), *(part for _, part in installed), *map(_program, accounts.programs)]
    made = Bom(
        serial_number=uuid.uuid5(NAMESPACE, f"{image.id} {date.isoformat()}"),
        metadata=BomMetaData(timestamp=date, component=root, tools=[]),
        components=parts,
    )
    made.register_dependency(root, parts)
    for package, part in installed:
        made.register_dependency(
            part, [other for each, other in installed if each.kind == package.kind and each.name in package.needs]
        )
    return made


def _seconds(date: str) -> str:
    """An engine's date without the fraction, which has nine digits."""
    return re.sub(r"\.\d+", "", date).replace("Z", "+00:00")


def _image(image: Image, accounts: Account) -> Component:
    label = "org.opencontainers.image."
    properties = {
        "agentflow:image-id": image.id,
        "agentflow:function": image.environment.get("AGENTFLOW_FUNCTION", ""),
        "agentflow:commit": image.labels.get(f"{label}revision", ""),
        "agentflow:architecture": image.architecture,
        "agentflow:stand-in": image.labels.get("agentflow.stand-in", ""),
    }
    found = [Property(name=name, value=value) for name, value in properties.items() if value]
    found += [
        Property(name="agentflow:unpackaged", value=f"{count} files: {reason}")
        for reason, count in sorted(accounts.excused.items())
    ]
    return Component(
        type=ComponentType.CONTAINER,
        name=image.labels.get(f"{label}title") or image.name.partition(":")[0],
        version=image.labels.get(f"{label}version") or "unknown",
        bom_ref=image.id,
        description=image.labels.get(f"{label}description"),
        hashes=[_sha256(image.id.removeprefix("sha256:"))],
        properties=found,
    )


def _sha256(digest: str) -> HashType:
    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _system(system: dict[str, str]) -> Component:
    name, version = system.get("ID", "unknown"), system.get("VERSION_ID", "unknown")
    return Component(
        type=ComponentType.OPERATING_SYSTEM,
        name=name,
        version=version,
        bom_ref=f"os:{name}-{version}",
        properties=[Property(name="agentflow:codename", value=system.get("VERSION_CODENAME", "unknown"))],
    )


def _package(package: Package, image: Image, system: dict[str, str]) -> Component:
    return _deb(package, system) if package.kind == "deb" else _wheel(package, image)


def _wheel(package: Package, image: Image) -> Component:
    ours = package.name == OURS
    commit = image.labels.get("org.opencontainers.image.revision", "unknown")
    # Not ours is whatever bears our name on a package index.
    purl = PackageURL("generic" if ours else "pypi", None, package.name, package.version,
                      {"vcs_url": f"git+commit:{commit}"} if ours else None)  # fmt: skip
    expression = "" if ours else spdx(package.name, package.licences)
    named = [licence.make_with_name(each[:200]) for each in package.licences[:5]]
    allowed = [_sha256(each) for each in hashes(package)]
    return Component(
        type=ComponentType.APPLICATION if ours else ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=f"{purl.to_string()}#{package.folder}",
        description=package.summary or None,
        purl=purl,
        licenses=[licence.make_from_string(expression)] if expression else named,
        # The lock allows several files, one for each system; which one it was, a wheel does not keep.
        external_references=[
            ExternalReference(
                type=ExternalReferenceType.DISTRIBUTION,
                url=XsUri(f"https://pypi.org/simple/{package.name}/"),
                comment="one of the files that requirements.lock allows",
                hashes=allowed,
            )
        ]
        if allowed
        else [],
        properties=[Property(name="agentflow:ours", value="true")] if ours else [],
    )


def _deb(package: Package, system: dict[str, str]) -> Component:
    name, version = package.source
    purl = PackageURL(
        "deb",
        system.get("ID", "debian"),
        package.name,
        package.version,
        {
            "arch": package.architecture,
            "distro": f"{system.get('ID', 'debian')}-{system.get('VERSION_ID', 'unknown')}",
            "upstream": name if version == package.version else f"{name}@{version}",
        },
    )
    return Component(
        type=ComponentType.LIBRARY,
        name=package.name,
        version=package.version,
        bom_ref=purl.to_string(),
        description=package.summary or None,
        purl=purl,
        licenses=[_short_name(each) for each in package.licences],
        properties=[Property(name="agentflow:section", value=package.section)] if package.section else [],
    )


def _short_name(name: str) -> License:
    """Debian's short names are mostly not SPDX's: an id where it is one, else a name."""
    made = licence.make_from_string(name)
    return made if isinstance(made, DisjunctiveLicense) else licence.make_with_name(name)


def _program(program: Program) -> Component:
    purl = PackageURL("generic", None, program.name, program.version)
    return Component(
        type=ComponentType.APPLICATION,
        name=program.name,
        version=program.version,
        bom_ref=purl.to_string(),
        purl=purl,
        cpe=program.cpe,
        licenses=[licence.make_from_string(program.licence)],
    )
