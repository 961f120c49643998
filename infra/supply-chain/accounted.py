"""Which files of an image belong to a package, as that package made them, and which to none."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml
from contents import Contents, File
from packages import Package

RULES = Path(__file__).with_name("unpackaged.yaml")


@dataclass(frozen=True, slots=True)
class Program:
    """What an image brings without a package manager."""

    name: str
    version: str
    cpe: str
    licence: str


@dataclass(slots=True)
class Account:
    """``faults``: one line for each file that nothing accounts for. ``excused``: how many files each reason of
    unpackaged.yaml covers. ``programs``: what of that file's programs is there."""

    faults: list[str] = field(default_factory=list)
    excused: dict[str, int] = field(default_factory=dict)
    programs: list[Program] = field(default_factory=list)


def account(contents: Contents, packages: list[Package], environment: dict[str, str]) -> Account:
    """Go through every file of an image."""
    rules = yaml.safe_load(RULES.read_text())
    found = Account()
    for each in rules["programs"]:
        if version := environment.get(each["version_from"]):
            cpe = each["cpe"].format(version=version)
            found.programs.append(Program(each["name"], version, cpe, each["licence"]))
            rules["files"].append(
                {"reason": f"{each['name']} {version}, built from source", "programs": True, **each}
            )
    owned = _owned(packages)
    for path, file in sorted(contents.files.items()):
        wanted = owned.get(path)
        if wanted is None and _is_bytecode(path, owned, contents):
            continue
        if wanted is not None:
            if wanted and file.sha256 and wanted not in (f"sha256:{file.sha256}", f"md5:{file.md5}"):
                found.faults.append(f"{path}: is not as its package made it")
            continue
        reason = _reason(path, file, rules["files"])
        if reason:
            found.excused[reason] = found.excused.get(reason, 0) + 1
        else:
            found.faults.append(f"{path}: belongs to no package ({'a program' if file.program else 'no program'})")
    return found


def _owned(packages: list[Package]) -> dict[str, str]:
    """The digest that each file of a package has to have; empty where none is named."""
    owned: dict[str, str] = {}
    for each in packages:
        for path, digest in each.files.items():
            owned[path] = digest or owned.get(path, "")
    return owned


def _is_bytecode(path: str, owned: dict[str, str], contents: Contents) -> bool:
    """Compiled from a source that is accounted for. Bytecode itself is in no package: it is made after installing."""
    folder, name = posixpath.split(path)
    match = re.fullmatch(r"(.+)\.cpython-\d+(?:\.opt-[12])?\.pyc", name)
    if match is None or posixpath.basename(folder) != "__pycache__":
        return False
    source = posixpath.join(posixpath.dirname(folder), f"{match[1]}.py")
    return source in owned and source in contents.files


def _reason(path: str, file: File, rules: list[dict[str, Any]]) -> str:
    for rule in rules:
        if file.program and not rule.get("programs"):
            continue
        if any(fnmatchcase(path, each) for each in rule["paths"]) and not any(
            fnmatchcase(path, each) for each in rule.get("except", ())
        ):
            return str(rule["reason"])
    return ""
