"""A plan as a picture: Mermaid text, for documents and people. ``active`` marks where a run is."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

from agentflow.core.machine import NOWHERE, Machine, State, Transition
from agentflow.core.node import Node, Tree
from agentflow.core.plan import Plan
from agentflow.core.structure import transitions_of

MAX_LABEL = 60
_ACTIVE = "classDef active stroke-width:4px"
_LABELS: dict[str, Callable[[Node], str]] = {
    "task": lambda node: node.task.name if node.task else "",
    "check": lambda node: node.condition.source if node.condition else "",
    "map": lambda node: f"map {node.over.source}" if node.over else "map",
    "switch": lambda node: f"switch {node.value.source}" if node.value else "switch",
    "retry": lambda node: f"retry {node.max}×",
    "repeat": lambda node: f"repeat {node.max}×",
    "keep": lambda node: f"keep {node.max}×",
    "subtree": lambda node: f"subtree {node.tree}",
    "delay": lambda node: f"delay {node.for_ms} ms",
    "timeout": lambda node: f"timeout {node.for_ms} ms",
}


def mermaid(plan: Plan, active: Collection[str] = ()) -> str:
    """The plan as a Mermaid state diagram or flowchart; ``active`` are names of states, or paths of nodes."""
    if plan.machine is not None:
        lines = _machine(plan.machine, active)
    else:
        assert plan.tree is not None
        lines = _tree(plan.tree, active)
    return "\n".join(lines)


def _machine(machine: Machine, active: Collection[str]) -> Iterator[str]:
    yield "stateDiagram-v2"
    states = machine.states
    first = next(index for index in machine.initial if states[index].parent == 0)
    yield f"    [*] --> {_id(states[first].name)}"
    for state in states:
        if state.parent == 0 and state.index:
            yield from _state(machine, state, 1)
    for state in states:
        for transition in transitions_of(state):
            yield from _arrow(machine, transition)
    marked = [_id(state.name) for state in states if state.name in active]
    if marked:
        yield f"    {_ACTIVE}"
        yield f"    class {','.join(marked)} active"


def _state(machine: Machine, state: State, depth: int) -> Iterator[str]:
    pad, name = "    " * depth, _id(state.name)
    inner = [each for each in machine.states if each.parent == state.index and each.index]
    if inner:
        yield f"{pad}state {name} {{"
        if state.first != NOWHERE and state.kind != "history":
            yield f"{pad}    [*] --> {_id(machine.states[state.first].name)}"
        for number, each in enumerate(inner):
            if number and state.kind == "parallel" and each.index in state.regions:
                yield f"{pad}    --"
            yield from _state(machine, each, depth + 1)
        yield f"{pad}}}"
        return
    said = {"history": "H*" if state.deep else "H", "success": "✓", "failure": "✗"}.get(state.kind, "")
    if state.task is not None:
        said = state.task.name
    yield f"{pad}{name} : {_text(f'{state.name} {said}'.strip())}"


def _arrow(machine: Machine, transition: Transition) -> Iterator[str]:
    source = machine.states[transition.source]
    target = source if transition.target == NOWHERE else machine.states[transition.target]
    said = transition.event or (f"after {transition.after_ms} ms" if transition.after_ms else "")
    if transition.guard is not None:
        said += f" [{transition.guard.source}]"
    # What any state may take leads from nowhere in particular.
    begin = "[*]" if source.index == 0 else _id(source.name)
    if source.index == 0 and transition.target == NOWHERE:
        return
    yield f"    {begin} --> {_id(target.name)}" + (f" : {_text(said.strip())}" if said.strip() else "")


def _tree(tree: Tree, active: Collection[str]) -> Iterator[str]:
    yield "flowchart TD"
    for node in tree.nodes:
        label = _LABELS[node.kind](node) if node.kind in _LABELS else node.kind
        shape = ("([", "])") if node.kind == "task" else ("{{", "}}") if node.kind == "check" else ("[", "]")
        yield f'    n{node.index}{shape[0]}"{_text(label)}"{shape[1]}'
    for node in tree.nodes:
        for place, child in enumerate(node.children):
            said = node.cases[place] if place < len(node.cases) else "default" if node.cases else ""
            if node.kind == "try" and place == len(node.children) - 1:
                said = "catch"
            yield f"    n{node.index} -->" + (f'|"{_text(said)}"|' if said else "") + f" n{child.index}"
    marked = [f"n{node.index}" for node in tree.nodes if node.path in active]
    if marked:
        yield f"    {_ACTIVE}"
        yield f"    class {','.join(marked)} active"


def _id(name: str) -> str:
    """A name as Mermaid takes it: it reads hyphens and dots as something else."""
    return name.replace("_", "__").replace("-", "_d").replace(".", "_p")


def _text(text: str) -> str:
    """Text that Mermaid does not read as syntax, not too long."""
    text = " ".join(text.split())
    short = text if len(text) <= MAX_LABEL else text[: MAX_LABEL - 1] + "…"
    return "".join(f"#{ord(c)};" if c in '"#;:<>{}|&%\\`' else c for c in short)
