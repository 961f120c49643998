"""Money: what a call can cost at most before it is made, and what it did cost. Integer micro-dollars."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from agentflow.core import price as prices
from agentflow.core.plan import UNKNOWN, Plan, Task
from agentflow.core.price import Price, ToolPrice, Used
from agentflow.core.run import Run

CALL_MS = 60_000
"""How long a call may take whose task does not say."""

# A provider's frame around each message (role, separators) is a handful of tokens; this is never too few.
TOKENS_PER_MESSAGE = 16
# What a provider tells a model about tools in general, and how it frames each, is some hundred tokens.
TOKENS_FOR_TOOLS = 1_024
# Failures after which a model's provider, or whom a tool has asked, may bill a call that told us no usage: the whole
# hold counts as spent.
CONNECTION_LOST = "connection_lost"
MAYBE_BILLED = frozenset({"timeout", "bad_response", "outcome_unknown", "internal", CONNECTION_LOST})

LOST, NOT_CALLED = "call_lost", "not_called"
"""Failures of calls that are made again, whatever their tasks say: one that was begun by a life that has ended, which
may have been made and counts as its whole hold; and one that its claimant came too late to make."""

Count = Callable[[str], int]
"""How many tokens a text is at most."""


class Bill(NamedTuple):
    """What a call has cost. ``violation``: why what was told of it cannot be right, or that it is more than was held;
    None when all is well. What cannot be right is never taken for less than what was held.
    """

    micro: int
    violation: str | None = None


def input_tokens_bound(
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    schema: Mapping[str, Any] | None,
    count: Count | None = None,
) -> int:
    """The most tokens a request can count: a token is at least one byte of UTF-8, whatever the tokenizer.

    ``count`` may know better how many tokens the messages' text is. In which form tools and a schema reach the model is
    the server's own business: they count by their bytes.
    """
    if count is None:
        text = sum(len(m["content"].encode()) for m in messages)
    else:
        text = sum(count(m["content"]) for m in messages)
    text += sum(_json_bytes(m["calls"]) for m in messages if "calls" in m)
    form = (_json_bytes(schema) if schema else 0) + (TOKENS_FOR_TOOLS + _json_bytes(tools) if tools else 0)
    return text + form + TOKENS_PER_MESSAGE * (len(messages) + 1)


def _json_bytes(value: Any) -> int:
    """How long JSON is at most, however it is written: with blanks, and all but ASCII escaped."""
    return len(json.dumps(value))


def by_bytes(price: Price) -> Count | None:
    """How texts of a model are counted whose price says how many bytes its tokens have."""
    size = price.bytes_per_100_tokens
    return None if size is None else lambda text: -(-100 * len(text.encode()) // size)


def call_ms(task: Task) -> int:
    """How long a call of the task may take."""
    return task.timeout_ms or CALL_MS


def llm_hold(price: Price, task: Task, input_tokens: int) -> int:
    """The most that an attempt at an llm task costs whose request has at most so many tokens."""
    return prices.llm_bound(price, input_tokens, task.max_tokens, call_ms(task))


def tool_price(run: Run | None, plan: Plan, task: Task) -> ToolPrice:
    """What a tool costs: as the tenant was told, else as the workflow says; built-in tools what the task says."""
    name = task.use or ""
    if run is not None and (told := run.tools.get(name)) is not None:
        return told
    spec = plan.tools.get(name)
    if spec is not None:
        return ToolPrice(spec.price_micro, spec.micro_per_million_seconds)
    return ToolPrice(task.price_cap_micro or 0)


def tool_hold(price: ToolPrice, task: Task) -> int:
    """The most that an attempt at a tool task costs."""
    return prices.tool_micro(price, call_ms(task))


def price_version(run: Run, plan: Plan, task: Task, alias: str | None = None) -> str:
    """Which price a call of the task is held and settled at; ``alias``: the model, where it is not the task's own."""
    if task.kind == "tool":
        return tool_price(run, plan, task).price_version
    price = run.models.get(alias or task.use or "")
    return price.price_version if price else prices.FROM_PLAN


def bill(run: Run, plan: Plan, task: Task, report: Mapping[str, Any], held: int) -> Bill:
    """What an attempt has cost that ``report`` (a step.completed) tells the outcome of, at the run's pinned prices."""
    usage = report["usage"]
    ms = min(report["duration_ms"], call_ms(task))  # beyond it nobody worked for us
    code = (report["error"] or {}).get("code")
    if not usage["calls"] and (code in (UNKNOWN, LOST) or code in MAYBE_BILLED):
        return Bill(held)
    if task.kind == "tool":
        return Bill(prices.tool_micro(tool_price(run, plan, task), ms, min(usage["calls"], 1)))
    if task.kind != "llm" or not usage["calls"]:
        return Bill(0)
    price = run.models[report.get("alias") or task.use or ""]
    used, fault = believed(usage)
    fault = usage.get("fault") or fault
    micro = prices.llm_micro(price, used, ms)
    if fault is not None:
        # What has no price needs no right count.
        return Bill(max(micro, held), None if prices.is_free(price) else fault)
    if micro > held:
        return Bill(micro, f"{micro} micro-dollars were billed, {held} had been held")
    return Bill(micro)


def believed(usage: Mapping[str, Any]) -> tuple[Used, str | None]:
    """The tokens of a call, as far as they can be, and what contradicts itself in what was told of them."""
    asked, made = usage["input_tokens"], usage["output_tokens"]
    read, written = usage.get("cached_tokens", 0), usage.get("cache_write_tokens", 0)
    thought = usage.get("reasoning_tokens", 0)
    fault = None
    if read + written > asked:
        fault = f"{read} tokens read from a cache and {written} written to it are more than all {asked} of input"
        read = written = 0
    if thought > made:
        fault = fault or f"{thought} tokens of reasoning are more than all {made} of output"
        made = thought
    return Used(asked, made, read, written), fault
