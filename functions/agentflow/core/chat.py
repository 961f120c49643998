"""Chats: an llm task's messages, filled from its inputs, and the shape its reply must have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentflow.core.plan import Task
from agentflow.core.prompt import render
from agentflow.core.types import json_schema


def chat(task: Task, given: Mapping[str, Any]) -> list[dict[str, str]]:
    """The messages of an llm task's request."""
    user = {"role": "user", "content": render(task.prompt, given)}
    if not task.system:
        return [user]
    return [{"role": "system", "content": render(task.system, given)}, user]


def output_schema(task: Task) -> dict[str, Any] | None:
    """The JSON Schema of the reply an llm task declares, strict; None for free text."""
    if task.reply is not None:
        return task.reply
    if not task.out:
        return None
    return {
        "type": "object",
        "properties": {name: json_schema(kind) for name, kind in task.out.items()},
        "required": list(task.out),
        "additionalProperties": False,
    }
