"""``agentflow import``: other formats become documents that compile; what is not in them is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agentflow.wire.document import compile_document

from .conftest import Command
from .test_main import one_line

MACHINE = """<scxml xmlns="http://www.w3.org/2005/07/scxml" name="Door" initial="Open">
  <state id="Open"><onentry><log expr="1"/>{send}</onentry><transition event="close" target="shut"/></state>
  <final id="shut"/></scxml>"""
TREE = """<root BTCPP_format="4"><BehaviorTree ID="Tidy"><Sequence>
  <ScriptCondition code="color == RED"/><Clean/></Sequence></BehaviorTree></root>"""


Written = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    """Writes a file and gives its path."""

    def write(text: str) -> str:
        path = tmp_path / "plan.xml"
        path.write_text(text)
        return str(path)

    return write


async def test_a_machine_is_printed_and_compiles(agentflow: Command, written: Written) -> None:
    file = written(MACHINE.format(send=""))
    printed = await agentflow("import", "scxml", file, "--steps", "7")
    assert printed.code == 0 and "note: line 2 <log>" in printed.err
    plan = compile_document(printed.out.encode())
    assert (plan.name, plan.limits.steps) == ("door_", 7)


async def test_what_is_left_out_is_said_and_only_printed_when_asked(agentflow: Command, written: Written) -> None:
    file = written(MACHINE.format(send='<send event="x" target="http://example.com"/>'))
    refused = await agentflow("import", "scxml", file)
    assert refused.code == 1 and refused.out == "" and "left out: line 2 <send event='x'>" in refused.err
    partial = await agentflow("import", "scxml", file, "--partial")
    assert partial.code == 0 and compile_document(partial.out.encode()).name == "door_"


async def test_a_tree_is_printed_with_the_names_that_are_given(agentflow: Command, written: Written) -> None:
    file = written(TREE)
    printed = await agentflow("import", "btcpp", file, "--enum", "RED=3")
    assert printed.code == 0 and "color == 3" in printed.out and "stands for the node Clean" in printed.out
    assert "note: line 2 <Clean>: is the task 'clean'" in printed.err
    assert list(compile_document(printed.out.encode()).input) == ["color"]
    one_line(await agentflow("import", "btcpp", file, "--enum", "RED"), "--enum")
    one_line(await agentflow("import", "btcpp", file, "--tree", "Other"), "there is no tree 'Other'")
    one_line(await agentflow("import", "btcpp", file + "x"), "cannot be read")
