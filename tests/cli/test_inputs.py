"""Arguments as a run's input: by the declared types, with every fault named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentflow.core.types import parse
from agentflow.errors import Invalid
from agentflow.terminal import inputs
from agentflow.terminal.inputs import read_inputs

TYPES = {
    name: parse(text)
    for name, text in zip(
        "sidbjflm",
        ["string", "int", "double", "bool", "json", "file", "list(int)", "map(string)"],
        strict=True,
    )
}


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("s=hello", "hello"),
        ("s=", ""),
        ("s=a=b", "a=b"),
        ("s=42", "42"),
        ("s=@@handle", "@handle"),
        ("i=42", 42),
        ("i=-1", -1),
        ("d=1", 1.0),
        ("d=1.5e3", 1500.0),
        ("b=true", True),
        ('j={"a": [1]}', {"a": [1]}),
        ("j=null", None),
        ("l=[1, 2]", [1, 2]),
        ('m={"a": "b"}', {"a": "b"}),
        ("f=content", "content"),
    ],
)
def test_a_value_is_read_as_its_declared_type(argument: str, value: Any) -> None:
    found = read_inputs([argument], TYPES)[argument[0]]
    assert found == value
    assert type(found) is type(value)


def test_a_file_gives_its_content_whatever_the_type(tmp_path: Path) -> None:
    text, numbers = tmp_path / "a.txt", tmp_path / "n.json"
    text.write_text("äöü\n")
    numbers.write_text("[1, 2, 3]")
    found = read_inputs([f"f=@{text}", f"s=@{text}", f"l=@{numbers}"], TYPES)
    assert found == {"f": "äöü\n", "s": "äöü\n", "l": [1, 2, 3]}


def test_every_fault_is_named_with_its_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binary, large = tmp_path / "b", tmp_path / "large"
    binary.write_bytes(b"ok\xff")
    large.write_text("x" * 101)
    monkeypatch.setattr(inputs, "MAX_FILE", 100)
    faults = {
        "i=x": "--input i: 'x' is not int",
        "i2=1": "it has: s, i, d",
        "b=yes": "--input b: 'yes' is not bool",
        "d=true": "--input d",
        "j={": "is not JSON",
        "l=[1, 2.5]": "--input l: [1]",
        "nothing": "write name=value",
        f"f=@{tmp_path}/no": "No such file",
        f"m=@{binary}": "not UTF-8 text (byte 2)",
    }
    with pytest.raises(Invalid) as refusal:
        read_inputs([*faults, "s=1", "s=2"], TYPES)
    said = [str(problem) for problem in refusal.value.problems]
    for part, text in zip([*faults.values(), "--input s: is given twice"], said, strict=True):
        assert part in text, said
    with pytest.raises(Invalid, match="more than 100"):
        read_inputs([f"f=@{large}"], TYPES)
