"""``fmt``: one style, two forms, and nothing lost: neither what a plan means nor what its author has noted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_origin

import jsonschema
import pytest
import yaml
from core.driving import tree
from core.test_planner import machines, random_document, trees
from core.test_vectors import document_of
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from agentflow.core.canonical import PAYLOAD, WAYS, normalise
from agentflow.core.short import shorten
from agentflow.errors import Invalid
from agentflow.wire import document_shape
from agentflow.wire.document import (
    compile_document,
    json_schema,
    load_document,
    load_document_file,
    with_tool_files,
)
from agentflow.wire.document_format import format_document
from agentflow.wire.document_notes import Notes, notes
from agentflow.wire.document_print import ORDER, TABLES, WIDTH, printed

ROOT = Path(__file__).parents[2]
VECTORS = [
    vector
    for path in sorted((ROOT / "tests" / "core" / "vectors").glob("*.yaml"))
    for vector in yaml.safe_load(path.read_text())
]
SAMPLES = [path for path in sorted((ROOT / "local" / "workflows").glob("*.yaml")) if ".model." not in path.name]
FEW = settings(max_examples=20)


def as_text(value: dict[str, Any]) -> bytes:
    """A document as somebody else's program would write it."""
    return json.dumps(value).encode()


SCHEMA = jsonschema.Draft202012Validator(json_schema())


def holds(given_: dict[str, Any]) -> None:
    """What must hold of every document, in both forms."""
    full, _ = normalise(given_)
    SCHEMA.validate(full)
    SCHEMA.validate(shorten(full))
    assert normalise(shorten(full))[0] == full
    for canonical in (True, False):
        text = format_document(as_text(given_), canonical=canonical).text
        assert format_document(text.encode(), canonical=canonical).text == text
        assert normalise(load_document(text.encode()))[0] == full
        if canonical:
            assert load_document(text.encode()) == full


@given(trees)
@FEW
def test_trees_are_the_same_in_both_forms(root: Any) -> None:
    holds(random_document(root, 50))


@given(machines())
@FEW
def test_machines_are_the_same_in_both_forms(parts: dict[str, Any]) -> None:
    holds(parts)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors_are_the_same_in_both_forms(vector: dict[str, Any]) -> None:
    given_ = document_of(vector)
    holds(given_)
    plan = compile_document(given_)
    for canonical in (True, False):
        text = format_document(as_text(given_), canonical=canonical).text
        assert compile_document(text.encode()).hash == plan.hash


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_are_the_same_plans(path: Path) -> None:
    formatted = format_document(path.read_bytes())
    assert formatted.lost == ()
    again = with_tool_files(load_document(formatted.text.encode()), path.parent)
    assert compile_document(again).hash == compile_document(load_document_file(path)).hash


def test_every_short_form_has_its_way_back() -> None:
    """Whatever short forms there are: the tree that uses them all is shortened to itself."""
    nodes: dict[str, Any] = {
        "check": {"check": "go"}, "sequence": {"sequence": ["a"]}, "fallback": {"fallback": ["a"]},
        "parallel": {"parallel": ["a"], "need": 1},
        "retry": {"retry": "a", "max": 2}, "repeat": {"repeat": "a", "max": 2},
        "invert": {"invert": "a"}, "force": {"force": "a", "as": "failure"},
        "map": {"map": "a", "over": "xs", "max": 2},
        "once": {"once": "a", "then": "skip"}, "delay": {"delay": "5s", "child": "a"},
        "timeout": {"timeout": "5s", "child": "a"}, "switch": {"switch": "x", "cases": {"1": "a"}, "default": "b"},
        "task": {"task": "a", "set": {"go": True, "x": 2, "j": None}},
        "keep": {"keep": "a", "max": 2}, "subtree": {"subtree": "t", "in": {"x": 1}, "share": {"go": "go"}},
        "try": {"try": ["a"], "catch": "b"},
        "if": {"if": "go", "then": "a", "else": "b"}, "while": {"while": "x > 1", "do": "a"},
    }  # fmt: skip
    assert PAYLOAD.keys() | WAYS.keys() <= nodes.keys()
    for node in nodes.values():
        given_ = {key: value for key, value in tree(node).items() if key != "kind"}
        assert shorten(normalise(given_)[0]) == given_


def test_a_number_stays_as_it_was_written() -> None:
    sets = {"x": "1.50", "y": "007", "j": "1e5", "go": "1.5 > 1"}
    full, _ = normalise(tree({"task": "a", "set": sets}))
    assert shorten(full)["root"]["set"] == sets


def test_a_condition_of_its_own_keeps_a_way_as_it_is() -> None:
    way = {"type": "while", "while": "go", "children": [{"check": "x > 1"}, "a"]}
    full, _ = normalise(tree(way))
    assert shorten(full)["root"] == way
    assert compile_document(shorten(full)).hash == compile_document(full).hash


# -------------------------------------------------------------------------------------------- one task, no plan

ONE = {
    "agentflow": "plan/v1", "name": "one", "limits": {"steps": 1, "usd": 1}, "input": {"text": "string"},
    "tasks": {"label": {"kind": "llm", "use": "small", "prompt": "{text}", "in": {"text": "text"}}},
}  # fmt: skip


def one(**changes: Any) -> dict[str, Any]:
    task = {**ONE["tasks"]["label"], **changes}  # type: ignore[index]
    return {**ONE, "tasks": {"label": task}}


def test_one_task_is_a_workflow_whose_output_is_its_result() -> None:
    plan = compile_document(one(out={"label": "string", "sure": "bool"}))
    assert plan.kind == "bt" and plan.output is not None
    assert {name: expr.source for name, expr in plan.output} == {"label": "label", "sure": "sure"}
    assert plan.document["root"]["set"] == {"label": "result.label", "sure": "result.sure"}
    assert {name: str(type_) for name, type_ in plan.vars.items()} == {"label": "string", "sure": "bool"}
    holds(one(out={"label": "string", "sure": "bool"}))
    assert "root" not in shorten(plan.document) and "output" not in shorten(plan.document)


def test_one_task_without_fields_comes_to_its_text() -> None:
    plan = compile_document(one())  # `text` is an input, and set like a variable
    assert plan.document["root"] == {"type": "task", "task": "label", "set": {"text": "result.text"}}
    assert plan.output is not None and [name for name, _ in plan.output] == ["text"] and plan.vars == {}
    holds(one())


@pytest.mark.parametrize(
    ("task", "fields"),
    [
        ({"kind": "tool", "use": "std.echo"}, ["data"]),
        ({"kind": "event", "use": "com.example.pinged"}, ["data"]),
        ({"kind": "wait", "for": "1s"}, []),
    ],
)
def test_any_task_is_enough(task: dict[str, Any], fields: list[str]) -> None:
    given_ = {**ONE, "tasks": {"only": task}}
    plan = compile_document(given_)
    assert plan.output is not None and [name for name, _ in plan.output] == fields
    holds(given_)


def test_a_fault_in_a_way_is_told_where_it_was_written_however_deep() -> None:
    with pytest.raises(Invalid) as refused:
        compile_document(
            tree({"sequence": ["a", {"if": "go", "then": "b", "else": {"retry": "z", "max": 2}}]})
        )
    assert [problem.path for problem in refused.value.problems] == ["root.sequence[1].else.retry"]


def test_its_faults_are_told_where_they_were_written() -> None:
    with pytest.raises(Invalid) as refused:
        compile_document(one(out={"label": "strin"}))
    assert [problem.path for problem in refused.value.problems] == ["tasks.label.out.label"]
    with pytest.raises(Invalid) as refused:
        compile_document({**one(out={"n": "int"}), "vars": {"n": "string"}})
    assert [problem.path for problem in refused.value.problems] == ["tasks.label.out.n"]
    two = {**ONE, "tasks": {**one()["tasks"], "more": {"kind": "wait", "for": "1s"}}}
    with pytest.raises(Invalid) as refused:
        compile_document(two)
    assert "kind: is missing (add it)" in str(refused.value)


# ------------------------------------------------------------------------------------------------------- the text


def test_short_parts_are_on_one_line_and_others_are_not() -> None:
    text = format_document(as_text(tree({"sequence": ["a", {"retry": "b", "max": 2}]}))).text
    assert "\nroot: {sequence: [a, {retry: b, max: 2}]}\n" in text
    assert "\ntasks:\n  a: {kind: tool, use: std.echo, out: {n: int, ok: bool}}\n" in text
    text = format_document(as_text(tree({"sequence": ["a", {"check": "x == 0 && y == 0 && go"}] * 3}))).text
    assert "\nroot:\n  sequence:\n    - a\n    - {check: x == 0 && y == 0 && go}\n" in text


@given(
    st.lists(st.sampled_from(["a", "b", {"check": "x > 1"}, {"retry": {"sequence": ["a"] * 30}, "max": 2}]))
)
@FEW
def test_lines_fit(nodes: list[Any]) -> None:
    text = format_document(as_text(tree({"sequence": [*nodes, "a"]}))).text
    assert max(map(len, text.splitlines())) <= WIDTH


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=30))
@settings(max_examples=300)
def test_any_text_is_read_as_it_was(text: str) -> None:
    value = {
        "description": text,
        "name": text,
        "tools": {"t": {"code": text}},
        "states": [{"raise": [text]}, text],
    }
    again = load_document(printed(value, Notes()).encode())
    assert again == value


@pytest.mark.parametrize(
    "text",
    [
        *(
            "yes",
            "1:30",
            "08",
            "1e3",
            "null",
            "~",
            "",
            " x",
            "x ",
            "#x",
            "x #y",
            "a: b",
            "- a",
            "[",
            "'a'",
            '"',
            "a\n",
        ),
        "a\nb",
        "\n a\n",
        "a\n\n",
        "a\r\nb",
        "a\tb\n\tc",
        "{x}",
        "on",
        "é\u2028ü\n",
        "a" * 200,
        "a b " * 60,
        *("&a", "%", "@x", "\\n'"),
    ],
)
def test_odd_texts_are_read_as_they_were(text: str) -> None:
    value = {
        "prompt": text,
        "in": {"k": text},
        "children": [text, [text]],
        "cases": {text or "_": 1, "2": 0.5},
    }
    if text == "on":
        value["cases"] = {}
    assert load_document(printed(value, Notes()).encode()) == value


def test_code_is_a_block_and_prose_is_broken_between_words() -> None:
    long = "word " * 40 + "end"
    text = printed(
        {"description": long, "code": "def run():\n    return {}\n", "prompt": "one\ntwo"}, Notes()
    )
    assert "description: >-\n  word " in text
    assert "code: |\n  def run():\n      return {}\n" in text
    assert "prompt: |-\n  one\n  two\n" in text


def models() -> list[type[BaseModel]]:
    return [
        model
        for model in vars(document_shape).values()
        if isinstance(model, type)
        and issubclass(model, BaseModel)
        and model.__module__ == document_shape.__name__
    ]


def test_every_key_of_the_format_has_its_place() -> None:
    keys = {field.alias or name for model in models() for name, field in model.model_fields.items()}
    assert keys - set(ORDER) == set()
    assert len(ORDER) == len(set(ORDER))


def test_every_table_of_the_format_is_known_as_one() -> None:
    tables = {
        field.alias or name
        for model in models()
        for name, field in model.model_fields.items()
        if "dict" in str(field.annotation) or get_origin(field.annotation) is dict
    }
    assert tables <= TABLES


# ------------------------------------------------------------------------------------------------------- comments

NOTED = b"""\
# the head
agentflow: plan/v1   # version
kind: bt # a tree

# about the name
name: noted
limits: {steps: 2, # few
   wall: 1h}
tools:
  # the tool
  count:
    kind: python
    code: | # the code
      def run(text):
          # no comment
          return {'#': 1}

    # after
    usd: 0
tasks:
  measure: {kind: tool, use: count, in: {text: "'# not one'"}} # behind measure
root:
  type: sequence # seq
  children:
  # first
  - type: task
    # really
    task: measure
  - {type: check, if: 'true'} # yes
  # - commented: out
  - type: if
    # the condition
    children:
    - check: true   # asked
    # the way
    - measure
# the end
"""


@pytest.mark.parametrize("canonical", [True, False])
def test_comments_go_with_what_they_stand_at(canonical: bool) -> None:
    formatted = format_document(NOTED, canonical=canonical)
    assert formatted.lost == ()
    assert format_document(formatted.text.encode(), canonical=canonical) == formatted
    text = formatted.text
    assert text.startswith("# the head\nagentflow: plan/v1  # version")
    assert "\n\n# about the name\nname: noted\n" in text
    assert "\n  steps: 2  # few\n" in text
    assert "\n  # the tool\n  count:\n" in text
    assert "\n    code: |  # the code\n      def run(text):\n          # no comment\n" in text
    assert "\n\n    # after\n    usd: 0\n" in text
    assert """in: {text: "'# not one'"}}  # behind measure\n""" in text
    assert re.search(r"  # yes\n    # - commented: out\n(    - type: if\n  )?    # the condition\n", text)
    assert re.search(r"if: (true|'true')  # asked\n", text)
    assert re.search(r"\n +# the way\n +(then: measure|- {type: task, task: measure})\n", text)
    assert text.endswith("# the end\n")


def test_without_the_place_a_comment_goes_to_what_is_around_it() -> None:
    text = format_document(NOTED).text
    assert "kind: bt" not in text and "agentflow: plan/v1  # version  # a tree\n" in text
    assert "\nroot:  # seq\n  sequence:\n" in text
    assert "\n    # first\n    # really\n    - measure\n" in text


@given(st.sets(st.integers(0, len(NOTED.splitlines()) - 1)), st.booleans())
@FEW
def test_comments_anywhere_are_kept(lines: set[int], canonical: bool) -> None:
    text = ""
    for number, line in enumerate(NOTED.decode().splitlines()):
        if number in lines and not (13 <= number <= 15):  # not into the code
            text += f"# added {number}\n"
        text += line + "\n"
    formatted = format_document(text.encode(), canonical=canonical)
    assert formatted.lost == ()
    assert formatted.text.count("# added") == text.count("# added")
    assert format_document(formatted.text.encode(), canonical=canonical) == formatted


def test_a_byte_order_mark_moves_no_comment() -> None:
    marked = format_document(b"\xef\xbb\xbf" + NOTED)
    assert marked == format_document(NOTED)


def test_comments_are_counted_and_text_is_not_taken_for_one() -> None:
    assert sum(notes(NOTED.decode()).comments().values()) == NOTED.decode().count("# ") - 2
    assert notes('a: "# no"\nb: x#no\nc: [d, "#"]\n') == Notes()
    assert format_document(b'{"agentflow": "plan/v1", "name": "# no"}').lost == ()


def test_a_comment_on_what_comes_first_in_an_item_is_above_the_item() -> None:
    text = b"""\
agentflow: plan/v1
root:
  - ok_if: go
    # why
    type: task
"""
    assert "\nroot:\n  # why\n  - type: task\n    ok_if: go\n" in printed(load_document(text), notes(text.decode()))
