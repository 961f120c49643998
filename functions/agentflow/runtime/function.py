"""What a function's main.py declares: its name and its decision (pure) or its effect."""

from __future__ import annotations

import importlib.util
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentflow.runtime.batch import Decide

if TYPE_CHECKING:
    from agentflow.config import Settings
    from agentflow.core.performed import Effect

NAMES = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost", "api")


# The push door of each function this process carries, set by its host. functions-framework executes main.py a
# second time, so a door can't hang on the module that the host has loaded.
DOORS: dict[str, Callable[[Any], Awaitable[Any]]] = {}


@dataclass(frozen=True, slots=True)
class Function:
    """One function. ``decide`` is its pure decision; ``open_effect`` makes what it performs, where it has an
    effect."""

    name: str
    decide: Decide
    open_effect: Callable[[Settings, Any], Awaitable[Effect]] | None = None

    async def push(self, request: Any) -> Any:
        """Handle what came over HTTP: a CloudEvent, or a request for the API."""
        door = DOORS.get(self.name)
        if door is None:
            raise RuntimeError(f"{self.name} has no host: start it with agentflow serve {self.name} --push")
        return await door(request)


def source(name: str) -> Path:
    """The main.py of a function."""
    beside = Path(__file__).resolve().parents[2] / name / "main.py"
    return (
        beside if beside.exists() else Path(__file__).resolve().parents[1] / "_functions" / name / "main.py"
    )


def load(name: str) -> Any:
    """The module of a function's main.py, under a name of its own: six files are called main."""
    spec = importlib.util.spec_from_file_location(f"agentflow_function_{name}", source(name))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
