"""Chats: what a model is asked, filled from its task's inputs; the tools it is offered, and the shape of its reply.

A message is {role, content}. One of the assistant may have ``calls``, of {id, name, arguments}; one of role tool says
with ``call`` which of them it is the result of.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from agentflow.core.plan import ANSWER, Task
from agentflow.core.prompt import json_text, render
from agentflow.core.types import Type, object_schema

JSON = Any
Message = dict[str, Any]


class Asked(NamedTuple):
    """One request of a model. ``tools`` are {name, description, parameters}; ``schema`` None: free text."""

    messages: list[Message]
    tools: list[dict[str, JSON]]
    schema: dict[str, JSON] | None


def asked(task: Task, given: Mapping[str, JSON]) -> Asked:
    """What an llm task asks."""
    return Asked(chat(task, given), [], output_schema(task))


def chat(task: Task, given: Mapping[str, JSON]) -> list[Message]:
    """The first messages of a task; without a prompt the user's is the input as JSON."""
    user = {"role": "user", "content": render(task.prompt, given) if task.prompt else json_text(dict(given))}
    if not task.system:
        return [user]
    return [{"role": "system", "content": render(task.system, given)}, user]


def output_schema(task: Task) -> dict[str, JSON] | None:
    """The JSON Schema of the reply a task declares, strict; None for free text."""
    if task.reply is not None:
        return task.reply
    return object_schema(task.out) if task.out else None


def offered(task: Task) -> list[dict[str, JSON]]:
    """The tools of an agent's task, and the one by which it answers where its answer has fields."""
    assert task.agent is not None
    tools = [_tool(name, spec.description, spec.inputs or {}) for name, spec in task.agent.tools.items()]
    if task.out:
        told = "Gives your final answer. Call it alone, once you have all that it takes."
        tools.append(_tool(ANSWER, told, task.out))
    return tools


def _tool(name: str, description: str, takes: dict[str, Type]) -> dict[str, JSON]:
    return {"name": name, "description": description, "parameters": object_schema(takes)}
