"""States and transitions: from the flat map of the document to a ``Machine`` in document order.

A state listed in ``regions`` that has no states of its own becomes the first state of a region named
``parent.state``, and further states join it with ``in: parent.state``. A listed compound or parallel state is the
region itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from agentflow.core import checks_fsm
from agentflow.core.draft import BOOL, JSON_TYPE, Draft, Table, result_scope
from agentflow.core.fsm import Machine, State, Transition
from agentflow.core.plan import Task
from agentflow.core.types import Type

MACHINE = ""
MAX_NESTING = 12


@dataclass(slots=True)
class Node:
    """A state while the hierarchy is built; ``name`` is '' for the machine and ``a.b`` for an implicit region."""

    name: str
    kind: str
    entry: Table
    path: str
    parent: str = MACHINE
    children: list[str] = field(default_factory=list)
    index: int = 0
    chain: tuple[str, ...] = ()


def machine(draft: Draft) -> Machine | None:
    """The compiled machine, None when the hierarchy itself is broken (the problems say how)."""
    before = len(draft.problems)
    builder = _Builder(draft)
    builder.hierarchy()
    if len(draft.problems) > before and builder.broken:
        return None
    return builder.compile()


class _Builder:
    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.states: Table = draft.document["states"]
        self.nodes: dict[str, Node] = {MACHINE: Node(MACHINE, "machine", draft.document, "")}
        self.order: list[str] = []
        self.broken = False

    # ------------------------------------------------------------------------------------------- hierarchy

    def hierarchy(self) -> None:
        """Place every state: its kind, its parent, its number in document order."""
        for name, entry in self.states.items():
            self.nodes[name] = Node(name, self._kind(name, entry), entry, f"states.{name}")
        for name, entry in self.states.items():
            for i, region in enumerate(entry.get("regions", ())):
                self._region(name, region, f"states.{name}.regions[{i}]")
        for name, entry in self.states.items():
            self._place(self.nodes[name], entry.get("in"))
        for node in self.nodes.values():
            self._initial(node)
        if self.broken:
            return
        self._number(MACHINE, ())
        lost = [name for name in self.nodes if name not in self.order]
        for name in lost:
            self._fault(f"states.{name}.in", f"{name!r} is inside itself", "let `in` lead to the outside")

    def _fault(self, path: str, message: str, mend: str = "", code: str = "hierarchy") -> None:
        self.broken = True
        self.draft.note(path, message, mend, code)

    def _kind(self, name: str, entry: Table) -> str:
        shapes = [key for key in ("run", "regions", "initial", "final") if key in entry]
        if len(shapes) > 1:
            self._fault(
                f"states.{name}.{shapes[1]}",
                f"{name!r} has both {shapes[0]} and {shapes[1]}",
                "keep one of them",
            )
        if "final" in entry:
            if entry.get("transitions"):
                self._fault(
                    f"states.{name}.transitions",
                    "a final state has no transitions",
                    "remove them, or `final`",
                )
            return str(entry["final"])
        return "parallel" if "regions" in entry else "compound" if "initial" in entry else "atomic"

    def _region(self, parent: str, name: str, path: str) -> None:
        node = self.nodes.get(name)
        if node is None or "." in name:
            self.broken = True
            self.draft.unknown(path, "state", name, self.states)
            return
        if node.entry.get("in") != parent:
            self._fault(f"states.{name}.in", f"{name!r} is a region of {parent!r}", f"say in: {parent}")
        if node.kind in ("success", "failure"):
            self._fault(
                path, f"the region {name!r} is a final state", "let the region begin with a state that runs"
            )
        if node.kind == "atomic":
            region = f"{parent}.{name}"
            self.nodes[region] = Node(region, "region", {"initial": name}, f"states.{name}", parent)

    def _place(self, node: Node, within: str | None) -> None:
        path = f"{node.path}.in"
        if within is None:
            parent = MACHINE
        elif within in self.nodes:
            parent = within
            around = self.nodes[within]
            if around.kind == "parallel":
                parent = self._in_parallel(node, within, path)
            elif around.kind not in ("compound", "region"):
                self._fault(
                    path, f"{within!r} holds no states", f"give {within!r} an `initial`, or name a region"
                )
        else:
            outer, _, region = within.partition(".")
            if outer in self.nodes and region in self.nodes[outer].entry.get("regions", ()):
                parent = region  # a compound region is its own region
            else:
                self.broken = True
                known = [name for name, other in self.nodes.items() if other.kind in ("compound", "region")]
                self.draft.unknown(path, "state", within, known)
                return
        node.parent = parent
        self.nodes[parent].children.append(node.name)

    def _in_parallel(self, node: Node, within: str, path: str) -> str:
        if node.name not in self.nodes[within].entry["regions"]:
            regions = ", ".join(f"{within}.{name}" for name in self.nodes[within].entry["regions"])
            self._fault(path, f"{within!r} is parallel: name the region", f"one of {regions}")
            return MACHINE
        if node.kind != "atomic":
            return within
        region = self.nodes[f"{within}.{node.name}"]
        if region.name not in self.nodes[within].children:
            self.nodes[within].children.append(region.name)
        return region.name

    def _initial(self, node: Node) -> None:
        if node.kind not in ("compound", "region", "machine"):
            return
        initial = node.entry["initial"]
        path = f"{node.path}.initial".lstrip(".")
        if initial not in self.states:
            self.broken = True
            self.draft.unknown(path, "state", initial, self.states)
        elif initial not in node.children and node.kind != "region":
            place = f"in: {node.name}" if node.name else "no `in`"
            self._fault(path, f"{initial!r} is not directly inside", f"name a state with {place}")

    def _number(self, name: str, chain: tuple[str, ...]) -> None:
        node = self.nodes[name]
        if len(chain) > MAX_NESTING:
            self._fault(f"{node.path}.in", f"states are nested more than {MAX_NESTING} deep", "flatten them")
            return
        node.index = len(self.order)
        self.order.append(name)
        node.chain = (name, *chain)
        if node.kind == "parallel":
            regions = node.entry["regions"]
            children = [r if r in node.children else f"{name}.{r}" for r in regions]
        else:
            first = node.entry.get("initial")
            children = sorted(node.children, key=lambda child: (child != first, child))
        node.children = children
        for child in children:
            self._number(child, node.chain)

    # ------------------------------------------------------------------------------------------- compilation

    def compile(self) -> Machine:
        """Every state with its transitions, then the checks on the whole."""
        states = tuple(self._state(self.nodes[name]) for name in self.order)
        compiled = Machine(
            states=states,
            by_name={state.name: state for state in states},
            initial=tuple(sorted(self._default(self.document_initial()))),
            eventless=any(state.eventless for state in states),
        )
        checks_fsm.check(self.draft, compiled)
        return compiled

    def document_initial(self) -> str:
        return str(self.draft.document["initial"])

    def _state(self, node: Node) -> State:
        draft, entry = self.draft, node.entry
        task = draft.task(entry["run"], f"{node.path}.run") if "run" in entry else None
        inputs = self._inputs(node, task) if task is not None else {}
        on: dict[str, list[Transition]] = {}
        if node.kind != "region":
            for i, transition in enumerate(entry.get("transitions", ())):
                compiled = self._transition(
                    node, task, transition, f"{node.path}.transitions[{i}]".lstrip(".")
                )
                if compiled is not None:
                    on.setdefault(compiled.event, []).append(compiled)
        eventless = tuple(on.pop("", ()))
        return State(
            index=node.index,
            name=node.name,
            kind=node.kind,
            parent=self.nodes[node.parent].index,
            chain=tuple(self.nodes[name].index for name in node.chain),
            path=node.path or "transitions",
            task=task,
            inputs=inputs,
            visits=entry.get("visits", 0),
            regions=tuple(self.nodes[child].index for child in node.children)
            if node.kind == "parallel"
            else (),
            on={event: tuple(transitions) for event, transitions in on.items()},
            eventless=eventless,
        )

    def _inputs(self, node: Node, task: Task) -> dict[str, Any]:
        for name, expr in task.inputs.items():
            if "item" in expr.names:
                self.draft.note(
                    f"tasks.{task.name}.in.{name}",
                    "there is no `item` here",
                    "`item` is known inside a map only",
                    "cel",
                )
        return task.inputs

    def _transition(self, node: Node, task: Task | None, entry: Table, path: str) -> Transition | None:
        draft = self.draft
        event = entry.get("event", "")
        scope = self._scope(node, task, event, path)
        guard = draft.expr(entry["if"], scope, BOOL, f"{path}.if") if "if" in entry else None
        sets = draft.sets(entry.get("set", {}), scope, f"{path}.set")
        target = entry["to"]
        if target not in self.states:
            draft.unknown(f"{path}.to", "state", target, self.states)
            return None
        domain = next(
            name
            for name in (node.chain[1:] or (MACHINE,))
            if name in self.nodes[target].chain[1:] and self.nodes[name].kind != "parallel"
        )
        return Transition(
            source=node.index,
            event=event,
            guard=guard,
            sets=sets,
            target=self.nodes[target].index,
            domain=self.nodes[domain].index,
            enter=tuple(sorted(self._entered(target, domain))),
            path=path,
        )

    def _scope(self, node: Node, task: Task | None, event: str, path: str) -> dict[str, Type]:
        scope = dict(self.draft.names)
        if event == "done":
            if node.kind == "machine":
                self.draft.note(
                    f"{path}.event",
                    "the whole machine is done when it reaches a final state",
                    "use a state's `done`",
                    "event",
                )
            elif node.kind == "atomic" and task is None and "run" not in node.entry:
                self.draft.note(
                    f"{path}.event",
                    f"{node.name!r} runs nothing that could be done",
                    "leave `event` out",
                    "event",
                )
            if task is not None:
                scope.update(result_scope(task))
        elif event:
            scope["event"] = JSON_TYPE
        return scope

    def _entered(self, target: str, domain: str) -> set[int]:
        """SCXML's entry set: what is between domain and target, the target's defaults, the other regions."""
        entered = self._default(target)
        below = target
        for name in self.nodes[target].chain[1:]:
            if name == domain:
                break
            node = self.nodes[name]
            entered.add(node.index)
            if node.kind == "parallel":
                for region in node.children:
                    if region != below:
                        entered |= self._default(region)
            below = name
        return entered

    def _default(self, name: str) -> set[int]:
        """``name`` and what is entered with it."""
        node = self.nodes[name]
        entered = {node.index}
        if node.kind in ("compound", "region"):
            entered |= self._default(str(node.entry["initial"]))
        elif node.kind == "parallel":
            for region in node.children:
                entered |= self._default(region)
        return entered
