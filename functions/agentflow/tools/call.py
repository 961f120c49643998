"""One call of a tool, as the function run_tool is asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

from agentflow.core.performed import Begins, ignored
from agentflow.core.plan import ToolSpec

NO_FILES: Mapping[str, bytes] = MappingProxyType({})


class ToolCall(NamedTuple):
    """``tool`` is a built-in's name, or the key of ``spec`` in the workflow's tools.

    ``input`` is the JSON object the task made; ``files`` has the content of every file reference in it. ``key`` is the
    idempotency key of its effect; ``begins`` is called just before the tool may begin to run.
    """

    tenant: UUID
    run: UUID
    step: int
    attempt: int
    tool: str
    spec: ToolSpec | None
    input: dict[str, Any]
    timeout_s: float
    files: Mapping[str, bytes] = NO_FILES
    key: str = ""
    begins: Begins = ignored
