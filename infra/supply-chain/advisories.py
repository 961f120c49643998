"""What PyPI knows of a package's vulnerabilities: advisories of the Python packaging database and of GitHub's.

An index is asked for one exact version. Some mirrors answer for the newest version of a project only: a package that is
older is then `superseded`, which nobody has checked.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import httpx
from findings import Finding
from packaging.version import InvalidVersion, Version

SECONDS = 20
TRIES = 3
AT_ONCE = 8


class Unchecked(Exception):
    """An answer that says nothing about the version that was asked for."""

    def __init__(self, said: str, kind: str = "unchecked", since: date = date.min) -> None:
        super().__init__(said)
        self.kind = kind
        self.since = since


def check(packages: set[tuple[str, str]], index: str) -> set[Finding]:
    """The findings about packages, by name and version."""
    with (
        httpx.Client(base_url=index, timeout=SECONDS, follow_redirects=True) as client,
        ThreadPoolExecutor(AT_ONCE) as pool,
    ):
        answers = pool.map(lambda each: _findings(client, *each), sorted(packages))
        return {finding for found in answers for finding in found}


def _findings(client: httpx.Client, name: str, version: str) -> list[Finding]:
    package = f"pkg:pypi/{name}@{version}"
    try:
        return [
            Finding("vulnerable", package, _id(each), _mend(each))
            for each in _advisories(client, name, version)
            if not each.get("withdrawn")
        ]
    except Unchecked as fault:
        return [Finding(fault.kind, package, "", str(fault), fault.since)]


def _advisories(client: httpx.Client, name: str, version: str) -> list[dict[str, Any]]:
    """The advisories of one version. What an index says of a project is what it says of its newest version."""
    answer = _ask(client, f"/pypi/{name}/{version}/json")
    if answer is None:
        answer = _ask(client, f"/pypi/{name}/json")
        if answer is None:
            raise Unchecked("the index does not know this package")
        if answer["info"].get("version") != version:
            if version in answer.get("releases", ()):
                newest, since = answer["info"].get("version"), _superseded(version, answer["releases"])
                said = f"the index tells the advisories of {newest} only; there is a newer one since {since}"
                raise Unchecked(said, "superseded", since)
            raise Unchecked("the index does not know this version")
    found = answer.get("vulnerabilities")
    if answer["info"].get("version") != version or not isinstance(found, list):
        raise Unchecked("the index's answer names no advisories")
    return found


def _superseded(version: str, releases: dict[str, Any]) -> date:
    """When the first final version came that is newer; long ago where that cannot be told."""
    days = [date.min]
    for other, files in releases.items():
        try:
            newer = Version(other) > Version(version) and not Version(other).is_prerelease
            days += [date.fromisoformat(str(file["upload_time"])[:10]) for file in files if newer]
        except (InvalidVersion, KeyError, TypeError, ValueError):
            continue
    return min(days[1:], default=date.min)


def _ask(client: httpx.Client, path: str) -> dict[str, Any] | None:
    """An index's answer; None where it has no such page."""
    fault = ""
    for _ in range(TRIES):
        try:
            answer = client.get(path, headers={"Accept": "application/json"})
            if answer.status_code == 404:
                return None
            answer.raise_for_status()
            content = answer.json()
            if isinstance(content, dict) and isinstance(content.get("info"), dict):
                return content
            fault = "its answer is no description of a package"
        except httpx.HTTPStatusError as error:
            fault = f"it answers {error.response.status_code}"
        except (httpx.HTTPError, ValueError) as error:
            fault = str(error) or type(error).__name__
    raise Unchecked(f"the index at {client.base_url} cannot be asked: {fault}")


def _id(advisory: dict[str, Any]) -> str:
    """The CVE where there is one: two databases name the same fault differently."""
    aliases = [str(each) for each in advisory.get("aliases") or ()]
    return next((each for each in sorted(aliases) if each.startswith("CVE-")), str(advisory.get("id") or "unnamed"))


def _mend(advisory: dict[str, Any]) -> str:
    fixed = [str(each) for each in advisory.get("fixed_in") or ()]
    return f"fixed in {', '.join(fixed)}" if fixed else "no version has it fixed"
