"""BehaviorTree.CPP's loops over a queue as maps that take one item at a time."""

from __future__ import annotations

from typing import Any

from agentflow.imports import btcpp_model as model
from agentflow.imports.btcpp_board import Board, entry_of, literal
from agentflow.imports.findings import Findings
from agentflow.imports.syntax import Items, Literal, Name, Node, Unreadable
from agentflow.imports.writing import Said
from agentflow.imports.xml import Element

_EMPTY: dict[str, dict[str, Any]] = {
    "SUCCESS": {"type": "succeed"},
    "FAILURE": {"type": "fail"},
    "SKIPPED": {"type": "sequence", "children": [{"type": "succeed"}], "skip_if": True},
}
"""What the loop comes to when nothing is left in the queue, by ``if_empty``."""

Table = dict[str, Any]


def loop(element: Element, name: str, child: Table, board: Board, findings: Findings, loops: int) -> Table:
    """The node: ``child`` for each item, in order, until it fails; after the last one it ends as ``if_empty`` says.
    ``loops``: the most items of a queue that is an entry."""
    type_ = model.LOOPS[name]
    end = _EMPTY.get(element.get("if_empty", "SUCCESS").removeprefix("NodeStatus::"))
    if end is None:
        findings.refuse(element, f"if_empty is {element.get('if_empty')[:40]!r}", "use SUCCESS, FAILURE or SKIPPED")
        return {"type": "fail"}
    end = {key: Said(Literal(part), element, True) if part is True else part for key, part in end.items()}
    queue, most = _queue(element, type_, board, findings, loops)
    if not most:
        return end
    sets: Table = {}
    if value := entry_of(element.get("value"), "value"):
        known = type_ if isinstance(queue, Items) else "json"
        sets[board.output(value, known)] = Said(Name("item"), element, locals={"item": known})
    # What is done for an item is never skipped: a loop goes on to the next then.
    first: Table = {"type": "succeed", **({"on_success": sets} if sets else {})}
    each: Table = {
        "type": "map", "over": Said(queue, element), "max": most, "concurrency": 1,
        "child": {"type": "sequence", "children": [first, child]},
    }  # fmt: skip
    return each if end == _EMPTY["SUCCESS"] else {"type": "if", "children": [each, end]}


def _queue(element: Element, type_: str, board: Board, findings: Findings, loops: int) -> tuple[Node, int]:
    """The items, and how many there are at most."""
    text = element.get("queue")
    entry = entry_of(text, "queue")
    if entry:
        findings.note(element, f"goes round for {loops:,} items at most, and leaves the list as it is", "--loops")
        return Name(board.field(entry, "list")), loops
    try:
        items = tuple(literal(part, type_) for part in text.split(";")) if text.strip() else ()
    except Unreadable as fault:
        findings.refuse(element, f"queue: {fault}", f"give values of type {type_}")
        items = ()
    return Items(items), len(items)
