"""Messages and tools as chat completions have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

JSON = Any


def as_sent(message: Mapping[str, JSON]) -> dict[str, JSON]:
    """A message; the assistant's with the calls it has made, a tool's with the id of the call."""
    sent = {"role": message["role"], "content": message["content"]}
    if message.get("calls"):
        sent["tool_calls"] = [_call(call) for call in message["calls"]]
    if message.get("call"):
        sent["tool_call_id"] = message["call"]
    return sent


def _call(call: Mapping[str, JSON]) -> dict[str, JSON]:
    arguments = orjson.dumps(call["arguments"]).decode()
    return {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": arguments}}


def as_function(tool: Mapping[str, JSON], *, strict: bool) -> dict[str, JSON]:
    """A tool. ``strict``: the model is held to its schema, if a schema can be so strict."""
    function = {key: tool[key] for key in ("name", "description", "parameters") if tool[key]}
    if strict and is_closed(tool["parameters"]):
        function["strict"] = True
    return {"type": "function", "function": function}


def is_closed(schema: Mapping[str, JSON]) -> bool:
    """Whether a schema says everything about its values: no ``json`` and no ``map`` is in it."""
    kind = schema.get("type")
    if kind == "array":
        return is_closed(schema["items"])
    if kind == "object":
        closed = schema.get("additionalProperties") is False
        return closed and all(map(is_closed, schema["properties"].values()))
    return kind is not None
