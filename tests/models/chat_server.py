"""A real HTTP server that speaks chat completions as it is told to, and remembers what it was sent."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Answer = Callable[[dict[str, Any]], Response | Awaitable[Response]]

SCHEMA = {
    "type": "object",
    "properties": {"severity": {"type": "string"}, "count": {"type": "integer"}},
    "required": ["severity", "count"],
    "additionalProperties": False,
}


def completion(content: Any = "hello", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "tiny-2026-01",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
        ],
        "usage": {
            "prompt_tokens": 21,
            "completion_tokens": 5,
            "total_tokens": 26,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
    }


def refusal(status: int, message: str, headers: dict[str, str] | None = None, **more: Any) -> Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": None} | more
    return JSONResponse({"error": error}, status, headers)


class ChatServer:
    """``answers`` are used in turn, the last one for ever; ``sent`` has the bodies, ``headers`` the headers."""

    def __init__(self) -> None:
        self.url = ""
        self.forget()

    def forget(self) -> None:
        self.answers: list[Answer] = [lambda _: JSONResponse(completion())]
        self.sent: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []

    async def _chat(self, request: Request) -> Response:
        body = json.loads(await request.body())
        self.sent.append(body)
        self.headers.append(dict(request.headers))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        said = answer(body)
        return said if isinstance(said, Response) else await said

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self._chat, methods=["POST"])])


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """The server in a thread of its own, as it would be on another machine."""
    chat = ChatServer()
    listener = socket.create_server(("127.0.0.1", 0))
    chat.url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    config = uvicorn.Config(chat.app(), log_level="critical", timeout_graceful_shutdown=1, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield chat
    finally:
        server.should_exit = server.force_exit = True
        thread.join(10)
        assert not thread.is_alive()
        listener.close()
