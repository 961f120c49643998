"""What servers say that a call has used, and what cannot be right about it."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.models import Reply, Request, Usage
from agentflow.models.effect import is_model, read
from agentflow.models.openai_usage import read_usage

REQUEST = Request("p", "m", ({"role": "user", "content": "x" * 68},), 77, None, 10.0)  # 100 tokens at most, 77 out


def told(prompt: Any = 50, completion: Any = 20, **more: Any) -> dict[str, Any]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, **more}


def details(prompt: dict[str, Any] | None = None, completion: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"prompt_tokens_details": prompt, "completion_tokens_details": completion}


@pytest.mark.parametrize(
    ("usage", "read_as"),
    [
        (told(), Usage(50, 20)),
        (told(total_tokens=70, **details()), Usage(50, 20)),
        (told(**details({"cached_tokens": 8}, {"reasoning_tokens": 5})), Usage(50, 20, 8, 0, 5)),
        (told(**details({"cached_tokens": 8, "cache_write_tokens": 9})), Usage(50, 20, 8, 9)),
        (told(**details({"cached_tokens": 8, "cache_creation_tokens": 9})), Usage(50, 20, 8, 9)),
        (told(cache_read_input_tokens=8, cache_creation_input_tokens=9), Usage(50, 20, 8, 9)),
        (told(prompt_cache_hit_tokens=8, prompt_cache_miss_tokens=42), Usage(50, 20, 8)),
        (told(cached_tokens=8, reasoning_tokens=3), Usage(50, 20, 8, 0, 3)),
        # Reasoning that a server does not call completion is in its total, and billed as output.
        (told(total_tokens=100, **details(None, {"reasoning_tokens": 30})), Usage(50, 50, 0, 0, 30)),
        (told(total_tokens=100), Usage(50, 50)),
        (told(**details({"audio_tokens": 0, "text_tokens": 50})), Usage(50, 20)),
    ],
)
def test_usage_is_read_wherever_a_server_has_it(usage: dict[str, Any], read_as: Usage) -> None:
    assert read_usage(usage, REQUEST, said_something=True) == read_as


@pytest.mark.parametrize(
    ("usage", "reason", "read_as"),
    [
        (None, "no usage was told", (100, 77)),
        ([], "usage is list", (100, 77)),
        ({}, "prompt_tokens is missing; completion_tokens is missing", (100, 77)),
        (told(prompt=None), "prompt_tokens is missing", (100, 20)),
        (told(completion=-1), "completion_tokens is -1", (50, 77)),
        (told(completion=2.5), "completion_tokens is 2.5", (50, 77)),
        (told(completion="20"), "completion_tokens is 20", (50, 77)),
        (told(completion=True), "completion_tokens is True", (50, 77)),
        (told(prompt=10**12), "prompt_tokens is 1000000000000", (100, 20)),
        (told(prompt=0), "prompt_tokens is 0", (100, 20)),
        (told(completion=0), "completion_tokens is 0 in spite of an answer", (50, 0)),
        (told(total_tokens=69), "total_tokens is 69, less than 50 and 20 together", (50, 20)),
        (told(total_tokens=-7), "total_tokens is -7", (50, 20)),
        (told(**details({"cached_tokens": 51})), "51 tokens were read from a cache and 0 written", (50, 20)),
        (told(**details({"cached_tokens": 30, "cache_write_tokens": 30})), "30 tokens were read", (50, 20)),
        (told(**details({"cached_tokens": -3})), "cached_tokens is -3", (50, 20)),
        (told(**details(None, {"reasoning_tokens": 21})), "21 tokens of reasoning are more than all 20", (50, 21)),
        (told(**details({"audio_tokens": 4})), "audio_tokens is 4, and there is no price", (50, 20)),
        (told(**details(None, {"image_tokens": 4})), "image_tokens is 4, and there is no price", (50, 20)),
    ],
)
def test_what_cannot_be_right_is_said_and_never_a_silent_zero(
    usage: Any, reason: str, read_as: tuple[int, int]
) -> None:
    found = read_usage(usage, REQUEST, said_something=True)
    assert reason in (found.fault or "")
    assert (found.input_tokens, found.output_tokens) == read_as
    assert (found.cached_tokens, found.cache_write_tokens) == (0, 0)


def test_a_long_list_of_faults_is_cut() -> None:
    usage = told("x" * 99, "y" * 99, total_tokens="z" * 99, **details({"cached_tokens": "c" * 99}))
    assert len(read_usage(usage, REQUEST).fault or "") <= 500


def test_steps_keep_what_there_is_any_of() -> None:
    plain = {"input_tokens": 50, "output_tokens": 20, "cached_tokens": 0, "calls": 1}
    assert read(Reply("hi", Usage(50, 20), "m", "stop"), None).usage == plain
    more = {"cached_tokens": 8, "cache_write_tokens": 9, "reasoning_tokens": 5, "fault": "a \N{REPLACEMENT CHARACTER}b"}
    assert read(Reply("hi", Usage(50, 20, 8, 9, 5, "a \0b"), "m", "stop"), None).usage == plain | more


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("gpt-5-mini", "gpt-5-mini"),
        ("gpt-5-mini", "gpt-5-mini-2025-08-07"),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929"),
        ("gpt-5-mini", "openai/GPT-5-mini"),
        ("meta-llama/Llama-3.2-3B", "Llama-3.2-3B"),
        ("llama3.2", "llama3.2:latest"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gemini-flash", "gemini-flash-001"),
    ],
)
def test_a_model_may_be_named_by_its_date_or_its_maker(asked: str, answered: str) -> None:
    assert is_model(answered, asked)


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("gpt-5", "gpt-5-mini"), ("gpt-5-mini", "gpt-5"), ("gpt-4", "gpt-4o"), ("llama3", "llama3.2"), ("a", "b")],
)
def test_another_model_is_told_from_it(asked: str, answered: str) -> None:
    assert not is_model(answered, asked)
    assert is_model(answered, asked, {answered}) and is_model(answered, asked, {"*"})
