"""Prompts: placeholders and braces."""

from __future__ import annotations

import pytest

from agentflow.core.prompt import placeholders, render


def test_render() -> None:
    text = "Dear {name}, {{not}} {list} {n} {deep}"
    given = {"name": "Zoë {n}", "list": ["a", 1], "n": 2.5, "deep": {"k": "é"}}
    assert render(text, given) == 'Dear Zoë {n}, {not} ["a",1] 2.5 {"k":"é"}'


def test_placeholders() -> None:
    assert placeholders("{a} {{b}} {a}{c_1}") == {"a", "c_1"}
    assert placeholders("{{{a}}}") == {"a"}


@pytest.mark.parametrize("text", ["{", "}", "{a", "{A}", "{a b}", "{}", "x\n{ }", "{{}"])
def test_stray_braces_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a single"):
        placeholders(text)
