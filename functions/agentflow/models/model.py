"""The model protocol: a request goes in, a reply with its usage comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol


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
    """One completion: ``messages`` are {role, content}; with ``output_schema`` (JSON Schema, strict) the reply is
    to be a JSON object of that shape. ``timeout_s`` bounds the whole call.
    """

    provider: str
    model: str
    messages: tuple[Mapping[str, str], ...]
    max_output_tokens: int
    output_schema: dict[str, Any] | None
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider bills them; ``cached_tokens`` are part of ``input_tokens``."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0


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


class Model(Protocol):
    """A provider. ``complete`` tries once: retries belong to dispatch, which holds budget for each."""

    async def complete(self, request: Request) -> Reply:
        """The reply. ``Rejected``: the provider refuses the request; ``RetryLater``: it may succeed later."""

    async def close(self) -> None: ...


def most_usage(request: Request) -> Usage:
    """The most a call can have used, for providers that do not say: a token has at least one byte."""
    text = sum(len(message["content"].encode()) for message in request.messages)
    return Usage(text + 16 * (len(request.messages) + 1), request.max_output_tokens)
