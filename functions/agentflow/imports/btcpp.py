"""BehaviorTree.CPP's XML (version 4 and Groot2's, and what is the same in version 3) as a plan/v1 behaviour tree:
``read_btcpp``.

The nodes are said as they are; the entries of the blackboard are variables, those that nothing sets inputs; what C++
code does is a task that stands for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentflow.imports import btcpp_model as model
from agentflow.imports.btcpp_tasks import Tasks
from agentflow.imports.btcpp_trees import Trees
from agentflow.imports.findings import Findings, Imported
from agentflow.imports.fitting import compiled
from agentflow.imports.xml import Element, read

Table = dict[str, Any]
_PARTS = ("BehaviorTree", "TreeNodesModel")


@dataclass(frozen=True, slots=True)
class Options:
    """``tree``: the ID of the tree to read, when not the main one; ``steps``: limits.steps; ``loops``: how often a loop
    without a bound goes round; ``enums``: the numbers of names that C++ code registers."""

    tree: str = ""
    steps: int = 1_000
    loops: int = 1_000
    enums: Mapping[str, int] = field(default_factory=dict)


def read_btcpp(data: bytes, options: Options = Options()) -> Imported:
    """The plan of a BehaviorTree.CPP document; ``Invalid`` when it is none, or means what plan/v1 cannot say."""
    root = read(data)
    findings = Findings()
    if root.tag != "root":
        findings.refuse(root, "is not a BehaviorTree.CPP document", "give one whose root is <root>")
        findings.check()
    for part in root.children:
        if part.tag == "include":
            findings.refuse(part, "nothing is fetched", "put the trees of that file here")
        elif part.tag not in _PARTS:
            findings.note(part, "is left out: nothing that a plan says")
    roots = _roots(root, findings)
    main = options.tree or _main(root, roots)
    if main not in roots:
        message = f"there is no tree {main[:64]!r}" if main else "does not say which tree is the main one"
        findings.refuse(root, message, f"name one with --tree: {', '.join(list(roots)[:20])}"[:300])
    findings.check()
    document = _document(root, roots, main, options, findings)
    findings.check()
    compiled(document, findings)
    findings.check()
    return Imported(document, tuple(findings.left_out), tuple(findings.notes))


def _roots(root: Element, findings: Findings) -> dict[str, Element]:
    """The root node of each tree, by ID."""
    found: dict[str, Element] = {}
    for tree in root.all("BehaviorTree"):
        name = tree.get("ID")
        if name in found:
            findings.refuse(tree, f"there are two trees {name[:64]!r}", "name each once")
        if len(tree.children) != 1:
            findings.refuse(tree, f"has {len(tree.children)} roots", "give it one")
            continue
        found[name] = tree.children[0]
    return found


def _main(root: Element, roots: Mapping[str, Element]) -> str:
    return root.get("main_tree_to_execute") or (next(iter(roots)) if len(roots) == 1 else "")


def _document(
    root: Element, roots: dict[str, Element], main: str, options: Options, findings: Findings
) -> Table:
    tasks = Tasks(model.models(root), findings)
    trees = Trees(roots, main, tasks, findings, loops=options.loops, enums=options.enums)
    inputs, variables, node, others = trees.written()
    for name in roots:
        if name not in trees.made and not findings.refused:
            findings.note(roots[name], f"the tree {name[:64]!r} is left out: {main[:64]!r} does not use it")
    for element in _asked_again(roots, trees.made):
        message = "is asked again at each tick there; a plan's task runs once, and only checks are looked at again"
        findings.leave_out(element, message, "set a variable, and check that with <ScriptCondition>")
    document: Table = {  # in the order in which people write it
        "agentflow": "plan/v1", "kind": "bt", "name": trees.name(main),
        "limits": {"steps": options.steps}, "input": inputs, "vars": variables, "tasks": tasks.made,
        "trees": others, "root": node,
    }  # fmt: skip
    return {key: part for key, part in document.items() if part or key not in ("input", "vars", "trees")}


def _asked_again(roots: Mapping[str, Element], used: Mapping[str, object]) -> Iterator[Element]:
    """The leaves with code that a reactive node ticks again though they have ended."""
    found: dict[int, Element] = {}
    seen: set[str] = set()
    todo = [(element, False) for name, element in roots.items() if name in used]
    while todo:
        element, again = todo.pop()
        name = model.node_id(element)
        if name in model.SUBTREES and again and element.get("ID") in roots and element.get("ID") not in seen:
            seen.add(element.get("ID"))
            todo.append((roots[element.get("ID")], True))
        if again and not element.children and name not in model.BUILT_IN - {"Sleep"}:
            found[id(element)] = element
        first = {"ReactiveSequence": len(element.children) - 1, "ReactiveFallback": len(element.children) - 1}
        count = first.get(name, 1 if name == "WhileDoElse" else 0)
        todo += [(child, again or place < count) for place, child in enumerate(element.children)]
    yield from sorted(found.values(), key=lambda element: element.line)
