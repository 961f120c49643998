"""Nodes: from the nested document to a ``Tree`` in document order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agentflow.core.canonical import MAX_TREE_DEPTH
from agentflow.core.compile_tasks import is_file
from agentflow.core.draft import BOOL, JSON_TYPE, Draft, Scope, Table, milliseconds, result_scope
from agentflow.core.expr import Expr
from agentflow.core.plan import Task
from agentflow.core.tick import FAILURE, SUCCESS, TIMED, Conditions, Node, Tree
from agentflow.core.types import Type, parse

MAX_NODES = 5_000

LATER = ("try", "subtree")
"""Node types that plan/v1 names and this version does not run."""

_TRANSPARENT = ("sequence", "fallback", "invert", "force")
_LIST = parse("list(json)")
_INSTEAD = {
    "try": "use a fallback whose last child is the handler",
    "subtree": "write its nodes out",
}


def tree(draft: Draft) -> Tree | None:
    """The compiled tree; None when it holds nodes that cannot be compiled (the problems say which)."""
    builder = _Builder(draft)
    root = builder.node(draft.document["root"], "root", False, None, 0)
    if root is None or draft.problems:
        return None
    nodes = tuple(builder.nodes[index] for index in range(builder.count))
    return Tree(root, nodes, timed=any(node.kind in TIMED for node in nodes))


class _Builder:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.count = 0
        self.nodes: dict[int, Node] = {}

    def node(self, entry: Table, path: str, keep: bool, item: Type | None, depth: int) -> Node | None:
        """One node and all below it. ``keep``: a reactive node is above; ``item``: its type inside a map."""
        if depth > MAX_TREE_DEPTH:
            self.draft.note(
                path, f"nodes are nested more than {MAX_TREE_DEPTH} deep", "flatten them", "too_deep"
            )
            return None
        if self.count >= MAX_NODES:
            self.draft.note(
                path, f"the tree has more than {MAX_NODES:,} nodes", "split the workflow", "too_large"
            )
            return None
        kind = entry["type"]
        index = self.count
        self.count += 1
        if kind in LATER:
            self.draft.later(f"{path}.type", f"a node of type {kind!r}", _INSTEAD[kind])
        scope: dict[str, Type] = dict(self.draft.names)
        if item is not None:
            scope["item"] = item
        inner = item
        over = None
        if kind == "map":
            over, inner = self._over(entry, scope, path)
        children = self._children(entry, path, kind, keep, inner, depth)
        task = self.draft.task(entry["task"], f"{path}.task") if kind == "task" else None
        conditions = self._conditions(entry, kind, scope, path)
        reactive = bool(entry.get("reactive"))
        looks = reactive or kind in ("while", "switch") or (conditions is not None and conditions.holds is not None)
        node = Node(
            index=index,
            kind=kind,
            path=path,
            key=str(index),
            keep=keep,
            live=looks or any(child.live for child in children),
            children=children,
            first=tuple(child.index for child in children),
            reactive=reactive,
            condition=self._guard(entry, "if", scope, path) if kind == "check" else None,
            over=over,
            max=entry.get("max", 0),
            need=_counted(entry.get("need", 0), len(children)),
            fail_at=_counted(entry.get("fail_at", 1), len(children)),
            concurrency=entry.get("concurrency", entry.get("max", 0)),
            forced=FAILURE if entry.get("as") == "failure" else SUCCESS,
            conditions=conditions,
            for_ms=milliseconds(entry["for"]) if "for" in entry else 0,
            value=self.draft.expr(entry["value"], scope, None, f"{path}.value") if kind == "switch" else None,
            cases=tuple(sorted(entry.get("cases", ()))),
            wait_all=entry.get("wait") == "all",
            then_skip=entry.get("then", "skip") == "skip",
        )
        if kind == "parallel":
            self._thresholds(entry, path, len(entry["children"]))
        if kind in ("if", "while") and len(entry["children"]) > 3:
            mend = "give the condition, then and else"
            self.draft.note(f"{path}.children[3]", f"{kind} has three children at most", mend, "schema")
        if kind == "task":
            node = self._task(node, entry, task, scope, item)
        self.nodes[index] = node
        return node

    def _conditions(self, entry: Table, kind: str, scope: Scope, path: str) -> Conditions | None:
        """The conditions of a node. A task looks at ``fail_if`` and ``skip_if`` by itself."""
        guards = ("success_if", "while") if kind == "task" else ("fail_if", "success_if", "skip_if", "while")
        found = {
            "holds" if key == "while" else key: self._guard(entry, key, scope, path) for key in guards if key in entry
        }
        sets = {
            key: self.draft.sets(entry[key], scope, f"{path}.{key}")
            for key in ("on_success", "on_failure", "on_halt", "post")
            if key in entry
        }
        return Conditions(**found, **sets) if found or sets else None  # type: ignore[arg-type]

    def _children(
        self, entry: Table, path: str, kind: str, keep: bool, item: Type | None, depth: int
    ) -> tuple[Node, ...]:
        below = bool(entry.get("reactive")) or (keep and kind in _TRANSPARENT)
        given: list[tuple[Any, str]] = [
            (child, f"{path}.children[{i}]") for i, child in enumerate(entry.get("children", ()))
        ]
        if "child" in entry:
            given.append((entry["child"], path + ".child"))
        if kind == "switch":
            given += [(entry["cases"][name], f"{path}.cases.{name}") for name in sorted(entry["cases"])]
            if "default" in entry:
                given.append((entry["default"], path + ".default"))
        nodes = [self.node(child, where, below, item, depth + 1) for child, where in given]
        return tuple(node for node in nodes if node is not None)

    def _guard(self, entry: Table, key: str, scope: Scope, path: str) -> Expr | None:
        return self.draft.expr(entry[key], scope, BOOL, f"{path}.{key}") if key in entry else None

    def _task(self, node: Node, entry: Table, task: Task | None, scope: Scope, item: Type | None) -> Node:
        fail_if = self._guard(entry, "fail_if", scope, node.path)
        skip_if = self._guard(entry, "skip_if", scope, node.path)
        if task is None:
            return node
        after = {**scope, **result_scope(task)}
        return replace(
            node,
            task=task,
            inputs=self._inputs(node, task, scope, item),
            sets=self.draft.sets(entry.get("set", {}), after, f"{node.path}.set"),
            fail_if=fail_if,
            skip_if=skip_if,
            ok_if=self._guard(entry, "ok_if", after, node.path),
        )

    def _inputs(self, node: Node, task: Task, scope: Scope, item: Type | None) -> dict[str, Expr]:
        """The task's inputs with the item's type of this place."""
        inputs = dict(task.inputs)
        for name, expr in task.inputs.items():
            if "item" not in expr.names:
                continue
            path = f"tasks.{task.name}.in.{name}"
            if item is None:
                message = f"task {task.name!r} reads `item` (in.{name}), which is known inside a map only"
                self.draft.note(
                    f"{node.path}.task", message, "run it inside a map, or read a variable", "cel"
                )
            elif (typed := self.draft.expr(expr.source, scope, None, path)) is not None:
                inputs[name] = typed
                if is_file(expr.source, scope):
                    files = self.draft.tasks[task.name].files | {name}
                    self.draft.tasks[task.name] = replace(task, files=files)
        return inputs

    def _over(self, entry: Table, scope: Scope, path: str) -> tuple[Expr | None, Type]:
        over = self.draft.expr(entry["over"], scope, _LIST, path + ".over")
        if over is None:
            return None, JSON_TYPE
        declared = scope.get(over.source)
        if (
            declared is not None and declared.of is not None
        ):  # to CEL a file is a string; here it stays a file
            return over, declared.of
        exact = self.draft.expr(entry["over"], scope, None, path + ".over")
        assert exact is not None
        return over, exact.type.of or JSON_TYPE

    def _thresholds(self, entry: Table, path: str, count: int) -> None:
        if "need" in entry and "wait" in entry:
            self.draft.note(f"{path}.need", "with `wait: all` only failures are counted", "use fail_at", "threshold")
        for key in ("need", "fail_at"):
            if not -count <= entry.get(key, 1) <= count or entry.get(key, 1) == 0:
                self.draft.note(
                    f"{path}.{key}",
                    f"is {entry[key]}, but there are {count} children",
                    f"use 1 to {count}, or -1 for all, -2 for all but one",
                    "threshold",
                )


def _counted(threshold: int, count: int) -> int:
    """A threshold that is negative counts from all: -1 is all, -2 all but one."""
    return max(count + threshold + 1, 1) if threshold < 0 else threshold

