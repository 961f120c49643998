"""Money: what a call can cost at most before it is made, and what it did cost. Integer micro-dollars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.core.plan import Plan, Task
from agentflow.core.run import Price, Run

MILLION = 1_000_000
# A provider's frame around each message (role, separators) is a handful of tokens; this is never too few.
TOKENS_PER_MESSAGE = 16
# What a provider tells a model about tools in general, and how it frames each, is some hundred tokens.
TOKENS_FOR_TOOLS = 1_024
# Failures after which a provider may bill a call that told us no usage: the whole hold counts as spent.
MAYBE_BILLED = frozenset({"timeout", "bad_response", "outcome_unknown", "internal"})


def input_tokens_bound(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Mapping[str, Any]], schema: Mapping[str, Any] | None
) -> int:
    """The most tokens a request can count: a token is at least one byte of UTF-8, whatever the tokenizer."""
    text = sum(len(m["content"].encode()) + (_json_bytes(m["calls"]) if "calls" in m else 0) for m in messages)
    form = (_json_bytes(schema) if schema else 0) + (TOKENS_FOR_TOOLS + _json_bytes(tools) if tools else 0)
    return text + form + TOKENS_PER_MESSAGE * (len(messages) + 1)


def _json_bytes(value: Any) -> int:
    """How long JSON is at most, however it is written: with blanks, and all but ASCII escaped."""
    return len(json.dumps(value))


def llm_micro(price: Price, input_tokens: int, output_tokens: int) -> int:
    """Price of a call, rounded up to the next micro-dollar."""
    micro = input_tokens * price.input_micro_per_mtok + output_tokens * price.output_micro_per_mtok
    return -(-micro // MILLION)


def tool_micro(plan: Plan, task: Task) -> int:
    """Declared price of one call of a tool; built-in tools cost what the task says, else nothing."""
    spec = plan.tools.get(task.use or "")
    if spec is not None:
        return spec.price_micro
    return task.price_cap_micro or 0


def cost_micro(task: Task, run: Run, usage: Mapping[str, Any], plan: Plan | None = None) -> int:
    """What a completed call cost: its tokens at the pinned price, or the tool's price per call."""
    if task.kind == "llm":
        return llm_micro(run.models[task.use or ""], usage["input_tokens"], usage["output_tokens"])
    if task.kind == "tool" and plan is not None and usage["calls"]:
        return tool_micro(plan, task)
    return 0
