"""OpenAI-compatible chat completions: OpenAI itself, vLLM, Ollama, TGI, llama.cpp and others by base URL."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from agentflow.errors import RetryLater
from agentflow.models.model import Reply, Request, is_openai
from agentflow.models.openai_faults import (
    asks_for_other_limit,
    cannot_be_strict,
    cannot_be_strict_tools,
    error_from,
    unreachable,
)
from agentflow.models.openai_reply import read_reply
from agentflow.models.openai_tools import as_function, as_sent

MAX_REPLY = 8 * 1024 * 1024
"""Most bytes of a response that are read."""

CONNECT_S = 10.0
LIMITS = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}


class OpenAIModel:
    """One server. It learns what the server does not take (strict schemas, a name for the limit) from its refusals.

    ``output_limit`` names the field that limits the tokens of a reply. OpenAI wants ``max_completion_tokens``;
    several other servers ignore that silently and then answer without a limit, so they get ``max_tokens``.
    """

    def __init__(
        self,
        provider: str,
        *,
        base_url: str,
        api_key: str,
        output_limit: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto",
        service_tier: str = "",
    ) -> None:
        self._provider = provider
        self._base_url = base_url
        self._api_key = api_key
        self._fixed_limit = None if output_limit == "auto" else output_limit
        self._service_tier = service_tier
        self._limit_of: dict[str, str] = {}
        self._not_strict: set[str] = set()
        self._loose_tools: set[str] = set()
        self._client: Any = None

    async def complete(self, request: Request) -> Reply:
        """One reply, in at most four exchanges: a server's refusal of a field is taken up once for each."""
        try:
            async with asyncio.timeout(request.timeout_s):
                return await self._complete(request)
        except TimeoutError:
            message = f"{self._provider} did not answer within {request.timeout_s:g} s"
            raise RetryLater(message, code="timeout") from None

    async def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            await client.close()

    async def _complete(self, request: Request) -> Reply:
        client = await self._connect()
        import openai

        for _ in range(4):
            try:
                return await self._exchange(client, request)
            except openai.APIStatusError as fault:
                if not self._learn(request, fault):
                    tools = bool(request.tools)
                    raise error_from(fault, self._provider, request.model, self._api_key, tools=tools) from None
            except openai.APIConnectionError as fault:
                raise unreachable(fault, self._provider, self._base_url) from None
        raise RetryLater(f"{self._provider} keeps refusing the request's form", code="model_unavailable")

    async def _exchange(self, client: Any, request: Request) -> Reply:
        asked = self._asked(request)
        body = bytearray()
        async with client.chat.completions.with_streaming_response.create(**asked) as response:
            async for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_REPLY:
                    message = f"{self._provider} sent more than {MAX_REPLY} bytes"
                    raise RetryLater(message, code="bad_response")
        return read_reply(bytes(body), request, self._provider)

    def _asked(self, request: Request) -> dict[str, Any]:
        """The body of the request, as far as we know what the server takes."""
        messages = [as_sent(message) for message in request.messages]
        asked: dict[str, Any] = {
            "model": request.model,
            "messages": messages,
            self._limit(request.model): request.max_output_tokens,
        }
        if self._service_tier:
            asked["service_tier"] = self._service_tier
        if request.tools:
            strict = request.model not in self._loose_tools
            asked["tools"] = [as_function(tool, strict=strict) for tool in request.tools]
        schema = request.output_schema
        if schema is not None and request.model not in self._not_strict:
            form = {"name": "reply", "strict": True, "schema": schema}
            asked["response_format"] = {"type": "json_schema", "json_schema": form}
        elif schema is not None:
            messages[-1]["content"] += as_instruction(schema)
        return asked

    def _limit(self, model: str) -> str:
        if self._fixed_limit:
            return self._fixed_limit
        if model in self._limit_of:
            return self._limit_of[model]
        azure = (urlsplit(self._base_url).hostname or "").endswith(".openai.azure.com")
        return "max_completion_tokens" if azure or is_openai(self._base_url) else "max_tokens"

    def _learn(self, request: Request, fault: Any) -> bool:
        """Whether the refusal is of a form that can be changed; then the next exchange has it changed."""
        limit = self._limit(request.model)
        if not self._fixed_limit and asks_for_other_limit(fault, limit, LIMITS[limit]):
            first_time = request.model not in self._limit_of
            self._limit_of[request.model] = LIMITS[limit]
            return first_time
        if request.output_schema is not None and request.model not in self._not_strict and cannot_be_strict(fault):
            self._not_strict.add(request.model)
            return True
        if request.tools and request.model not in self._loose_tools and cannot_be_strict_tools(fault):
            self._loose_tools.add(request.model)
            return True
        return False

    async def _connect(self) -> Any:
        if self._client is None:
            openai = await asyncio.to_thread(_import)  # takes the better part of a second
            client = openai.AsyncOpenAI(
                base_url=self._base_url,
                api_key=self._api_key or "none",  # servers of one's own ask for none, the client for some
                max_retries=0,
                timeout=openai.Timeout(None, connect=CONNECT_S),
            )
            # Read from the environment by the SDK, and none of another server's business.
            client.organization = client.project = None
            self._client = self._client or client
        return self._client


def as_instruction(schema: Mapping[str, Any]) -> str:
    """The schema in words, for servers that cannot enforce it; no longer than a hold allows for."""
    return "\n\nReply with one JSON object of this JSON Schema only:\n" + orjson.dumps(schema).decode()


def _import() -> Any:
    import openai

    return openai
