"""Whether what somebody says is of the shape that a workflow declares for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.types import Type, problem
from agentflow.errors import Problem


def misfits(value: Any, types: Mapping[str, Type], path: str) -> list[Problem]:
    """What is wrong with an object that has to have exactly these fields."""
    wanted = ", ".join(f"{name}: {type_}" for name, type_ in types.items()) or "nothing"
    if not isinstance(value, dict):
        return [Problem(path, "is no object", f"asked for is: {wanted}", "type")]
    faults = [
        Problem(f"{path}.{name}", "is missing", f"give a value of type {type_}", "missing")
        for name, type_ in types.items()
        if name not in value
    ]
    for name, given in value.items():
        if name not in types:
            faults.append(Problem(f"{path}.{name[:64]}", "is not asked for", f"asked for is: {wanted}", "unknown"))
        elif fault := problem(given, types[name], f"{path}.{name}"):
            faults.append(fault)
    return faults
