"""Agents of a plan: what they may call, and the tasks that their inner steps are steps of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from agentflow.core.builtin import BUILTIN_TOOLS, offered
from agentflow.core.draft import Draft
from agentflow.core.plan import ANSWER, MAX_TOKENS, TURN, Agent, Task, ToolSpec, part_name

_TOOL_TIMEOUT_MS = 60_000


def agents(draft: Draft) -> dict[str, Agent]:
    """The agents that the document declares."""
    found = {}
    for name, entry in sorted(draft.document.get("agents", {}).items()):
        found[name] = Agent(
            name=name,
            model=entry["model"],
            system=entry.get("system", ""),
            tools=_tools(draft, f"agents.{name}.tools", entry.get("tools", [])),
            max_tokens=entry.get("max_tokens", MAX_TOKENS),
        )
    return found


def _tools(draft: Draft, path: str, names: list[str]) -> dict[str, ToolSpec]:
    known = {**BUILTIN_TOOLS, **draft.tools}
    found: dict[str, ToolSpec] = {}
    for place, name in enumerate(names):
        at = f"{path}[{place}]"
        tool, called = known.get(name), offered(name)
        if tool is None:
            draft.unknown(at, "tool", name, known)
        elif tool.inputs is None:
            mend = f"declare it under tools.{name}: in: {{query: string}}"
            draft.note(at, f"{name!r} does not say what it takes, and a model has to know", mend, "tool_inputs")
        elif files := [key for key, type_ in tool.inputs.items() if "file" in type_.name]:
            message = f"{name!r} takes a file ({files[0]}), which a model cannot give"
            draft.note(at, message, "have it take text", "tool_inputs")
        if called in (TURN, ANSWER):
            draft.note(at, f"{name!r} is the name of a part of an agent", "name the tool otherwise", "reserved_name")
        if called in map(offered, names[:place]):
            draft.note(at, f"{name!r} is listed twice", "remove one", "duplicate")
        if tool is not None:
            found[called] = tool
    return found


def inner(draft: Draft) -> dict[str, Task]:
    """The tasks of the inner steps of all agents' tasks: one for their turns, one for each tool."""
    return {part.name: part for task in draft.tasks.values() if task.agent for part in _parts(draft, task)}


def _parts(draft: Draft, task: Task) -> Iterator[Task]:
    agent = task.agent
    assert agent is not None
    part = replace(
        task, prompt="", system="", inputs={}, files=frozenset(), out=None, fields=(), price_cap_micro=None,
        undo=None, agent=None, turns=0, part_of=task.name,
    )  # fmt: skip
    yield replace(
        part, name=part_name(task.name, TURN), kind="llm", use=agent.model, max_tokens=agent.max_tokens
    )
    for name, tool in agent.tools.items():
        timeout_ms = tool.timeout_ms or _TOOL_TIMEOUT_MS
        yield replace(part, name=part_name(task.name, name), kind="tool", use=tool.name, timeout_ms=timeout_ms)
