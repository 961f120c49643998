"""What documents mean to later versions of us: what was accepted once goes on meaning the same.

A document that may mean something else since a version of ``IR_VERSION`` says which one it was accepted for, in its
key ``ir``: the first one that means the same as ours, so that versions between read it, too. Those that mean the same
to all versions do not say it, so their hashes stay as they are.

Version 2, of behaviour trees:

- A task asks ``fail_if``, ``success_if``, ``skip_if`` and ``while`` in this order, as all nodes do and as
  BehaviorTree.CPP does. Before, it asked ``success_if`` and ``while`` first.
- What a node under a reactive one has finished is forgotten when a condition on it decides in its place, whatever
  node it is. Before, that was so for ``fail_if`` and ``skip_if`` of tasks only.
- Under a reactive node if, while and switch are decided again after they have ended, and so are parallels and timeouts
  that ask conditions and nothing else. Before, they were remembered as they had ended.
- A task that is the condition of a while runs once. Before, it ran again whenever variables changed.

Version 3, of behaviour trees with delays:

- Under a reactive node it is remembered of what waits for a delay also that it was skipped. Before, the delay began
  anew whenever variables changed, and what had come after it was halted and started again, without end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from agentflow.core.plan import IR_VERSION
from agentflow.core.subtrees import below

_FIRST = frozenset({"success_if", "while"})
_OWN = frozenset({"fail_if", "skip_if"})


def new(canonical: Mapping[str, Any]) -> dict[str, Any]:
    """A canonical document that comes in now, with ``ir`` where versions may differ about it."""
    document = dict(canonical)
    if "ir" not in document and (since := _since(list(_nodes(document)))) > 1:
        document["ir"] = since
    return document


def version(document: Mapping[str, Any]) -> int:
    """The version that a canonical document was accepted for, as far as that makes a difference."""
    found: int = document.get("ir", 1)
    return found


def _since(nodes: list[Mapping[str, Any]]) -> int:
    """The first version that has the meaning of today."""
    looks = any(node.get("reactive") or node["type"] == "while" for node in nodes)
    if looks and any(node["type"] == "delay" for node in nodes):
        return IR_VERSION
    return 2 if looks or any(node["type"] == "task" and _asks_otherwise(node) for node in nodes) else 1


def _asks_otherwise(task: Mapping[str, Any]) -> bool:
    """Whether a task has conditions that were asked in another order."""
    return bool(task.keys() & _FIRST and task.keys() & _OWN)


def _nodes(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    trees = document.get("trees", {}).values()
    todo = [entry["root"] for entry in (document, *trees) if "root" in entry]
    while todo:
        node = todo.pop()
        yield node
        todo += [child for _, child in below(node)]
