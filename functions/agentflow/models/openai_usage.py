"""The tokens that an OpenAI-compatible server says a call has used, and what cannot be right about them.

Servers differ in where they say what was read from a cache, written to one and spent on reasoning, and in whether
reasoning is part of what they call completion: their total tells.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.models.model import Request, Usage, most_usage

MAX_TOKENS = 2**31 - 1

# Where a number may be: in the details of the tokens that it is part of, or beside them.
_READ = (("prompt_tokens_details", "cached_tokens"), ("cached_tokens",), ("cache_read_input_tokens",),
         ("prompt_cache_hit_tokens",))  # fmt: skip
_WRITTEN = (("prompt_tokens_details", "cache_write_tokens"), ("prompt_tokens_details", "cache_creation_tokens"),
            ("cache_creation_input_tokens",))  # fmt: skip
_REASONED = (("completion_tokens_details", "reasoning_tokens"), ("reasoning_tokens",))
_DETAILS = ("prompt_tokens_details", "completion_tokens_details")
_OTHER_KINDS = ("audio_tokens", "image_tokens", "video_tokens")
"""What we neither send nor ask for, and have no price for."""


def read_usage(usage: Any, request: Request, *, said_something: bool = False) -> Usage:
    """The tokens billed. What the server does not say, or cannot mean, is the most that is possible, with the reason in
    ``fault``."""
    most = most_usage(request)
    if not isinstance(usage, Mapping):
        told = "no usage was told" if usage is None else f"usage is {type(usage).__name__}, not an object"
        return Usage(most.input_tokens, most.output_tokens, fault=told)
    faults: list[str] = []
    asked = _needed(usage, "prompt_tokens", faults)
    made = _needed(usage, "completion_tokens", faults)
    if asked == 0:
        faults.append("prompt_tokens is 0")
    if made == 0 and said_something:
        faults.append("completion_tokens is 0 in spite of an answer")
    read, written, reasoned = (_first(usage, places, faults) for places in (_READ, _WRITTEN, _REASONED))
    total = _count(usage.get("total_tokens"), "total_tokens", faults)
    if asked is not None and made is not None and total:
        if total < asked + made:
            faults.append(f"total_tokens is {total}, less than {asked} and {made} together")
        made = max(made, total - asked)  # reasoning that was not counted as completion
    faults += _strange(usage)
    asked = asked or most.input_tokens
    made = most.output_tokens if made is None else made
    if read + written > asked:
        faults.append(f"{read} tokens were read from a cache and {written} written to it, of {asked}")
        read = written = 0
    if reasoned > made:
        faults.append(f"{reasoned} tokens of reasoning are more than all {made}")
        made = reasoned
    return Usage(asked, made, read, written, reasoned, "; ".join(faults)[:500] or None)


def _needed(usage: Mapping[str, Any], name: str, faults: list[str]) -> int | None:
    if usage.get(name) is None:
        faults.append(f"{name} is missing")
        return None
    return _count(usage[name], name, faults)


def _first(usage: Mapping[str, Any], places: tuple[tuple[str, ...], ...], faults: list[str]) -> int:
    """The number in the first place that has one; 0 where none has."""
    for *around, name in places:
        table = usage.get(around[0]) if around else usage
        if isinstance(table, Mapping) and table.get(name) is not None:
            return _count(table[name], name, faults) or 0
    return 0


def _count(value: Any, name: str, faults: list[str]) -> int | None:
    if value is None:
        return None
    if type(value) is int and 0 <= value <= MAX_TOKENS:
        return value
    faults.append(f"{name} is {str(value)[:40]}")
    return None


def _strange(usage: Mapping[str, Any]) -> Iterator[str]:
    """Kinds of tokens that no price of ours is for."""
    for details in _DETAILS:
        table = usage.get(details)
        if isinstance(table, Mapping):
            for kind in _OTHER_KINDS:
                if table.get(kind):
                    yield f"{details}.{kind} is {str(table[kind])[:40]}, and there is no price for these"
