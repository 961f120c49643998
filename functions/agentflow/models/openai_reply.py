"""What an OpenAI-compatible server's response says, taken with care: servers differ, and some err."""

from __future__ import annotations

from typing import Any

import orjson

from agentflow.errors import RetryLater
from agentflow.models.model import Call, Reply, Request
from agentflow.models.openai_usage import read_usage

MAX_CALLS = 1_000
"""Most calls of one reply that are looked at; a turn may have far fewer."""


def read_reply(body: bytes, request: Request, provider: str) -> Reply:
    """The reply in a response's body; ``RetryLater`` (bad_response) when it is none."""
    try:
        response = orjson.loads(body)
        choice = response["choices"][0]
        message = choice["message"]
        refusal = message.get("refusal")
        text = _text(message.get("content"))
        calls = tuple(_call(each["function"], each.get("id")) for each in (message.get("tool_calls") or ())[:MAX_CALLS])
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError, AttributeError) as fault:
        message = f"{provider} sent something that is not a chat completion ({type(fault).__name__}: {fault})"
        raise RetryLater(message[:500], code="bad_response") from None
    finish = choice.get("finish_reason")
    finish = finish[:100] if isinstance(finish, str) and finish else "stop"
    if isinstance(refusal, str) and refusal:
        text, finish = refusal, "refusal"
    model = response.get("model")
    model = model[:200] if isinstance(model, str) and model else request.model
    usage = read_usage(response.get("usage"), request, said_something=bool(text or calls))
    return Reply(text, usage, model, finish, calls)


def _call(function: Any, id_: Any) -> Call:
    """A call of a tool; some servers give its arguments as an object, or leave them out."""
    name, arguments = function["name"], function.get("arguments")
    if not isinstance(name, str):
        raise TypeError(f"the name of a tool is {type(name).__name__}")
    text = arguments if isinstance(arguments, str) else orjson.dumps(arguments or {}).decode()
    return Call(id_ if isinstance(id_, str) else "", name, text)


def _text(content: Any) -> str:
    """Content as text: a string, nothing (a reply cut off while it was reasoning), or a list of parts."""
    if content is None:
        return ""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError(f"content is {type(content).__name__}")
    return content
