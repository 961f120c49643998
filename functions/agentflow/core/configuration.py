"""The configuration of a state machine while one macrostep changes it: what is active, and how states are left and
entered. SCXML's exitStates, executeTransitionContent and enterStates, with the order they prescribe.

The cursor: ``at`` the active leaf states in document order, ``run`` the step of each running state, ``visits`` the
entries of each state that bounds them; where the machine has such, ``timers`` (number -> state and place of the
transition), ``timer`` the last number given, and ``history`` (history state -> the states it stands for).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

from agentflow.core.entry import effective, entry_set
from agentflow.core.machine import Action, Machine, Raise, State, Transition
from agentflow.core.turn import Ends, Turn, Unvalued, reason
from agentflow.core.types import JSON

MAX_MICROSTEPS = 1_000
FAILURE_STATE = "the run ended in the failure state"
NO_LOCALS: dict[str, JSON] = {}


class Configuration:
    """The active states, and what has followed from entering and leaving some: ``internal`` events (name, the state
    that is done or failed, what expressions see) and ``entered`` states whose tasks have still to start."""

    __slots__ = (
        "at", "defaults", "entered", "history", "internal", "machine", "microsteps", "run", "timer", "timers", "turn",
        "visits",
    )  # fmt: skip

    def __init__(self, turn: Turn, machine: Machine, cursor: dict[str, Any]) -> None:
        self.turn = turn
        self.machine = machine
        by_name = machine.by_name
        self.at: list[State] = [by_name[name] for name in cursor["at"]]
        self.run: dict[str, int] = dict(cursor["run"])
        self.visits: dict[str, int] = cursor["visits"]
        self.timers: dict[str, int] = {key: int(number) for number, key in cursor.get("timers", {}).items()}
        self.timer: int = cursor.get("timer", 0)
        self.history: dict[str, list[str]] = cursor.get("history", {})
        self.entered: list[State] = []
        self.defaults: list[State] = []  # the history states that stand for what they name, in this microstep
        self.internal: deque[tuple[str, State | None, dict[str, JSON]]] = deque()
        self.microsteps = 0

    def cursor(self) -> dict[str, JSON]:
        """The cursor after this macrostep."""
        self.run.update(self.turn.numbered())
        cursor: dict[str, Any] = {"at": [state.name for state in self.at], "run": self.run, "visits": self.visits}
        if self.machine.timed:
            alarms = self.turn.timed(self.timer)
            cursor["timers"] = {str(number): key for key, number in {**self.timers, **alarms}.items()}
            cursor["timer"] = self.timer + len(alarms)
        if self.machine.remembers:
            cursor["history"] = self.history
        return cursor

    def is_active(self, state: State) -> bool:
        return any(state.index in leaf.chain for leaf in self.at)

    # -- one microstep -----------------------------------------------------------------------------------

    def take(self, transitions: list[Transition], local: dict[str, JSON]) -> None:
        """Leave, do what the transitions say, enter."""
        self.microsteps += 1
        if self.microsteps > MAX_MICROSTEPS:
            path = transitions[0].path
            self.turn.fault(path, f"more than {MAX_MICROSTEPS:,} transitions without a task in between")
        self._leave([self.domain(each) for each in transitions])
        for transition in transitions:
            if transition.action is not None:
                self._act(transition.action, local)
        if len(transitions) == 1:
            self.enter(self._entered(transitions[0]))
        else:
            self.enter(sorted({index for each in transitions for index in self._entered(each)}))

    def exit_set(self, transition: Transition) -> set[int]:
        """The states that a transition leaves."""
        domain = self.domain(transition)
        left: set[int] = set()
        for leaf in self.at:
            chain = leaf.chain
            if domain in chain:
                left.update(chain[: chain.index(domain)])
        return left

    def domain(self, transition: Transition) -> int:
        """What stays active around both ends of a transition; NOWHERE where it has no target."""
        states = self.machine.states
        if transition.domain == transition.source or not any(m in transition.targets for m in transition.memories):
            return transition.domain  # an internal transition's source stays, whatever history stands for
        chains = [states[index].chain for index in effective(states, transition.targets, self._remembered)]
        for index in states[transition.source].chain[1:] or (0,):
            if states[index].kind != "parallel" and all(index in chain[1:] for chain in chains):
                return index
        return 0

    def _leave(self, domains: list[int]) -> None:
        staying: list[State] = []
        leaving: list[State] = []
        for leaf in self.at:
            inside = any(domain in leaf.chain[1:] for domain in domains)
            (leaving if inside else staying).append(leaf)
        if not leaving:
            return
        self.at = staying
        for leaf in leaving:
            if step := self.run.pop(leaf.name, 0):
                self.turn.halts.append(step)
        if self.machine.exits:
            self._exit(leaving, domains)

    def _exit(self, leaving: list[State], domains: list[int]) -> None:
        """What leaving these states means besides halting their tasks: inner states first, the last one first."""
        states = self.machine.states
        left: set[int] = set()
        for leaf in leaving:
            for index in leaf.chain:
                if index in domains:
                    break
                left.add(index)
        order = [states[index] for index in sorted(left, reverse=True)]
        for state in order:
            for memory in state.memories:
                self._remember(states[memory], state, leaving)
        for state in order:
            for number in range(len(state.timed)):
                key = f"{state.name}.{number}"
                if self.turn.alarms.pop(key, None) is None and (timer := self.timers.pop(key, 0)):
                    self.turn.cleared.append(timer)
            if state.exit is not None:
                self._act(state.exit, NO_LOCALS)

    def _act(self, action: Action, local: dict[str, JSON]) -> None:
        carried: dict[Raise, JSON] = {}
        try:
            carried = {each: self._data(each, local) for each in action.raises if self._is_raised(each, local)}
            if action.sets:
                self.turn.assign(action.sets, local, action.path)
        except Unvalued as fault:
            self.error(fault)
            carried = {each: None for each in action.raises if not each.bound}
        for raised, data in carried.items():
            self.internal.append((raised.event, None, {"event": {"name": raised.event, "data": data}}))

    def _is_raised(self, raised: Raise, local: dict[str, JSON]) -> bool:
        return raised.guard is None or bool(self.turn.value(raised.guard, local, raised.path + ".if"))

    def _data(self, raised: Raise, local: dict[str, JSON]) -> JSON:
        if not raised.data:
            return None
        data = {name: self.turn.value(expr, local, f"{raised.path}.data") for name, expr in raised.data.items()}
        return data.get("", data)

    def error(self, fault: Unvalued) -> None:
        """An expression has no value: an event, where some transition takes it, else the end of the run."""
        if not self.machine.mends:
            raise fault
        self.internal.append(("error", None, {"event": {"name": "error", "message": fault.reason}}))

    # -- enter -------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Enter the initial states."""
        machine = self.machine
        if machine.remembers:
            self.enter(sorted(entry_set(machine.states, machine.first, 0, self._stands)))
        else:
            self.enter(machine.initial)

    def enter(self, indexes: Iterable[int]) -> None:
        """Enter states, given in document order."""
        end: Ends | None = None
        defaults, self.defaults = self.defaults, []
        if defaults:
            indexes = [*indexes]
            for memory in defaults:
                if memory.parent not in indexes:
                    self._begin_without(memory)
        for index in indexes:
            state = self.machine.states[index]
            if state.visits:
                self._count(state)
            kind = state.kind
            if kind == "atomic":
                self.at.append(state)
                if state.task is not None:
                    self.entered.append(state)
            for number, transition in enumerate(state.timed):
                self.turn.alarms[f"{state.name}.{number}"] = transition.after_ms
            if state.entry is not None:
                self._act(state.entry, NO_LOCALS)
            for memory in defaults:
                if memory.parent == index:
                    self._begin_without(memory)
            if kind == "success" or kind == "failure":
                self.at.append(state)
                end = end or self._final(state)
        if len(self.at) > 1:
            self.at.sort(key=_index)
        if end is not None:
            raise end

    def _count(self, state: State) -> None:
        seen = self.visits.get(state.name, 0) + 1
        if seen > state.visits:
            self.turn.fault(f"{state.path}.visits", f"{state.name!r} would be entered {seen} times")
        self.visits = {**self.visits, state.name: seen}

    def _final(self, state: State) -> Ends | None:
        """What follows from a final state: events of the states around, or the end of the run."""
        states = self.machine.states
        if state.parent == 0:
            if state.kind == "success":
                return Ends(True)
            said = f"{FAILURE_STATE} {state.name!r}"
            if state.reason is not None:
                said = self.turn.value(state.reason, NO_LOCALS, f"{state.path}.reason") or said
            return Ends(False, reason(state.path, said))
        around = states[state.parent]
        if around.kind == "compound":
            self.internal.append(("done" if state.kind == "success" else "failed", around, NO_LOCALS))
        around = states[around.parent]
        while around.kind == "parallel":
            outcomes = [self._outcome(states[region]) for region in around.regions]
            if None in outcomes:
                break
            self.internal.append(("failed" if False in outcomes else "done", around, NO_LOCALS))
            around = states[around.parent]
        return None

    def _outcome(self, region: State) -> bool | None:
        """How a region has ended, None while it goes on."""
        if region.kind == "parallel":
            outcomes = [self._outcome(self.machine.states[index]) for index in region.regions]
            return None if None in outcomes else False not in outcomes
        for leaf in self.at:
            if leaf.parent == region.index and leaf.kind != "atomic":
                return leaf.kind == "success"
        return None

    # -- history -----------------------------------------------------------------------------------------

    def _remember(self, memory: State, around: State, leaving: list[State]) -> None:
        below = [leaf for leaf in leaving if around.index in leaf.chain]
        if memory.deep:
            names = [leaf.name for leaf in below]
        else:
            inner = {leaf.chain[leaf.chain.index(around.index) - 1] for leaf in below}
            names = [self.machine.states[index].name for index in sorted(inner)]
        self.history = {**self.history, memory.name: names}

    def _remembered(self, memory: State) -> tuple[int, ...]:
        """The states that a history state stands for now."""
        names = self.history.get(memory.name)
        return tuple(self.machine.by_name[name].index for name in names) if names else memory.first

    def _stands(self, memory: State) -> tuple[int, ...]:
        """The same, when they are entered."""
        if memory.entry is not None and not self.history.get(memory.name) and memory not in self.defaults:
            self.defaults.append(memory)
        return self._remembered(memory)

    def _begin_without(self, memory: State) -> None:
        """What a history state does where there is no history yet."""
        assert memory.entry is not None
        self._act(memory.entry, NO_LOCALS)

    def _entered(self, transition: Transition) -> Iterable[int]:
        if not transition.memories:
            return transition.enter
        return sorted(entry_set(self.machine.states, transition.targets, self.domain(transition), self._stands))


def _index(state: State) -> int:
    return state.index
