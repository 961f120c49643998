"""What an agent's model has said and was told: its messages, how long they are, and what its calls are worth.

A call comes as {name, arguments}, where ``arguments`` is an object; or with a ``fault`` in place of that: what is wrong
with it. Whatever is wrong with a call is told to the model as its result, and never ends a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agentflow.core.chat import Message
from agentflow.core.plan import MAX_CALLS
from agentflow.core.prompt import json_text
from agentflow.core.types import JSON, Mismatch, Type, conform

MAX_BYTES = 256 * 1024
"""Longest conversation."""

MAX_RESULT = 32 * 1024
"""Most bytes of a call's result that the model is told."""

MAX_SAID = 2_000
"""Most characters of an error that the model is told."""


class Unfit(ValueError):
    """Arguments or an answer that are not of the declared shape; the text addresses the fault."""


def reply(turn: int, text: str, calls: Sequence[Mapping[str, JSON]]) -> Message:
    """The model's message of a turn. Calls get ids of ours: nine letters and digits, as the strictest server wants."""
    message: Message = {"role": "assistant", "content": text}
    if calls:
        message["calls"] = [
            {"id": call_id(turn, place), "name": call["name"], "arguments": call.get("arguments") or {}}
            for place, call in enumerate(calls)
        ]
    return message


def call_id(turn: int, place: int) -> str:
    return f"t{turn:03d}c{place:04d}"


def results(turn: int, said: Sequence[str | None]) -> list[Message]:
    """The results of a turn's calls, as the model is told them."""
    return [
        {"role": "tool", "call": call_id(turn, place), "content": text or ""} for place, text in enumerate(said)
    ]


def result(value: Mapping[str, JSON]) -> str:
    """What a call came to, cut where it is too long."""
    text = json_text(dict(value))
    content = text.encode()
    if len(content) <= MAX_RESULT:
        return text
    kept = content[:MAX_RESULT].decode(errors="ignore")
    return f"{kept}\n(cut here: {len(content):,} bytes are too many to show)"


def error(code: str, message: str) -> str:
    """Why a call came to nothing."""
    return json_text({"error": {"code": code, "message": message[:MAX_SAID]}})


def length(messages: Sequence[Message]) -> int:
    """How long messages are, in bytes of JSON."""
    return sum(len(json_text(message).encode()) for message in messages)


def fit(arguments: Mapping[str, JSON], fields: Mapping[str, Type], path: str, *, exactly: bool) -> dict[str, JSON]:
    """The fields, each of its type; ``Unfit`` addresses what is not. ``exactly``: and nothing else is there."""
    fixed = {}
    for name, type_ in fields.items():
        if name not in arguments:
            raise Unfit(f"{path}.{name} is missing: it takes {_listed(fields)}")
        try:
            fixed[name] = conform(arguments[name], type_)
        except Mismatch as fault:
            raise Unfit(f"{path}.{name}{fault.where}: {fault.message}"[:MAX_SAID]) from None
    unknown = sorted(arguments.keys() - fields.keys())
    if exactly and unknown:
        raise Unfit(f"{path} has no {unknown[0][:64]!r}: it takes {_listed(fields)}")
    return fixed


def _listed(fields: Mapping[str, Type]) -> str:
    return ", ".join(f"{name} ({type_})" for name, type_ in fields.items())[:1_000] or "nothing"


def refused(name: str, known: Sequence[str]) -> str:
    """The result of a call of a tool that was not offered."""
    return error("unknown_tool", f"there is no tool {name[:64]!r}; there are: {', '.join(known)}")


def too_many() -> str:
    """The result of the first call beyond those that one turn may have; later ones are not even kept."""
    return error("too_many_calls", f"only {MAX_CALLS} calls at once were made; this one was not, nor any after it")
