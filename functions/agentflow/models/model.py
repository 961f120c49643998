"""The model protocol: a request goes in, a reply with its usage comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from agentflow.core.money import input_tokens_bound


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
    """Tokens as the provider bills them: those read from a cache (``cached_tokens``) and written to it are part of
    ``input_tokens``, those of reasoning part of ``output_tokens``. ``fault``: what cannot be right of what it said;
    where a number is missing there is the largest that is possible."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    fault: str | None = None


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


def is_openai(base_url: str) -> bool:
    """Whether OpenAI itself answers there."""
    host = urlsplit(base_url).hostname or ""
    return host == "openai.com" or host.endswith(".openai.com")
