"""What a model is told that is to write a plan: the form, the goal, the tasks it may use, and what was wrong before."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_FORM = """\
You write plans for a workflow engine. A plan says which tasks run, in which order, and what happens when one fails.
Answer with one JSON object {rationale, kind, nodes}: why this plan, its kind, and its nodes as a flat list.
Every node has all fields: id (a lower-case name), type, parent (the id of the node it is in, '' for none), task (a
task's name, or none), cond, max, edges, set. Give '' or 0 or [] where a field means nothing.
Expressions (cond, expr) are CEL over the inputs and variables, and `result` for the result of the node's own task.
Numbers are not converted: write x + 1.0 where x is a double, x + 1 where it is an int.
set is a list of {var, expr}: it keeps parts of a task's result in variables, so that later tasks can read them. Only
declared variables can be set. What a task is given is written in its `in`; you cannot change that."""

_TREE = """\
A plan of kind bt is a behaviour tree. Exactly one node has the parent ''. Children run in the order of the list.
task runs a task: it succeeds when that ends well and cond, if there is one, holds. check succeeds when cond holds.
sequence runs its children one after the other until one fails, fallback until one succeeds. parallel runs them all at
once: max of them must succeed (0: all). retry runs its one child again while it fails, max times in all. map runs its
one child for each `item` of the list cond, for max items at most. try runs its children one after the other, the last
of them only if another fails or is stopped."""

_MACHINE = """\
A plan of kind fsm is a state machine. The first node of each parent is where it begins. A state runs its task, if any,
and its edges say where it goes: event done, failed or timeout when the task has ended, always at once. The first edge
whose cond holds is taken. Every state with a task needs an edge for done and one for failed. max says how often a state
may be entered: give it in every loop. The children of regions run at the same time. final is the end: its cond is
success or failure. What a state sets is set when its task is done."""


def _node(id_: str, type_: str, parent: str = "", **fields: Any) -> dict[str, Any]:
    rest = {"task": "none", "cond": "", "max": 0, "edges": [], "set": []}
    return {"id": id_, "type": type_, "parent": parent, **rest, **fields}


def _edge(event: str, to: str, cond: str = "") -> dict[str, str]:
    return {"event": event, "cond": cond, "to": to}


_FACTS = [{"var": "facts", "expr": "result.facts"}]
_TEXT = [{"var": "text", "expr": "result.text"}]
_EXAMPLES = {
    "bt": {
        "rationale": "Look twice before giving up, then write.",
        "kind": "bt",
        "nodes": [
            _node("all", "sequence"),
            _node("twice", "retry", "all", max=2),
            _node("find", "task", "twice", task="look_up", cond="result.found", set=_FACTS),
            _node("say", "task", "all", task="write", set=_TEXT),
        ],
    },
    "fsm": {
        "rationale": "Look, then write; end in failure when nothing is found.",
        "kind": "fsm",
        "nodes": [
            _node(
                "finding", "state", task="look_up", set=_FACTS,
                edges=[_edge("done", "writing", "result.found"), _edge("done", "lost"), _edge("failed", "lost")],
            ),
            _node("writing", "state", task="write", set=_TEXT, edges=[_edge("done", "end"), _edge("failed", "lost")]),
            _node("end", "final", cond="success"),
            _node("lost", "final", cond="failure"),
        ],
    },
}  # fmt: skip


def system(kind: str) -> str:
    """The form of an answer, with an example."""
    parts = [_FORM]
    if kind in ("bt", "any"):
        parts.append(_TREE)
    if kind in ("fsm", "any"):
        parts.append(_MACHINE)
    example = _EXAMPLES["fsm" if kind == "fsm" else "bt"]
    parts.append("For example, with tasks look_up and write:\n" + json.dumps(example, separators=(",", ":")))
    return _literal("\n\n".join(parts))


_DECLARED = {"input": "Inputs", "vars": "Variables, which start empty", "output": "The result is made of"}


def prompt(document: Mapping[str, Any], tasks: Sequence[str]) -> str:
    """The goal and what there is to reach it; ``{planning_draft}`` and ``{planning_faults}`` are the last answer and
    what was wrong with it."""
    lines = [f"Goal: {document['plan']['goal']}", ""]
    for key, what in _DECLARED.items():
        if document.get(key):
            lines.append(_literal(f"{what}: {json.dumps(document[key], ensure_ascii=False)}"))
    lines.append("Tasks:")
    lines += [_literal(f"- {name}: {_described(document['tasks'][name])}") for name in tasks]
    limits = document["limits"]
    lines.append(f"At most {limits['steps']} steps may be run.")
    lines.append("")
    lines.append("Your last plan (null: this is the first): {planning_draft}")
    lines.append("What was wrong with it; mend all of that:\n{planning_faults}")
    return "\n".join(lines)


def _described(task: Mapping[str, Any]) -> str:
    """What a task is, for somebody who decides whether to use it."""
    told = {key: task[key] for key in ("kind", "description", "use", "in", "out", "prompt", "for") if key in task}
    if "prompt" in told and len(told["prompt"]) > 500:
        told["prompt"] = told["prompt"][:500] + "…"
    return json.dumps(told, ensure_ascii=False)


def _literal(text: str) -> str:
    """Text in which no brace is a placeholder's."""
    return text.replace("{", "{{").replace("}", "}}")
