"""The effect of invoke_llm: one model call for one attempt of a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.core.performed import Begins, Performed, ignored
from agentflow.errors import Rejected, RetryLater
from agentflow.models import Reply, Request
from agentflow.models.catalogue import ModelCatalogue
from agentflow.models.reading import read_output, read_turn


class InvokeLlm:
    """Calls the model a request names and reads its reply in the shape the plan declares."""

    def __init__(self, catalogue: ModelCatalogue) -> None:
        self._catalogue = catalogue

    def at_once(self, request: Message) -> Performed | None:
        return None

    async def perform(self, request: Message, begins: Begins = ignored) -> Performed:
        asked = request.data
        model = self._catalogue.model(asked["model"]["provider"])
        begins()
        reply = await model.complete(
            Request(
                provider=asked["model"]["provider"],
                model=asked["model"]["model"],
                messages=tuple(asked["messages"]),
                max_output_tokens=asked["max_output_tokens"],
                output_schema=asked["output_schema"],
                timeout_s=asked["timeout_ms"] / 1000,
                tools=tuple(asked.get("tools") or ()),
            )
        )
        return read(reply, asked["output_schema"], asked.get("tools") or ())

    async def close(self) -> None:
        await self._catalogue.close()


def read(reply: Reply, schema: dict[str, Any] | None, tools: Sequence[Mapping[str, Any]] = ()) -> Performed:
    """The step's output in a reply; a reply that holds none has failed, and still has its price."""
    usage = {
        "input_tokens": reply.usage.input_tokens,
        "output_tokens": reply.usage.output_tokens,
        "cached_tokens": reply.usage.cached_tokens,
        "calls": 1,
    }
    try:
        if tools:
            return Performed(read_turn(reply, {tool["name"] for tool in tools}), usage)
        return Performed(read_output(reply, wants_object=schema is not None), usage)
    except Rejected as fault:
        return Performed(None, usage, _error(fault.code, str(fault), retryable=False))
    except RetryLater as fault:
        return Performed(None, usage, _error(fault.code, str(fault), retryable=True))


def _error(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "message": message[:4000], "retryable": retryable, "retry_after_ms": None}


async def open_effect(settings: Settings, store: object) -> InvokeLlm:
    """What invoke_llm performs; connects to nothing until the first call."""
    return InvokeLlm(ModelCatalogue.from_settings(settings))
