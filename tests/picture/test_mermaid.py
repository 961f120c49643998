"""A plan as Mermaid text: everything that is in it, nothing that Mermaid reads as something else."""

from __future__ import annotations

import re
from typing import Any

import pytest
from core.driving import machine, tree

from agentflow.core.plan import Plan
from agentflow.picture.diagram import Mark
from agentflow.picture.printing import picture
from agentflow.wire.document import compile_document

from .plans import VECTORS, compiled


def mermaid(plan: Plan, *active: str) -> str:
    return picture(plan, "mermaid", {key: Mark("active") for key in active}).decode()


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_all_that_a_plan_has_is_drawn(vector: dict[str, Any]) -> None:
    plan = compiled(vector)
    text = mermaid(plan)
    arrows = re.findall(r"^ +(\S+) -->(?:\|\"[^\"]*\"\|)? (\S+)", text, re.MULTILINE)
    if plan.tree is not None:
        assert len(re.findall(r"^    n\d+[(\[{]", text, re.MULTILINE)) == len(plan.tree.nodes)
        assert len(arrows) == len(plan.tree.nodes) - 1  # a tree
        return
    assert plan.machine is not None
    drawn = set(re.findall(r"^ +(?:state )?([a-z0-9_]+)(?: :| \{)", text, re.MULTILINE))
    names = {state.name.replace("_", "__").replace(".", "_p") for state in plan.machine.states if state.index}
    assert drawn == names
    assert {end for arrow in arrows for end in arrow} - {"[*]"} <= names


def test_where_a_run_is_is_marked() -> None:
    states = {"s-1": {"run": "a", "transitions": [{"event": "done", "to": "ok"}]}, "ok": {"final": "success"}}
    plan = compile_document(machine(states))
    assert "class s_d1 active" in mermaid(plan, "s-1")
    assert "active" not in mermaid(plan)
    plan = compile_document(tree({"sequence": ["a", "b"]}))
    assert "class n2 active" in mermaid(plan, "n2")


def test_a_subtree_is_drawn_where_it_is_used_and_a_catch_is_marked() -> None:
    root = {"try": [{"subtree": "t"}], "catch": {"keep": "c", "max": 2}}
    text = mermaid(compile_document(tree(root, trees={"t": {"root": "a"}})))
    assert re.search(r'n1\["subtree.* t.*"\]', text)
    assert "n1 --> n2" in text
    assert 'n0 -->|"catch"| n3' in text


def test_what_mermaid_would_read_as_syntax_is_written_out() -> None:
    text = mermaid(compile_document(tree({"check": "xs == ['a\"b', '<c>'] || x % 2 == 1"})))
    assert text.splitlines()[1] == """    n0{{"xs == ['a#34;b', '#60;c#62;'] #124;#124; x #37; 2 == 1"}}"""
