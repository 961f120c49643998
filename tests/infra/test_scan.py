"""infra/supply-chain/scan.py and licences.py: red for what is vulnerable, and for what nobody could check.

The package index is a small server of ours, or nobody; Debian's archive is a folder, signed by a key of its own and
read through apt as the real one is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from supply import document, excuses, lines, run

import advisories  # isort: skip  # supply says where it is
import debian_archive as archive  # isort: skip
from document import load  # isort: skip
from findings import LONGEST, Unreadable, load as load_exceptions  # isort: skip
import licences  # isort: skip
import scan  # isort: skip
from licences import allowed, spdx  # isort: skip

FAULT = {"id": "PYSEC-2026-1", "aliases": ["GHSA-x", "CVE-2026-0001"], "fixed_in": ["3.1.6"], "withdrawn": None}
TODAY = datetime.now(UTC).date()


def page(version: str, *faults: dict[str, Any], **more: Any) -> dict[str, Any]:
    releases = {version: [{"upload_time": "2026-03-01T10:00:00"}], "1.0": [], "1.1": [{"upload_time": "2026-02-01T1"}]}
    return {"info": {"version": version}, "releases": releases, "vulnerabilities": [*faults], **more}


PAGES: dict[str, Any] = {
    "/pypi/jinja2/2.10/json": page("2.10", FAULT),
    "/pypi/jinja2/3.1.6/json": page("3.1.6", {**FAULT, "withdrawn": "2026-01-01"}),
    # A mirror that has no page of a version, as here:
    "/pypi/idna/json": page("3.20"),
    "/pypi/ecdsa/json": page("0.19", {**FAULT, "aliases": [], "fixed_in": []}),
    "/pypi/strange/json": {"info": {"version": "1.0"}},
    "/pypi/broken/1.0/json": ["no", "object"],
}


@pytest.fixture(scope="module")
def index() -> Iterator[str]:
    """A package index with the pages above."""

    class Pages(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = PAGES.get(self.path)
            self.send_response(404 if found is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(found).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("idna@3.20", None),
        ("jinja2@3.1.6", None),  # an advisory that was withdrawn is none
        ("jinja2@2.10", "vulnerable: pkg:pypi/jinja2@2.10 CVE-2026-0001 (fixed in 3.1.6)"),
        ("ecdsa@0.19", "vulnerable: pkg:pypi/ecdsa@0.19 PYSEC-2026-1 (no version has it fixed)"),
        ("idna@1.0", "tells the advisories of 3.20 only; there is a newer one since 2026-02-01)"),
        ("idna@2.0", "unchecked: pkg:pypi/idna@2.0 (the index does not know this version)"),
        ("nobody@1.0", "unchecked: pkg:pypi/nobody@1.0 (the index does not know this package)"),
        ("strange@1.0", "unchecked: pkg:pypi/strange@1.0 (the index's answer names no advisories)"),
        ("broken@1.0", "its answer is no description of a package"),
    ],
)  # fmt: skip
def test_a_python_package(index: str, package: str, said: str | None) -> None:
    found = [str(each) for each in advisories.check({tuple(package.split("@"))}, index)]
    assert (found == []) if said is None else (len(found) == 1 and said in found[0])


def test_an_index_that_cannot_be_reached_has_not_checked_anything() -> None:
    (found,) = advisories.check({("idna", "3.20")}, "http://127.0.0.1:9")
    assert found.kind == "unchecked" and "cannot be asked" in found.said


# --- Debian ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Archive:
    """Debian's archive in a folder; ``write`` makes a suite of it."""

    folder: Path
    keys: Path
    keyring: Path

    def write(self, suite: str, valid: timedelta = timedelta(days=7), **versions: str) -> None:
        place = self.folder / "dists" / suite
        packages = place / "main" / "binary-amd64" / "Packages"
        packages.parent.mkdir(parents=True, exist_ok=True)
        packages.write_text(
            "".join(
                f"Package: {name}\nSource: {name} (0.1)\nInstalled-Size: 1\nArchitecture: amd64\nVersion: {version}\n"
                f"Filename: pool/{name}.deb\nSize: 1\nSHA256: {'0' * 64}\n\n"
                for name, version in versions.items()
            )
        )
        content = packages.read_bytes()
        now = datetime.now(UTC)
        (place / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nDate: {format_datetime(now - timedelta(days=9), usegmt=True)}\n"
            f"Valid-Until: {format_datetime(now + valid, usegmt=True)}\nArchitectures: amd64\nComponents: main\n"
            f"SHA256:\n {sha256(content).hexdigest()} {len(content)} main/binary-amd64/Packages\n"
        )
        (place / "InRelease").unlink(missing_ok=True)
        gpg(self.keys, "--clearsign", "--output", place / "InRelease", place / "Release")

    def check(self, **installed: str) -> dict[str, str]:
        """What is found about installed packages, by name."""
        mirrors = archive.Mirrors(f"file:{self.folder}", f"file:{self.folder}", str(self.keyring))
        debs = {archive.Deb(name, version, "amd64") for name, version in installed.items()}
        found = archive.check(debs, "bookworm", mirrors)
        return {each.package.rpartition("/")[2].partition("@")[0]: f"{each.kind}: {each.said}" for each in found}


def gpg(home: Path, *words: str | Path) -> None:
    subprocess.run(["gpg", "--homedir", home, "--batch", "--quiet", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, require: Callable[[object, str], None]) -> Archive:
    for program in ("gpg", "apt-get"):
        require(shutil.which(program), f"{program}: to make and read an archive as Debian's is")
    folder = tmp_path_factory.mktemp("debian")
    keys = folder / "keys"
    keys.mkdir(mode=0o700)
    gpg(keys, "--passphrase", "", "--quick-gen-key", "archive@example.org", "ed25519", "sign", "never")
    gpg(keys, "--output", folder / "keyring.gpg", "--export")
    made = Archive(folder, keys, folder / "keyring.gpg")
    made.write("bookworm", curl="7.1-1", bash="5.2-1", zlib="1:1.2-1")
    made.write("bookworm-updates", tzdata="2026b")
    made.write("bookworm-security", curl="7.1-1+deb12u1")
    return made


def test_a_debian_package(debian: Archive) -> None:
    assert debian.check(bash="5.2-1", curl="7.1-1+deb12u1", tzdata="2026b", zlib="1:1.2-1") == {}
    assert debian.check(bash="5.2-1+mine", curl="7.1-1", tzdata="2026a", zlib="2.0", ours="1.0") == {
        "curl": "outdated: bookworm-security has 7.1-1+deb12u1",
        "tzdata": "outdated: bookworm-updates has 2026b",
        "zlib": "outdated: bookworm has 1:1.2-1",  # an epoch counts for more than any number
        "bash": "unchecked: Debian bookworm has 5.2-1, and not this version",
        "ours": "unchecked: Debian bookworm does not have this package",
    }


def test_an_archive_that_is_out_of_date_says_so_besides_what_it_knows(debian: Archive) -> None:
    debian.write("bookworm-security", valid=-timedelta(days=1), curl="7.1-1+deb12u1")
    found = debian.check(bash="5.2-1", curl="7.1-1")
    debian.write("bookworm-security", curl="7.1-1+deb12u1")
    assert found.keys() == {"bookworm-security", "curl"}
    assert found["bookworm-security"].startswith("stale: the mirror's index is of ")


def test_an_archive_that_is_forged_or_away_has_not_checked_anything(debian: Archive) -> None:
    index = debian.folder / "dists/bookworm/main/binary-amd64/Packages"
    genuine = index.read_text()
    index.write_text(genuine.replace("5.2-1", "5.2-2"))
    assert "cannot be read" in debian.check(bash="5.2-1")["bash"]
    index.write_text(genuine)
    nowhere = archive.Mirrors("file:/nowhere", "file:/nowhere", str(debian.keyring))
    (found,) = archive.check({archive.Deb("bash", "5.2-1", "amd64")}, "bookworm", nowhere)
    assert found.kind == "unchecked" and "cannot be read" in found.said


# --- The programs ---------------------------------------------------------------------------------------------------


def said(status: int, capsys: pytest.CaptureFixture[str]) -> tuple[int, list[str], str]:
    """A program's exit status, its complaints, and what it prints."""
    printed = capsys.readouterr()
    return status, printed.err.splitlines(), printed.out


def test_a_scan_is_red_until_all_is_excused(index: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    packages = ("pkg:pypi/jinja2@2.10", "pkg:pypi/idna@3.20", "pkg:generic/x@1", "no-purl@1")
    words = [str(document(tmp_path / "a.json", *packages, stand_in="deb-x")), "--index", index]
    status, faults, _ = said(scan.main(words), capsys)
    assert status == 1
    assert [line.partition(" (")[0] for line in faults] == [
        "stand-in: deb-x", "unchecked: no-purl@1", "unchecked: pkg:generic/x@1",
        "vulnerable: pkg:pypi/jinja2@2.10 CVE-2026-0001",
    ]  # fmt: skip
    until = str(TODAY + timedelta(days=30))
    more = {"reason": "it is not called", "expires": until}
    entries = [
        {"finding": "stand-in", "package": "deb-*", **more},
        {"finding": "unchecked", "package": "pkg:generic/x@1", **more},
        {"finding": "unchecked", "package": "no-purl@1", **more},
        {"finding": "vulnerable", "package": "pkg:pypi/jinja2@2.10", "id": "CVE-2026-0001", **more},
    ]  # fmt: skip
    file = excuses(tmp_path / "all.yaml", *json.loads(json.dumps(entries)))
    # Days are days in YAML, and words in JSON.
    file.write_text(file.read_text().replace(f'"{until}"', until))
    words += ["--exceptions", str(file)]
    status, faults, printed = said(scan.main(words), capsys)
    assert (status, faults) == (0, [])
    assert f"excused until {until}: vulnerable jinja2@2.10 (it is not called)" in printed
    status, faults, _ = said(scan.main([*words, "--today", str(TODAY + timedelta(days=31))]), capsys)
    assert status == 1
    assert sum("expired on" in line for line in faults) == 4 and len(faults) == 8


@pytest.mark.parametrize("planted", ["jinja2@2.10", "ecdsa@0.19.2", "agentflow-no-such-package@1.0"])
def test_the_real_index_lets_nothing_pass(planted: str) -> None:
    """An old version, one that nobody has mended, one that nobody knows: red, and red without an index."""
    found = advisories.check({tuple(planted.split("@"))}, "https://pypi.org")
    assert found and all(each.package == f"pkg:pypi/{planted}" for each in found)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("not: json", "is no JSON"),
        ("[]", "is no CycloneDX document"),
        ('{"bomFormat": "CycloneDX", "specVersion": "1.6", "components": [{"name": 1}]}', "is no valid Cyc"),
        ('{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}', "names no package at all"),
        (None, "No such file"),
    ],
)
def test_a_broken_sbom_is_one_line(tmp_path: Path, content: str | None, said: str) -> None:
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Unreadable, match=said) as caught:
        load(path)
    assert len(str(caught.value).splitlines()) == 1
    if content is None:
        done = run("scan.py", path)
        assert (done.returncode, lines(done)) == (2, [f"scan: {path}: No such file or directory"])


ENTRY = "finding: outdated\n    package: x\n    reason: because of this\n    expires: 2027-01-01"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("expires: 2027-01-01", "expires: soon"), "expires is a day"),
        (("    expires: 2027-01-01", ""), "lacks expires"),
        (("outdated", "outdatet"), "finding is one of"),
        (("because of this", "x"), "its reason says nothing"),
        (("package: x", "packet: x"), "lacks package"),
        (("outdated", "vulnerable"), "is excused by its id"),
        (("finding: outdated", "finding: ["), "is no YAML"),
        (("package: x", "package: x\n    until: 1"), "until is not known"),
        (("package: x", "package: x\n    days: 9"), "of superseded or stale"),
        (("outdated\n    package: x", "superseded\n    package: pkg:pypi/*"), "for how many days"),
    ],
)
def test_a_wrong_exceptions_file_is_one_line(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(f"exceptions:\n  - {ENTRY}\n")
    assert len(load_exceptions(path)) == 1
    path.write_text(f"exceptions:\n  - {ENTRY}\n".replace(*change))
    with pytest.raises(Unreadable, match=said) as caught:
        load_exceptions(path)
    assert len(str(caught.value).splitlines()) == 1


def test_what_was_superseded_lately_may_be_excused_without_its_name(index: str, tmp_path: Path) -> None:
    """By a mirror that tells the advisories of newest versions only; an old version is never among these."""
    (found,) = advisories.check({("idna", "1.0")}, index)
    path = tmp_path / "x.yaml"
    for days, day, is_covered in ((30, 25, True), (30, 29, False), (9, 25, False)):
        path.write_text(f"exceptions:\n  - {ENTRY}\n    days: {days}\n".replace("outdated", "superseded"))
        path.write_text(path.read_text().replace("package: x", 'package: "pkg:pypi/*"'))
        (excuse,) = load_exceptions(path)
        assert excuse.covers(found, date(2026, 2 if day == 25 else 3, day)) is is_covered


def test_the_exceptions_that_we_have_are_read() -> None:
    folder = Path(archive.__file__).parent
    for name in ("exceptions.yaml", "exceptions-ci.yaml"):
        found = load_exceptions(folder / name)
        assert found and all(each.expires <= TODAY + LONGEST for each in found)
    assert not any(each.kind == "stand-in" for each in load_exceptions(folder / "exceptions.yaml"))


# --- Licences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "is_allowed"),
    [
        ("MIT", True), ("MIT OR GPL-3.0-only", True), ("MPL-2.0 AND (Apache-2.0 OR MIT)", True),
        ("GPL-3.0-only", False), ("MIT AND GPL-3.0-only", False),
        ("LicenseRef-Ours", False), ("Dual License", False), ("", False),
    ],
)  # fmt: skip
def test_a_licence(expression: str, is_allowed: bool) -> None:
    assert allowed(expression) is is_allowed


def test_what_a_package_says_of_its_licence_is_understood_or_not_known() -> None:
    assert spdx("x", ("MIT",)) == "MIT"
    assert spdx("x", ("Apache License 2.0",)) == "Apache-2.0"
    assert spdx("x", ("Dual License", "OSI Approved :: MIT License")) == "MIT"
    assert spdx("x", ("Do as you like",)) == ""
    assert spdx("jinja2", ("OSI Approved :: BSD License",)) == "BSD-3-Clause"
    assert spdx("jinja2", ("Proprietary",)) == ""  # it says something else now: somebody has to look again


def test_a_licence_that_is_not_allowed_or_not_known_is_red(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = document(tmp_path / "good.json", "pkg:pypi/a@1", "pkg:deb/debian/b@1?arch=amd64")
    assert licences.main([str(good)]) == 0
    bad = document(tmp_path / "bad.json", "pkg:pypi/a@2", licence="GPL-3.0-only")
    unknown = document(tmp_path / "unknown.json", "pkg:pypi/a@3", "pkg:deb/debian/b@3", licence="")
    firmware = document(tmp_path / "firmware.json", "pkg:deb/debian/f@1", section="non-free-firmware/kernel")
    status, faults, _ = said(licences.main([*map(str, (good, bad, unknown, firmware))]), capsys)
    assert status == 1
    assert faults == [
        "licence: pkg:deb/debian/b@3 (its licence is not known)",
        "licence: pkg:deb/debian/f@1 (is of Debian's non-free-firmware)",
        "licence: pkg:pypi/a@2 (GPL-3.0-only is not allowed by licences.yaml)",
        "licence: pkg:pypi/a@3 (its licence is not known)",
    ]
