"""Plan documents at the door: text that is bounded and unsurprising, shapes by path, the published schema."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentflow.errors import Invalid
from agentflow.wire.document import (
    compile_document,
    json_schema,
    load_document,
    load_document_file,
    load_json,
    load_yaml,
)

HELLO = """
agentflow: plan/v1
kind: bt
name: hello
limits: {steps: 10, usd: 0.10}
input: {who: string}
vars: {text: string}
tasks:
  greet: {kind: llm, use: small, prompt: "Greet {who}.", in: {who: who}}
  count: {kind: tool, use: std.echo, in: {text: text}}
root:
  sequence: [{task: greet, set: {text: result.text}}, count]
"""


def problems(document: bytes | dict[str, Any]) -> list[str]:
    with pytest.raises(Invalid) as caught:
        compile_document(document)
    return [str(problem) for problem in caught.value.problems]


def hello(**changes: Any) -> dict[str, Any]:
    return {**load_yaml(HELLO.encode()), **changes}


def test_twelve_lines_are_a_workflow() -> None:
    plan = compile_document(HELLO.encode())
    assert (plan.name, plan.limits.micro, list(plan.tasks)) == ("hello", 100_000, ["count", "greet"])
    again = compile_document(json.dumps(plan.document).encode())
    assert again.hash == plan.hash


# ---------------------------------------------------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "line 1: must be a mapping"),
        (b"- a", "line 1: must be a mapping"),
        (b"a: 1\nb:\n  c: {x: 1, x: 2}", "b.c: line 3: the key 'x' is given twice"),
        (b"a:\n- 1\n- b: [2, {c: *x}]", "a[1].b[1].c: line 3: aliases are not allowed"),
        (b"a:\n- &x 1", "a[0]: line 2: anchors are not allowed"),
        (b"a: !!python/object:os.system ls", "a: line 1: the tag"),
        (b"a: !x 1", "a: line 1: the tag"),
        (b"a: 1\n---\nb: 1", "line 2: there is more than one document"),
        (b"a: {on: 1}", "a: line 1: no key may be named `on`"),
        (b'{"a": {"on": 1}}', "a: no key may be named `on`"),
        (b"1: 2", "line 1: the key '1' is not a short text"),
        (b"true: 2", "line 1: the key 'True' is not a short text"),
        (b"[a]: 2", "line 1: "),
        (b"{{a: 1}: 2}", "line 1: a key must be text"),
        (b"a: .inf", "a: line 1: .inf is not a JSON number"),
        (b"a: 99999999999999999999", "a: line 1: the number 99999999999999999999 does not fit in 64 bits"),
        (b"a: 1e999", "a: line 1: the number 1e999 is too large"),
        (b"a: [1\nb: 2", "a[1]: line 2: is not YAML"),
        (b"a:\n  - b: 'x", "a[0].b: line 2: is not YAML"),
        (b"a: \xff", "line 1: is not UTF-8"),
        (b"a: \x00", "is not YAML"),
        (b'a: ["\\0"]', "a[0]: must not contain the character U+0000"),
        (b'{"a": {"b": "\\ud800"}}', "a.b: is not valid Unicode (a lone surrogate)"),
        (b'{"a": NaN}', "NaN is not a JSON number"),
        (b'{"a": 99999999999999999999}', "the number 99999999999999999999 does not fit"),
        (b'{"a": 1,\n "b": {"c": 1, "c": 2}}', "b: line 2: the key 'c' is given twice"),
        (b"a: " + b"[" * 5_000, "is nested more than 100 deep"),
        (b'{"a":' * 30_000, "is nested more than 100 deep"),
        (b"a: [" + b"1," * 100_000 + b"1]", "there are more than 20,000 values"),
        (b"x" * 300_000, "has 300,000 bytes; a plan has at most 262,144"),
    ],
)
def test_bad_text_is_refused_with_line_and_path(text: bytes, fault: str) -> None:
    started = time.monotonic()
    with pytest.raises(Invalid) as caught:
        load_document(text)
    assert fault in str(caught.value)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("1:30", "1:30"),
        ("010", 10),
        ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("", None),
        ("true", True),
        ("'true'", "true"),
        ("1.50", 1.5),
        ("1e3", 1000.0),
        ("-7", -7),
        ("1_000", "1_000"),
        ("<<", "<<"),
        ('"\\u00e9"', "é"),
    ],
)
def test_yaml_means_what_it_looks_like(text: str, value: Any) -> None:
    assert load_yaml(f"a: {text}".encode()) == {"a": value}


def test_json_is_json() -> None:
    assert load_document(b'{"a": "\\ud83d\\ude00", "b": [1.0, true, null]}') == {
        "a": "\U0001f600",
        "b": [1.0, True, None],
    }
    assert load_document(b"\xef\xbb\xbf{a: 1}") == {"a": 1}, "a flow mapping is YAML"
    with pytest.raises(Invalid, match="line 2: is not JSON"):
        load_json(b'{"a": 1,\n b: 2}')


@given(st.binary(max_size=200) | st.text(" \n:-[]{},&*!|>'\"%@`#?ab1", max_size=60).map(str.encode))
def test_any_bytes_load_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(Invalid):
        json.dumps(load_document(data), allow_nan=False)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text("abé \n'\":", max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("ab", min_size=1, max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), json_values, max_size=3))
def test_both_readers_read_json_alike(document: dict[str, Any]) -> None:
    text = json.dumps(document).encode()
    assert load_json(text) == load_yaml(text) == document


@given(
    st.dictionaries(
        st.sampled_from([*hello(), "states", "on", "x"]),
        json_values | st.sampled_from(list(hello().values())),
        max_size=8,
    )
)
def test_any_document_compiles_or_is_refused(changes: dict[str, Any]) -> None:
    with contextlib.suppress(Invalid):
        compile_document(hello(**changes))


# --------------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"agentflow": "plan/v2"}, "agentflow: is 'plan/v2' (use 'plan/v1')"),
        ({"kind": "dag"}, "kind: is 'dag' (use 'fsm', 'bt' or 'goal')"),
        ({"name": "Hello World"}, "name: 'Hello World' is not a name (use lower-case"),
        ({"limits": {}}, "limits.steps: is missing (add it)"),
        ({"limits": {"steps": "10", "usd": 1}}, "limits.steps: must be a whole number, not '10'"),
        ({"limits": {"steps": 0, "usd": 1}}, "limits.steps: is 0 (give at least 1)"),
        ({"limits": {"steps": 1, "usd": -1}}, "limits.usd: is -1 (give at least 0)"),
        ({"limits": {"steps": 1, "usd": 1, "wall": "2 days"}}, "limits.wall: '2 days' is not a duration"),
        ({"limits": {"steps": 1, "usd": 1, "wall": "9999d"}}, "limits.wall: is longer than 366 days"),
        ({"vars": {"Text": "string"}}, "vars.Text: 'Text' is not a field name"),
        ({"vars": ["text"]}, "vars: must be a mapping, not a list"),
        ({"tasks": {"greet": {"use": "x"}}}, "tasks.greet: has no `kind` (e.g. kind: llm)"),
        (
            {"tasks": {"greet": {"kind": "lml"}}},
            "tasks.greet.kind: there is no kind 'lml' (did you mean 'llm'?)",
        ),
        ({"tasks": {"llm": {"kind": "llm", "use": "x"}}}, "tasks.llm.prompt: is missing"),
        ({"tasks": {"w": {"kind": "wait", "for": "soon"}}}, "tasks.w.for: 'soon' is not a duration"),
        (
            {"tasks": {"t": {"kind": "tool", "use": "std.echo", "timeout": "0s"}}},
            "tasks.t.timeout: must not be zero",
        ),
        (
            {"tasks": {"t": {"kind": "tool", "use": "std.echo", "retry": {"max": 101}}}},
            "tasks.t.retry.max: is 101 (give at most 100)",
        ),
        (
            {"tools": {"t": {"kind": "python", "code": "x", "memory": "1GB"}}},
            "tools.t.memory: '1GB' is not a size",
        ),
        (
            {"tools": {"t": {"kind": "python", "code": "x", "memory": "1KiB"}}},
            "tools.t.memory: must be from 16MiB",
        ),
        ({"root": {"task": "greet", "set": {"text": ["x"]}}}, "root.set.text: must be text, not a list"),
        (
            {"root": {"retry": {"task": "greet", "tries": 3}, "max": 2}},
            "root.retry.tries: there is no key 'tries'",
        ),
        ({"root": {"type": "task", "task": "Greet"}}, "root.task: 'Greet' is not a name"),
        ({"root": None}, "root: is missing: a plan of kind bt needs it"),
        ({"states": {"s": {"final": "success"}}}, "states: does not belong to a plan of kind bt"),
        ({"kind": "fsm"}, "initial: is missing: a plan of kind fsm needs it"),
        ({"trigger": {"type": "no spaces"}}, "trigger.type: 'no spaces' is not a CloudEvent type"),
        ({"more": 1}, "there is no key 'more' here (remove it)"),
    ],
)
def test_a_shape_is_refused_by_path(changes: dict[str, Any], fault: str) -> None:
    assert any(fault in problem for problem in problems(hello(**changes))), problems(hello(**changes))


def test_faults_of_shape_and_of_meaning_come_together() -> None:
    found = problems(
        hello(more=1, vars={"text": "strng"}, root={"sequence": ["greet", "cuont"], "reactve": True})
    )
    paths = {problem.partition(":")[0] for problem in found}
    assert paths == {"more", "root.reactve", "vars.text", "root.sequence[1]"}


def test_what_is_missing_is_said_once() -> None:
    document = hello(kind="fsm", states={"s": {"final": "success"}})
    del document["root"]
    assert [problem.partition(":")[0] for problem in problems(document)] == ["initial"]


# ----------------------------------------------------------------------------------------------------------- files


def test_a_tools_file_is_put_into_the_document(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "count.py").write_text("def run(text): return {}\n")
    tools = "tools:\n  mine: {kind: python, file: tools/count.py}\n"
    path = tmp_path / "hello.yaml"
    path.write_text(HELLO.replace("std.echo", "mine") + tools)
    assert compile_document(load_document_file(path)).tools["mine"].code == "def run(text): return {}\n"
    assert "tools.mine.file: a file cannot be read here" in problems(path.read_bytes())[0]


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("../secret.py", "tools.mine.file: '../secret.py' is outside the document's folder"),
        ("/etc/hostname", "tools.mine.file: '/etc/hostname' is outside the document's folder"),
        ("gone.py", "cannot be read: No such file or directory"),
        (".", "cannot be read: Is a directory"),
        ("binary.py", "tools.mine.file: 'binary.py' is not UTF-8 text"),
        ("link.py", "outside the document's folder"),
    ],
)
def test_a_tools_file_that_cannot_be_used(tmp_path: Path, file: str, fault: str) -> None:
    folder = tmp_path / "flows"
    folder.mkdir()
    (tmp_path / "secret.py").write_text("x")
    (folder / "link.py").symlink_to(tmp_path / "secret.py")
    (folder / "binary.py").write_bytes(b"\xff\xfe")
    path = folder / "hello.yaml"
    path.write_text(HELLO + f"tools:\n  mine: {{kind: python, file: {file}}}\n")
    with pytest.raises(Invalid) as caught:
        load_document_file(path)
    assert fault in str(caught.value)


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read: No such file"):
        load_document_file(tmp_path / "gone.yaml")


# ---------------------------------------------------------------------------------------------------------- schema


def test_the_schema_takes_what_people_write() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(hello())
    check.validate(compile_document(hello()).document)
    for changes in (
        {"kind": "dag"},
        {"root": {"sequence": []}},
        {"root": {"squence": ["greet"]}},
        {"root": None},
        {"more": 1},
    ):
        assert not check.is_valid(hello(**changes)), changes


def test_the_published_schema_is_the_generated_one() -> None:
    file = Path(__file__).parents[2] / "schemas" / "plan.schema.json"
    assert json.loads(file.read_text()) == json_schema(), "run python -m agentflow.wire.contracts"
