"""What a reply is worth to a step: its text, the JSON object it was asked for, or the tools it calls."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from agentflow.core.plan import ANSWER, MAX_CALLS
from agentflow.errors import Invalid, Rejected, RetryLater
from agentflow.models.model import Call, Reply
from agentflow.wire import json_value

MAX_ARGUMENTS = 64 * 1024
"""Most characters of the arguments of a call that are read."""

_NO_NAME = re.compile(r"[^A-Za-z0-9_-]")

# How models that cannot be held to a schema wrap what they were asked for.
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.IGNORECASE)


def read_output(reply: Reply, *, wants_object: bool) -> dict[str, Any]:
    """The step's output: ``{text}``, or with ``wants_object`` the object in the reply, of whatever shape.

    ``Rejected`` (model_refused): the model will not answer. ``RetryLater`` (bad_result): it did not this time.
    """
    _refuse_refusal(reply)
    cut = _cut(reply)
    if not wants_object:
        if (cut or reply.calls) and not reply.text.strip():
            raise RetryLater(f"the reply has no text{cut}", code="bad_result")
        return {"text": _storable(reply.text)}
    value, fault = _object(reply.text)
    if value is None:
        raise RetryLater(f"{fault}{cut}: {_start(reply.text)!r}", code="bad_result")
    return value


def read_turn(reply: Reply, offered: Collection[str]) -> dict[str, Any]:
    """The step's output where tools were offered: {text, calls}. A call is {id, name, arguments}, or has its ``fault``.

    A model that writes down its answer, and was to call ``answer``, is taken to have called it.
    """
    _refuse_refusal(reply)
    if _cut(reply) and not reply.calls and not reply.text.strip():
        raise RetryLater(f"the reply has no text{_cut(reply)}", code="bad_result")
    calls = [_call(call) for call in reply.calls[: MAX_CALLS + 1]]  # one more, so that it is seen that there were more
    if not calls and ANSWER in offered and (value := _object(reply.text)[0]) is not None:
        calls = [{"id": "", "name": ANSWER, "arguments": value}]
    return {"text": _storable(reply.text), "calls": calls}


def _call(call: Call) -> dict[str, Any]:
    """A call as it can be kept, whatever the model has made of it."""
    kept = {"id": _storable(call.id[:200]), "name": _NO_NAME.sub("_", call.name)[:64] or "_"}
    try:
        if len(call.arguments) > MAX_ARGUMENTS:
            raise Rejected(f"arguments: are longer than {MAX_ARGUMENTS:,} characters")
        value = json_value.loads(call.arguments.encode(errors="replace") or b"{}", "arguments")
        if not isinstance(value, dict):
            raise Rejected("arguments: are not a JSON object")
        if problems := json_value.check(value, "arguments"):
            raise Invalid(problems)
    except Rejected as fault:
        return {**kept, "fault": str(fault)[:2_000]}
    return {**kept, "arguments": value}


def _refuse_refusal(reply: Reply) -> None:
    if reply.finish in ("refusal", "content_filter"):
        mend = "reword the prompt, or use another model"
        said = _start(reply.text) or reply.finish
        raise Rejected(f"the model refused: {said}", code="model_refused", mend=mend)


def _cut(reply: Reply) -> str:
    return " (it was cut off: raise max_tokens)" if reply.finish == "length" else ""


def _start(text: str) -> str:
    return " ".join(text.split())[:200]


def _storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


def _object(text: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON object in a text; else why there is none."""
    fault = ""
    for candidate in _candidates(text):
        try:
            value = json_value.loads(candidate.encode(errors="replace"), "reply")
        except Invalid as refusal:
            fault = fault or str(refusal)
            continue
        if isinstance(value, dict):
            return value, ""
        fault = fault or "reply: is not a JSON object"
    return None, fault


def _candidates(text: str) -> list[str]:
    """Where the object may be, best guess first: the whole reply, what is fenced, from first to last brace."""
    spoken = _THOUGHTS.sub("", text, count=1)
    first, last = spoken.find("{"), spoken.rfind("}")
    braces = [spoken[first : last + 1]] if 0 <= first < last else []
    return [spoken, *_FENCED.findall(spoken)[-1:], *braces]
