"""The OpenAI-compatible client against a real HTTP server."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from email.utils import formatdate
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response, StreamingResponse

from agentflow.core.money import input_tokens_bound
from agentflow.errors import Rejected, RetryLater
from agentflow.models import Request, Usage
from agentflow.models.openai import OpenAIModel

from .chat_server import SCHEMA, ChatServer, chat_server, completion, refusal

KEY = "sk-test-0123456789abcdef"


@pytest.fixture(scope="module")
def running() -> Iterator[ChatServer]:
    with chat_server() as server:
        yield server


@pytest.fixture
def server(running: ChatServer) -> ChatServer:
    running.forget()
    return running


@pytest.fixture
async def model(server: ChatServer) -> AsyncIterator[OpenAIModel]:
    model = OpenAIModel("openai", base_url=server.url, api_key=KEY)
    yield model
    await model.close()


def ask(**changes: Any) -> Request:
    asked: dict[str, Any] = {
        "provider": "openai",
        "model": "tiny",
        "messages": ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Say hello."}),
        "max_output_tokens": 77,
        "output_schema": None,
        "timeout_s": 10.0,
    }
    return Request(**(asked | changes))


async def test_a_reply_has_its_text_its_usage_and_the_model_that_answered(
    server: ChatServer, model: OpenAIModel
) -> None:
    reply = await model.complete(ask())
    assert reply.text == "hello"
    assert reply.usage == Usage(input_tokens=21, output_tokens=5, cached_tokens=4)
    assert (reply.model, reply.finish) == ("tiny-2026-01", "stop")


async def test_what_is_sent_is_what_was_asked_for_and_nothing_else(
    server: ChatServer, model: OpenAIModel
) -> None:
    await model.complete(ask())
    assert server.sent == [
        {
            "model": "tiny",
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Say hello."},
            ],
            "max_tokens": 77,
        }
    ]
    assert server.headers[0]["authorization"] == f"Bearer {KEY}"


async def test_openai_itself_and_whoever_asks_for_it_gets_max_completion_tokens(server: ChatServer) -> None:
    assert OpenAIModel("openai", base_url="https://api.openai.com/v1", api_key="")._limit("x") == (
        "max_completion_tokens"
    )
    model = OpenAIModel("openai", base_url=server.url, api_key="", output_limit="max_completion_tokens")
    await model.complete(ask())
    await model.close()
    assert server.sent[0]["max_completion_tokens"] == 77
    assert "max_tokens" not in server.sent[0]


async def test_openai_is_asked_for_the_tier_of_service_that_is_priced(server: ChatServer) -> None:
    from agentflow.models.aliases import Provider
    from agentflow.models.catalogue import OPENAI_URL, service_tier

    assert service_tier(Provider(), OPENAI_URL) == "default"
    assert service_tier(Provider(), server.url) == ""
    assert service_tier(Provider(service_tier="flex"), server.url) == "flex"
    model = OpenAIModel("openai", base_url=server.url, api_key="", service_tier="flex")
    await model.complete(ask())
    await model.close()
    assert server.sent[0]["service_tier"] == "flex"


async def test_a_schema_is_sent_as_a_strict_response_format(server: ChatServer, model: OpenAIModel) -> None:
    server.answers = [lambda _: JSONResponse(completion('{"severity": "high", "count": 3}'))]
    reply = await model.complete(ask(output_schema=SCHEMA))
    assert json.loads(reply.text) == {"severity": "high", "count": 3}
    assert server.sent[0]["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "reply", "strict": True, "schema": SCHEMA},
    }


@pytest.mark.parametrize(
    "no",
    [
        lambda: refusal(400, "Invalid parameter: 'response_format'", param="response_format"),
        lambda: refusal(422, "extra fields: response_format.json_schema is not permitted"),
        lambda: Response("response_format is not supported by this server", 400),
    ],
)
async def test_a_server_that_cannot_be_strict_gets_the_schema_as_an_instruction_and_is_remembered(
    server: ChatServer, model: OpenAIModel, no: Any
) -> None:
    server.answers = [lambda _: no(), lambda _: JSONResponse(completion("{}"))]
    request = ask(output_schema=SCHEMA)
    await model.complete(request)
    await model.complete(request)
    strict, plain, again = server.sent
    assert "response_format" in strict
    assert "response_format" not in plain
    assert "response_format" not in again
    last = plain["messages"][-1]["content"]
    assert last.startswith("Say hello.\n\nReply with one JSON object of this JSON Schema only:\n")
    assert json.loads(last.rpartition("\n")[2]) == SCHEMA
    assert request.messages[-1]["content"] == "Say hello."


async def test_a_server_that_wants_the_other_name_of_the_limit_gets_it_and_is_remembered(
    server: ChatServer, model: OpenAIModel
) -> None:
    text = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens'."
    no = refusal(400, text, param="max_tokens", code="unsupported_parameter")
    server.answers = [lambda _: no, lambda _: JSONResponse(completion())]
    await model.complete(ask())
    await model.complete(ask())
    assert [sorted(sent) for sent in server.sent] == [
        ["max_tokens", "messages", "model"],
        ["max_completion_tokens", "messages", "model"],
        ["max_completion_tokens", "messages", "model"],
    ]


async def test_a_limit_whose_value_is_refused_is_not_renamed(server: ChatServer, model: OpenAIModel) -> None:
    text = "max_tokens is too large: 77. This model supports at most 16 completion tokens."
    server.answers = [lambda _: refusal(400, text, param="max_tokens", code="invalid_value")]
    with pytest.raises(Rejected, match="too large") as caught:
        await model.complete(ask())
    assert caught.value.code == "model_rejected"
    assert len(server.sent) == 1


async def test_a_server_that_refuses_every_form_is_not_asked_for_ever(
    server: ChatServer, model: OpenAIModel
) -> None:
    server.answers = [
        lambda sent: refusal(400, "Unsupported parameter", param=min(k for k in sent if k.startswith("max_")),
                             code="unsupported_parameter")
    ]  # fmt: skip
    with pytest.raises((Rejected, RetryLater)):
        await model.complete(ask(output_schema=SCHEMA))
    assert len(server.sent) <= 3


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry-after": "7"}, 7, 7),
        ({"retry-after-ms": "250"}, 0.25, 0.25),
        ({"retry-after": "+300"}, 200, 301),
        ({"retry-after": "-300"}, 0, 0),
        ({"retry-after": "soon"}, 1, 1),
        ({"retry-after": "nan"}, 1, 1),
        ({"retry-after": "1e99"}, 3600, 3600),
        ({}, 1, 1),
    ],
)
async def test_a_limited_rate_is_a_reason_to_wait_as_long_as_the_server_says(
    server: ChatServer, model: OpenAIModel, headers: dict[str, str], low: float, high: float
) -> None:
    if (given := headers.get("retry-after", ""))[:1] in ("+", "-"):  # a date, so many seconds from now
        headers = {"retry-after": formatdate(time.time() + int(given), usegmt=True)}
    server.answers = [lambda _: refusal(429, "slow down", headers, code="rate_limit_exceeded")]
    with pytest.raises(RetryLater, match="openai answered 429: slow down") as caught:
        await model.complete(ask())
    assert caught.value.code == "rate_limited"
    assert low <= caught.value.after <= high
    assert len(server.sent) == 1  # the client itself does not retry


@pytest.mark.parametrize("status", [408, 409, 500, 502, 503, 529])
async def test_what_may_pass_is_tried_later(server: ChatServer, model: OpenAIModel, status: int) -> None:
    server.answers = [lambda _: Response("<html>oops</html>", status)]
    with pytest.raises(RetryLater) as caught:
        await model.complete(ask())
    assert caught.value.code == "model_unavailable"
    assert len(server.sent) == 1


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        (lambda: refusal(401, "Incorrect API key"), "model_unauthorized", "AGENTFLOW_LLM_API_KEY"),
        (lambda: refusal(403, "not yours"), "model_unauthorized", "not yours"),
        (lambda: refusal(404, "no such model"), "unknown_model", "the model tiny"),
        (lambda: refusal(400, "nonsense"), "model_rejected", "nonsense"),
        (lambda: refusal(400, "too long", code="context_length_exceeded"), "prompt_too_long", "shorten"),
        (lambda: refusal(429, "pay", code="insufficient_quota"), "model_quota", "billing"),
    ],
)
async def test_what_stays_wrong_is_rejected_with_the_mend(
    server: ChatServer, model: OpenAIModel, answer: Any, code: str, says: str
) -> None:
    server.answers = [lambda _: answer()]
    with pytest.raises(Rejected, match=says) as caught:
        await model.complete(ask())
    assert caught.value.code == code


async def test_the_key_is_not_repeated_when_the_server_repeats_it(
    server: ChatServer, model: OpenAIModel
) -> None:
    server.answers = [lambda _: refusal(401, f"bad key {KEY} \x1b[31m" + "x" * 5000)]
    with pytest.raises(Rejected) as caught:
        await model.complete(ask())
    text = str(caught.value)
    assert KEY not in text
    assert "\x1b" not in text
    assert len(text) < 800


async def test_a_refusal_is_a_reply_because_it_is_billed(server: ChatServer, model: OpenAIModel) -> None:
    server.answers = [lambda _: JSONResponse(completion(None, refusal="I will not."))]
    reply = await model.complete(ask(output_schema=SCHEMA))
    assert (reply.text, reply.finish) == ("I will not.", "refusal")
    assert reply.usage.output_tokens == 5


async def test_a_reply_cut_off_says_so(server: ChatServer, model: OpenAIModel) -> None:
    server.answers = [lambda _: JSONResponse(completion(None, finish="length"))]
    reply = await model.complete(ask())
    assert (reply.text, reply.finish) == ("", "length")


async def test_content_in_parts_is_joined(server: ChatServer, model: OpenAIModel) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "…"}, {"type": "text", "text": "b"}]
    server.answers = [lambda _: JSONResponse(completion(parts))]
    assert (await model.complete(ask())).text == "ab"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a proxy's login page</html>",
        b"[]",
        b"{}",
        b'{"choices": []}',
        b'{"choices": [{"message": null}]}',
        b'{"choices": [{"message": {"content": 7}}]}',
        b'{"choices": [{"message": {"content": "cut off"',
    ],
)
async def test_what_is_not_a_completion_is_tried_later(
    server: ChatServer, model: OpenAIModel, body: bytes
) -> None:
    server.answers = [lambda _: Response(body, media_type="application/json")]
    with pytest.raises(RetryLater, match="not a chat completion") as caught:
        await model.complete(ask())
    assert caught.value.code == "bad_response"


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": -1, "completion_tokens": "many"}, "free"])
async def test_without_usage_the_most_it_can_have_been_counts(
    server: ChatServer, model: OpenAIModel, usage: Any
) -> None:
    server.answers = [lambda _: JSONResponse(completion() | {"usage": usage})]
    used = (await model.complete(ask())).usage
    assert used.output_tokens == 77
    assert used.input_tokens >= len("Be brief.Say hello.")


async def test_a_response_without_end_is_not_read_to_its_end(server: ChatServer, model: OpenAIModel) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(500):  # as good as without end, but no test server spins for ever
            yield b"x" * 1_000_000
            await asyncio.sleep(0.001)

    server.answers = [lambda _: StreamingResponse(endless(), media_type="application/json")]
    with pytest.raises(RetryLater, match="more than"):
        await model.complete(ask())


@pytest.mark.parametrize("drip", [False, True])
async def test_an_answer_that_takes_too_long_is_given_up(
    server: ChatServer, model: OpenAIModel, drip: bool
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b" "

    async def late(_: Any) -> Response:
        if not drip:
            await asyncio.sleep(5)
        return StreamingResponse(slow(), media_type="application/json")

    server.answers = [late]
    await model._connect()
    began = time.monotonic()
    with pytest.raises(RetryLater, match=r"did not answer within 0\.3 s") as caught:
        await model.complete(ask(timeout_s=0.3))
    assert caught.value.code == "timeout"
    assert time.monotonic() - began < 2


async def test_a_server_that_is_not_there_may_come_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    model = OpenAIModel("local", base_url=f"http://127.0.0.1:{port}/v1", api_key="")
    with pytest.raises(RetryLater, match=f"local cannot be reached at http://127.0.0.1:{port}/v1") as caught:
        await model.complete(ask())
    await model.close()
    assert caught.value.code == "model_unreachable"


async def test_what_breaks_off_once_it_was_asked_may_have_been_billed(server: ChatServer, model: OpenAIModel) -> None:
    async def nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(nothing, "127.0.0.1", 0) as breaking:
        host, port = breaking.sockets[0].getsockname()
        other = OpenAIModel("local", base_url=f"http://{host}:{port}/v1", api_key="")
        with pytest.raises(RetryLater, match=r"the connection to local at .* broke off") as caught:
            await other.complete(ask())
        await other.close()
    assert caught.value.code == "connection_lost"
    for status, code in ((504, "connection_lost"), (524, "connection_lost"), (503, "model_unavailable")):
        server.answers = [lambda _, status=status: Response("too late", status)]
        with pytest.raises(RetryLater) as caught:
            await model.complete(ask())
        assert caught.value.code == code


async def test_a_server_without_keys_is_asked_without_one_of_ours(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-somebody-else")
    monkeypatch.setenv("OPENAI_ORG_ID", "org-of-somebody-else")
    model = OpenAIModel("local", base_url=server.url, api_key="")
    await model.complete(ask())
    await model.close()
    assert "somebody-else" not in json.dumps(server.headers)


async def test_calls_run_side_by_side(server: ChatServer, model: OpenAIModel) -> None:
    async def echo(sent: dict[str, Any]) -> Response:
        await asyncio.sleep(0.1)
        return JSONResponse(completion(sent["messages"][0]["content"]))

    server.answers = [echo]
    await model._connect()
    began = time.monotonic()
    asked = [ask(messages=({"role": "user", "content": str(n)},)) for n in range(50)]
    replies = await asyncio.gather(*(model.complete(request) for request in asked))
    assert [reply.text for reply in replies] == [str(n) for n in range(50)]
    assert time.monotonic() - began < 3


TOOLS = (
    {"name": "search", "description": "finds pages", "parameters": {
        "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"],
        "additionalProperties": False,
    }},
    {"name": "note", "description": "", "parameters": {
        "type": "object", "properties": {"what": {}}, "required": ["what"], "additionalProperties": False,
    }},
)  # fmt: skip
WORKED = (
    {"role": "user", "content": "What is it?"},
    {"role": "assistant", "content": "Let me see.", "calls": [
        {"id": "t001c0000", "name": "search", "arguments": {"query": "é"}},
    ]},
    {"role": "tool", "call": "t001c0000", "content": '{"pages":[1]}'},
)  # fmt: skip


async def test_tools_and_what_they_gave_are_sent_as_the_api_has_them(server: ChatServer, model: OpenAIModel) -> None:
    await model.complete(ask(tools=TOOLS, messages=WORKED))
    (sent,) = server.sent
    search, note = sent["tools"]
    assert search == {"type": "function", "function": {**TOOLS[0], "strict": True}}
    assert note == {"type": "function", "function": {"name": "note", "parameters": TOOLS[1]["parameters"]}}
    assert sent["messages"] == [
        {"role": "user", "content": "What is it?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [
            {"id": "t001c0000", "type": "function", "function": {"name": "search", "arguments": '{"query":"é"}'}},
        ]},
        {"role": "tool", "tool_call_id": "t001c0000", "content": '{"pages":[1]}'},
    ]  # fmt: skip


async def test_calls_are_read_however_they_are_written(server: ChatServer, model: OpenAIModel) -> None:
    made = [
        {"id": "c1", "type": "function", "function": {"name": "search", "arguments": '{"query": "a"}'}},
        {"function": {"name": "search", "arguments": {"query": "b"}}},
        {"id": 7, "function": {"name": "note"}},
    ]
    server.answers = [lambda _: JSONResponse(completion(None, finish="tool_calls", tool_calls=made))]
    reply = await model.complete(ask(tools=TOOLS))
    assert (reply.text, reply.finish) == ("", "tool_calls")
    assert [(call.id, call.name, json.loads(call.arguments)) for call in reply.calls] == [
        ("c1", "search", {"query": "a"}), ("", "search", {"query": "b"}), ("", "note", {}),
    ]  # fmt: skip


@pytest.mark.parametrize("made", [7, "search", {"function": {}}, [None], [{"function": {"name": 7}}], [{"id": "c"}]])
async def test_calls_that_are_none_are_a_bad_response(server: ChatServer, model: OpenAIModel, made: Any) -> None:
    server.answers = [lambda _: JSONResponse(completion(None, tool_calls=made))]
    with pytest.raises(RetryLater, match="not a chat completion") as caught:
        await model.complete(ask(tools=TOOLS))
    assert caught.value.code == "bad_response"


async def test_of_very_many_calls_only_some_are_looked_at(server: ChatServer, model: OpenAIModel) -> None:
    made = [{"id": "c", "function": {"name": "search", "arguments": "{}"}}] * 10_000
    server.answers = [lambda _: JSONResponse(completion(None, tool_calls=made))]
    assert len((await model.complete(ask(tools=TOOLS))).calls) == 1_000


async def test_a_server_that_is_not_strict_about_tools_gets_them_as_they_are_and_is_remembered(
    server: ChatServer, model: OpenAIModel
) -> None:
    no = refusal(400, "Invalid schema for function 'search': strict is not permitted", param="tools[0].function")
    server.answers = [lambda _: no, lambda _: JSONResponse(completion())]
    await model.complete(ask(tools=TOOLS))
    await model.complete(ask(tools=TOOLS))
    assert ["strict" in sent["tools"][0]["function"] for sent in server.sent] == [True, False, False]


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "registry.example/library/tiny:latest does not support tools"),
        (400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
        (404, "No endpoints found that support tool use"),
        (500, "tools param requires --jinja flag"),
        (422, "Function calling is not enabled for this model"),
    ],
)
async def test_a_server_that_has_no_tools_says_so_once_and_clearly(
    server: ChatServer, model: OpenAIModel, status: int, said: str
) -> None:
    server.answers = [lambda _: refusal(status, said)]
    with pytest.raises(Rejected, match="have agents use a model that calls tools") as caught:
        await model.complete(ask(tools=TOOLS))
    assert caught.value.code == "tools_unsupported"
    with pytest.raises((Rejected, RetryLater)) as other:
        await model.complete(ask())
    assert other.value.code != "tools_unsupported"


async def test_usage_that_is_not_told_is_no_more_than_is_held(server: ChatServer, model: OpenAIModel) -> None:
    body = completion()
    del body["usage"]
    server.answers = [lambda _: JSONResponse(body)]
    reply = await model.complete(ask(tools=TOOLS, messages=WORKED))
    assert reply.usage == Usage(input_tokens_bound(WORKED, TOOLS, None), 77, fault="no usage was told")
    plain = input_tokens_bound(WORKED, (), None)
    silent = [{key: value for key, value in each.items() if key != "calls"} for each in WORKED]
    assert plain >= input_tokens_bound(silent, (), None) + len('search{"query": "é"}'.encode())
    assert reply.usage.input_tokens > plain + len(json.dumps(TOOLS))
