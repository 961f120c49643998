"""What a BehaviorTree.CPP document says of its nodes: names of the built-in ones, and the ports of its own."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentflow.imports.xml import Element

SERIES = {
    **dict.fromkeys(("Sequence", "AsyncSequence"), ("sequence", "")),
    **dict.fromkeys(("Fallback", "AsyncFallback"), ("fallback", "")),
    **dict.fromkeys(("SequenceWithMemory", "SequenceStar"), ("sequence", "memory")),
    "ReactiveSequence": ("sequence", "reactive"),
    "ReactiveFallback": ("fallback", "reactive"),
}
"""Of each node that runs one child after the other, the plan's type and what else it is."""

RETRIES = frozenset({"RetryUntilSuccessful", "RetryUntilSuccesful"})
WAYS = {"IfThenElse": "if", "WhileDoElse": "while"}
SWITCHES = {f"Switch{count}": count for count in range(2, 7)}
CONTROLS = frozenset({*SERIES, *WAYS, *SWITCHES, "Parallel", "ParallelAll", "TryCatch"})
CHECKS = {
    "BlackboardCheckInt": "int", "BlackboardCheckDouble": "double",
    "BlackboardCheckString": "string", "BlackboardCheckBool": "bool",
}  # fmt: skip
"""Version 3's decorators that compare two values, by their type."""

LOOPS = {"LoopInt": "int", "LoopDouble": "double", "LoopString": "string", "LoopBool": "bool"}
"""The loops over a queue, by the type of its items."""

DECORATORS = frozenset(
    {*RETRIES, *CHECKS, *LOOPS, "Repeat", "KeepRunningUntilFailure", "Inverter", "ForceSuccess", "ForceFailure"}
    | {"Delay", "Timeout", "RunOnce", "Precondition"}
)
LEAVES = frozenset(
    {"AlwaysSuccess", "AlwaysFailure", "Script", "ScriptCondition", "SetBlackboard", "UnsetBlackboard", "Sleep"}
)
SUBTREES = frozenset({"SubTree", "SubTreePlus"})
BUILT_IN = CONTROLS | DECORATORS | LEAVES | SUBTREES
UNREAD = {
    **dict.fromkeys(
        ("SkipUnlessUpdated", "WaitValueUpdate", "WasEntryUpdated"), "say with `_skipIf` or `_while` what it waits for"
    ),
    **dict.fromkeys(("ConsumeQueue", "ManualSelector"), "write in the plan what it chooses"),
    "Finally": "write in the plan what cleans up: a `try` does it when it fails or is halted",
}
"""Built-in nodes that a plan cannot say, and what mends it."""

RESTARTING = frozenset(
    {*RETRIES, *SWITCHES, *LOOPS, "Repeat", "KeepRunningUntilFailure", "WhileDoElse"}
    | {"ReactiveSequence", "ReactiveFallback"}
)
"""Nodes that may start a child again that has ended or was halted."""

_PORTS = {"input_port": "in", "output_port": "out", "inout_port": "both"}
_WHOLE = ("int", "long", "short", "size_t", "unsigned")


@dataclass(frozen=True, slots=True)
class Port:
    """``way``: in, out or both; ``type``: as in a plan, '' where the document says none."""

    name: str
    way: str = "in"
    type: str = ""
    default: str | None = None


@dataclass(slots=True)
class Model:
    """A node of the document's own. ``kind``: Action, Condition, Control, Decorator or SubTree."""

    kind: str
    ports: dict[str, Port] = field(default_factory=dict)


def models(root: Element) -> dict[str, Model]:
    """The nodes that <TreeNodesModel> declares, by ID."""
    found: dict[str, Model] = {}
    for entry in (entry for model in root.all("TreeNodesModel") for entry in model.children):
        made = found[entry.get("ID")] = Model(entry.tag)
        for port in entry.all(*_PORTS):
            default = port.attributes.get("default")
            made.ports[port.get("name")] = Port(port.get("name"), _PORTS[port.tag], _type(port.get("type")), default)
    return found


def node_id(element: Element) -> str:
    """What node an element is: ``<Action ID="X"/>`` and ``<X/>`` are the same."""
    explicit = element.tag in ("Action", "Condition", "Control", "Decorator")
    return element.get("ID") if explicit else element.tag


def _type(text: str) -> str:
    """The plan's type of a C++ type."""
    plain = text.removeprefix("std::").removesuffix("_t").strip()
    if plain in ("string", "bool"):
        return plain
    if plain in ("double", "float"):
        return "double"
    if plain.startswith("vector"):
        return "list"
    whole = plain.startswith(("int", "uint", *_WHOLE)) or text == "size_t"
    return "int" if whole else "json" if text else ""
