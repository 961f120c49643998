"""The way back from ``core.canonical``: a canonical document as a person would write it.

``normalise(shorten(canonical))`` is ``canonical`` again. What has no short form stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from agentflow.core.canonical import (
    GOAL,
    NODE_CEL,
    PAYLOAD,
    RAISED_CEL,
    RAISED_WHOLE_CEL,
    STATE_CEL,
    TASK_CEL,
    TRANSITION_CEL,
    TRIGGER_CEL,
    WAYS,
    Cel,
    normalise,
)

Part = dict[str, Any]

_CONSTANTS: dict[str, Any] = {"true": True, "false": False}
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,17})?(e[-+][0-9]{2,3})?")


def shorten(canonical: Mapping[str, Any]) -> Part:
    """The short form of a canonical document that has the right shape. The argument is not changed."""
    document = _without_plan(dict(canonical))
    for key, short in _SHORT.items():
        if key in document:
            document[key] = short(document[key])
    return document


def _without_plan(document: Part) -> Part:
    """Without what the rest of the document says: the kind, and the plan that runs the only task."""
    bare = {key: value for key, value in document.items() if key != "kind"}
    task = _without_tree(bare)
    for shorter in (task, bare):
        if shorter is not None and normalise(shorter)[0] == document:
            return shorter
    return document


def _without_tree(document: Part) -> Part | None:
    if document.get("root", {}).get("type") != "task":
        return None
    kept = {key: value for key, value in document.items() if key != "root"}
    fields = document["root"].get("set", {})
    if kept.get("output") == {field: field for field in fields}:
        del kept["output"]
    if "vars" in kept:
        kept["vars"] = {name: type_ for name, type_ in kept["vars"].items() if name not in fields}
        if not kept["vars"]:
            del kept["vars"]
    return kept


def _each(short: Callable[[Part], Any]) -> Callable[[Part], Part]:
    return lambda table: {name: short(entry) for name, entry in table.items()}


def _task(task: Part) -> Part:
    return _plain(task, TASK_CEL)


def _trigger(trigger: Part) -> Part:
    return _plain(trigger, TRIGGER_CEL)


def _goal(goal: Part) -> Part:
    return {key: value for key, value in goal.items() if GOAL.get(key) != value}


def _state(state: Part) -> Part:
    state = _plain(state, STATE_CEL)
    if "transitions" in state:
        state["transitions"] = _transitions(state["transitions"])
    for key in ("entry", "exit"):
        if key in state:
            state[key] = _transition(state[key])
    return state


def _transitions(entries: list[Part]) -> list[Part]:
    return [_transition(entry) for entry in entries]


def _transition(entry: Part) -> Part:
    entry = _plain(entry, TRANSITION_CEL)
    if "raise" in entry:
        entry["raise"] = [each if isinstance(each, str) else _raised(each) for each in entry["raise"]]
        if len(entry["raise"]) == 1:
            (entry["raise"],) = entry["raise"]
    return entry


def _raised(entry: Part) -> Part:
    return _plain(entry, RAISED_CEL if isinstance(entry.get("data"), dict) else RAISED_WHOLE_CEL)


def _node(node: Part) -> Any:
    if node.keys() == {"type", "task"}:
        return node["task"]
    node = _plain(node, NODE_CEL)
    if "children" in node:
        node["children"] = [_node(child) for child in node["children"]]
    for key in ("child", "default"):
        if key in node:
            node[key] = _node(node[key])
    if "cases" in node:
        node["cases"] = {name: _node(child) for name, child in node["cases"].items()}
    kind = node["type"]
    if kind in WAYS:
        return _way(node, kind)
    if kind == "try" and len(node["children"]) > 1:
        *body, catch = node["children"]
        rest = {key: value for key, value in node.items() if key not in ("type", "children")}
        return {"try": body, "catch": catch, **rest}
    if kind not in PAYLOAD or PAYLOAD[kind] not in node:
        return node
    rest = {key: value for key, value in node.items() if key not in ("type", PAYLOAD[kind])}
    return {kind: node[PAYLOAD[kind]], **rest}


def _tree(tree: Part) -> Part:
    return {**tree, "root": _node(tree["root"])}


def _way(node: Part, kind: str) -> Part:
    """{if: …, then: …, else: …} where the condition is a check with nothing else to it."""
    condition, *ways = node["children"]
    bare = isinstance(condition, dict) and condition.keys() == {"check"}
    if not bare or kind in node or not 1 <= len(ways) <= 2:
        return node
    rest = {key: value for key, value in node.items() if key not in ("type", "children")}
    return {kind: condition["check"], **dict(zip((WAYS[kind], "else"), ways, strict=False)), **rest}


def _plain(part: Part, cel: Cel) -> Part:
    """With the literals among its expressions as plain values."""
    part = dict(part)
    single, tables = cel
    for key in single:
        if key in part:
            part[key] = _value(part[key])
    for key in tables:
        if key in part:
            part[key] = _values(part[key])
    return part


def _values(table: Part) -> Part:
    return {name: None if text == "null" else _value(text) for name, text in table.items()}


def _value(text: str) -> Any:
    """The literal that an expression is; any other as it stands."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _NUMBER.fullmatch(text) is None:
        return text
    number = float(text) if set(text) & set(".e") else int(text)
    return number if repr(number) == text else text


_SHORT: dict[str, Callable[[Any], Any]] = {
    "tasks": _each(_task),
    "states": _each(_state),
    "transitions": _transitions,
    "output": _values,
    "trigger": _trigger,
    "root": _node,
    "trees": _each(_tree),
    "plan": _goal,
}
