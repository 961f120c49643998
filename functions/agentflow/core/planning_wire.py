"""The flat form in which a model writes a plan, and what it stands for as plan/v1.

A list of nodes that name their parents, every field always there: that is what strict structured outputs can hold a
model to, and what models get right. ``schema`` is the JSON Schema of an answer, ``document`` the plan it stands for
with ``author``, which says for each of its paths which node wrote it; ``Misshapen`` lists what cannot stand for a plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentflow.errors import Problem

MAX_NODES = 100
MAX_TEXT = 1_000
MAX_DEPTH = 30
NONE = "none"
TREE_TYPES = ("task", "check", "sequence", "fallback", "parallel", "retry", "map", "try")
MACHINE_TYPES = ("state", "regions", "final")
EVENTS = ("done", "failed", "timeout", "always")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")

Node = Mapping[str, Any]


class Misshapen(Exception):
    """An answer that stands for no plan; ``problems`` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(str(problems[0]))
        self.problems = problems


def schema(tasks: Sequence[str], kind: str) -> dict[str, Any]:
    """The JSON Schema of an answer; ``kind`` is fsm, bt or any."""
    types = {"bt": TREE_TYPES, "fsm": MACHINE_TYPES}.get(kind, (*TREE_TYPES, *MACHINE_TYPES))
    text = {"type": "string"}
    edge = _object({"event": _one_of(EVENTS), "cond": text, "to": text})
    node = _object(
        {
            "id": text,
            "type": _one_of(types),
            "parent": text,
            "task": _one_of((*tasks, NONE)),
            "cond": text,
            "max": {"type": "integer"},
            "edges": {"type": "array", "items": edge},
            "set": {"type": "array", "items": _object({"var": text, "expr": text})},
        }
    )
    kinds = _one_of((kind,) if kind in ("fsm", "bt") else ("fsm", "bt"))
    return _object({"rationale": text, "kind": kinds, "nodes": {"type": "array", "items": node}})


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _one_of(names: Sequence[str]) -> dict[str, Any]:
    return {"type": "string", "enum": list(names)}


# ----------------------------------------------------------------------------------------------- from flat to plan


def document(answer: Any, tasks: Sequence[str], kind: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The plan's part of a document (``kind`` with ``root``, or ``initial`` and ``states``), and its ``author``."""
    nodes = _checked(answer, tasks, kind)
    if answer["kind"] == "bt":
        return _Tree(nodes).document()
    return _machine(nodes)


def _checked(answer: Any, tasks: Sequence[str], kind: str) -> list[Node]:
    """The nodes, each of the shape that the schema says: not every model is held to it."""
    faults = _Faults()
    if not isinstance(answer, dict) or not isinstance(answer.get("nodes"), list):
        faults.add("", "is not an object with a list `nodes`", "answer with {rationale, kind, nodes}")
        raise Misshapen(faults.found)
    said = answer.get("kind")
    if said not in (("fsm", "bt") if kind == "any" else (kind,)):
        faults.add("kind", f"is {said!r}"[:80], f"answer with a plan of kind {kind}")
    nodes: list[Node] = answer["nodes"]
    if not 1 <= len(nodes) <= MAX_NODES:
        faults.add("nodes", f"there are {len(nodes)}", f"use 1 to {MAX_NODES} nodes")
        raise Misshapen(faults.found)
    types = TREE_TYPES if said == "bt" else MACHINE_TYPES
    seen: set[str] = set()
    for place, node in enumerate(nodes):
        path = f"nodes[{place}]"
        if not isinstance(node, dict):
            faults.add(path, "is no object", "write it as the others")
            continue
        _check_node(node, path, types, tasks, faults)
        if node.get("id") in seen:
            faults.add(f"{path}.id", f"{node['id']!r} is the id of another node", "choose another")
        seen.add(str(node.get("id")))
    if faults.found:
        raise Misshapen(faults.found)
    return nodes


def _check_node(node: dict[str, Any], path: str, types: Sequence[str], tasks: Sequence[str], faults: _Faults) -> None:
    for key in ("id", "type", "parent", "task", "cond"):
        if not isinstance(node.get(key), str) or len(node[key]) > MAX_TEXT:
            faults.add(f"{path}.{key}", "is no text, or too long", "give it; '' where it means nothing")
            return
    if not _NAME.fullmatch(node["id"]):
        faults.add(f"{path}.id", f"{node['id'][:40]!r} is no name", "use 1 to 64 of a-z 0-9 _ -")
    if node["type"] not in types:
        faults.add(f"{path}.type", f"there is no {node['type'][:40]!r} in such a plan", "use " + ", ".join(types))
    if node["task"] not in (*tasks, NONE, ""):
        faults.add(f"{path}.task", f"there is no task {node['task'][:64]!r}", "use " + ", ".join((*tasks, NONE)))
    if type(node.get("max")) is not int or not 0 <= node["max"] <= 1_000:
        faults.add(f"{path}.max", "is not a whole number from 0 to 1000", "give 0 where it means nothing")
    _check_list(node, "edges", {"event": EVENTS, "cond": None, "to": None}, path, faults)
    _check_list(node, "set", {"var": None, "expr": None}, path, faults)


def _check_list(
    node: dict[str, Any], key: str, fields: Mapping[str, Sequence[str] | None], path: str, faults: _Faults
) -> None:
    entries = node.get(key)
    if not isinstance(entries, list) or len(entries) > MAX_NODES:
        faults.add(f"{path}.{key}", "is no list, or too long", "give [] where it means nothing")
        return
    for place, entry in enumerate(entries):
        for name, known in fields.items():
            value = entry.get(name) if isinstance(entry, dict) else None
            if not isinstance(value, str) or len(value) > MAX_TEXT or (known and value not in known):
                wanted = "one of " + ", ".join(known) if known else "text"
                faults.add(f"{path}.{key}[{place}].{name}", "is missing or wrong", f"give {wanted}")


class _Faults:
    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, path: str, message: str, mend: str) -> None:
        if len(self.found) < 50:
            self.found.append(Problem(path, message, mend, "wire"))


class _Tree:
    """A behaviour tree from nodes that name their parents; children are in the order of the list."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.children: dict[str, list[int]] = {}
        self.nodes = nodes
        self.author: dict[str, str] = {}
        self.faults = _Faults()
        names = {node["id"] for node in nodes}
        for place, node in enumerate(nodes):
            if node["parent"] and node["parent"] not in names:
                self.faults.add(f"nodes[{place}].parent", f"there is no node {node['parent'][:64]!r}", "name a node")
            self.children.setdefault(node["parent"], []).append(place)

    def document(self) -> tuple[dict[str, Any], dict[str, str]]:
        roots = self.children.get("", [])
        if len(roots) != 1:
            self.faults.add("nodes", f"{len(roots)} nodes have no parent", "let exactly one have the parent ''")
        if self.faults.found:
            raise Misshapen(self.faults.found)
        root = self._node(roots[0], "root", 0)
        lost = len(self.nodes) - len(self.author)
        if lost > 0:
            self.faults.add("nodes", f"{lost} nodes are not below the root", "let their parents lead to it")
        if self.faults.found:
            raise Misshapen(self.faults.found)
        return {"kind": "bt", "root": root}, self.author

    def _node(self, place: int, path: str, depth: int) -> dict[str, Any]:
        node = self.nodes[place]
        written = f"nodes[{place}]"
        self.author[path] = written
        if depth > MAX_DEPTH:
            self.faults.add(written, f"is more than {MAX_DEPTH} deep", "flatten the plan")
            return {"type": "fail"}
        kind = node["type"]
        children = self.children.get(node["id"], [])
        built: dict[str, Any] = {"type": kind}
        if kind == "task":
            built |= {"task": node["task"]} | ({"ok_if": node["cond"]} if node["cond"] else {})
            if node["set"]:
                built["set"] = {entry["var"]: entry["expr"] for entry in node["set"]}
        elif kind == "check":
            built["if"] = node["cond"] or "true"
        elif kind in ("retry", "map"):
            built |= {"max": max(node["max"], 1)} | ({"over": node["cond"]} if kind == "map" else {})
        elif kind == "parallel" and node["max"]:
            built["need"] = node["max"]
        single = kind in ("retry", "map")
        least = 2 if kind == "try" else 1
        if kind in ("task", "check"):
            if children:
                self.faults.add(written, f"a {kind} has no children", "put a sequence around them")
        elif len(children) < least or (single and len(children) > 1):
            wanted = "exactly one child" if single else f"at least {least} children"
            self.faults.add(written, f"has {len(children)} children; a {kind} has {wanted}", "change it")
        elif single:
            built["child"] = self._node(children[0], path + ".child", depth + 1)
        else:
            built["children"] = [
                self._node(child, f"{path}.children[{i}]", depth + 1) for i, child in enumerate(children)
            ]
        return built


def _machine(nodes: Sequence[Node]) -> tuple[dict[str, Any], dict[str, str]]:
    """A state machine; among the states with the same parent the first is where it begins."""
    states: dict[str, Any] = {}
    author: dict[str, str] = {}
    children: dict[str, list[str]] = {}
    kinds = {node["id"]: node["type"] for node in nodes}
    faults = _Faults()
    for place, node in enumerate(nodes):
        name, written = node["id"], f"nodes[{place}]"
        author[f"states.{name}"] = written
        children.setdefault(node["parent"], []).append(name)
        state: dict[str, Any] = {}
        if node["parent"]:
            state["in"] = node["parent"]
            if kinds.get(node["parent"]) not in ("state", "regions"):
                faults.add(f"{written}.parent", f"there is no state {node['parent'][:64]!r} to be in", "name a state")
        if node["type"] == "final":
            state["final"] = "failure" if node["cond"].strip("'\" ") == "failure" else "success"
        elif node["task"] not in (NONE, ""):
            state["run"] = node["task"]
        if node["max"] and node["type"] != "final":
            state["visits"] = node["max"]
        if node["edges"] and node["type"] != "final":
            state["transitions"] = [_edge(node, entry) for entry in node["edges"]]
            author |= {f"states.{name}.transitions[{i}]": f"{written}.edges[{i}]" for i in range(len(node["edges"]))}
            author |= {
                f"states.{name}.transitions[{i}].set": f"{written}.set" for i, _ in enumerate(node["edges"])
            }
        states[name] = state
    for name, kind in kinds.items():
        if kind == "regions":
            states[name]["regions"] = children.get(name, [])
        elif name in children:
            states[name]["initial"] = children[name][0]
    if "" not in children:
        faults.add("nodes", "no state is outside of all others", "let some have the parent ''")
    if faults.found:
        raise Misshapen(faults.found)
    return {"kind": "fsm", "initial": children[""][0], "states": states}, author


def _edge(node: Node, entry: Node) -> dict[str, Any]:
    """A transition; what a node sets is set when its task is done."""
    edge = {"to": entry["to"]} | ({"if": entry["cond"]} if entry["cond"] else {})
    if entry["event"] != "always":
        edge["event"] = entry["event"]
    if entry["event"] == "done" and node["set"]:
        edge["set"] = {each["var"]: each["expr"] for each in node["set"]}
    return edge
