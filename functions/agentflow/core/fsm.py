"""The state machine: SCXML's interpretation algorithm over a compiled ``Machine``.

One event is one macrostep: the transitions it enables are selected (inner states first, document order within a
state), conflicts between regions are resolved, states are left and entered, then eventless transitions and the
internal events that followed (raised, an error, a region or compound state is done) are taken until none is left.
Tasks of the states that are active then start. Sources: W3C SCXML 1.0, appendix D, with rules of our own:

* ``done`` belongs to the very state whose task, region set or inner final state is done; ``failed`` and
  ``timeout`` are also seen by the states around it, and a ``timeout`` nobody takes is a ``failed``;
* an inner final state may be a failure, which makes the state around it ``failed`` instead of ``done``;
* an expression without a value is the event ``error`` where a transition takes it, else the end of the run;
* nothing running, no timer, nothing to take and no signal to wait for is the end of the run, with the reason, not a
  wait without end;
* an action is made or not: where one of its expressions has no value it sets nothing (SCXML keeps what stood before);
* a parallel state is done with its last region, also where that is parallel itself (SCXML 3.4 says so; the procedure
  enterStates looks one level up only), and going back by history enters no state that has not been left.

How states are left and entered, and the cursor, are in ``configuration``.
"""

from __future__ import annotations

from collections.abc import Mapping

from agentflow.core.configuration import NO_LOCALS, Configuration
from agentflow.core.machine import OWN_EVENTS, Machine, State, Transition
from agentflow.core.moves import Advance, Completed, Elapsed, Failed, PlanEvent, PlanState, Signal
from agentflow.core.plan import Plan, Task
from agentflow.core.turn import FREE, Ends, Turn, Unvalued
from agentflow.core.types import JSON, Mismatch, conform


def begin(
    plan: Plan, machine: Machine, variables: dict[str, JSON], fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """Enter the initial states."""
    turn = _Turn(Configuration(Turn(plan, variables, 0, fixed), machine, {"at": [], "run": {}, "visits": {}}))
    try:
        turn.on.begin()
        turn.settle()
    except Ends as ends:
        return turn.turn.end(list(turn.on.run.values()), ends)
    return turn.close()


def advance(
    plan: Plan, machine: Machine, state: PlanState, event: PlanEvent, fixed: Mapping[str, JSON] = FREE
) -> Advance:
    """One macrostep for ``event``."""
    turn = _Turn(Configuration(Turn(plan, state.vars, state.steps, fixed), machine, state.cursor))
    try:
        if isinstance(event, Signal):
            moved = turn.signal(event)
        elif isinstance(event, Elapsed):
            moved = turn.elapsed(event.timer)
        else:
            moved = turn.step(event)
        if not moved and not fixed:  # what is fixed may enable an eventless transition
            return Advance(state, ())
        turn.settle()
    except Ends as ends:
        return turn.turn.end(list(turn.on.run.values()), ends)
    return turn.close()


def where(machine: Machine, state: PlanState, step: int) -> tuple[str, Task, dict[str, JSON]] | None:
    """The state that runs a step and its task; None when no state does."""
    for name, running in state.cursor.get("run", {}).items():
        if running == step:
            task = machine.by_name[name].task
            return None if task is None else (name, task, NO_LOCALS)
    return None


def bound(machine: Machine, event: Signal) -> dict[str, JSON] | None:
    """What expressions see of a signal whose data is declared; None when it is not of that shape."""
    data = event.data if isinstance(event.data, dict) else {}
    local: dict[str, JSON] = {"event.name": event.name}
    for name, type_ in machine.events[event.name].items():
        try:
            local[f"event.data.{name}"] = conform(data[name], type_)
        except (KeyError, Mismatch):
            return None
    return local


class _Turn:
    """One macrostep: which transitions are taken, until none is."""

    __slots__ = ("last", "machine", "on", "turn")

    def __init__(self, on: Configuration) -> None:
        self.on = on
        self.turn = on.turn
        self.machine = on.machine
        self.last = ""  # what happened last, for the reason when nothing follows from it

    # -- what comes from outside ---------------------------------------------------------------------------

    def step(self, event: PlanEvent) -> bool:
        """A step has ended: take the transition that enables, if any. False when no state runs it."""
        number = event.step  # type: ignore[union-attr]
        for name, running in self.on.run.items():
            if running == number:
                state = self.machine.by_name[name]
                break
        else:
            return False
        del self.on.run[state.name]
        if isinstance(event, Completed):
            assert state.task is not None
            try:
                local = state.task.bind(event.result)
            except Mismatch as fault:
                event = Failed(event.step, "bad_result", f"result{fault.where} {fault.message}")
            else:
                self.last = f"{state.path}: `done`"
                self._take_done(state, local)
                return True
        code, message = ("timeout", "nothing came in time")
        if isinstance(event, Failed):
            code, message = event.code, event.message
        names = ("timeout", "failed") if code == "timeout" else ("failed",)
        local = {"event": {"name": names[0], "code": code, "message": message}}
        task = state.task.name if state.task is not None else ""
        self._take_failed(state, names, local, f"task {task!r} failed: {code}: {message}")
        return True

    def signal(self, event: Signal) -> bool:
        """Take what the signal enables; False when nobody listens. A machine's own events cannot be signalled."""
        if event.name in OWN_EVENTS:
            return False
        local: dict[str, JSON] | None = {"event": {"name": event.name, "data": event.data}}
        if event.name in self.machine.events:
            local = bound(self.machine, event)
        if local is None:
            return False
        chosen = self._select(event.name, local)
        if chosen:
            self._take(chosen, local)
        return bool(chosen) or bool(self.on.internal)

    def elapsed(self, timer: int) -> bool:
        """A state's time is over; False when nobody waits for that any more."""
        key = next((key for key, number in self.on.timers.items() if number == timer), None)
        if key is None:
            return False
        del self.on.timers[key]
        name, _, place = key.rpartition(".")
        transition = self.machine.by_name[name].timed[int(place)]
        self.last = f"{transition.path}: its time is over"
        if self._holds(transition, NO_LOCALS):
            self._take([transition], NO_LOCALS)
        return True

    # -- selection -------------------------------------------------------------------------------------------

    def _take(self, transitions: list[Transition], local: dict[str, JSON]) -> None:
        self.on.take(transitions, local)
        self.last = ""

    def _take_done(self, state: State, local: dict[str, JSON]) -> None:
        transitions = state.on.get("done")
        if transitions is not None:
            chosen = self._first(transitions, local)
            if chosen is not None:
                self._take([chosen], local)

    def _take_failed(self, state: State, names: tuple[str, ...], local: dict[str, JSON], why: str) -> None:
        states = self.machine.states
        for index in state.chain:
            for name in names:
                chosen = self._first(states[index].on.get(name, ()), local)
                if chosen is not None:
                    self._take([chosen], local)
                    return
        self.turn.fault(state.path, f"{why}, and no transition takes `{names[0]}`")

    def _select(self, event: str, local: dict[str, JSON]) -> list[Transition]:
        """The enabled transitions of the configuration, conflicts resolved; event '' selects the eventless."""
        states = self.machine.states
        any_event = event not in OWN_EVENTS
        enabled: list[Transition] = []
        for leaf in self.on.at:
            for index in leaf.chain:
                state = states[index]
                transitions = state.on.get(event, state.any if any_event else ()) if event else state.eventless
                if transitions:
                    chosen = self._first(transitions, local)
                    if chosen is not None:
                        if chosen not in enabled:
                            enabled.append(chosen)
                        break
        return enabled if len(enabled) < 2 else self._without_conflicts(enabled)

    def _first(self, transitions: tuple[Transition, ...], local: dict[str, JSON]) -> Transition | None:
        for transition in transitions:
            if self._holds(transition, local):
                return transition
        return None

    def _holds(self, transition: Transition, local: dict[str, JSON]) -> bool:
        guard = transition.guard
        if guard is None:
            return True
        try:
            return bool(self.turn.value(guard, local, transition.path + ".if"))
        except Unvalued as fault:
            self.on.error(fault)
            return False

    def _without_conflicts(self, enabled: list[Transition]) -> list[Transition]:
        """SCXML's removeConflictingTransitions: of two that leave a common state the inner one wins, else the
        first in document order.
        """
        states = self.machine.states
        kept: list[Transition] = []
        for one in enabled:
            leaves = self.on.exit_set(one)
            preempted = False
            removed = []
            for other in kept:
                if leaves & self.on.exit_set(other):
                    if other.source in states[one.source].chain[1:]:
                        removed.append(other)
                    else:
                        preempted = True
                        break
            if not preempted:
                kept = [t for t in kept if t not in removed]
                kept.append(one)
        return kept

    # -- to the end ------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Eventless transitions and internal events until neither is left, then the tasks start."""
        on = self.on
        while True:
            if self.machine.eventless:
                chosen = self._select("", NO_LOCALS)
                if chosen:
                    self._take(chosen, NO_LOCALS)
                    continue
            if on.internal:
                self._internal()
            elif on.entered:
                self._start()
            else:
                break
        if not (on.run or self.turn.starts or on.timers or self.turn.alarms or self._listens()):
            where = self.last or on.at[0].path + ": nothing runs here"
            raise Ends(False, f"{where} and no transition applies")

    def _internal(self) -> None:
        name, state, local = self.on.internal.popleft()
        if state is None:
            chosen = self._select(name, local)
            if chosen:
                self._take(chosen, local)
            elif name == "error":
                raise Ends(False, str(local["event"]["message"]))
        elif self.on.is_active(state):
            self.last = f"{state.path}: `{name}`"
            if name == "done":
                self._take_done(state, NO_LOCALS)
            else:
                self._inner_failure(state)

    def _start(self) -> None:
        """Start the tasks of the states that have been entered and are still active."""
        entered, self.on.entered = self.on.entered, []
        for state in entered:
            if state in self.on.at:
                assert state.task is not None
                try:
                    self.turn.start(state.name, state.task, state.inputs, NO_LOCALS)
                except Unvalued as fault:
                    self.on.error(fault)

    def _inner_failure(self, state: State) -> None:
        local = {"event": {"name": "failed", "code": "failed", "message": "an inner state ended in failure"}}
        if self.machine.states[state.parent].kind == "parallel":  # the parallel state answers for its regions
            chosen = self._first(state.on.get("failed", ()), local)
            if chosen is not None:
                self._take([chosen], local)
            return
        self._take_failed(state, ("failed",), local, "an inner state ended in failure")

    def _listens(self) -> bool:
        """Whether a signal may move an active state."""
        states = self.machine.states
        return any(states[index].listens for leaf in self.on.at for index in leaf.chain)

    def close(self) -> Advance:
        cursor = self.on.cursor()
        return self.turn.close(cursor, cursor, self.on.timer)
