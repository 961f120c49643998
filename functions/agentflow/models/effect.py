"""The effect of invoke_llm: one model call for one attempt of a step."""

from __future__ import annotations

import json
from typing import Any

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.core.performed import Performed
from agentflow.models import Reply, Request
from agentflow.models.catalogue import ModelCatalogue


class InvokeLlm:
    """Calls the model a request names and reads its reply in the shape the plan declares."""

    def __init__(self, catalogue: ModelCatalogue) -> None:
        self._catalogue = catalogue

    def at_once(self, request: Message) -> Performed | None:
        return None

    async def perform(self, request: Message) -> Performed:
        asked = request.data
        model = self._catalogue.model(asked["model"]["provider"])
        reply = await model.complete(
            Request(
                provider=asked["model"]["provider"],
                model=asked["model"]["model"],
                messages=tuple(asked["messages"]),
                max_output_tokens=asked["max_output_tokens"],
                output_schema=asked["output_schema"],
                timeout_s=asked["timeout_ms"] / 1000,
            )
        )
        return read(reply, asked["output_schema"])

    async def close(self) -> None:
        await self._catalogue.close()


def read(reply: Reply, schema: dict[str, Any] | None) -> Performed:
    """The step's output in a reply; a reply that is not of the declared shape failed, and still has its price."""
    usage = {
        "input_tokens": reply.usage.input_tokens,
        "output_tokens": reply.usage.output_tokens,
        "cached_tokens": reply.usage.cached_tokens,
        "calls": 1,
    }
    if schema is None:
        return Performed({"text": reply.text.replace("\0", "\ufffd")}, usage)
    cut = " (the reply was cut off: raise max_tokens)" if reply.finish == "length" else ""
    try:
        output = json.loads(reply.text)
    except ValueError as fault:
        return _unusable(f"the reply is not JSON: {fault}{cut}", usage)
    if not isinstance(output, dict):
        return _unusable(f"the reply is not a JSON object{cut}", usage)
    return Performed(output, usage)


def _unusable(message: str, usage: dict[str, int]) -> Performed:
    return Performed(
        None, usage, {"code": "bad_result", "message": message, "retryable": True, "retry_after_ms": None}
    )


async def open_effect(settings: Settings, store: object) -> InvokeLlm:
    """What invoke_llm performs; connects to nothing until the first call."""
    return InvokeLlm(ModelCatalogue.from_settings(settings))
