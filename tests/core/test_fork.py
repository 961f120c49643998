"""A fork, decided by the functions themselves: at every step of random runs it goes on as the old run did."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core import fork
from agentflow.core.decide import api, dispatch, plan, record
from agentflow.core.decision import Decided, Decision, Facts, StepClosed, TimerCleared, TimerSet
from agentflow.core.fork import Fork
from agentflow.core.message import Message
from agentflow.core.plan import Plan
from agentflow.core.planner import Begin, advance
from agentflow.core.run import Price, Run, unpack_state
from agentflow.errors import Conflict
from agentflow.store.changes import decision_hash, dump
from agentflow.store.forking import Forking, named, started
from agentflow.store.replay import Replay
from agentflow.wire.document import compile_document

from .driving import machine, plain, tree
from .test_agents import plan as agent_plan
from .test_fsm import done
from .test_fsm import run as runs
from .test_goals import TREE, answer, goal
from .test_planner import compiled, machines, moves, random_tree, trees

TENANT = UUID(int=1)
FEW = settings(max_examples=60)
USAGE = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 1}
Event = tuple[Any, ...]


class Life:
    """One run, and what a store would keep of it. ``happen`` tells it what the world does, by step and timer."""

    def __init__(
        self,
        compiled_plan: Plan,
        given: dict[str, Any],
        number: int,
        forked: Fork | None = None,
        budget: int = 0,
        template: str = "",
    ):
        self.plan = compiled_plan
        self.template = template
        self.id = UUID(int=number)
        self.run: Run | None = None
        self.lines: list[dict[str, Any]] = []
        self.decided: list[Decided] = []
        self.results: dict[tuple[int, int], dict[str, Any]] = {}
        self.timers: dict[str, TimerSet] = {}
        self.asked: dict[int, dict[str, Any]] = {}  # step -> request of its last attempt
        self.events: list[Event] = []
        self.snapshots: list[
            tuple[dict[int, tuple[str, str]], set[str]]
        ] = []  # open steps and timers after each line
        data = {
            "run": str(self.id),
            "workflow": "p",
            "version": 1,
            "input": given,
            "budget_micro": budget or None,
        }
        if forked is not None:
            data["fork"] = _stored(forked.line())
        self._say(api.decide, "run.requested", data)
        self.run = self.restored
        asked = {key: value for key, value in data.items() if key != "fork"}
        (planned,) = self._say(plan.decide, "run.requested", asked).messages
        self._say(dispatch.decide, "run.planned", planned.data)

    @property
    def restored(self) -> Run:
        """The run as it comes back from its row."""
        assert self.run is not None
        return self.run._replace(**unpack_state(_stored(self.run.state_json()), self.run.steps))

    def happen(self, event: Event) -> None:
        """One thing that happens."""
        assert self.run is not None
        self.run = self.restored
        self.events.append(event)
        kind, *about = event
        if kind == "report":
            step, output, code = about
            error = (
                {"code": code, "message": "", "retryable": False, "retry_after_ms": None} if code else None
            )
            data = {key: self.asked[step][key] for key in ("run", "step", "attempt", "epoch", "task")} | {
                "status": "failed" if code else "succeeded", "output": output, "error": error, "usage": USAGE,
                "cost_micro": 0, "duration_ms": 1, "late": False,
            }  # fmt: skip
            self._say(record.decide, "step.completed", data)
            self._say(dispatch.decide, "step.completed", data)
        elif kind == "timer":
            timer = self.timers.pop(about[0])
            fired = {
                "run": "",
                "timer": timer.key,
                "kind": timer.kind,
                "step": timer.step,
                "attempt": timer.attempt,
            }
            self._say(dispatch.decide, "timer.fired", fired)
        elif kind == "answer":
            body = {"id": "1", "source": "/x", "type": "com.example.pinged", "data": {"n": 1}}
            told = {"run": "", "name": body["type"], "data": body, "step": about[0]}
            self._say(dispatch.decide, "signal.received", told)
        elif kind == "person":
            told = {"run": "", "step": about[0], "output": about[1], "by": "ann"}
            self._say(dispatch.decide, "step.answered", told)
        elif kind == "child":
            opened = self.run.open[about[0]]
            told = {"step": about[0], "attempt": 1, "epoch": opened.epoch, "child": "", "status": "succeeded"}
            self._say(dispatch.decide, "child.ended", {**told, "output": about[1], "error": None, "cost_micro": 0})
        elif kind == "signal":
            told = {"run": "", "name": about[0], "data": {"n": 1}, "step": None}
            self._say(dispatch.decide, "signal.received", told)
        else:
            self._say(dispatch.decide, "run.cancel_requested", {"run": "", "reason": "enough"})

    def possible(self) -> list[Event]:
        """What may happen next, but for signals."""
        assert self.run is not None
        found: list[Event] = []
        for step, opened in sorted(self.run.open.items()):
            if opened.waits == "call":
                found += [
                    ("report", step, {"n": step % 3, "ok": step % 4 > 0}, ""),
                    ("report", step, None, "broken"),
                ]
            elif opened.waits == "event":
                found.append(("answer", step))
        return found + [("timer", key) for key in sorted(self.timers) if key != "wall"]

    def forking(self, at: int, sets: dict[str, Any] | None = None) -> Fork | None:
        """The fork of this run before a step, found page by page."""
        assert self.run is not None
        reused = (self.run.forked or {}).get("reused", ())
        search = Forking(str(self.id), self.plan, self.run.input, at, reused)
        while not search.older:
            page = self.lines[search.lines : search.lines + 3]
            assert page, f"no line has started step {at}"
            rows = [row for (step, _), row in self.results.items() if step in named(page)]
            if (found := search.read(page, rows, sets or {})) is not None:
                return found
        return None

    def check_replay(self) -> None:
        """Its history, decided again, comes to the same."""
        assert self.run is not None and self.run.plan is not None
        again = Replay(self.plan, self.run.input, self.results)
        assert again.run([{**line, "hash": bytes.fromhex(line["hash"])} for line in self.lines]) is None
        assert again.state is not None and plain(again.state) == plain(self.run.plan)

    def _say(self, decide: Callable[..., Decision], name: str, data: dict[str, Any]) -> Decision:
        message = Message(name, TENANT, self.id, "key", data)
        decision = decide(
            self.run,
            message,
            Facts(
                0,
                self.plan,
                1,
                price=lambda alias: Price("scripted", alias, 0, 0, "v1"),
                template=self.template or None,
            ),
        )
        self.run = decision.run or self.run
        assert self.run is not None
        for row in decision.rows:
            if isinstance(row, Decided):
                self.decided.append(row)
                digest = decision_hash(self.run.status, row.changed, row.commands).hex()
                line = {"seq": self.run.seq, "name": row.name, "data": row.data, "hash": digest}
                self.lines.append(_stored(line))
            elif isinstance(row, StepClosed):
                kept = {"step": row.step, "attempt": row.attempt, "status": row.status, "input": row.input}
                self.results[row.step, row.attempt] = kept | {"output": row.output, "error": row.error}
            elif isinstance(row, TimerSet):
                self.timers[row.key] = row
            elif isinstance(row, TimerCleared):
                self.timers.pop(row.key, None)
        if any(isinstance(row, Decided) for row in decision.rows):
            steps = {step: (each.task, each.waits) for step, each in self.run.open.items()}
            self.snapshots.append((steps, set(self.timers)))
        for out in decision.messages:
            assert "fork" not in out.data, "a fork stays with its run"
            if out.name in ("tool.requested", "llm.requested"):
                self.asked[out.data["step"]] = out.data
        return decision


def _stored(value: Any) -> Any:
    return json.loads(dump(value) or b"")


def live(compiled_plan: Plan, script: list[tuple[int, int]]) -> Life:
    """A run that a script leads."""
    life = Life(compiled_plan, {}, 2)
    for what, which in script:
        assert life.run is not None
        if life.run.terminal:
            break
        possible = life.possible()
        if what == 11 and which % 10 == 0:
            life.happen(("cancel",))
        elif what > 9 or not possible:
            life.happen(("signal", ["ping", "pong"][which % 2]))
        else:
            life.happen(possible[which % len(possible)])
    return life


def check_every_step(old: Life) -> None:
    """Forked at each of its steps, and told the same from there on, the run goes the same way."""
    assert old.run is not None
    for place, line in enumerate(old.lines):
        for at in started(line):
            found = old.forking(at)
            assert found is not None and found.at == at
            new = Life(old.plan, old.run.input, 3, found)
            assert new.run is not None and [each["name"] for each in new.lines] == [
                "run.planned",
                "run.forked",
            ]
            first, then = new.decided[1], old.decided[place]
            assert first.changed[1:] == then.changed[then.name == fork.ENTRY :]
            assert first.commands[: len(then.commands)] == then.commands
            _check_anew(old, place, new)
            for event in old.events[place - 1 :]:
                new.happen(event)
            assert [each["hash"] for each in new.lines[2:]] == [
                each["hash"] for each in old.lines[place + 1 :]
            ]
            assert (new.run.status, new.run.output, new.run.steps) == (
                old.run.status,
                old.run.output,
                old.run.steps,
            )
            new.check_replay()


def forked(old: Life, at: int, **sets: Any) -> Life:
    found = old.forking(at, sets)
    assert found is not None
    assert old.run is not None
    return Life(old.plan, {**old.run.input, **sets}, 3, found)


def open_tasks(life: Life) -> list[str]:
    assert life.run is not None
    return [opened.task for _, opened in sorted(life.run.open.items())]


def _check_anew(old: Life, place: int, new: Life) -> None:
    """What the fork has open and waits for is what the old run had after the same decision, with the same inputs."""
    assert new.snapshots[1] == old.snapshots[place]
    steps, _ = new.snapshots[1]
    for step, (_, waits) in steps.items():
        if waits == "call":
            expected = {**old.asked[step], "run": str(new.id), "epoch": new.asked[step]["epoch"], "attempt": 1}
            if "key" in expected:  # another run's call, unless its author says otherwise
                expected["key"] = f"{new.id}/{step}"
            assert new.asked[step] == expected


@given(trees, moves)
@FEW
def test_a_tree_forked_at_any_step_goes_the_same_way(root: Any, script: list[tuple[int, int]]) -> None:
    check_every_step(
        live(random_tree(root, 40), script)
    )


@given(machines(), moves)
@FEW
def test_a_machine_forked_at_any_step_goes_the_same_way(parts: Any, script: list[tuple[int, int]]) -> None:
    found = compiled(parts)
    if found is not None:
        check_every_step(live(found, script))


@given(trees, moves, st.integers(0, 9), st.integers(0, 9))
@FEW
def test_a_fork_of_a_fork_goes_the_same_way(
    root: Any, script: list[tuple[int, int]], one: int, other: int
) -> None:
    old = live(random_tree(root, 40), script)
    steps = [step for line in old.lines for step in started(line)]
    if not steps:
        return
    first = old.forking(steps[one % len(steps)])
    assert first is not None
    new = Life(old.plan, {}, 3, first)
    place = next(n for n, line in enumerate(old.lines) if first.at in started(line))
    for event in old.events[place - 1 :]:
        new.happen(event)
    check_every_step(new)
    at = steps[other % len(steps)]
    own = {step for line in new.lines for step in started(line)}
    # A step that was over when the fork began is another run's, and is looked for there.
    assert (new.forking(at) is None) == (at not in own)


@given(trees, moves, st.integers(0, 9), st.booleans())
@FEW
def test_what_is_set_holds_while_it_is_decided_what_starts(
    root: Any, script: list[tuple[int, int]], which: int, go: bool
) -> None:
    old = live(random_tree(root, 40), script)
    steps = [step for line in old.lines for step in started(line)]
    if not steps:
        return
    sets = {"x": 7, "go": go}
    new = Life(old.plan, sets, 3, old.forking(steps[which % len(steps)], sets))
    assert new.run is not None and new.run.plan is not None
    assert {name: new.run.plan.vars[name] for name in sets} == sets
    new.check_replay()
    for _ in range(60):
        if new.run.terminal or not (possible := new.possible()):
            break
        new.happen(possible[0])
    new.check_replay()


# ------------------------------------------------------------------------------------------------- one by one

OK: Event = ("report", 1, {"n": 5, "ok": True}, "")
CHOICE = machine({
    "s": runs("a", done("choose", set={"x": "result.n"})),
    "choose": {"transitions": [{"if": "x > 3", "to": "much"}, {"to": "little"}]},
    "much": runs("b", done("end")),
    "little": runs("c", done("end")),
    "end": {"final": "success"},
})  # fmt: skip


def test_what_is_set_stands_against_what_the_decision_assigns_and_leads_another_way() -> None:
    old = Life(compile_document(CHOICE), {}, 2)
    old.happen(OK)
    assert open_tasks(old) == ["b"]
    new = forked(old, 2, x=1)
    assert open_tasks(new) == ["c"]
    new.happen(("report", 2, {"n": 0, "ok": True}, ""))
    assert new.run is not None and new.run.output == {"x": 1, "y": 0, "go": False, "xs": [], "j": None}
    new.check_replay()
    assert open_tasks(forked(old, 2)) == ["b"]
    # Set before the first step, it is what the run begins with; the next decision assigns it.
    first = forked(old, 1, x=1)
    first.happen(OK)
    assert open_tasks(first) == ["b"]


def test_what_is_set_is_given_to_the_step() -> None:
    tasks = {
        "a": {"kind": "tool", "use": "std.echo"},
        "b": {"kind": "tool", "use": "std.echo", "in": {"x": "x"}},
    }
    old = Life(compile_document(tree({"sequence": ["a", "b"]}, tasks=tasks)), {}, 2)
    old.happen(("report", 1, {}, ""))
    assert (old.asked[2]["input"], forked(old, 2, x=8).asked[2]["input"]) == ({"x": 0}, {"x": 8})


def test_what_is_set_is_there_from_the_begin_and_needs_no_value() -> None:
    again = {"sequence": [{"task": "a", "set": {"x": "result.n / y"}}, "b"]}
    old = Life(compile_document(tree(again)), {"y": 1}, 2)
    old.happen(OK)
    assert open_tasks(forked(old, 2, y=0)) == [], "what it assigns has no value"
    assert open_tasks(forked(old, 2, y=0, x=3)) == ["b"]
    moved = advance(old.plan, None, Begin({"y": 1}), {"y": 2, "go": True})
    assert (moved.state.vars["y"], moved.state.vars["go"]) == (2, True)


def test_conditions_are_looked_at_again_for_what_is_set() -> None:
    guarded = {"sequence": [{"check": "x < 3"}, "a", "b"], "reactive": True}
    old = Life(compile_document(tree({"fallback": [guarded, "c"]})), {}, 2)
    old.happen(OK)
    assert open_tasks(old) == ["b"]
    assert open_tasks(forked(old, 2, x=5)) == ["c"]


def test_an_event_that_nothing_takes_any_more_leaves_what_is_set() -> None:
    states = {
        "s": {"transitions": [{"event": "go", "if": "x < 3", "to": "t"}, {"if": "x > 5", "to": "u"}]},
        "t": runs("a", done("end")),
        "u": runs("b", done("end")),
        "end": {"final": "success"},
    }
    old = Life(compile_document(machine(states)), {}, 2)
    old.happen(("signal", "go"))
    assert open_tasks(old) == ["a"]
    still = forked(old, 1, x=4)
    assert open_tasks(still) == [] and still.run is not None and still.run.status == "running"
    assert still.run.plan is not None and still.run.plan.vars["x"] == 4
    assert open_tasks(forked(old, 1, x=6)) == ["b"]


def test_timers_that_were_pending_are_set_again() -> None:
    root = {"parallel": [{"timeout": "9s", "child": {"sequence": ["a", "b"]}}, {"delay": "5s", "child": "c"}]}
    old = Life(compile_document(tree(root)), {}, 2)
    old.happen(OK)
    new = forked(old, 2)
    again = {key: timer.after_ms for key, timer in new.timers.items() if key != "wall"}
    assert again == {"after:1": 9000, "after:2": 5000}
    new.happen(("timer", "after:2"))
    assert open_tasks(new) == ["b", "c"]
    # One that had fired, or was not waited for any more, is not.
    old.happen(("timer", "after:2"))
    assert set(forked(old, 3).timers) == {"wall", "after:1"}
    old.happen(("report", 2, {"n": 1, "ok": True}, ""))
    assert set(forked(old, 3).timers) == {"wall", "after:1"}


def test_what_the_decision_halts_is_not_started_anew() -> None:
    old = Life(compile_document(tree({"fallback": [{"parallel": ["a", "b", "e"]}, "c"]})), {}, 2)
    old.happen(("report", 1, None, "broken"))
    assert open_tasks(old) == ["c"]
    new = forked(old, 4)
    assert open_tasks(new) == ["c"] and not new.results and list(new.asked) == [4]
    assert new.timers.keys() == {"wall"}
    assert new.run is not None and new.run.epoch == 0


def test_a_run_that_was_being_cancelled_still_is() -> None:
    states = {
        "s": runs("a", done("end")),
        "clean": runs("b", done("lost")),
        "end": {"final": "success"},
        "lost": {"final": "failure"},
    }
    old = Life(compile_document(machine(states, transitions=[{"event": "cancel", "to": "clean"}])), {}, 2)
    old.happen(("cancel",))
    new = forked(old, 2)
    assert open_tasks(new) == ["b"]
    for life in (old, new):
        life.happen(("report", 2, {"n": 0, "ok": True}, ""))
        assert life.run is not None and life.run.status == "cancelled"
        life.check_replay()


def test_what_is_being_undone_is_gone_on_with() -> None:
    echo = {"kind": "tool", "use": "std.echo"}
    tasks = {
        "a": {**echo, "undo": "ua"},
        "b": {**echo, "undo": "ub"},
        "d": echo,
        "ua": echo,
        "ub": echo,
        "c": {"kind": "compensate"},
    }
    root = {"sequence": [{"fallback": [{"sequence": ["a", "b", "d"]}, "c"]}, "d"]}
    old = Life(compile_document(tree(root, tasks=tasks)), {}, 2)
    for event in (
        ("report", 1, {}, ""),
        ("report", 2, {}, ""),
        ("report", 3, None, "broken"),
        ("report", 5, {}, ""),
    ):
        old.happen(event)
    assert open_tasks(old) == ["c", "ua"]
    old.happen(("report", 6, {}, ""))
    assert open_tasks(old) == ["d"]
    check_every_step(old)
    # What is set counts even where undoing goes on without the planner.
    between = forked(old, 6, x=3)
    assert open_tasks(between) == ["c", "ua"]
    assert between.run is not None and between.run.plan is not None and between.run.plan.vars["x"] == 3


def test_an_agent_goes_on_with_its_conversation() -> None:
    old = Life(compile_document(agent_plan({"sequence": ["look", {"task": "a", "set": {"x": "result.n"}}]})), {}, 2)
    calls = [
        {"id": "x", "name": "search", "arguments": {"query": "a"}},
        {"id": "y", "name": "fetch", "arguments": {"page": 3}},
    ]
    for event in (
        ("report", 2, {"text": "Well.", "calls": calls}, ""),
        ("report", 4, {"text": "b"}, ""),
        ("report", 3, None, "broken"),
        ("report", 5, {"text": "It is b.", "calls": []}, ""),
        ("report", 6, {"n": 1, "ok": True}, ""),
    ):
        old.happen(event)
    assert old.run is not None and old.run.status == "succeeded"
    assert len(old.asked[5]["messages"]) == 5
    check_every_step(old)


def test_a_goal_whose_plan_is_known_is_followed_from_the_begin() -> None:
    known = "brief-0123456789abcdef"
    old = Life(compile_document(goal()), {"topic": "bees"}, 2, template=known)
    assert open_tasks(old) == ["planning_follow"]
    new = forked(old, 1)
    assert open_tasks(new) == ["planning_propose"], "what is known is asked anew"
    assert open_tasks(Life(old.plan, {"topic": "bees"}, 3, old.forking(1), template=known)) == ["planning_follow"]


@pytest.mark.parametrize("approved", [{}, {"approve": {"by": "boss", "timeout": "1h"}}])
def test_a_goal_is_planned_anew_or_its_plan_is_followed_again(approved: dict[str, Any]) -> None:
    old = Life(compile_document(goal(**approved)), {"topic": "bees"}, 2)
    assert open_tasks(old) == ["planning_propose"]
    old.happen(("report", 1, {**answer(TREE[:1]), "kind": "bt"}, ""))
    assert open_tasks(old) == ["planning_propose"], "what can't be a plan is written again"
    old.happen(("report", 3, answer(TREE), ""))
    if approved:
        assert open_tasks(old) == ["planning_approve"]
        old.happen(("person", 5, {"ok": True, "why": ""}))
    (follow,) = old.run.open if old.run else ()
    old.happen(("child", follow, {"text": "Bees hum."}))
    assert old.run is not None and old.run.status == "succeeded"
    check_every_step(old)
    moths = forked(old, 1, topic="moths")
    assert moths.asked[1]["input"]["topic"] == "moths"


def test_a_step_that_could_not_be_paid_is_asked_for_again_with_a_budget_of_its_own() -> None:
    tasks = {name: {"kind": "tool", "use": "std.echo", "usd": 0.5} for name in ("a", "b")}
    plan_ = compile_document(tree({"fallback": ["a", "b"]}, tasks=tasks, limits={"steps": 9, "usd": 1}))
    old = Life(plan_, {}, 2, budget=100)
    assert old.run is not None and old.run.status == "failed" and started(old.lines[1]) == [1, 2]
    assert open_tasks(forked(old, 2)) == ["a"]


def test_a_history_that_is_decided_otherwise_is_nothing_to_go_on_from() -> None:
    old = Life(compile_document(CHOICE), {}, 2)
    old.happen(OK)
    old.happen(("report", 2, {"n": 0, "ok": True}, ""))
    assert old.forking(2) is not None
    old.results[1, 1]["output"] = {"n": 4, "ok": True}
    assert old.forking(2) is not None, "what started the step is decided anew; nothing before it has changed"
    old.lines[1]["hash"] = "00" * 16
    with pytest.raises(Conflict, match=r"line 2 .run.started.*another state"):
        old.forking(2)


def test_the_place_where_a_fork_begins_is_part_of_its_hash() -> None:
    old = Life(compile_document(CHOICE), {}, 2)
    old.happen(OK)
    new = forked(old, 2)
    for change in ({"y": 1}, {"x": 0.0}):
        line = _stored(new.lines[1])
        line["data"]["begin"]["state"]["vars"] |= change
        again = Replay(new.plan, {}, new.results)
        lines = [{**each, "hash": bytes.fromhex(each["hash"])} for each in (new.lines[0], line)]
        assert again.run(lines) is not None
