"""What was found, and what of it is excused: by name, with a reason, until a day.

An exceptions file is YAML:

    exceptions:
      - finding: vulnerable          # what kind: the word that a finding's line starts with
        package: pkg:pypi/name@1.2   # as the finding names it; `*` at its end stands for anything
        id: CVE-2026-0001            # of `vulnerable` only, where it is required, and `package` has to be exact
        days: 180                    # of `superseded`: for how long at most there may have been a newer version; of
                                     # `stale`, where it is required: how old an index may be at most
        reason: the code that it is in is not called
        expires: 2027-03-31          # the last day; at most a year ahead

One that has expired fails, whether or not it would still excuse something.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

KINDS = ("vulnerable", "outdated", "superseded", "stale", "unchecked", "stand-in", "licence")
TIMED = ("superseded", "stale")
LONGEST = timedelta(days=366)
KEYS = {"finding", "package", "reason", "expires"}


class Unreadable(Exception):
    """An input is not what it has to be; says why in one line."""


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """Something that fails unless it is excused."""

    kind: str
    package: str
    id: str
    said: str
    since: date = date.min  # superseded: when the first newer version came; stale: of when the index is

    def __str__(self) -> str:
        return " ".join(part for part in (f"{self.kind}:", self.package, self.id, f"({self.said})") if part)


@dataclass(frozen=True, slots=True)
class Excuse:
    """One entry of an exceptions file."""

    kind: str
    package: str
    id: str
    reason: str
    expires: date
    place: str
    days: int | None = None

    def covers(self, finding: Finding, today: date) -> bool:
        package = finding.package == self.package or (
            self.package.endswith("*") and fnmatchcase(finding.package, self.package)
        )
        young = self.days is None or (today - finding.since).days <= self.days
        return finding.kind == self.kind and package and young and self.id in ("", finding.id)


def load(path: Path) -> list[Excuse]:
    """The entries of an exceptions file."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as fault:
        raise Unreadable(f"{path}: {fault.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        mark = getattr(fault, "problem_mark", None)
        raise Unreadable(f"{path}: is no YAML" + (f" (line {mark.line + 1})" if mark else "")) from None
    entries = content.get("exceptions") if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise Unreadable(f"{path}: has no list `exceptions`")
    return [_excuse(each, f"{path}: exception {number}") for number, each in enumerate(entries, 1)]


def _excuse(entry: Any, place: str) -> Excuse:
    if not isinstance(entry, dict):
        raise Unreadable(f"{place}: is no mapping")
    if lacks := sorted(KEYS - entry.keys()):
        raise Unreadable(f"{place}: lacks {', '.join(lacks)}")
    if strange := sorted(map(str, entry.keys() - KEYS - {"id", "days"})):
        raise Unreadable(f"{place}: {', '.join(strange)} is not known")
    kind, package, name = str(entry["finding"]), str(entry["package"]), str(entry.get("id") or "")
    if kind not in KINDS:
        raise Unreadable(f"{place}: finding is one of {', '.join(KINDS)}, not {kind!r}")
    if kind == "vulnerable" and (not name or "*" in package):
        raise Unreadable(f"{place}: a vulnerability is excused by its id, for one package in one version")
    days = entry.get("days")
    if days is not None and (kind not in TIMED or not isinstance(days, int) or not 0 < days <= LONGEST.days):
        raise Unreadable(f"{place}: days is a number up to {LONGEST.days}, of {' or '.join(TIMED)}")
    if kind == "superseded" and "*" in package and days is None:
        raise Unreadable(f"{place}: of packages without a name it has to say for how many days")
    if kind == "stale" and days is None:
        raise Unreadable(f"{place}: it has to say how many days old an index may be")
    if len(str(entry["reason"]).strip()) < 10:
        raise Unreadable(f"{place}: its reason says nothing")
    expires = entry["expires"]
    if not isinstance(expires, date) or isinstance(expires, datetime):
        raise Unreadable(f"{place}: expires is a day as in 2027-03-31, not {expires!r}")
    return Excuse(kind, package, name, str(entry["reason"]), expires, place, days)


def parser(purpose: str | None) -> argparse.ArgumentParser:
    """The arguments that all checks share."""
    made = argparse.ArgumentParser(description=purpose, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("sboms", nargs="+", type=Path, metavar="SBOM", help="a CycloneDX document, see sbom.py")
    made.add_argument("--exceptions", action="append", type=Path, default=[], metavar="FILE", help="may be repeated")
    made.add_argument("--today", type=date.fromisoformat, default=datetime.now(UTC).date(), help=argparse.SUPPRESS)
    return made


def conclude(check: str, found: set[Finding], given: argparse.Namespace, what: str) -> int:
    """Print what was found and what is excused; the exit status."""
    excuses = [each for path in given.exceptions for each in load(path)]
    failed = 0
    for each in excuses:
        if each.expires > given.today + LONGEST:
            raise Unreadable(f"{each.place}: expires more than a year from now")
        if each.expires < given.today:
            print(f"{check}: {each.place} ({each.kind} {each.package}) expired on {each.expires}", file=sys.stderr)
            failed += 1
    by_excuse: dict[Excuse, list[Finding]] = {}
    for finding in sorted(found):
        excuse = next((each for each in excuses if each.covers(finding, given.today)), None)
        if excuse is None or excuse.expires < given.today:
            print(finding, file=sys.stderr)
            failed += 1
        else:
            by_excuse.setdefault(excuse, []).append(finding)
    for excuse, findings in by_excuse.items():
        names = ", ".join(f"{each.package.partition('/')[2] or each.package}" for each in findings)
        print(f"excused until {excuse.expires}: {excuse.kind} {names} ({excuse.reason})")
    print(f"{check}: {what}, {sum(map(len, by_excuse.values()))} findings excused, {failed} failed")
    return 1 if failed else 0


def run(check: str, main: Callable[[list[str]], int]) -> None:
    """Run a program of this folder; an input that is not what it has to be is one line, and exit status 2."""
    try:
        sys.exit(main(sys.argv[1:]))
    except Unreadable as fault:
        print(f"{check}: {fault}", file=sys.stderr)
        sys.exit(2)
