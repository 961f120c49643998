"""The scripted model: rules in, the same replies out."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from agentflow.errors import Invalid, Rejected, RetryLater
from agentflow.models import Request
from agentflow.models.scripted import LOOK_AGAIN_S, ScriptedModel

from .chat_server import SCHEMA


def ask(prompt: str, **changes: Any) -> Request:
    asked: dict[str, Any] = {
        "provider": "scripted",
        "model": "small",
        "messages": ({"role": "system", "content": "You are terse."}, {"role": "user", "content": prompt}),
        "max_output_tokens": 500,
        "output_schema": None,
        "timeout_s": 5.0,
    }
    return Request(**(asked | changes))


def scripted(folder: Path, rules: str) -> ScriptedModel:
    (folder / "a.model.yaml").write_text(rules)
    return ScriptedModel(folder)


async def test_a_reply_is_made_of_what_the_prompt_says(tmp_path: Path) -> None:
    model = scripted(
        tmp_path,
        """
rules:
  - prompt: 'Classify the incident of (?P<service>\\S+)'
    find: {errors: 'errors: ([\\d,]+)', share: 'share: (\\d+\\.\\d+)%'}
    reply:
      severity: high
      title: '{service} has {errors} errors {{!}}'
      count: '{errors:int}'
      share: '{share:number}'
      tags: ['{service}']
""",
    )
    for service, errors, share in (("checkout", "1,204", "31.5"), ("search", "7", "0.2")):
        prompt = f"Classify the incident of {service}\nerrors: {errors}\nshare: {share}%"
        assert json.loads((await model.complete(ask(prompt))).text) == {
            "severity": "high",
            "title": f"{service} has {errors} errors {{!}}",
            "count": int(errors.replace(",", "")),
            "share": float(share),
            "tags": [service],
        }


async def test_the_first_rule_that_applies_answers(tmp_path: Path) -> None:
    model = scripted(
        tmp_path,
        """
rules:
  - {model: large, prompt: hello, reply: from the large one}
  - {prompt: 'hello', find: {name: 'I am (\\w+)'}, reply: 'hello {name}'}
  - {prompt: '^hello$', reply: hello stranger}
""",
    )
    assert (await model.complete(ask("hello", model="large"))).text == "from the large one"
    assert (await model.complete(ask("hello, I am Robot"))).text == "hello Robot"
    assert (await model.complete(ask("hello"))).text == "hello stranger"


async def test_usage_follows_from_the_text_alone(tmp_path: Path) -> None:
    rules = "rules: [{prompt: '.', reply: 'twenty characters.. '}]"
    one, two = scripted(tmp_path, rules), ScriptedModel(tmp_path)
    replies = [await model.complete(ask("x" * 400)) for model in (one, two, one)]
    assert len({reply.usage for reply in replies}) == 1
    assert replies[0].usage.output_tokens == 5
    assert 100 <= replies[0].usage.input_tokens <= 120
    longer = await one.complete(ask("x" * 4000))
    assert longer.usage.input_tokens == replies[0].usage.input_tokens + 900
    with_schema = await one.complete(ask("x" * 400, output_schema=SCHEMA))
    assert with_schema.usage.input_tokens > replies[0].usage.input_tokens


async def test_a_reply_is_cut_off_at_the_tokens_asked_for(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: '.', reply: 'ääääääääääääääääääää'}]")
    reply = await model.complete(ask("x", max_output_tokens=3))
    assert (reply.text, reply.finish, reply.usage.output_tokens) == ("ääääää", "length", 3)


async def test_a_prompt_no_rule_answers_names_the_files_and_the_mend(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: hello, reply: hi}]")
    with pytest.raises(Rejected) as caught:
        await model.complete(ask("What is the meaning of\nlife?"))
    assert caught.value.code == "no_scripted_reply"
    for part in ("small", "What is the meaning of life?", str(tmp_path / "a.model.yaml"), "AGENTFLOW_MODEL"):
        assert part in str(caught.value)


async def test_without_any_rules_it_says_where_they_would_be_found(tmp_path: Path) -> None:
    with pytest.raises(Rejected, match="there is none yet"):
        await ScriptedModel(tmp_path / "nowhere").complete(ask("hello"))


async def test_faults_can_be_scripted(tmp_path: Path) -> None:
    model = scripted(
        tmp_path,
        """
rules:
  - prompt: busy
    reply: at last
    error: {code: rate_limited, message: slow down, retry_after_ms: 250, times: 2}
  - {prompt: never, error: {code: model_rejected}}
  - {prompt: refuse, reply: I will not, finish: refusal}
""",
    )
    for _ in range(2):
        with pytest.raises(RetryLater, match="slow down") as passing:
            await model.complete(ask("busy"))
        assert (passing.value.after, passing.value.code) == (0.25, "rate_limited")
    assert (await model.complete(ask("busy"))).text == "at last"
    with pytest.raises(Rejected) as lasting:
        await model.complete(ask("never"))
    assert lasting.value.code == "model_rejected"
    assert (await model.complete(ask("refuse"))).finish == "refusal"


async def test_it_takes_the_time_it_is_told_to(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: '.', reply: slow, latency_ms: 80}]")
    began = time.monotonic()
    await model.complete(ask("x"))
    assert 0.08 <= time.monotonic() - began < 2


async def test_rules_in_subfolders_count_and_changes_are_seen(tmp_path: Path) -> None:
    (tmp_path / "sample").mkdir()
    file = tmp_path / "sample" / "a.model.yaml"
    file.write_text("rules: [{prompt: '.', reply: before}]")
    model = ScriptedModel(tmp_path)
    assert (await model.complete(ask("x"))).text == "before"
    file.write_text("rules: [{prompt: '.', reply: after}]")
    os.utime(file, (1, 1))
    model._looked -= LOOK_AGAIN_S
    assert (await model.complete(ask("x"))).text == "after"


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ("rules: [{prompt: '(', reply: x}]", "rules[0].prompt: is not a regular expression"),
        ("rules: [{prompt: x, reply: '{who}'}]", "{who} is not found by the rule"),
        ("rules: [{prompt: x, replay: y}]", "rules[0].replay"),
        ("rules: [{prompt: x, latency_ms: -1}]", "rules[0].latency_ms"),
        ("rules: 7", "rules"),
        ("rules: [", "line 2: is not YAML"),
        ("- just a list", "line 1: must be a mapping"),
    ],
)
async def test_a_file_with_a_fault_is_named_with_the_place(tmp_path: Path, rules: str, says: str) -> None:
    model = scripted(tmp_path, rules)
    with pytest.raises(Invalid) as caught:
        await model.complete(ask("x"))
    assert str(tmp_path / "a.model.yaml") in str(caught.value)
    assert says in str(caught.value)


async def test_what_is_found_but_is_no_number_is_the_rules_fault(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: '(?P<n>.+)', reply: {n: '{n:int}'}}]")
    with pytest.raises(Rejected, match="for a number"):
        await model.complete(ask("many"))


async def test_it_calls_tools_and_answers_by_what_they_gave(tmp_path: Path) -> None:
    model = scripted(
        tmp_path,
        """
rules:
  - role: user
    prompt: 'about (?P<what>\\w+)'
    call: {search: {query: '{what}'}, fetch: [{page: 1}, {page: 2}]}
  - {role: tool, prompt: 'stock: (?P<stock>\\d+)', find: {what: 'about (\\w+)'}, reply: 'There are {stock} of {what}.'}
""",
    )
    asked = {"role": "user", "content": "Find out about tea"}
    first = await model.complete(ask("x", messages=(asked,)))
    assert [(call.name, json.loads(call.arguments)) for call in first.calls] == [
        ("search", {"query": "tea"}), ("fetch", {"page": 1}), ("fetch", {"page": 2}),
    ]  # fmt: skip
    assert first.usage.output_tokens > 10
    heard = [{"role": "assistant", "content": ""}, {"role": "tool", "content": "no stock"}]
    told = [*heard, {"role": "tool", "content": "stock: 3"}]
    assert (await model.complete(ask("x", messages=(asked, *told)))).text == "There are 3 of tea."
    with pytest.raises(Rejected, match="no rule"):  # what an earlier turn gave does not count
        await model.complete(ask("x", messages=(asked, *told, *heard)))


async def test_a_call_of_what_is_not_found_is_the_rules_fault(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: x, call: {search: {query: '{what}'}}}]")
    with pytest.raises(Invalid, match="is not found by the rule"):
        await model.complete(ask("x"))


async def test_of_several_replies_one_follows_from_the_conversation(tmp_path: Path) -> None:
    model = scripted(tmp_path, "rules: [{prompt: 'say (?P<what>.+)', replies: ['{what}', '{what}, {what}', {a: 1}]}]")
    said = [(await model.complete(ask(f"say x{n}"))).text for n in range(60)]
    assert said == [(await model.complete(ask(f"say x{n}"))).text for n in range(60)], "the same has the same reply"
    kinds = [0 if text.startswith("{") else 1 + text.count(",") for text in said]
    assert {kinds.count(kind) > 8 for kind in (0, 1, 2)} == {True}


async def test_a_rule_has_a_reply_or_several(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"rules\[0\].reply: has `replies`, too"):
        await scripted(tmp_path, "rules: [{prompt: x, reply: a, replies: [b]}]").complete(ask("x"))
    with pytest.raises(Invalid, match=r"\{what\} is not found"):
        await scripted(tmp_path, "rules: [{prompt: x, replies: ['{what}']}]").complete(ask("x"))
