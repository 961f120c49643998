"""Write the SBOM of images: CycloneDX 1.6, one JSON file each, the same each time for the same image.

    sbom.py IMAGE... --out FOLDER [--epoch SECONDS]

Lists every Python package (licence, and the hashes that requirements.lock allows for it), every Debian package, and
what the base image brings besides. Every file has to belong to one of them, as that package made it, or be named in
unpackaged.yaml; a Python package of ours has to be in requirements.lock, in that version.

Exit status 0: written; 1: something in an image is accounted for by nothing; 2: an image could not be looked into.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import document
from accounted import Account, account
from components import bom
from contents import Contents, Image, inspect, read
from findings import Unreadable, run
from locked import not_locked
from packages import Package, debs, wheels


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("images", nargs="+", metavar="IMAGE")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="made if it is not there")
    made.add_argument("--epoch", type=int, help="the document's date, seconds since 1970; the image's own otherwise")
    return made


def main(arguments: list[str]) -> int:
    given = _parser().parse_args(arguments)
    failed = False
    looked: dict[tuple[str, ...], tuple[Contents, list[Package]]] = {}
    for image in [inspect(name) for name in given.images]:
        if image.layers not in looked:  # our images share them all: one look is enough
            contents = read(image)
            looked[image.layers] = contents, wheels(contents) + debs(contents)
        contents, packages = looked[image.layers]
        accounts = account(contents, packages, image.environment)
        faults = accounts.faults + not_locked(packages)
        for fault in faults[:50]:
            print(f"sbom: {image.name}: {fault}", file=sys.stderr)
        failed = failed or bool(faults)
        _write(given, image, packages, accounts, contents)
    return 1 if failed else 0


def _write(
    given: argparse.Namespace, image: Image, packages: list[Package], accounts: Account, contents: Contents
) -> None:
    made = bom(image, packages, accounts, contents.text("etc/os-release"), given.epoch)
    try:
        given.out.mkdir(parents=True, exist_ok=True)
        path = given.out / f"{image.name.rpartition('/')[2].partition(':')[0].partition('@')[0]}.cdx.json"
        path.write_text(document.text(made))
    except OSError as fault:
        raise Unreadable(f"{given.out}: {fault.strerror}") from None
    wheels, debs = (sum(each.kind == kind for each in packages) for kind in ("pypi", "deb"))
    excused = sum(accounts.excused.values())
    print(
        f"{path}: {wheels} Python and {debs} Debian packages, {len(contents.files)} files, {excused} of them by"
        f" unpackaged.yaml, {len(accounts.faults)} by nothing"
    )


if __name__ == "__main__":
    run("sbom", main)
