"""The effect of invoke_llm: one model call for one attempt of a step."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentflow.config import Settings
from agentflow.core.message import Message
from agentflow.core.performed import Begins, Performed, ignored
from agentflow.errors import Rejected, RetryLater
from agentflow.models import Reply, Request, Usage
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
        provider, named = asked["model"]["provider"], asked["model"]["model"]
        model = self._catalogue.model(provider)
        begins()
        reply = await model.complete(
            Request(
                provider=provider,
                model=named,
                messages=tuple(asked["messages"]),
                max_output_tokens=asked["max_output_tokens"],
                output_schema=asked["output_schema"],
                timeout_s=asked["timeout_ms"] / 1000,
                tools=tuple(asked.get("tools") or ()),
            )
        )
        if not is_model(reply.model, named, self._catalogue.known_as(provider, named)):
            fault = f"{reply.model} has answered, which is not {named}"
            reply = replace(reply, usage=replace(reply.usage, fault=reply.usage.fault or fault))
        return read(reply, asked["output_schema"], asked.get("tools") or ())

    async def close(self) -> None:
        await self._catalogue.close()


def read(reply: Reply, schema: dict[str, Any] | None, tools: Sequence[Mapping[str, Any]] = ()) -> Performed:
    """The step's output in a reply; a reply that holds none has failed, and still has its price."""
    usage = spent(reply.usage)
    try:
        if tools:
            return Performed(read_turn(reply, {tool["name"] for tool in tools}), usage)
        return Performed(read_output(reply, wants_object=schema is not None), usage)
    except Rejected as fault:
        return Performed(None, usage, _error(fault.code, str(fault), retryable=False))
    except RetryLater as fault:
        return Performed(None, usage, _error(fault.code, str(fault), retryable=True))


def spent(usage: Usage) -> dict[str, Any]:
    """Usage as steps keep it: what most calls have none of is left out."""
    kept: dict[str, Any] = {
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "cached_tokens": usage.cached_tokens,
        "calls": 1,
    }
    if usage.cache_write_tokens:
        kept["cache_write_tokens"] = usage.cache_write_tokens
    if usage.reasoning_tokens:
        kept["reasoning_tokens"] = usage.reasoning_tokens
    if usage.fault:
        kept["fault"] = _storable(usage.fault)
    return kept


def is_model(answered: str, asked: str, known_as: Collection[str] = ()) -> bool:
    """Whether a server's name for a model is one of the model that was asked for: that name, a dated one, or one with
    the maker's in front."""
    if answered in known_as or "*" in known_as:
        return True
    said, wanted = (name.lower().rpartition("/")[2].removesuffix(":latest") for name in (answered, asked))
    if said == wanted:
        return True
    longer, shorter = (said, wanted) if len(said) > len(wanted) else (wanted, said)
    return longer.startswith(shorter) and _DATED.fullmatch(longer[len(shorter) :]) is not None


_DATED = re.compile(r"[-@:](\d{4}-\d{2}(-\d{2})?|\d{8}|\d{6}|\d{4}|\d{3})|-latest")


def _storable(text: str) -> str:
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode(errors="replace").decode()


def _error(code: str, message: str, *, retryable: bool) -> dict[str, Any]:
    return {"code": code, "message": message[:4000], "retryable": retryable, "retry_after_ms": None}


async def open_effect(settings: Settings, store: object) -> InvokeLlm:
    """What invoke_llm performs; connects to nothing until the first call."""
    return InvokeLlm(ModelCatalogue.from_settings(settings))
