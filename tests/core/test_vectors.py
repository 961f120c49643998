"""The conformance vectors in ``vectors/``: what follows from what happens, how it ends, and the variables then."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from .driving import machine, play, tree, undoing

FOLDER = Path(__file__).parent / "vectors"
VECTORS = [
    pytest.param(vector, id=f"{path.stem}: {vector['name']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for vector in yaml.safe_load(path.read_text())
]


def document_of(vector: dict[str, Any]) -> dict[str, Any]:
    """The document of a vector's plan."""
    parts = dict(vector["plan"])
    if parts.pop("undoing", False):
        parts["tasks"] = undoing(parts)
    return machine(parts.pop("states"), **parts) if "states" in parts else tree(parts.pop("root"), **parts)


@pytest.mark.parametrize("vector", VECTORS)
def test_vector(vector: dict[str, Any]) -> None:
    drive = play(document_of(vector), vector["script"])
    assert drive.state is not None
    assert vector.keys() <= {"name", "plan", "script", "vars", "inputs", "reason"}
    for step, given in vector.get("inputs", {}).items():
        assert drive.inputs[step] == given, f"step {step} was given {drive.inputs[step]}"
    if "reason" in vector:
        assert drive.finish is not None
        assert drive.finish.reason == vector["reason"]
    for name, value in vector.get("vars", {}).items():
        assert drive.state.vars[name] == value, (name, drive.state.vars)


def test_names_are_unique() -> None:
    names = [str(vector.id) for vector in VECTORS]
    assert len(names) == len(set(names))
