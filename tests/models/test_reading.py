"""What a reply is worth to a step."""

from __future__ import annotations

import pytest

from agentflow.errors import Rejected, RetryLater
from agentflow.models import Reply, Usage
from agentflow.models.effect import read
from agentflow.models.reading import read_output


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
