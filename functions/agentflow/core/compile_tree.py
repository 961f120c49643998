"""Nodes: from the nested document to a ``Tree`` in document order."""

from __future__ import annotations

from dataclasses import replace

from agentflow.core import meaning
from agentflow.core.canonical import MAX_TREE_DEPTH
from agentflow.core.compile_tasks import is_file
from agentflow.core.draft import BOOL, JSON_TYPE, STRING, Draft, Scope, Table, milliseconds, result_scope
from agentflow.core.expr import Expr
from agentflow.core.node import FAILURE, SUCCESS, TIMED, Conditions, Node, Tree
from agentflow.core.plan import Task
from agentflow.core.subtrees import Subtrees, below, only_in_trees
from agentflow.core.types import Type, parse, zero

__all__ = ["MAX_NODES", "only_in_trees", "tree"]

MAX_NODES = 5_000
"""Nodes of a tree, those of subtrees counted wherever they are used."""

_WAYS = ("if", "while", "switch")
_TRANSPARENT = ("sequence", "fallback", "invert", "force")
"""Nodes that remember nothing of their own under a reactive one: conditions in them are looked at again. Since version
2 the ways are such nodes, too."""

_INSTANT = frozenset({*_TRANSPARENT, *_WAYS, "check", "succeed", "fail", "parallel", "timeout"})
_LIST = parse("list(json)")


def tree(draft: Draft) -> Tree | None:
    """The compiled tree; None when it holds nodes that cannot be compiled (the problems say which)."""
    builder = _Builder(draft)
    root = builder.node(draft.document["root"], "root", False, None, 0)
    builder.trees.check_used(builder.used)
    if root is None or draft.problems:
        return None
    nodes = tuple(builder.nodes[index] for index in range(builder.count))
    return Tree(
        root,
        nodes,
        timed=any(node.kind in TIMED for node in nodes),
        catches=any(node.kind == "try" for node in nodes),
        scoped=any(node.kind == "subtree" for node in nodes),
        ir=builder.ir,
        labels={name: tuple(places) for name, places in builder.labels.items()},
    )


class _Builder:
    """``names`` are the variables that nodes see where the builder is: the plan's, or those of a subtree."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.trees = Subtrees(draft)
        self.used: set[str] = set()
        self.names: Scope = draft.names
        self.ir = meaning.version(draft.document)
        self.count = 0
        self.full = False
        self.nodes: dict[int, Node] = {}
        self.labels: dict[str, list[tuple[int, int]]] = {}

    def node(self, entry: Table, path: str, keep: bool, item: Type | None, depth: int) -> Node | None:
        """One node and all below it. ``keep``: a reactive node is above; ``item``: its type inside a map."""
        if depth > MAX_TREE_DEPTH:
            self.draft.note(
                path, f"nodes are nested more than {MAX_TREE_DEPTH} deep", "flatten them", "too_deep"
            )
            return None
        if self.count >= MAX_NODES:
            if not self.full:
                message = f"the tree has more than {MAX_NODES:,} nodes"
                self.draft.note(path, message, "split the workflow", "too_large")
            self.full = True
            return None
        kind = entry["type"]
        index = self.count
        self.count += 1
        scope: dict[str, Type] = dict(self.names)
        if item is not None:
            scope["item"] = item
        inner = item
        over = None
        if kind == "map":
            over, inner = self._over(entry, scope, path)
        children = self._children(entry, path, kind, keep, inner, depth)
        if kind == "subtree":
            children = self._subtree(entry, path, keep, depth)
        memory = bool(entry.get("memory"))
        task = self.draft.task(entry["task"], f"{path}.task") if kind == "task" else None
        conditions = self._conditions(entry, kind, scope, path)
        if self.ir >= 2 and kind in ("parallel", "timeout") and not _assigns(conditions):
            keep = keep and not all(_instant(child) for child in children)
        reactive = bool(entry.get("reactive"))
        looks = reactive or kind in ("while", "switch") or (conditions is not None and conditions.holds is not None)
        node = Node(
            index=index,
            kind=kind,
            path=path,
            key=str(index),
            keep=keep,
            live=looks or any(child.live for child in children),
            lasting=kind == "once" or memory or any(child.lasting for child in children),
            children=children,
            first=tuple(child.index for child in children),
            reactive=reactive,
            memory=memory,
            undecided=keep and kind in _WAYS and self.ir >= 2,
            delayed=self.ir >= 3 and (kind == "delay" or any(child.delayed for child in children)),
            condition=self._guard(entry, "if", scope, path) if kind == "check" else None,
            over=over,
            max=entry.get("max", 0),
            need=0 if entry.get("need", -1) == -1 else _counted(entry["need"], len(children)),
            lenient=entry.get("need", -1) < 0,
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
        if memory:
            self._memory(entry, path)
        if kind == "subtree" and children:
            node = self._instance(node, entry, scope)
        if kind == "task":
            node = self._task(node, entry, task, scope, item)
        self.nodes[index] = node
        if "label" in entry:
            self._label(entry["label"], index, path)
        return node

    def _label(self, name: str, index: int, path: str) -> None:
        places = self.labels.setdefault(name, [])
        if name == self.draft.document["name"] or any(self.nodes[first].path != path for first, _ in places):
            self.draft.note(f"{path}.label", f"{name!r} is the name of something else", "choose another", "duplicate")
        places.append((index, self.count - 1))

    def _conditions(self, entry: Table, kind: str, scope: Scope, path: str) -> Conditions | None:
        """The conditions of a node. A task that has no others looks at ``fail_if`` and ``skip_if`` by itself, and with
        others it did so in earlier versions."""
        own = kind == "task" and not (self.ir >= 2 and entry.keys() & {"success_if", "while"})
        guards = ("success_if", "while") if own else ("fail_if", "success_if", "skip_if", "while")
        found = {
            "holds" if key == "while" else key: self._guard(entry, key, scope, path) for key in guards if key in entry
        }
        failed = {**scope, "event": JSON_TYPE} if kind == "task" else scope
        sets = {
            key: self.draft.sets(entry[key], failed if key == "on_failure" else scope, f"{path}.{key}", self.names)
            for key in ("on_success", "on_failure", "on_halt", "post")
            if key in entry
        }
        return Conditions(**found, **sets) if found or sets else None  # type: ignore[arg-type]

    def _children(
        self, entry: Table, path: str, kind: str, keep: bool, item: Type | None, depth: int
    ) -> tuple[Node, ...]:
        through = kind in _TRANSPARENT or (kind in _WAYS and self.ir >= 2)
        kept = bool(entry.get("reactive")) or (keep and through and not entry.get("memory"))
        nodes: list[Node | None] = []
        for where, child in below(entry):
            again = self.ir >= 2 and kind == "while" and not nodes  # its condition, which is looked at again
            nodes.append(self.node(child, path + where, kept or again, item, depth + 1))
        return tuple(node for node in nodes if node is not None)

    def _subtree(self, entry: Table, path: str, keep: bool, depth: int) -> tuple[Node, ...]:
        """The tree's own root, compiled for this use of it."""
        name = entry["tree"]
        tree = self.trees.find(name, f"{path}.tree")
        if tree is None:
            return ()
        self.used.add(name)
        outside, self.names = self.names, self.trees.names(name)
        self.trees.inside.append(name)
        root = self.node(tree["root"], f"trees.{name}.root", keep, None, depth + 1)
        self.trees.inside.pop()
        self.names = outside
        return () if root is None else (root,)

    def _instance(self, node: Node, entry: Table, scope: Scope) -> Node:
        share = self.trees.share(entry, self.names, node.path)
        names = self.trees.names(entry["tree"])
        return replace(
            node,
            tree=entry["tree"],
            own=tuple((name, zero(type_)) for name, type_ in names.items() if name not in share),
            given=self.trees.given(entry, scope, node.path),
            share=share,
        )

    def _guard(self, entry: Table, key: str, scope: Scope, path: str) -> Expr | None:
        return self.draft.expr(entry[key], scope, BOOL, f"{path}.{key}") if key in entry else None

    def _task(self, node: Node, entry: Table, task: Task | None, scope: Scope, item: Type | None) -> Node:
        asked = node.conditions or Conditions()
        fail_if = None if asked.fail_if else self._guard(entry, "fail_if", scope, node.path)
        skip_if = None if asked.skip_if else self._guard(entry, "skip_if", scope, node.path)
        if task is None:
            return node
        after = {**scope, **result_scope(task)}
        if self.trees.inside:
            task, inputs = self._inside(task, scope, node.path)
        else:
            inputs = self._inputs(node, task, scope, item)
        return replace(
            node,
            task=task,
            inputs=inputs,
            sets=self.draft.sets(entry.get("set", {}), after, f"{node.path}.set", self.names),
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
            elif (typed := self.draft.expr(expr.source, scope, _wanted(self.draft, task, name), path)) is not None:
                inputs[name] = typed
        if item is None and task.key is not None and "item" in task.key.names:
            message = f"the key of task {task.name!r} reads `item`, which is known inside a map only"
            self.draft.note(f"{node.path}.task", message, "run it inside a map, or read a variable", "cel")
        self._files(task, inputs, scope)
        return inputs

    def _inside(self, task: Task, scope: Scope, path: str) -> tuple[Task, dict[str, Expr]]:
        """The task and its inputs with the names of the subtree: the plan's are not seen here."""
        entry = self.draft.document["tasks"][task.name]

        def placed(key: str, source: str, scope: Scope, want: Type | None = None) -> Expr | None:
            return self.draft.expr(source, scope, want, f"{path}.task", f"task {task.name!r}, {key}: ")

        def table(key: str, of: Task, scope: Scope) -> dict[str, Expr]:
            given = self.draft.document["tasks"][of.name].get("in", {})
            found = {
                name: placed(f"{key}.{name}", source, scope, _wanted(self.draft, of, name))
                for name, source in sorted(given.items())
            }
            return {name: expr for name, expr in found.items() if expr is not None}

        inputs = table("in", task, scope)
        self._files(task, inputs, scope)
        if "until" in entry and (until := placed("until", entry["until"], scope, STRING)) is not None:
            inputs["until"] = until
        undo = task.undo
        if undo is not None:
            seen = {**scope, **result_scope(task)}
            undo = replace(undo, inputs=table("undo", self.draft.tasks[undo.task], seen))
        match = placed("match", entry["match"], {**self.names, "event": JSON_TYPE}, BOOL) if "match" in entry else None
        key = placed("key", entry["key"], scope, STRING) if "key" in entry else None
        return replace(task, match=match, key=key, undo=undo), inputs

    def _files(self, task: Task, inputs: dict[str, Expr], scope: Scope) -> None:
        """Note which inputs hold a file here."""
        found = {name for name, expr in inputs.items() if is_file(expr.source, scope)}
        known = self.draft.tasks[task.name]
        self.draft.tasks[task.name] = replace(known, files=known.files | found)

    def _memory(self, entry: Table, path: str) -> None:
        if entry["type"] != "sequence":
            mend = "a fallback begins with its first child"
            self.draft.note(f"{path}.memory", "only a sequence has memory", mend, "schema")
        elif entry.get("reactive"):
            mend = "use one of both: a reactive sequence always begins with its first child"
            self.draft.note(f"{path}.memory", "a reactive sequence has no memory", mend, "schema")

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


def _instant(node: Node) -> bool:
    """Whether the node asks conditions and nothing else: it ends at once, and may be asked again at any time."""
    plain = node.kind in _INSTANT and not node.memory and not _assigns(node.conditions)
    return plain and all(_instant(child) for child in node.children)


def _assigns(conditions: Conditions | None) -> bool:
    given = conditions or Conditions()
    return bool(given.on_success or given.on_failure or given.on_halt or given.post)


def _wanted(draft: Draft, task: Task, name: str) -> Type | None:
    """The type that the tool of a task takes there; None where it does not say."""
    tool = draft.tools.get(task.use) if task.kind == "tool" else None
    return (tool.inputs or {}).get(name) if tool else None


def _counted(threshold: int, count: int) -> int:
    """A threshold that is negative counts from all: -1 is all, -2 all but one."""
    return max(count + threshold + 1, 1) if threshold < 0 else threshold

