"""What a plan must be and other formats need not: every state reached, every loop bounded, an end in reach."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from agentflow.core import compile_fsm, compile_tasks
from agentflow.core.canonical import normalise
from agentflow.core.checks_fsm import cycles, free_edges
from agentflow.core.draft import Draft
from agentflow.core.graph import components
from agentflow.core.hierarchy import listed
from agentflow.core.machine import Machine
from agentflow.core.review_shadows import shadowed
from agentflow.core.structure import raised_events, reachable, sure
from agentflow.errors import Invalid
from agentflow.imports.findings import Findings
from agentflow.wire.document import check_document

_ROUNDS = 50


def fit_machine(
    document: dict[str, Any], visits: int, findings: Findings, idle: Collection[str] = ()
) -> None:
    """Bound loops, remove what is never entered, and compile; what is wrong then is refused. ``idle``: the states
    beside the machine, which need not wait for anything."""
    machine = _machine(document)
    if machine is not None:
        _remove_shadowed(document, machine, findings)
        machine = _machine(document)
    if machine is not None:
        _remove_unreached(document, machine, findings)
        _give_an_end(document, findings)
        machine = _machine(document)
    if machine is not None:
        _let_wait(document, machine, findings, idle)
        machine = _machine(document)
    if machine is not None:
        _bound(document, machine, visits, findings)
    compiled(document, findings)


def compiled(document: dict[str, Any], findings: Findings) -> None:
    """Compile the document; its problems become the import's."""
    try:
        check_document(document)
    except Invalid as fault:
        findings.refused.extend(fault.problems)


def _machine(document: dict[str, Any]) -> Machine | None:
    """The document's machine, whatever is wrong with it; None when it is none."""
    draft = Draft(normalise(document)[0])
    draft.names = draft.vars = draft.types(document["vars"], "vars")
    try:
        draft.tools = compile_tasks.tools(draft)
        compile_tasks.tasks(draft)
        machine = compile_fsm.machine(draft)
    except (KeyError, ValueError):
        return None  # compiling the whole says what it is
    return None if any(problem.code == "hierarchy" for problem in draft.problems) else machine


def _remove_shadowed(document: dict[str, Any], machine: Machine, findings: Findings) -> None:
    """Leave out transitions behind one that is always taken before them."""
    never = {problem.path for problem in shadowed(machine)}
    for name, state in document["states"].items():
        kept = []
        for number, way in enumerate(state.get("transitions", ())):
            if f"states.{name}.transitions[{number}]" in never:
                event = way.get("event", "")
                message = f"a transition of {name!r} is left out: another for {event!r} always comes before it"
                findings.note(None, message)
            else:
                kept.append(way)
        if kept:
            state["transitions"] = kept


def _remove_unreached(document: dict[str, Any], machine: Machine, findings: Findings) -> None:
    reached = reachable(machine)
    kept = {state.name for state in machine.states if state.index in reached}
    gone = [name for name in document["states"] if name not in kept]
    for name in gone:
        del document["states"][name]
        findings.note(None, f"the state {name!r} is left out: no way leads to it")
    for name, state in document["states"].items():
        if any(inner in gone for inner in listed(state.get("initial"))):  # nothing enters it that way
            state["initial"] = next(inner for inner, each in document["states"].items() if each.get("in") == name)
        ways = [way for way in state.get("transitions", ()) if not any(to in gone for to in listed(way.get("to")))]
        if len(ways) < len(state.get("transitions", ())):
            state["transitions"] = ways


def _give_an_end(document: dict[str, Any], findings: Findings) -> None:
    """A plan has an end. A machine without one can be cancelled, as every run can."""
    if any("final" in state and "in" not in state for state in document["states"].values()):
        return
    name = _cancelled(document)
    document.setdefault("transitions", []).append({"event": "cancel", "to": name})
    findings.note(None, f"it has no final state that is reached: {name!r} is where it ends when it is cancelled")


def _cancelled(document: dict[str, Any]) -> str:
    """A new state in which a run ends when it is cancelled."""
    name = "cancelled"
    while name in document["states"]:
        name += "-run"
    document["states"][name] = {"final": "failure"}
    return name


def _let_wait(document: dict[str, Any], machine: Machine, findings: Findings, idle: Collection[str]) -> None:
    """A machine rests in a state that leads nowhere. A run waits for something: to be cancelled."""
    states = document["states"]
    reached = reachable(machine)
    rest: dict[str, None] = {}
    for leaf in machine.states:
        if leaf.index not in reached or leaf.kind not in ("atomic", "success") or leaf.task is not None:
            continue
        around = [machine.states[index] for index in leaf.chain]
        if (leaf.parent == 0 and leaf.kind != "atomic") or leaf.name in idle:
            continue
        if any(state.timed or state.listens or sure(state.eventless) for state in around):
            continue
        rest[leaf.name if leaf.kind == "atomic" else machine.states[leaf.parent].name] = None
    if not rest:
        return
    name = next((to for to, state in states.items() if to.startswith("cancelled") and state.get("final")), "")
    name = name or _cancelled(document)
    for each in rest:
        states[each].setdefault("transitions", []).append({"event": "cancel", "to": name})
    some = ", ".join(map(repr, [*rest][:5])) + (" …" if len(rest) > 5 else "")
    findings.note(None, f"nothing leads out of {some}: a run that is there waits until it is cancelled")


def _bound(document: dict[str, Any], machine: Machine, visits: int, findings: Findings) -> None:
    """Give ``visits`` to the states where loops close, until every loop has a bound."""
    noted = False
    for _ in range(_ROUNDS):
        if not cycles(machine, raised_events(machine)):
            return
        if not noted:
            findings.note(None, f"its loops are bounded: a state is entered {visits:,} times at most", "--visits")
            noted = True
        for name in _closing(machine):
            document["states"][name]["visits"] = visits
        after = _machine(document)
        if after is None:
            return
        machine = after


def _closing(machine: Machine) -> list[str]:
    """States that loops come back to, where none is bounded yet: the targets of back edges, a depth-first walk's."""
    edges = free_edges(machine, raised_events(machine))
    found: dict[int, None] = {}
    for component in components(edges):
        inside = set(component)
        state: dict[int, int] = {}
        for root in sorted(component):
            if root in state:
                continue
            stack = [(root, iter(sorted(edges[root] & inside)))]
            state[root] = 1
            while stack:
                at, ways = stack[-1]
                to = next(ways, -1)
                if to < 0:
                    state[at] = 2
                    stack.pop()
                elif to not in state:
                    state[to] = 1
                    stack.append((to, iter(sorted(edges[to] & inside))))
                elif state[to] == 1:
                    found[to] = None
    names = [machine.states[index] for index in found]
    new = [each.name for each in names if not each.visits]
    # What leads to a history state is bounded by the states on its way, not by those that it may stand for.
    leaves = [each for each in machine.states if each.kind == "atomic" and each.index in edges]
    return new or [each.name for each in leaves if not each.visits]
