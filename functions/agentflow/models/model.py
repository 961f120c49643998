"""The model protocol: a request goes in, a reply with its usage comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from agentflow.core.money import input_tokens_bound


@dataclass(frozen=True, slots=True)
class ModelRef:
    """What an alias stands for: a provider's model and its prices, in micro-dollars per million tokens."""

    provider: str
    model: str
    input_micro_per_mtok: int
    output_micro_per_mtok: int
    price_version: str


@dataclass(frozen=True, slots=True)
class Request:
    """One completion: ``messages`` and ``tools`` are those of ``core.chat``; with ``output_schema`` (JSON Schema,
    strict) the reply is to be a JSON object of that shape. ``timeout_s`` bounds the whole call.
    """

    provider: str
    model: str
    messages: tuple[Mapping[str, Any], ...]
    max_output_tokens: int
    output_schema: dict[str, Any] | None
    timeout_s: float
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider bills them; ``cached_tokens`` are part of ``input_tokens``."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A call of a tool as the model made it: ``arguments`` is text that should be JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, which is billed whatever it is worth.

    ``finish``: stop; length (cut off at the token limit); refusal (``text`` says why); content_filter; or the
    provider's own word. ``model`` is the model that answered, as the provider names it.
    """

    text: str
    usage: Usage
    model: str
    finish: str
    calls: tuple[Call, ...] = ()


class Model(Protocol):
    """A provider. ``complete`` tries once: retries belong to dispatch, which holds budget for each."""

    async def complete(self, request: Request) -> Reply:
        """The reply. ``Rejected``: the provider refuses the request; ``RetryLater``: it may succeed later."""

    async def close(self) -> None: ...


def most_usage(request: Request) -> Usage:
    """The most a call can have used, for providers that do not say: a token has at least one byte."""
    bound = input_tokens_bound(request.messages, request.tools, request.output_schema)
    return Usage(bound, request.max_output_tokens)
