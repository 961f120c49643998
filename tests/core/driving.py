"""Plans under test: documents in short, and a driver that tells the planner what happens and notes what it says.

A script is a line of ``event: commands`` parts joined by `` | ``.

Events: ``>`` begin, ``a`` the oldest running ``a`` is done (``a=5`` with n=5, ``a?`` with ok=false), ``a!`` failed,
``a~`` timed out, ``@name`` a signal, ``50ms`` the oldest timer of that length. Commands, in order: ``+a`` start, ``-a``
halt, ``+50ms`` set a timer, ``-50ms`` clear it, ``ok`` and ``no`` the end.
``.c`` (``.c!``): the step that the planner has carried out itself has ended (failed).
``[x y]`` after the commands: the active states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentflow.core.moves import TABLES
from agentflow.core.plan import Plan
from agentflow.core.planner import (
    Advance,
    Begin,
    ClearTimer,
    Command,
    Completed,
    Elapsed,
    Ended,
    Failed,
    Finish,
    Halt,
    PlanEvent,
    PlanState,
    SetTimer,
    Signal,
    Start,
    TimedOut,
    advance,
    awaits,
)
from agentflow.wire.document import compile_document

TASKS: dict[str, Any] = {
    **{name: {"kind": "tool", "use": "std.echo", "out": {"n": "int", "ok": "bool"}} for name in "abcdef"},
    "i": {"kind": "tool", "use": "std.echo", "in": {"item": "item"}, "out": {"n": "int", "ok": "bool"}},
    "e": {"kind": "event", "use": "com.example.pinged", "timeout": "1h"},
}
_UNDOING: dict[str, Any] = {
    **{name: TASKS[name] for name in "def"},
    **{name: {**TASKS[name], "undo": f"u{name}"} for name in "abi"},
    "ua": {"kind": "tool", "use": "std.echo", "in": {"n": "result.n", "x": "x"}},
    "ub": {"kind": "tool", "use": "std.echo", "in": {"n": "result.n"}},
    "ui": {"kind": "tool", "use": "std.echo", "in": {"n": "result.n", "item": "item"}},
    "c": {"kind": "compensate"},
    "inner": {"kind": "compensate", "scope": "part"},
}
VARS = {"x": "int", "y": "int", "go": "bool", "xs": "list(string)", "j": "json"}


def document(**parts: Any) -> dict[str, Any]:
    """A document with the usual tasks and variables."""
    base = {"agentflow": "plan/v1", "name": "p", "limits": {"steps": 100}, "vars": VARS}
    tasks = {name: task for name, task in TASKS.items() if name != "i" or "root" in parts}
    return {**base, "tasks": tasks, **parts}


def tree(root: Any, **parts: Any) -> dict[str, Any]:
    """A behaviour tree's document."""
    return document(kind="bt", root=root, **parts)


def machine(states: Mapping[str, Any], **parts: Any) -> dict[str, Any]:
    """A state machine's document; its first state is the initial one."""
    return document(kind="fsm", states=states, **{"initial": next(iter(states)), **parts})


def undoing(plan: Any) -> dict[str, Any]:
    """The tasks of plans that compensate: ``ua`` undoes a, ``ub`` b, ``ui`` i; ``c`` undoes all, ``inner`` what is in
    the label or state ``part``, where the plan has one."""
    text = json.dumps(plan)
    but = {name for name, needs in (("inner", '"part"'), ("ui", '"i"'), ("i", '"i"')) if needs not in text}
    return {name: task for name, task in _UNDOING.items() if name not in but}


class Drive:
    """One run. ``copied``: the state goes through JSON between events, as it does through the store."""

    def __init__(self, plan: Plan | Mapping[str, Any], *, copied: bool = True) -> None:
        self.plan = plan if isinstance(plan, Plan) else compile_document(plan)
        self.copied = copied
        self.state: PlanState | None = None
        self.running: dict[int, str] = {}
        self.timers: dict[int, int] = {}  # timer -> milliseconds
        self.inputs: dict[int, dict[str, Any]] = {}
        self.last_timer = 0
        self.finish: Finish | None = None
        self.history: list[tuple[Command, ...]] = []

    def tell(self, event: PlanEvent) -> list[str]:
        """Advance, check what holds for every advance, and give the commands in short."""
        state = self.state
        if state is not None and self.copied:
            inner = [kept and _stored(_plain(kept)) for kept in (state.undo, state.agents)]
            state = PlanState(_stored(state.vars), _stored(state.cursor), state.steps, *inner)
        before = _text(state)
        moved: Advance = advance(self.plan, state, event)
        assert _text(state) == before, "an advance changed the state it was given"
        assert _with(state, moved) == plain(moved.state)[:2], "the changes do not lead to the state"
        self.history.append(moved.commands)
        said = []
        for command in moved.commands:
            assert self.finish is None, "a command after the end"
            if isinstance(command, Start):
                assert command.step not in self.running
                self.running[command.step] = command.task
                self.inputs[command.step] = command.input
                said.append("+" + command.task)
            elif isinstance(command, Halt):
                said.append("-" + self.running.pop(command.step))
            elif isinstance(command, Ended):
                said.append("." + self.running.pop(command.step) + ("!" if command.result is None else ""))
            elif isinstance(command, SetTimer):
                assert command.timer not in self.timers
                assert command.timer > self.last_timer, "a timer's number is used again"
                self.last_timer = command.timer
                self.timers[command.timer] = command.after_ms
                said.append(f"+{command.after_ms}ms")
            elif isinstance(command, ClearTimer):
                said.append(f"-{self.timers.pop(command.timer)}ms")
            else:
                self.finish = command
                said.append("ok" if command.ok else "no")
        self.state = moved.state
        assert self.finish or self.running or self.timers or self.listens, "nothing runs and the run goes on"
        if not self.finish:
            assert all(awaits(moved.state, timer) for timer in self.timers), (
                "a timer that means nothing is set"
            )
        assert not (self.finish and self.running), "something runs after the end"
        return said

    @property
    def listens(self) -> bool:
        """Whether a signal may move the run."""
        machine = self.plan.machine
        return machine is not None and any(
            machine.states[index].listens for name in self.at for index in machine.by_name[name].chain
        )

    def begin(self, **values: Any) -> list[str]:
        return self.tell(Begin(values))

    def done(self, step: int, **result: Any) -> list[str]:
        kind = self.plan.tasks[self.running.pop(step)].kind
        given = {"data": result} if kind == "event" else {"n": 0, "ok": True, **result}
        return self.tell(Completed(step, given))

    def said(self, step: int, result: dict[str, Any]) -> list[str]:
        """A step has ended with exactly this result."""
        del self.running[step]
        return self.tell(Completed(step, result))

    def fail(self, step: int, code: str = "broken", message: str = "it broke") -> list[str]:
        del self.running[step]
        return self.tell(Failed(step, code, message))

    def oldest(self, task: str) -> int:
        return min(step for step, name in self.running.items() if name == task)

    def happen(self, event: str, **values: Any) -> list[str]:
        """One event of a script."""
        if event == ">":
            return self.begin(**values)
        if event.startswith("@"):
            return self.tell(Signal(event[1:], {"n": 1}))
        if event.endswith("ms"):
            timer = min(number for number, ms in self.timers.items() if f"{ms}ms" == event)
            del self.timers[timer]
            return self.tell(Elapsed(timer))
        match = re.fullmatch(r"(\w+)([!~?]|=\d+)?", event)
        assert match, event
        step, how = self.oldest(match[1]), match[2] or ""
        if how == "!":
            return self.fail(step)
        if how == "~":
            del self.running[step]
            return self.tell(TimedOut(step))
        result = {"ok": False} if how == "?" else {"n": int(how[1:])} if how else {}
        return self.done(step, **result)

    @property
    def at(self) -> list[str]:
        """The active leaf states."""
        assert self.state is not None
        return list(self.state.cursor.get("at", []))


def _stored(value: Any) -> Any:
    """``value`` as a store gives it back: the same JSON, with the keys in another order."""
    return json.loads(json.dumps(_reversed(value)))


def plain(state: PlanState) -> tuple[dict[str, Any], dict[str, Any], int]:
    """A state's values, in which a persistent map is the dict that it stands for."""
    cursor = {key: dict(held) if isinstance(held, Mapping) else held for key, held in state.cursor.items()}
    return state.vars, cursor, state.steps


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=dict))


def _with(before: PlanState | None, moved: Advance) -> tuple[dict[str, Any], dict[str, Any]]:
    """The vars and the cursor that ``moved.changed`` makes of the state before."""
    variables, was, _ = plain(before) if before else ({}, {"n": {}, "run": {}, "items": {}}, 0)
    if "cursor" not in moved.changed:
        return variables, was
    variables = {**variables, **moved.changed["vars"]}
    cursor = moved.changed["cursor"]
    if "n" not in cursor:
        return variables, cursor
    tables = TABLES
    after = {name: value for name, value in {**was, **cursor}.items() if name not in tables}
    for name in was.keys() | cursor.keys() & tables:
        if name in tables:
            entries = {**was.get(name, {}), **cursor.get(name, {})}
            after[name] = {key: value for key, value in entries.items() if value is not None}
    return variables, {name: value for name, value in after.items() if name != "why" or value}


def _reversed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _reversed(value[key]) for key in sorted(value, reverse=True)}
    return [_reversed(item) for item in value] if isinstance(value, list) else value


def _text(state: PlanState | None) -> str:
    return "" if state is None else json.dumps([state.vars, state.cursor, state.undo, state.agents], default=dict)


def play(plan: Plan | Mapping[str, Any], script: str, **values: Any) -> Drive:
    """Play a script and compare every answer."""
    drive = Drive(plan)
    for part in script.split(" | "):
        event, _, expected = part.partition(":")
        commands, _, active = expected.partition("[")
        said = drive.happen(event.strip(), **values)
        assert said == commands.split(), f"after {event.strip()}: {said}"
        if active:
            assert drive.at == active.strip(" ]").split(), f"after {event.strip()}: at {drive.at}"
    return drive
