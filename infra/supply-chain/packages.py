"""The packages in an image, by what their installers left there, and the files that belong to each."""

from __future__ import annotations

import base64
import csv
import logging
import posixpath
import re
from dataclasses import dataclass, field
from email.parser import HeaderParser
from email.policy import compat32

from contents import Contents
from debian.copyright import Copyright, NotMachineReadableError
from debian.deb822 import Deb822
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# It tells everybody which copyright files have an old address of their format.
logging.getLogger("debian.copyright").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Package:
    """One installed package.

    ``files``: its files by path; a digest (``sha256:…`` or ``md5:…``) where the package names one, or nothing.
    ``licences``: what it says of its licence, most exact first.
    """

    kind: str  # pypi or deb
    name: str
    version: str
    licences: tuple[str, ...]
    files: dict[str, str] = field(repr=False)
    folder: str = ""  # pypi: the site-packages that it is in
    architecture: str = ""  # deb
    section: str = ""  # deb
    source: tuple[str, str] = ("", "")  # deb: name and version of what it was built from
    summary: str = ""
    needs: frozenset[str] = frozenset()  # names of packages of its kind; of alternatives all, extras left out


# --- Python ---------------------------------------------------------------------------------------------------------


def wheels(contents: Contents) -> list[Package]:
    """Every package that was installed from a wheel, wherever it is."""
    return [
        _wheel(contents, posixpath.dirname(path))
        for path in sorted(contents.texts)
        if path.endswith(".dist-info/METADATA")
    ]


def _wheel(contents: Contents, info: str) -> Package:
    metadata = HeaderParser(policy=compat32).parsestr(contents.text(f"{info}/METADATA"))
    said = [metadata.get("License-Expression"), metadata.get("License")]
    said += [
        each.removeprefix("License :: ").strip()
        for each in metadata.get_all("Classifier") or ()
        if each.startswith("License :: ")
    ]
    folder = posixpath.dirname(info)
    return Package(
        kind="pypi",
        name=canonicalize_name(str(metadata["Name"])),
        version=str(metadata["Version"]),
        licences=tuple(each.strip() for each in said if each and each.strip()),
        files=_recorded(contents.text(f"{info}/RECORD"), folder),
        folder=folder,
        summary=str(metadata.get("Summary") or ""),
        needs=frozenset(name for line in metadata.get_all("Requires-Dist") or () if (name := _needed(line))),
    )


def _needed(line: str) -> str:
    """The name in a requirement; nothing where it is of an extra, or of another system."""
    wanted = Requirement(line)
    applies = wanted.marker is None or wanted.marker.evaluate({"extra": "", "sys_platform": "linux"})
    return canonicalize_name(wanted.name) if applies else ""


def _recorded(record: str, folder: str) -> dict[str, str]:
    """The files of a RECORD, with the digest of each that has one."""
    files = {}
    for row in csv.reader(record.splitlines()):
        if not row:
            continue
        path = posixpath.normpath(posixpath.join(folder, row[0]))
        algorithm, _, digest = (row[1] if len(row) > 1 else "").partition("=")
        files[path] = f"sha256:{_hex(digest)}" if algorithm == "sha256" else ""
    return files


def _hex(digest: str) -> str:
    return base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)).hex()


# --- Debian ---------------------------------------------------------------------------------------------------------


def debs(contents: Contents) -> list[Package]:
    """Every package that dpkg holds for installed."""
    status = contents.texts.get("var/lib/dpkg/status", b"")
    found = [_deb(contents, each) for each in Deb822.iter_paragraphs(status.decode(errors="replace"), use_apt_pkg=False)
             if each.get("Status", "").endswith(" installed")]  # fmt: skip
    return sorted(found, key=lambda each: (each.name, each.architecture))


def _deb(contents: Contents, status: Deb822) -> Package:
    name, version, architecture = status["Package"], status["Version"], status["Architecture"]
    source = re.fullmatch(r"(\S+)(?: \((\S+)\))?", status.get("Source", name))
    assert source is not None
    # Packages that may be installed for several architectures at once have that in their files' names.
    info = f"var/lib/dpkg/info/{name}"
    if f"{info}.list" not in contents.files:
        info = f"{info}:{architecture}"
    files = {contents.place(path): "" for path in contents.text(f"{info}.list").splitlines() if path not in ("", "/.")}
    for line in contents.text(f"{info}.md5sums").splitlines():
        digest, _, path = line.partition("  ")
        files[contents.place(path)] = f"md5:{digest}"
    for line in status.get("Conffiles", "").splitlines():
        if len(words := line.split()) == 2 and len(words[1]) == 32:
            files[contents.place(words[0])] = f"md5:{words[1]}"
    return Package(
        kind="deb",
        name=name,
        version=version,
        licences=_debian_licences(contents.text(f"usr/share/doc/{name}/copyright")),
        files=files,
        architecture=architecture,
        section=status.get("Section", ""),
        source=(source[1], source[2] or version),
        summary=status.get("Description", "").partition("\n")[0],
        needs=frozenset(re.findall(r"(?:^|[,|])\s*([a-z0-9][a-z0-9+.-]+)", status.get("Depends", ""))),
    )


def _debian_licences(text: str) -> tuple[str, ...]:
    """The short names in a copyright file; where it is prose, that there is one."""
    if not text:
        return ()
    try:
        read = Copyright(sequence=text.splitlines(), strict=False)
        found = {getattr(each.license, "synopsis", "") for each in read.all_files_paragraphs()}
    except (NotMachineReadableError, ValueError):
        found = set()
    return tuple(sorted(each for each in found if each)) or ("see its copyright file",)
