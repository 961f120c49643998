"""Whether Debian's packages are the newest that their release has, security updates included.

The archive's own indexes are read: main, updates and security, through apt, which checks signatures. They tell what has
been fixed, and not what is known and unfixed. An index that says of itself that it is out of date is a finding, too: a
mirror may lag, or be kept back by somebody.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

from debian.debian_support import Version
from findings import Finding

SECONDS = 300
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class Unreachable(Exception):
    """The archive cannot be read; says why in one line."""


@dataclass(frozen=True, slots=True)
class Mirrors:
    """Where the archive is."""

    main: str
    security: str
    keyring: str = KEYRING


@dataclass(frozen=True, slots=True, order=True)
class Deb:
    """An installed package."""

    name: str
    version: str
    architecture: str


def check(debs: set[Deb], codename: str, mirrors: Mirrors) -> set[Finding]:
    """The findings about the packages of one release."""
    try:
        architectures = sorted({each.architecture for each in debs})
        offered, stale = _offered({each.name for each in debs}, codename, mirrors, architectures)
    except Unreachable as fault:
        return {Finding("unchecked", _purl(each), "", str(fault)) for each in debs}
    found = (_finding(each, offered.get(each.name, {}), codename) for each in debs)
    return stale | {each for each in found if each is not None}


def _purl(deb: Deb) -> str:
    return f"pkg:deb/debian/{deb.name}@{deb.version}"


def _finding(deb: Deb, offered: dict[str, str], codename: str) -> Finding | None:
    """``offered``: suite by version."""
    if not offered:
        return Finding("unchecked", _purl(deb), "", f"Debian {codename} does not have this package")
    newest = max(offered, key=Version)
    if Version(deb.version) < Version(newest):
        return Finding("outdated", _purl(deb), "", f"{offered[newest]} has {newest}")
    if deb.version not in offered:
        return Finding("unchecked", _purl(deb), "", f"Debian {codename} has {newest}, and not this version")
    return None


def _offered(
    names: set[str], codename: str, mirrors: Mirrors, architectures: list[str]
) -> tuple[dict[str, dict[str, str]], set[Finding]]:
    """By package: the versions that its release offers, and the suite that has each; and stale indexes."""
    native = [each for each in architectures if each != "all"] or ["amd64"]
    suites = {codename: mirrors.main, f"{codename}-updates": mirrors.main, f"{codename}-security": mirrors.security}
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        (state / "lists" / "partial").mkdir(parents=True)
        (state / "sources.list").write_text(
            "".join(
                f"deb [arch={','.join(native)} signed-by={mirrors.keyring}] {mirror} {suite} main\n"
                for suite, mirror in suites.items()
            )
        )
        _apt(state, "apt-get", "-qq", "--error-on=any", "-o", "Acquire::Retries=3", "update")
        listed = _apt(state, "apt-get", "indextargets", "--format", "$(CODENAME) $(FILENAME)", "Created-By: Packages")
        for line in listed.splitlines():
            suite, _, file = line.partition(" ")
            for name, version in _versions(_apt(state, "/usr/lib/apt/apt-helper", "cat-file", file), names):
                found.setdefault(name, {}).setdefault(version, suite)
        stale = {each for path in (state / "lists").glob("*Release") if (each := _stale(path.read_text())) is not None}
    return found, stale


def _stale(release: str) -> Finding | None:
    """What is to be said of a suite whose index is out of date by its own word."""
    said = dict(re.findall(r"(?m)^(Codename|Suite|Date|Valid-Until): (.+)$", release))
    if "Valid-Until" not in said or parsedate_to_datetime(said["Valid-Until"]) > datetime.now(UTC):
        return None
    made = parsedate_to_datetime(said["Date"]).date()
    text = f"the mirror's index is of {made}, and was valid until {said['Valid-Until']}"
    return Finding("stale", f"debian/{said.get('Codename') or said.get('Suite')}", "", text, made)


def _apt(state: Path, *words: str) -> str:
    settings = {
        "Dir::Etc::SourceList": state / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "Dir::State": state,
        "Dir::State::Lists": state / "lists",
        "Dir::State::status": "/dev/null",
        "Dir::Cache": state / "cache",
        "APT::Sandbox::User": "root",
        # Whatever this machine's own apt is content with. An index that is out of date is read, and reported.
        "Acquire::Check-Valid-Until": "false",
        "Acquire::Check-Date": "true",
        "Acquire::AllowInsecureRepositories": "false",
        "Acquire::AllowWeakRepositories": "false",
        "APT::Get::AllowUnauthenticated": "false",
    }
    command = [words[0], *(word for name, value in settings.items() for word in ("-o", f"{name}={value}")), *words[1:]]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
    except FileNotFoundError:
        raise Unreachable("there is no apt on this machine to read Debian's archive with") from None
    except subprocess.TimeoutExpired:
        raise Unreachable(f"Debian's archive did not answer within {SECONDS} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines() or [""]
        raise Unreachable(f"Debian's archive cannot be read: {said[0].removeprefix('E:').strip()}")
    return done.stdout


def _versions(index: str, names: set[str]) -> list[tuple[str, str]]:
    """Name and version of the packages of an index that are asked for."""
    entries = re.findall(r"(?m)^Package: (\S+)\n(?:.+\n)*?Version: (\S+)$", index)
    return [(name, version) for name, version in entries if name in names]
