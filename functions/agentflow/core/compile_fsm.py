"""States and transitions: from the document to a ``Machine``, with the entry set of every transition."""

from __future__ import annotations

from agentflow.core import checks_fsm
from agentflow.core.draft import BOOL, JSON_TYPE, Draft, Table, result_scope
from agentflow.core.expr import Expr
from agentflow.core.hierarchy import MACHINE, Hierarchy, Place
from agentflow.core.machine import Machine, State, Transition
from agentflow.core.plan import Task
from agentflow.core.types import Type


def machine(draft: Draft) -> Machine | None:
    """The compiled machine, None when the hierarchy itself is broken (the problems say how)."""
    hierarchy = Hierarchy(draft)
    if hierarchy.broken:
        return None
    compiled = _Builder(draft, hierarchy).compile()
    checks_fsm.check(draft, compiled)
    return compiled


class _Builder:
    def __init__(self, draft: Draft, hierarchy: Hierarchy) -> None:
        self.draft = draft
        self.states = hierarchy.states
        self.nodes = hierarchy.nodes
        self.order = hierarchy.order

    def compile(self) -> Machine:
        """Every state with its transitions."""
        states = tuple(self._state(self.nodes[name]) for name in self.order)
        return Machine(
            states=states,
            by_name={state.name: state for state in states},
            initial=tuple(sorted(self._default(str(self.draft.document["initial"])))),
            eventless=any(state.eventless for state in states),
        )

    def _state(self, node: Place) -> State:
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

    def _inputs(self, node: Place, task: Task) -> dict[str, Expr]:
        for name, expr in task.inputs.items():
            if "item" in expr.names:
                self.draft.note(
                    f"tasks.{task.name}.in.{name}",
                    "there is no `item` here",
                    "`item` is known inside a map only",
                    "cel",
                )
        return task.inputs

    def _transition(self, node: Place, task: Task | None, entry: Table, path: str) -> Transition | None:
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

    def _scope(self, node: Place, task: Task | None, event: str, path: str) -> dict[str, Type]:
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
