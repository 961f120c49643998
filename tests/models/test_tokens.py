"""Counting tokens before a call with a tokenizer built here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from agentflow.core import money
from agentflow.errors import Invalid
from agentflow.models import tokens
from agentflow.models.tokens import LONGEST, Tokens

TEXT = "the quick brown fox jumps over the lazy dog and the quick brown fox sleeps " * 40


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level BPE of three hundred words' worth, as large models have it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([TEXT], trainer)
    made.enable_truncation(4)  # as many files say; what is counted is not cut off
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return path


def setting(file: Path | str) -> str:
    alias = {"model": "m", "provider": "scripted", "tokenizer": str(file)}
    return json.dumps({"models": {"ours": alias, "other": {"model": "m", "provider": "scripted"}}})


def counting(file: Path) -> money.Count:
    found = Tokens.of(setting(file))
    assert found is not None
    count = found("ours")
    assert count is not None and found("other") is None and found("nobody") is None
    assert found("ours") is count
    return count


def test_a_text_counts_its_tokens_and_a_tenth_more(file: Path) -> None:
    count, plain = counting(file), Tokenizer.from_file(str(file))
    plain.no_truncation()
    exact = len(plain.encode(TEXT).ids)
    assert exact < len(TEXT) / 3
    assert count(TEXT) == -(-exact * 11 // 10)
    assert [count(text) for text in ("", "the", "é")] == [0, 2, 2]


def test_what_is_held_is_less_than_for_a_byte_each_and_never_too_little(file: Path) -> None:
    count, messages = counting(file), [{"role": "user", "content": TEXT}]
    by_bytes = money.input_tokens_bound(messages, [], None)
    by_tokens = money.input_tokens_bound(messages, [], None, count)
    assert by_tokens < by_bytes / 2
    # Forms still count by the byte.
    tool = [{"name": "search", "description": "", "parameters": {}}]
    more = money.input_tokens_bound(messages, tool, None, count) - by_tokens
    assert more == money.input_tokens_bound(messages, tool, None) - by_bytes


@settings(max_examples=200)
@given(text=st.text(max_size=400))
def test_no_text_has_more_tokens_than_are_counted_nor_more_than_bytes(file: Path, text: str) -> None:
    encodable = text.encode(errors="replace").decode()
    counted = counting(file)(encodable)
    exact = Tokenizer.from_file(str(file))
    exact.no_truncation()
    assert len(exact.encode(encodable).ids) <= counted <= len(encodable.encode())


def test_a_long_text_is_not_counted_and_a_known_one_not_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    count: Any = counting(file)
    assert count("a" * (LONGEST + 1)) == LONGEST + 1
    first = count(TEXT)
    monkeypatch.setattr(count, "_tokenizer", None)
    assert count(TEXT) == first
    monkeypatch.setattr(tokens, "KEPT", 0)
    assert len(count._known) == 1


def test_no_tokenizer_is_loaded_where_none_is_named() -> None:
    assert Tokens.of(json.dumps({"models": {"small": {"model": "m", "provider": "scripted"}}})) is None


def test_a_file_that_is_none_is_refused_with_its_place_and_the_mend(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"AGENTFLOW_MODELS\.models\.ours\.tokenizer: there is no file") as caught:
        Tokens.of(setting("no/such/tokenizer.json"))
    assert "bytes_per_token" in caught.value.problems[0].mend
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(Invalid, match="is no tokenizer"):
        Tokens.of(setting(tmp_path / "t.json"))


def test_a_library_that_is_missing_is_said_at_the_start(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(Invalid, match="tokenizers is not installed") as caught:
        Tokens.of(setting(file))
    assert "agentflow[tokenizers]" in caught.value.problems[0].mend
