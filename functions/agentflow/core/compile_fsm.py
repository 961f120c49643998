"""States and transitions: from the document to a ``Machine``, with the entry set of every transition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agentflow.core import checks_fsm
from agentflow.core.draft import BOOL, JSON_TYPE, STRING, Draft, Scope, Table, milliseconds, result_scope
from agentflow.core.entry import entry_set
from agentflow.core.expr import Expr
from agentflow.core.hierarchy import MACHINE, Hierarchy, Place, listed
from agentflow.core.machine import ANY, NOWHERE, OWN_EVENTS, Action, Machine, Raise, State, Transition
from agentflow.core.plan import Task
from agentflow.core.types import Type


def machine(draft: Draft) -> Machine | None:
    """The compiled machine, None when the hierarchy itself is broken (the problems say how)."""
    hierarchy = Hierarchy(draft)
    if hierarchy.broken:
        return None
    builder = _Builder(draft, hierarchy)
    compiled = builder.compile()
    checks_fsm.check(draft, compiled, builder.raised)
    return compiled


class _Builder:
    def __init__(self, draft: Draft, hierarchy: Hierarchy) -> None:
        self.draft = draft
        self.hierarchy = hierarchy
        self.states = hierarchy.states
        self.nodes = hierarchy.nodes
        self.order = hierarchy.order
        self.raised: dict[str, str] = {}  # event -> where it is raised first

    def compile(self) -> Machine:
        """Every state with its transitions."""
        bare = tuple(self._state(self.nodes[name]) for name in self.order)
        states = tuple(self._with_transitions(self.nodes[state.name], state, bare) for state in bare)
        first = tuple(self.nodes[name].index for name in listed(self.draft.document["initial"]))
        timed = any(state.timed for state in states)
        remembers = any(state.kind == "history" for state in states)
        return Machine(
            states=states,
            by_name={state.name: state for state in states},
            first=first,
            initial=tuple(sorted(entry_set(states, first, 0))),
            eventless=any(state.eventless for state in states),
            timed=timed,
            remembers=remembers,
            exits=timed or remembers or any(state.exit for state in states),
            mends=any("error" in state.on for state in states),
            events=self._events(states),
        )

    def _events(self, states: tuple[State, ...]) -> dict[str, dict[str, Type]]:
        """What the signals carry that are declared: each is taken by some transition, and comes from outside."""
        for name in self.draft.events:
            path = f"events.{name}"
            if not any(name in state.on for state in states):
                self.draft.note(path, f"no transition takes {name!r}", "add one, or remove it", "unheard")
            if name in self.raised:
                mend = "give the raised event another name"
                self.draft.note(self.raised[name], f"{name!r} is declared as a signal, and is raised here", mend)
        return self.draft.events

    def _state(self, node: Place) -> State:
        """The state, but for its transitions."""
        draft, entry, kind = self.draft, node.entry, node.kind
        task = draft.task(entry["run"], f"{node.path}.run") if "run" in entry else None
        first = listed(entry.get("to" if kind == "history" else "initial")) if kind != "machine" else ()
        children = [self.nodes[child] for child in node.children]
        return State(
            index=node.index,
            name=node.name,
            kind=kind,
            parent=self.nodes[node.parent].index,
            chain=tuple(self.nodes[name].index for name in node.chain),
            path=node.path or "transitions",
            task=task,
            inputs=self._inputs(task) if task is not None else {},
            visits=entry.get("visits", 0),
            regions=tuple(child.index for child in children if child.kind != "history")
            if kind == "parallel"
            else (),
            first=tuple(self.nodes[name].index for name in first),
            deep=entry.get("history") == "deep",
            memories=tuple(child.index for child in children if child.kind == "history"),
            reason=self._reason(entry, f"{node.path}.reason"),
            entry=self._action(entry.get("entry"), draft.names, f"{node.path}.entry"),
            exit=self._action(entry.get("exit"), draft.names, f"{node.path}.exit"),
        )

    def _reason(self, entry: Table, path: str) -> Expr | None:
        if "reason" not in entry:
            return None
        if entry.get("final") != "failure":
            self.draft.note(path, "only a final state that is a failure has a reason", "remove it")
        return self.draft.expr(entry["reason"], self.draft.names, STRING, path)

    def _with_transitions(self, node: Place, state: State, states: tuple[State, ...]) -> State:
        found: list[Transition] = []
        if node.kind != "region":  # it shares the entry of its first state
            for i, entry in enumerate(node.entry.get("transitions", ())):
                path = f"{node.path}.transitions[{i}]".lstrip(".")
                compiled = self._transition(node, state, entry, path, states)
                if compiled is not None:
                    found.append(compiled)
        named = dict.fromkeys(each.event for each in found if each.event and each.event != ANY)
        heard = {name for name in named if name not in OWN_EVENTS} | ({ANY} if _by(found, ANY) else set())
        return replace(
            state,
            on={name: _by(found, name, *([] if name in OWN_EVENTS else [ANY])) for name in named},
            any=_by(found, ANY),
            eventless=tuple(each for each in found if not each.event and not each.after_ms),
            timed=tuple(each for each in found if each.after_ms),
            # Every run can be cancelled: to have a way of one's own for that is not to wait for it.
            listens=bool(heard - {"cancel"} if node.kind == "machine" else heard),
        )

    def _inputs(self, task: Task) -> dict[str, Expr]:
        if task.key is not None and "item" in task.key.names:
            message = "`item` is known inside a map only"
            self.draft.note(f"tasks.{task.name}.key", "there is no `item` here", message, "cel")
        for name, expr in task.inputs.items():
            if "item" in expr.names:
                self.draft.note(
                    f"tasks.{task.name}.in.{name}",
                    "there is no `item` here",
                    "`item` is known inside a map only",
                    "cel",
                )
        return task.inputs

    def _action(self, entry: Table | None, scope: Scope, path: str) -> Action | None:
        if not entry or not (entry.get("set") or entry.get("raise")):
            return None
        raises = tuple(self._raise(each, scope, f"{path}.raise[{i}]") for i, each in enumerate(entry.get("raise", ())))
        return Action(self.draft.sets(entry.get("set", {}), scope, f"{path}.set"), raises, path)

    def _raise(self, entry: str | Table, scope: Scope, path: str) -> Raise:
        name = entry if isinstance(entry, str) else str(entry["event"])
        if name in OWN_EVENTS:
            self.draft.note(path, f"{name!r} is an event of the machine itself", "use another name")
        self.raised.setdefault(name, path)
        if isinstance(entry, str):
            return Raise(name)
        guard = self.draft.expr(entry["if"], scope, BOOL, f"{path}.if") if "if" in entry else None
        data = entry.get("data", {})
        if isinstance(data, str):
            whole = self.draft.expr(data, scope, JSON_TYPE, f"{path}.data")
            found = {} if whole is None else {"": whole}
        else:
            found = self.draft.exprs(data, scope, f"{path}.data", dict.fromkeys(data, JSON_TYPE))
        return Raise(name, bound=True, guard=guard, data=found, path=path)

    def _transition(
        self, node: Place, state: State, entry: Table, path: str, states: tuple[State, ...]
    ) -> Transition | None:
        draft = self.draft
        event = entry.get("event", "")
        if event and "after" in entry:
            draft.note(f"{path}.after", "it has an event, too", "keep one of them, or write two transitions")
        if "after" in entry and node.kind == "machine":
            draft.note(f"{path}.after", "the whole machine is never entered", "use limits.wall, or a state around all")
        scope = self._scope(node, state.task, event, path)
        guard = draft.expr(entry["if"], scope, BOOL, f"{path}.if") if "if" in entry else None
        action = self._action(entry, scope, path)
        targets = listed(entry.get("to"))
        domain = NOWHERE
        enter: tuple[int, ...] = ()
        may_enter: tuple[int, ...] = ()
        memories: tuple[int, ...] = ()
        if targets:
            unknown = [name for name in targets if name not in self.states]
            for name in unknown:
                draft.unknown(f"{path}.to", "state", name, self.states)
            if unknown or not self.hierarchy.at_once(targets, f"{path}.to"):
                return None
            domain = self._domain(node, targets, internal=self._internal(node, entry, path))
            enter, may_enter, memories = self._enter(states, targets, domain)
        elif action is None:
            mend = "say where it leads: to, or what it does: set, raise"
            draft.note(path, "it does nothing and leads nowhere", mend, "does_nothing")
        elif not event and "after" not in entry and guard is None:
            draft.note(path, "it is taken again and again", "give it an event, an `if`, or a `to`", "unbounded_cycle")
        return Transition(
            source=node.index,
            event=event,
            guard=guard,
            action=action,
            targets=tuple(self.nodes[name].index for name in targets),
            domain=domain,
            enter=enter,
            path=path,
            after_ms=milliseconds(entry["after"]) if "after" in entry else 0,
            may_enter=may_enter,
            memories=memories,
        )

    def _internal(self, node: Place, entry: Table, path: str) -> bool:
        """Whether the source stays active, though the target is inside it."""
        if not entry.get("internal"):
            return False
        inside = all(node.name in self.nodes[name].chain[1:] for name in listed(entry["to"]))
        if node.kind != "compound" or not inside:
            mend = "leave it out, or lead to a state inside one with `initial`"
            self.draft.note(f"{path}.internal", "only a way from a compound state into itself is internal", mend)
            return False
        return True

    def _domain(self, node: Place, targets: Sequence[str], *, internal: bool) -> int:
        around = node.chain if internal else node.chain[1:] or (MACHINE,)
        inside = [self.nodes[target].chain[1:] for target in targets]
        return next(
            self.nodes[name].index
            for name in around
            if self.nodes[name].kind != "parallel" and all(name in chain for chain in inside)
        )

    def _enter(
        self, states: tuple[State, ...], targets: Sequence[str], domain: int
    ) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """What is entered, what may be, and the history states that this depends on."""
        memories: dict[int, None] = {}

        def first(memory: State) -> tuple[int, ...]:
            memories[memory.index] = None
            return memory.first

        enter = entry_set(states, [self.nodes[name].index for name in targets], domain, first)
        if not memories:
            return tuple(sorted(enter)), (), ()
        around = {states[index].parent for index in memories}
        inside = {each.index for each in states if around & {*each.chain[1:]} and each.kind != "history"}
        return tuple(sorted(enter)), tuple(sorted(enter | inside)), tuple(memories)

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
        elif event in self.draft.events:
            scope["event.name"] = STRING
            scope |= {f"event.data.{name}": type_ for name, type_ in self.draft.events[event].items()}
        elif event:
            scope["event"] = JSON_TYPE
        return scope


def _by(transitions: list[Transition], *events: str) -> tuple[Transition, ...]:
    return tuple(each for each in transitions if each.event in events)
