"""What a reply is worth to a step."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.errors import Rejected, RetryLater
from agentflow.models import Call, Reply, Usage
from agentflow.models.effect import read
from agentflow.models.reading import MAX_ARGUMENTS, read_output, read_turn


def said(text: str, finish: str = "stop") -> Reply:
    return Reply(text, Usage(10, 5, 2), "m", finish)


def test_free_text_is_the_text() -> None:
    assert read_output(said("héllo"), wants_object=False) == {"text": "héllo"}
    assert read_output(said("a\0b"), wants_object=False) == {"text": "a\N{REPLACEMENT CHARACTER}b"}
    assert read_output(said("half a sen", "length"), wants_object=False) == {"text": "half a sen"}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '\n {"a": 1} \n',
        '```json\n{"a": 1}\n```',
        'Here you are:\n```\n{"a": 1}\n```\nAnything else?',
        'The answer is {"a": 1}.',
        '<think>Is it {"a": 2}?</think>\n{"a": 1}',
    ],
)
def test_an_object_is_found_however_it_is_wrapped(text: str) -> None:
    assert read_output(said(text), wants_object=True) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I do not know.",
        "[1, 2]",
        '{"a": NaN}',
        '{"a": 1',
        '{"a": "\\u0000"}',
        '{"a":' * 100 + "1" + "}" * 100,
        "\ud800",
    ],
)
def test_what_holds_no_object_may_do_so_next_time(text: str) -> None:
    with pytest.raises(RetryLater) as caught:
        read_output(said(text), wants_object=True)
    assert caught.value.code == "bad_result"


def test_what_was_cut_off_names_the_mend() -> None:
    for wants_object, text in ((True, '{"a": "unfin'), (False, "")):
        with pytest.raises(RetryLater, match="raise max_tokens"):
            read_output(said(text, "length"), wants_object=wants_object)


@pytest.mark.parametrize("finish", ["refusal", "content_filter"])
@pytest.mark.parametrize("wants_object", [True, False])
def test_a_refusal_is_no_answer(finish: str, wants_object: bool) -> None:
    with pytest.raises(Rejected, match="I cannot help") as caught:
        read_output(said("I cannot help with that.", finish), wants_object=wants_object)
    assert caught.value.code == "model_refused"


def test_a_reply_worth_nothing_still_has_its_usage() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 2, "calls": 1}
    for reply, retryable in ((said("no"), True), (said("no", "refusal"), False)):
        performed = read(reply, {"type": "object"})
        assert performed.output is None
        assert performed.usage == usage
        assert performed.error is not None
        assert performed.error["retryable"] is retryable
    assert read(said('{"a": 1}'), {"type": "object"}).usage == usage


def calling(*calls: Call, text: str = "") -> Reply:
    return Reply(text, Usage(10, 5, 2), "m", "tool_calls", calls)


def test_a_turn_is_its_text_and_its_calls() -> None:
    said = read_turn(calling(Call("c1", "search", '{"query": "a"}'), Call("", "now", ""), text="Well\0"), {"search"})
    assert said == {
        "text": "Well\N{REPLACEMENT CHARACTER}",
        "calls": [
            {"id": "c1", "name": "search", "arguments": {"query": "a"}}, {"id": "", "name": "now", "arguments": {}},
        ],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ("{", "arguments: is not JSON"),
        ("[1]", "arguments: are not a JSON object"),
        ('{"a": "\\u0000"}', "arguments.a: contains the character U+0000"),
        ('{"a": ' * 49 + "1" + "}" * 49, "is nested deeper than 48"),
        ('{"a": ' * 100_000, "arguments: are longer than"),
        ('{"a": "' + "x" * MAX_ARGUMENTS + '"}', "arguments: are longer than 65,536 characters"),
        ('{"a": 1e999}', "arguments: is not JSON"),
    ],
)
def test_arguments_that_are_none_are_told_and_not_kept(arguments: str, fault: str) -> None:
    (call,) = read_turn(calling(Call("c1", "search", arguments)), {"search"})["calls"]
    assert fault in call.pop("fault")
    assert call == {"id": "c1", "name": "search"}


def test_names_are_such_as_a_server_takes_back() -> None:
    calls = [Call("\0" * 999, name, "{}") for name in ("std.echo", "é/../\0", "", "x" * 10_000)]
    kept = read_turn(calling(*calls), {"search"})["calls"]
    assert [call["name"] for call in kept] == ["std_echo", "______", "_", "x" * 64]
    assert {call["id"] for call in kept} == {"\N{REPLACEMENT CHARACTER}" * 200}


def test_of_10_000_calls_no_more_are_kept_than_show_that_there_were_too_many() -> None:
    assert len(read_turn(calling(*[Call("c", "search", "{}")] * 10_000), {"search"})["calls"]) == 17


def test_an_answer_that_is_written_down_is_taken_for_the_call() -> None:
    reply = said('It is:\n```json\n{"n": 3}\n```')
    assert read_turn(reply, {"search", "answer"})["calls"] == [{"id": "", "name": "answer", "arguments": {"n": 3}}]
    assert read_turn(reply, {"search"})["calls"] == []
    assert read_turn(said("I do not know."), {"answer"}) == {"text": "I do not know.", "calls": []}


def test_a_turn_that_says_nothing_is_tried_again_and_a_refusal_is_not() -> None:
    tools: list[dict[str, Any]] = [{"name": "search"}]
    for reply, code, retryable in (
        (said("", "length"), "bad_result", True), (said("I will not", "refusal"), "model_refused", False),
    ):  # fmt: skip
        performed = read(reply, None, tools)
        assert performed.error is not None
        assert (performed.error["code"], performed.error["retryable"]) == (code, retryable)
    assert read(calling(Call("", "search", "{}")), None, tools).output is not None


def test_a_call_of_a_tool_that_nobody_offered_is_no_text() -> None:
    with pytest.raises(RetryLater, match="no text"):
        read_output(calling(Call("", "search", "{}")), wants_object=False)
