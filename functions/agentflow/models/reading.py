"""What a reply is worth to a step: its text, or the JSON object it was asked for."""

from __future__ import annotations

import re
from typing import Any

from agentflow.errors import Invalid, Rejected, RetryLater
from agentflow.models.model import Reply
from agentflow.wire import json_value

# How models that cannot be held to a schema wrap what they were asked for.
_THOUGHTS = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?[ \t]*\n(.*?)\n?[ \t]*```", re.DOTALL | re.IGNORECASE)


def read_output(reply: Reply, *, wants_object: bool) -> dict[str, Any]:
    """The step's output: ``{text}``, or with ``wants_object`` the object in the reply, of whatever shape.

    ``Rejected`` (model_refused): the model will not answer. ``RetryLater`` (bad_result): it did not this time.
    """
    said = " ".join(reply.text.split())[:200]
    if reply.finish in ("refusal", "content_filter"):
        mend = "reword the prompt, or use another model"
        raise Rejected(f"the model refused: {said or reply.finish}", code="model_refused", mend=mend)
    cut = " (it was cut off: raise max_tokens)" if reply.finish == "length" else ""
    if not wants_object:
        if cut and not reply.text.strip():
            raise RetryLater(f"the reply has no text{cut}", code="bad_result")
        return {"text": reply.text.replace("\0", "\N{REPLACEMENT CHARACTER}")}
    fault = ""
    for candidate in _candidates(reply.text):
        try:
            value = json_value.loads(candidate.encode(errors="replace"), "reply")
        except Invalid as refusal:
            fault = fault or str(refusal)
            continue
        if isinstance(value, dict):
            return value
        fault = fault or "reply: is not a JSON object"
    raise RetryLater(f"{fault}{cut}: {said!r}", code="bad_result")


def _candidates(text: str) -> list[str]:
    """Where the object may be, best guess first: the whole reply, what is fenced, from first to last brace."""
    spoken = _THOUGHTS.sub("", text, count=1)
    first, last = spoken.find("{"), spoken.rfind("}")
    braces = [spoken[first : last + 1]] if 0 <= first < last else []
    return [spoken, *_FENCED.findall(spoken)[-1:], *braces]
