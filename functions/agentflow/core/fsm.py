"""The state machine: SCXML's interpretation algorithm over a compiled ``Machine``.

One event is one macrostep: the transitions it enables are selected (inner states first, document order within a
state), conflicts between regions are resolved, states are left and entered, then eventless transitions and the
internal events that followed (a region or compound state is done) are taken until none is left. Tasks of the states
that are active then start. Sources: W3C SCXML 1.0, appendix D, with three rules of our own:

* ``done`` belongs to the very state whose task, region set or inner final state is done; ``failed`` and
  ``timeout`` are also seen by the states around it, and a ``timeout`` nobody takes is a ``failed``;
* an inner final state may be a failure, which makes the state around it ``failed`` instead of ``done``;
* nothing running and nothing to take is the end of the run, with the reason, not a wait without end.

The cursor: ``at`` the active leaf states in document order, ``run`` the step of each running state, ``visits``
the entries of each state that bounds them.
"""

from __future__ import annotations

from collections import deque
from typing import Any

from agentflow.core.machine import TASK_EVENTS, Machine, State, Transition
from agentflow.core.moves import Advance, Completed, Failed, PlanEvent, PlanState, Signal
from agentflow.core.plan import Plan
from agentflow.core.turn import Ends, Turn
from agentflow.core.types import JSON, Mismatch

MAX_MICROSTEPS = 1_000
_NO_LOCALS: dict[str, JSON] = {}


def begin(plan: Plan, machine: Machine, variables: dict[str, JSON]) -> Advance:
    """Enter the initial states."""
    turn = _Turn(Turn(plan, variables, 0), machine, {"at": [], "run": {}, "visits": {}})
    try:
        turn.enter(machine.initial)
        turn.settle()
    except Ends as ends:
        return turn.turn.end(list(turn.run.values()), ends)
    return turn.close()


def advance(plan: Plan, machine: Machine, state: PlanState, event: PlanEvent) -> Advance:
    """One macrostep for ``event``."""
    cursor = state.cursor
    origin: State | None = None
    if event.__class__ is not Signal:
        step = event.step  # type: ignore[union-attr]
        for name, running in cursor["run"].items():
            if running == step:
                origin = machine.by_name[name]
                break
        else:
            return Advance(state, ())
    turn = _Turn(Turn(plan, state.vars, state.steps), machine, cursor)
    try:
        if origin is None:
            if not turn.signal(event):  # type: ignore[arg-type]
                return Advance(state, ())
        else:
            del turn.run[origin.name]
            turn.ended(origin, event)
        turn.settle()
    except Ends as ends:
        return turn.turn.end(list(turn.run.values()), ends)
    return turn.close()


class _Turn:
    """The working configuration of one macrostep."""

    __slots__ = ("at", "entered", "internal", "last", "machine", "microsteps", "run", "turn", "visits")

    def __init__(self, turn: Turn, machine: Machine, cursor: dict[str, Any]) -> None:
        self.turn = turn
        self.machine = machine
        by_name = machine.by_name
        self.at: list[State] = [by_name[name] for name in cursor["at"]]
        self.run: dict[str, int] = dict(cursor["run"])
        self.visits: dict[str, int] = cursor["visits"]
        self.entered: list[State] = []
        self.internal: deque[tuple[str, State]] = deque()
        self.microsteps = 0
        self.last = ""

    # ------------------------------------------------------------------------------------------- selection

    def ended(self, state: State, event: PlanEvent) -> None:
        """The task of ``state`` has ended: take the transition it enables, if any."""
        if isinstance(event, Completed):
            assert state.task is not None
            try:
                local = state.task.bind(event.result)
            except Mismatch as fault:
                event = Failed(event.step, "bad_result", f"result{fault.where} {fault.message}")
            else:
                self.last = f"{state.path}: `done`"
                self._take_done(state, local)
                return
        code, message = ("timeout", "nothing came in time")
        if isinstance(event, Failed):
            code, message = event.code, event.message
        names = ("timeout", "failed") if code == "timeout" else ("failed",)
        local = {"event": {"name": names[0], "code": code, "message": message}}
        task = state.task.name if state.task is not None else ""
        self._take_failed(state, names, local, f"task {task!r} failed: {code}: {message}")

    def _take_done(self, state: State, local: dict[str, JSON]) -> None:
        transitions = state.on.get("done")
        if transitions is not None:
            chosen = self._first(transitions, local)
            if chosen is not None:
                self._microstep([chosen], local)

    def _take_failed(self, state: State, names: tuple[str, ...], local: dict[str, JSON], why: str) -> None:
        states = self.machine.states
        for index in state.chain:
            for name in names:
                chosen = self._first(states[index].on.get(name, ()), local)
                if chosen is not None:
                    self._microstep([chosen], local)
                    return
        self.turn.fault(state.path, f"{why}, and no transition takes `{names[0]}`")

    def signal(self, event: Signal) -> bool:
        """Take what the signal enables; False when nobody listens. The task events cannot be signalled."""
        if event.name in TASK_EVENTS:
            return False
        local = {"event": {"name": event.name, "data": event.data}}
        chosen = self._select(event.name, local)
        if not chosen:
            return False
        self._microstep(chosen, local)
        return True

    def _select(self, event: str, local: dict[str, JSON]) -> list[Transition]:
        """The enabled transitions of the configuration, conflicts resolved; event '' selects the eventless."""
        states = self.machine.states
        enabled: list[Transition] = []
        for leaf in self.at:
            for index in leaf.chain:
                state = states[index]
                transitions = state.on.get(event, ()) if event else state.eventless
                if transitions:
                    chosen = self._first(transitions, local)
                    if chosen is not None:
                        if chosen not in enabled:
                            enabled.append(chosen)
                        break
        return enabled if len(enabled) < 2 else self._without_conflicts(enabled)

    def _first(self, transitions: tuple[Transition, ...], local: dict[str, JSON]) -> Transition | None:
        for transition in transitions:
            guard = transition.guard
            if guard is None or self.turn.value(guard, local, transition.path + ".if"):
                return transition
        return None

    def _without_conflicts(self, enabled: list[Transition]) -> list[Transition]:
        """SCXML's removeConflictingTransitions: of two that leave a common state the inner one wins, else the
        first in document order.
        """
        states = self.machine.states
        kept: list[Transition] = []
        for one in enabled:
            leaves = self._exit_set(one)
            preempted = False
            removed = []
            for other in kept:
                if leaves & self._exit_set(other):
                    if other.source in states[one.source].chain[1:]:
                        removed.append(other)
                    else:
                        preempted = True
                        break
            if not preempted:
                kept = [t for t in kept if t not in removed]
                kept.append(one)
        return kept

    def _exit_set(self, transition: Transition) -> set[int]:
        domain = transition.domain
        left: set[int] = set()
        for leaf in self.at:
            chain = leaf.chain
            if domain in chain:
                left.update(chain[: chain.index(domain)])
        return left

    # ------------------------------------------------------------------------------------- leave and enter

    def _microstep(self, transitions: list[Transition], local: dict[str, JSON]) -> None:
        self.microsteps += 1
        if self.microsteps > MAX_MICROSTEPS:
            path = transitions[0].path
            self.turn.fault(path, f"more than {MAX_MICROSTEPS:,} transitions without a task in between")
        self.last = ""
        domains = [t.domain for t in transitions]
        staying = []
        for leaf in self.at:
            for domain in domains:
                if domain in leaf.chain[1:]:
                    step = self.run.pop(leaf.name, 0)
                    if step:
                        self.turn.halts.append(step)
                    break
            else:
                staying.append(leaf)
        self.at = staying
        for transition in transitions:
            if transition.sets:
                self.turn.assign(transition.sets, local, transition.path)
        if len(transitions) == 1:
            self.enter(transitions[0].enter)
        else:
            self.enter(tuple(sorted({index for t in transitions for index in t.enter})))

    def enter(self, indexes: tuple[int, ...]) -> None:
        """Enter states, given in document order; note which are final."""
        states = self.machine.states
        finals = []
        for index in indexes:
            state = states[index]
            if state.visits:
                seen = self.visits.get(state.name, 0) + 1
                if seen > state.visits:
                    self.turn.fault(f"{state.path}.visits", f"{state.name!r} would be entered {seen} times")
                self.visits = {**self.visits, state.name: seen}
            kind = state.kind
            if kind == "atomic":
                self.at.append(state)
                if state.task is not None:
                    self.entered.append(state)
            elif kind == "success" or kind == "failure":
                self.at.append(state)
                finals.append(state)
        if len(self.at) > 1:
            self.at.sort(key=_index)
        for state in finals:
            self._final(state)

    def _final(self, state: State) -> None:
        states = self.machine.states
        if state.parent == 0:
            ok = state.kind == "success"
            raise Ends(ok, "" if ok else f"{state.path}: the run ended in the failure state {state.name!r}")
        around = states[state.parent]
        if around.kind == "compound":
            self.internal.append(("done" if state.kind == "success" else "failed", around))
        around = states[around.parent]
        while around.kind == "parallel":
            outcomes = [self._outcome(states[region]) for region in around.regions]
            if None in outcomes:
                return
            self.internal.append(("failed" if False in outcomes else "done", around))
            around = states[around.parent]

    def _outcome(self, region: State) -> bool | None:
        """How a region has ended, None while it goes on."""
        if region.kind == "parallel":
            outcomes = [self._outcome(self.machine.states[index]) for index in region.regions]
            return None if None in outcomes else False not in outcomes
        for leaf in self.at:
            if leaf.parent == region.index and leaf.kind != "atomic":
                return leaf.kind == "success"
        return None

    def settle(self) -> None:
        """Eventless transitions and internal events until neither is left, then the tasks start."""
        eventless = self.machine.eventless
        while True:
            if eventless:
                chosen = self._select("", _NO_LOCALS)
                if chosen:
                    self._microstep(chosen, _NO_LOCALS)
                    continue
            if not self.internal:
                break
            name, state = self.internal.popleft()
            if not self._is_active(state):
                continue
            self.last = f"{state.path}: `{name}`"
            if name == "done":
                self._take_done(state, _NO_LOCALS)
            else:
                self._inner_failure(state)
        for state in self.entered:
            if state in self.at:
                assert state.task is not None
                self.turn.start(state.name, state.task, state.inputs, _NO_LOCALS)
        if not self.run and not self.turn.starts:
            where = self.last or self.at[0].path + ": nothing runs here"
            raise Ends(False, f"{where} and no transition applies")

    def _inner_failure(self, state: State) -> None:
        local = {"event": {"name": "failed", "code": "failed", "message": "an inner state ended in failure"}}
        if self.machine.states[state.parent].kind == "parallel":  # the parallel state answers for its regions
            chosen = self._first(state.on.get("failed", ()), local)
            if chosen is not None:
                self._microstep([chosen], local)
            return
        self._take_failed(state, ("failed",), local, "an inner state ended in failure")

    def _is_active(self, state: State) -> bool:
        return any(state.index in leaf.chain for leaf in self.at)

    def close(self) -> Advance:
        run = self.run
        run.update(self.turn.numbered())
        cursor = {"at": [state.name for state in self.at], "run": run, "visits": self.visits}
        return self.turn.close(cursor, cursor)


def _index(state: State) -> int:
    return state.index
