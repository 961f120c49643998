"""BehaviorTree.CPP trees, a case for each node and attribute, are imported, printed, compiled and played."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from core.driving import play

from agentflow.errors import Invalid
from agentflow.imports.btcpp import Options, read_btcpp
from agentflow.wire.document_format import format_document

FOLDER = Path(__file__).parent / "btcpp"
CASES = [
    pytest.param(case, id=f"{path.stem}: {case['name']}")
    for path in sorted(FOLDER.glob("*.yaml"))
    for case in yaml.safe_load(path.read_text())
]


def btcpp(body: str) -> bytes:
    """A document around its trees, or around the one tree's root."""
    trees = body if "<BehaviorTree" in body else f'<BehaviorTree ID="Main">{body}</BehaviorTree>'
    return f'<root BTCPP_format="4" main_tree_to_execute="Main">{trees}</root>'.encode()


@pytest.mark.parametrize("case", CASES)
def test_case(case: dict[str, Any]) -> None:
    options = Options(loops=4, steps=30, enums={"RED": 1, "GREEN": 2}, tree=case.get("tree", ""))
    if "refused" in case:
        with pytest.raises(Invalid) as refusal:
            read_btcpp(btcpp(case["xml"]), options)
        assert case["refused"] in str(refusal.value)
        return
    imported = read_btcpp(btcpp(case["xml"]), options)
    assert [problem.path for problem in imported.left_out] == case.get("left_out", [])
    document = yaml.safe_load(format_document(json.dumps(imported.document).encode()).text)
    for key, part in case.get("document", {}).items():
        assert imported.document[key] == part
    drive = play(document, case["play"], **case.get("input", {}))
    assert drive.state is not None
    for name, value in case.get("vars", {}).items():
        assert drive.state.vars[name] == value, (name, drive.state.vars)
    for name, values in case.get("inputs", {}).items():
        (given,) = {json.dumps(made) for step, made in drive.inputs.items() if _task(drive, step) == name}
        assert json.loads(given) == values


def _task(drive: Any, step: int) -> str:
    """The task of a step that has been started."""
    starts = [command for commands in drive.history for command in commands if hasattr(command, "task")]
    return next(command.task for command in starts if command.step == step)


def test_trees_that_use_each_other_twice_do_not_grow_without_bound() -> None:
    twice = "<BehaviorTree ID='T{}'><Sequence><SubTree ID='T{}'/><SubTree ID='T{}'/></Sequence></BehaviorTree>"
    uses = [twice.format(number, number + 1, number + 1) for number in range(25)]
    last = '<BehaviorTree ID="T25"><Script code="x := 1"/></BehaviorTree>'
    main = '<BehaviorTree ID="Main"><Repeat num_cycles="2"><SubTree ID="T0"/></Repeat></BehaviorTree>'
    with pytest.raises(Invalid) as refusal:
        read_btcpp(btcpp(main + "".join(uses) + last))
    assert "needs more than 200 entries outside" in str(refusal.value)
