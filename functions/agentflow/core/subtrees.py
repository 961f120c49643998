"""The trees of a document that others use: what each declares, and what a use gives it and shares with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.core.draft import Draft, Scope, Table
from agentflow.core.expr import Expr
from agentflow.core.types import Type


class Subtrees:
    """The trees by name. ``inside`` are those whose nodes are being compiled, the outermost first."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._trees: Table = draft.document.get("trees", {})
        self._names: dict[str, dict[str, Type]] = {}
        self.inside: list[str] = []

    def find(self, name: str, path: str) -> Table | None:
        """The tree that a node at ``path`` uses; None after a problem."""
        if name not in self._trees:
            self._draft.unknown(path, "tree", name, self._trees)
            return None
        if name in self.inside:
            way = " uses ".join([*self.inside[self.inside.index(name) :], name])
            self._draft.note(path, f"a tree cannot use itself: {way}", "repeat it with retry, repeat or keep", "cycle")
            return None
        tree: Table = self._trees[name]
        return tree

    def names(self, name: str) -> dict[str, Type]:
        """The variables of a tree: all that its nodes see."""
        if name not in self._names:
            self._names[name] = self._draft.types(self._trees[name].get("vars", {}), f"trees.{name}.vars")
        return self._names[name]

    def given(self, entry: Table, scope: Scope, path: str) -> tuple[tuple[str, Expr], ...]:
        """What a use gives the tree at its start, evaluated outside."""
        return self._draft.sets(entry.get("in", {}), scope, f"{path}.in", self.names(entry["tree"]))

    def share(self, entry: Table, names: Scope, path: str) -> dict[str, str]:
        """Which variables of the tree are the caller's (``names``), and what they are called there."""
        tree = entry["tree"]
        inner = self.names(tree)
        found: dict[str, str] = {}
        for name, outer in sorted(entry.get("share", {}).items()):
            where = f"{path}.share.{name}"
            if name not in inner:
                self._draft.unknown(where, "var", name, inner)
            elif outer not in names:
                self._draft.unknown(where, "var", outer, names)
            elif inner[name] != names[outer]:
                message = f"{name!r} is {inner[name]} in trees.{tree}, but {outer!r} is {names[outer]} here"
                self._draft.note(where, message, "declare both as the same type, or give it by `in`", "type")
            elif name in entry.get("in", {}):
                self._draft.note(where, f"`in` gives {name!r}, too", "use one of both", "duplicate")
            elif outer in found.values():
                self._draft.note(where, f"{outer!r} is shared twice", "share it by one name", "duplicate")
            else:
                found[name] = outer
        return found

    def check_used(self, used: set[str]) -> None:
        """Trees that nothing uses are refused."""
        for name in sorted(self._trees.keys() - used):
            mend = f"use it: {{subtree: {name}}}, or remove it"
            self._draft.note(f"trees.{name}", "no node uses this tree", mend, "unused")


def only_in_trees(document: Table) -> frozenset[str]:
    """The tasks that no node outside the document's trees runs, but one inside does; or that undo only those."""
    trees = document.get("trees")
    if not trees:
        return frozenset()
    undo = {name: task.get("undo", name) for name, task in document["tasks"].items()}
    inside = {name for tree in trees.values() for name in _tasks(tree["root"])}
    outside = set(_tasks(document["root"]))
    inside, outside = ({*names, *(undo.get(name, name) for name in names)} for names in (inside, outside))
    return frozenset(inside - outside)


def below(node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The nodes directly below a canonical one, in document order, and where in it they are."""
    for index, child in enumerate(node.get("children", ())):
        yield f".children[{index}]", child
    if "child" in node:
        yield ".child", node["child"]
    for name in sorted(node.get("cases", ())):
        yield f".cases.{name}", node["cases"][name]
    if "default" in node:
        yield ".default", node["default"]


def _tasks(node: Mapping[str, Any]) -> Iterator[str]:
    if node["type"] == "task":
        yield node["task"]
    for _, child in below(node):
        yield from _tasks(child)
