"""The one place where short forms are written out, and the hash that names a plan.

Authors may write a task's name for a task node, ``sequence: [a, b]`` for a node with a type and children, and plain
numbers or booleans where an expression is wanted; they may leave out ``kind`` where ``root`` or ``states`` says it, and
all of the plan where there is one task. Everything after this module sees only the canonical form.
``author`` maps canonical paths back to what was written, so that a problem names the author's own line.
``core.short`` is the way back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from agentflow.errors import Problem

MAX_TREE_DEPTH = 40

PAYLOAD = {
    "task": "task", "check": "if", "sequence": "children", "fallback": "children", "parallel": "children",
    "retry": "child", "repeat": "child", "invert": "child", "force": "child", "map": "child", "once": "child",
    "delay": "for", "timeout": "for", "switch": "value", "keep": "child", "subtree": "tree",
}  # fmt: skip
"""The node types that have a short form, and the key that its value stands for."""

WAYS = {"if": "then", "while": "do"}
"""Node types that choose a way, and what their short form calls the first: {if: x > 1, then: a, else: b}."""

PLANS = {"fsm": "states", "bt": "root", "goal": "plan"}
"""The kinds of plan, and the key that shows which one a document is."""

RESULTS: dict[str, dict[str, tuple[str, str]]] = {
    "llm": {"text": ("result.text", "string")}, "agent": {"text": ("result.text", "string")},
    "event": {"data": ("result.data", "json")}, "wait": {},
    "compensate": {"undone": ("result.undone", "int")},
    "judge": {
        "fits": ("result.fits", "bool"), "faults": ("result.faults", "string"),
        "workflow": ("result.workflow", "string"), "document": ("result.document", "json"),
    },
    "keep": {},
}  # fmt: skip
"""What a task without ``out`` comes to, where it is all that a workflow does: the expression and the type by name."""

GOAL = {"by": "llm", "kind": "bt"}
"""What a goal says unless it says otherwise."""

NOTHING_TO_UNDO = "none"
"""What a task's ``undo`` says where its effect is left as it is, deliberately."""

Cel = tuple[tuple[str, ...], tuple[str, ...]]
"""The keys of a part that hold an expression, and those that hold a table of them."""

NODE_CEL: Cel = (
    ("if", "ok_if", "skip_if", "fail_if", "success_if", "while", "over", "value"),
    ("set", "on_success", "on_failure", "on_halt", "post", "in"),
)
TASK_CEL: Cel = (("match", "key", "until"), ("in",))
STATE_CEL: Cel = (("reason",), ())
TRANSITION_CEL: Cel = (("if",), ("set",))
RAISED_CEL: Cel = (("if",), ("data",))
RAISED_WHOLE_CEL: Cel = (("if", "data"), ())
TRIGGER_CEL: Cel = (("if", "budget"), ("input",))


def normalise(document: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The canonical form of ``document`` and ``author``: canonical path -> written path, where they differ.

    What is not of the expected shape is left alone for the schema to refuse. The argument is not changed.
    """
    canonical = _given(dict(document))
    author: dict[str, str] = {}
    if "kind" not in canonical:
        canonical = _with_kind(canonical, author)
    if "root" in canonical:
        canonical["root"] = _node(canonical["root"], "root", "root", author, 0)
    if isinstance(trees := canonical.get("trees"), dict):
        canonical["trees"] = {
            name: _tree(tree, f"trees.{name}.root", author) for name, tree in trees.items()
        }
    if isinstance(tasks := canonical.get("tasks"), dict):
        canonical["tasks"] = {name: _with_cel(task, TASK_CEL) for name, task in tasks.items()}
    if isinstance(states := canonical.get("states"), dict):
        canonical["states"] = {name: _state(state) for name, state in states.items()}
    if isinstance(transitions := canonical.get("transitions"), list):
        canonical["transitions"] = [_transition(t) for t in transitions]
    if isinstance(canonical.get("output"), dict):
        canonical["output"] = _texts(canonical["output"])
    if isinstance(trigger := canonical.get("trigger"), dict):
        canonical["trigger"] = _with_cel(trigger, TRIGGER_CEL)
    for key in ("tools", "agents"):
        if isinstance(table := canonical.get(key), dict):
            canonical[key] = {name: _given(entry) for name, entry in table.items()}
    canonical["limits"] = _given(canonical.get("limits", {}))
    if isinstance(goal := canonical.get("plan"), dict):
        canonical["plan"] = {**GOAL, **_given(goal)}
    return canonical, author


def undone(entry: Mapping[str, Any], tasks: Mapping[str, Any]) -> bool:
    """Whether a task's entry names a task that undoes it: ``none`` is one only where some task is called so."""
    return "undo" in entry and (entry["undo"] != NOTHING_TO_UNDO or NOTHING_TO_UNDO in tasks)


def _with_kind(document: dict[str, Any], author: dict[str, str]) -> dict[str, Any]:
    """With the kind that the plan shows; without a plan and with one task, with a tree that runs it."""
    shown = [kind for kind, key in PLANS.items() if key in document]
    if len(shown) == 1:
        return {"kind": shown[0], **document}
    tasks = document.get("tasks")
    if shown or not isinstance(tasks, dict) or len(tasks) != 1:
        return document
    ((name, task),) = tasks.items()
    return _one_task(document, name, task, author) if isinstance(task, dict) else document


def _one_task(document: dict[str, Any], name: str, task: dict[str, Any], author: dict[str, str]) -> dict[str, Any]:
    """A tree that runs the only task. Its result is kept in variables of the fields' names, which are the output."""
    out = task.get("out")
    fields = RESULTS.get(str(task.get("kind")), {"data": ("result", "json")})
    if isinstance(out, dict):
        fields = {field: (f"result.{field}", type_) for field, type_ in out.items()}
    root: dict[str, Any] = {"type": "task", "task": name}
    if fields:
        root["set"] = {field: read for field, (read, _) in fields.items()}
    given, declared = document.get("input", {}), document.get("vars", {})
    if not (isinstance(given, dict) and isinstance(declared, dict)):
        return document
    made = {field: type_ for field, (_, type_) in fields.items() if field not in given and field not in declared}
    came_from = f"tasks.{name}.out" if isinstance(out, dict) else f"tasks.{name}"
    author |= {f"vars.{field}": f"{came_from}.{field}" if isinstance(out, dict) else came_from for field in made}
    author |= {"root": f"tasks.{name}", "root.set": came_from}
    if made:
        document = {**document, "vars": {**declared, **made}}
    return {"kind": "bt", "output": {field: field for field in fields}, **document, "root": root}


def _state(state: Any) -> Any:
    state = _with_cel(state, STATE_CEL)
    if not isinstance(state, dict):
        return state
    if isinstance(transitions := state.get("transitions"), list):
        state["transitions"] = [_transition(t) for t in transitions]
    for key in ("entry", "exit"):
        if key in state:
            state[key] = _transition(state[key])
    return state


def _transition(entry: Any) -> Any:
    entry = _with_cel(entry, TRANSITION_CEL)
    if isinstance(entry, dict) and isinstance(entry.get("raise"), (str, dict)):
        entry["raise"] = [entry["raise"]]
    if isinstance(entry, dict) and isinstance(entry.get("raise"), list):
        entry["raise"] = [_raised(each) for each in entry["raise"]]
    return entry


def _raised(entry: Any) -> Any:
    table = isinstance(entry, dict) and isinstance(entry.get("data"), dict)
    return _with_cel(entry, RAISED_CEL if table else RAISED_WHOLE_CEL)


def _given(entry: Any) -> Any:
    """Without the keys that were left empty: ``timeout:`` with nothing behind it is not given."""
    if isinstance(entry, dict):
        return {key: value for key, value in entry.items() if value is not None}
    return entry


def _tree(tree: Any, path: str, author: dict[str, str]) -> Any:
    tree = _given(tree)
    if isinstance(tree, dict) and "root" in tree:
        tree["root"] = _node(tree["root"], path, path, author, 0)
    return tree


def _node(node: Any, path: str, written: str, author: dict[str, str], depth: int) -> Any:
    if depth > 4 * MAX_TREE_DEPTH:
        return node  # refused for its depth by the compiler, and by the loader before
    if isinstance(node, str):
        author[path + ".task"] = written
        return {"type": "task", "task": node}
    if not isinstance(node, dict):
        return node
    node = _given(node)
    if "type" not in node and (way := next((kind for kind, then in WAYS.items() if then in node), None)):
        node = _way(node, way, path, written, author)
    if "type" not in node and isinstance(node.get("try"), list):
        node = _try(node, path, written, author)
    if "type" not in node:
        short = [key for key in node if key in PAYLOAD]
        if len(short) == 1:
            kind, payload = short[0], PAYLOAD[short[0]]
            value = node.pop(kind)
            node = {"type": kind, **node, payload: value}
            if kind != payload:
                author[f"{path}.{payload}"] = f"{written}.{kind}"
    if isinstance(children := node.get("children"), list):
        base = author.get(path + ".children", written + ".children")
        places = [f"{path}.children[{i}]" for i in range(len(children))]
        node["children"] = [
            _child(child, place, author.get(place, f"{base}[{i}]"), author, depth)
            for i, (place, child) in enumerate(zip(places, children, strict=True))
        ]
    if "child" in node:
        base = author.get(path + ".child", written + ".child")
        node["child"] = _child(node["child"], path + ".child", base, author, depth)
    if isinstance(cases := node.get("cases"), dict):
        node["cases"] = {
            str(name): _child(child, f"{path}.cases.{name}", f"{written}.cases.{name}", author, depth)
            for name, child in cases.items()
        }
    if "default" in node:
        node["default"] = _child(node["default"], path + ".default", written + ".default", author, depth)
    return _with_cel(node, NODE_CEL)


def _way(node: dict[str, Any], kind: str, path: str, written: str, author: dict[str, str]) -> dict[str, Any]:
    """{if: …, then: …, else: …} and {while: …, do: …, else: …}: a condition, and nodes to choose between."""
    if kind not in node:
        return node
    children: list[Any] = [{"type": "check", "if": node.pop(kind)}]
    author[f"{path}.children[0].if"] = f"{written}.{kind}"
    for name in (WAYS[kind], "else"):
        if name in node:
            author[f"{path}.children[{len(children)}]"] = f"{written}.{name}"
            children.append(node.pop(name))
    return {"type": kind, **node, "children": children}


def _try(node: dict[str, Any], path: str, written: str, author: dict[str, str]) -> dict[str, Any]:
    """{try: [a, b], catch: c}: the body, and what runs when it has failed or is halted."""
    children = [*node.pop("try"), node.pop("catch", None)]
    for index in range(len(children) - 1):
        author[f"{path}.children[{index}]"] = f"{written}.try[{index}]"
    author[f"{path}.children[{len(children) - 1}]"] = f"{written}.catch"
    return {"type": "try", **node, "children": children}


def _child(child: Any, path: str, written: str, author: dict[str, str], depth: int) -> Any:
    if written != path:
        author[path] = written
    return _node(child, path, written, author, depth + 1)


def _with_cel(value: Any, cel: Cel) -> Any:
    if not isinstance(value, dict):
        return value
    value = _given(value)
    single, tables = cel
    for key in single:
        if key in value:
            value[key] = _text(value[key])
    for key in tables:
        if isinstance(value.get(key), dict):
            value[key] = _texts(value[key])
    return value


def _texts(table: dict[str, Any]) -> dict[str, Any]:
    return {name: _text(value) for name, value in table.items()}


def _text(value: Any) -> Any:
    """A literal as the expression that gives it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, (int, float)) else value


def as_written(problem: Problem, author: Mapping[str, str]) -> Problem:
    """The problem with the path that the author wrote."""
    return replace(problem, path=written_path(problem.path, author))


def written_path(path: str, author: Mapping[str, str]) -> str:
    """The path that the author wrote for a canonical one."""
    for part in around(path):
        if part in author:
            return author[part] + path[len(part) :]
    return path


def around(path: str) -> Iterator[str]:
    """The path and those of all that it is in, inner first."""
    end = len(path)
    while end > 0:
        yield path[:end]
        end = max(path.rfind(".", 0, end), path.rfind("[", 0, end))


def digest(canonical: Mapping[str, Any]) -> str:
    """sha256 (hex) over the canonical JSON of a canonical document, less the descriptions that only people read."""
    text = json.dumps(
        _without_descriptions(canonical),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()


_NAMED = ("tasks", "states", "tools", "trees", "agents")


def _without_descriptions(canonical: Mapping[str, Any]) -> dict[str, Any]:
    plain = {key: value for key, value in canonical.items() if key != "description"}
    for key in _NAMED:
        if key in plain:
            plain[key] = {
                name: {k: v for k, v in entry.items() if k != "description" or _is_said(key, entry)}
                for name, entry in plain[key].items()
            }
    if "root" in plain:
        plain["root"] = _bare_node(plain["root"])
    if "trees" in plain:
        plain["trees"] = {name: {**tree, "root": _bare_node(tree["root"])} for name, tree in plain["trees"].items()}
    return plain


def _is_said(key: str, entry: Mapping[str, Any]) -> bool:
    """Whether a model may be told the description: that of a tool that says what it takes."""
    return key == "tools" and "in" in entry


def _bare_node(node: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in node.items() if key != "description"}
    if "children" in bare:
        bare["children"] = [_bare_node(child) for child in bare["children"]]
    for key in ("child", "default"):
        if key in bare:
            bare[key] = _bare_node(bare[key])
    if "cases" in bare:
        bare["cases"] = {name: _bare_node(child) for name, child in bare["cases"].items()}
    return bare
