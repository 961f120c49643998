"""infra/supply-chain/sbom.py: what belongs to no package is found, and what is found is said in full."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import supply
from supply import SITE, Files, archive, deb, wheel

from accounted import account  # isort: skip  # supply says where it is
from components import bom  # isort: skip
from contents import Contents, Image, unpack  # isort: skip
from document import load, text  # isort: skip
from locked import lock, not_locked  # isort: skip
from packages import debs, wheels  # isort: skip

STARLETTE = lock()["starlette"][0]
GOOD = wheel("starlette", STARLETTE, "BSD-3-Clause", starlette="") | deb("hello", "2.10-3", hello="\x7fELF")
IMAGE = Image(
    name="agentflow/plan:test", id=f"sha256:{'a' * 64}", created="2026-11-23T10:00:00.123456789Z", architecture="amd64",
    labels={
        "org.opencontainers.image.title": "agentflow/plan", "org.opencontainers.image.version": "0.1.0",
        "org.opencontainers.image.revision": "c" * 40, "agentflow.stand-in": "debian-x",
    },
    environment={"AGENTFLOW_FUNCTION": "plan"}, layers=("sha256:1",), digest="",
)  # fmt: skip


def contents(files: Files, **links: str) -> Contents:
    return unpack(io.BytesIO(archive(files, links)))


def faults(files: Files, environment: dict[str, str] | None = None) -> list[str]:
    found = contents(files)
    packages = wheels(found) + debs(found)
    return [*account(found, packages, environment or {}).faults, *not_locked(packages)]


def test_what_packages_account_for_is_no_fault() -> None:
    assert faults(GOOD) == []
    compiled = {f"{SITE}/__pycache__/starlette.cpython-312.pyc": (b"", 0o644)}
    assert faults(GOOD | compiled) == []


@pytest.mark.parametrize(
    ("planted", "said"),
    [
        ({f"{SITE}/backdoor.py": (b"import os", 0o644)}, f"{SITE}/backdoor.py: belongs to no package (no program)"),
        ({f"{SITE}/__pycache__/backdoor.cpython-312.pyc": (b"x", 0o644)}, "belongs to no package"),
        ({f"{SITE}/starlette.py": (b"import os", 0o644)}, f"{SITE}/starlette.py: is not as its package made it"),
        ({"usr/bin/hello": (b"\x7fELF!", 0o755)}, "usr/bin/hello: is not as its package made it"),
        ({"usr/local/bin/miner": (b"\x7fELF", 0o755)}, "usr/local/bin/miner: belongs to no package (a program)"),
        # A place where anything may lie, but no program: neither by its mode nor by what it is.
        ({"var/cache/miner": (b"#!/bin/sh", 0o755)}, "var/cache/miner: belongs to no package (a program)"),
        ({"var/cache/miner": (b"\x7fELF", 0o644)}, "var/cache/miner: belongs to no package (a program)"),
        (wheel("starlette", "0.1"), f"starlette 0.1: requirements.lock has {STARLETTE}"),
        (wheel("leftpad", "1.0"), "leftpad 1.0: requirements.lock does not have it"),
    ],
)  # fmt: skip
def test_what_nothing_accounts_for_is_found(planted: Files, said: str) -> None:
    assert any(said in each for each in faults(GOOD | planted)), faults(GOOD | planted)


def test_a_python_built_from_source_is_a_component_and_excuses_nothing_else() -> None:
    """As in the official images: its version is in the environment, and its library has a site-packages."""
    source: Files = {
        "usr/local/bin/python3.12": (b"\x7fELF", 0o755), "usr/local/lib/python3.12/os.py": (b"", 0o644),
    }  # fmt: skip
    assert len(faults(GOOD | source)) == 2
    assert faults(GOOD | source, {"PYTHON_VERSION": "3.12.9"}) == []
    planted: Files = {"usr/local/lib/python3.12/site-packages/x.py": (b"", 0o644)}
    assert len(faults(GOOD | source | planted, {"PYTHON_VERSION": "3.12.9"})) == 1
    found = contents(GOOD | source)
    made = bom(IMAGE, [], account(found, [], {"PYTHON_VERSION": "3.12.9"}), supply.OS_RELEASE, None)
    (python,) = [each for each in made.components if each.name == "python"]
    assert (str(python.purl), python.cpe) == (
        "pkg:generic/python@3.12.9", "cpe:2.3:a:python:python:3.12.9:*:*:*:*:*:*:*",
    )  # fmt: skip


def test_the_document_says_what_is_there(tmp_path: Path) -> None:
    found = contents(GOOD | {"etc/passwd": (b"x", 0o644)}, **{"etc/os-release": "../usr/lib/os-release"})
    packages = wheels(found) + debs(found)
    assert found.text("etc/os-release") == supply.OS_RELEASE
    accounts = account(found, packages, {})
    written = text(bom(IMAGE, packages, accounts, found.text("etc/os-release"), None))
    assert written == text(bom(IMAGE, packages[::-1], accounts, found.text("etc/os-release"), None))
    read = json.loads(written)
    assert read["specVersion"] == "1.6"
    root = read["metadata"]["component"]
    properties = {each["name"]: each["value"] for each in root["properties"]}
    assert properties["agentflow:image-id"] == IMAGE.id and root["version"] == "0.1.0"
    assert properties["agentflow:commit"] == "c" * 40 and properties["agentflow:function"] == "plan"
    reasons = [each["value"] for each in root["properties"] if each["name"] == "agentflow:unpackaged"]
    assert any(each.startswith("1 files: accounts") for each in reasons)
    by_name = {each["name"]: each for each in read["components"]}
    starlette, hello = by_name["starlette"], by_name["hello"]
    assert starlette["purl"] == f"pkg:pypi/starlette@{STARLETTE}"
    assert starlette["licenses"] == [{"license": {"id": "BSD-3-Clause"}}]
    (distribution,) = starlette["externalReferences"]
    assert [each["content"] for each in distribution["hashes"]] == list(lock()["starlette"][1])
    assert hello["purl"] == "pkg:deb/debian/hello@2.10-3?arch=amd64&distro=debian-12&upstream=hello"
    assert hello["licenses"] == [{"license": {"name": "Expat"}}]
    assert by_name["debian"]["version"] == "12"
    leads = {each["ref"].partition("?")[0]: each.get("dependsOn", []) for each in read["dependencies"]}
    assert len(leads[IMAGE.id]) == len(read["components"])
    (tmp_path / "plan.cdx.json").write_text(written)
    assert len(list(load(tmp_path / "plan.cdx.json").components)) == 3


def test_what_needs_what_is_said() -> None:
    files = GOOD | wheel("h11", "1", needs="Starlette>=1", h11="") | wheel("anyio", "1", needs='h11; extra == "x"')
    packages = wheels(contents(files))
    written = text(bom(IMAGE, packages, account(contents(files), packages, {}), supply.OS_RELEASE, None))
    leads = {
        each["ref"].partition("#")[0]: [ref.partition("#")[0] for ref in each.get("dependsOn", [])]
        for each in json.loads(written)["dependencies"]
    }
    assert leads["pkg:pypi/h11@1"] == [f"pkg:pypi/starlette@{STARLETTE}"]
    assert leads["pkg:pypi/anyio@1"] == []


def test_its_date_is_the_images_or_the_one_that_is_asked_for() -> None:
    def date(epoch: int | None) -> str:
        made = bom(IMAGE, [], account(contents(GOOD), [], {}), supply.OS_RELEASE, epoch)
        return str(json.loads(text(made))["metadata"]["timestamp"])

    assert date(None) == "2026-11-23T10:00:00+00:00"
    assert date(0) == "1970-01-01T00:00:00+00:00"


def test_an_image_that_is_not_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # nor is there an engine
    done = supply.run("sbom.py", "agentflow/none:x", "--out", tmp_path)
    assert done.returncode == 2
    assert supply.lines(done) == ["sbom: there is no docker on this machine: install the Docker engine"]
