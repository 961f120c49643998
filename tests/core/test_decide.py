"""The decisions of all functions together, under every order, repetition and lateness of messages.

A tiny reactor in memory plays the world: messages are delivered in an order that a seed chooses, any of them again,
calls succeed, fail or report late, timers fire, somebody cancels. The invariants hold after every single decision.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from agentflow.core import conversation
from agentflow.core.budgets import Account, Headroom
from agentflow.core.decide import account_cost, api, dispatch, plan, record
from agentflow.core.decision import (
    Decided,
    Decision,
    Facts,
    LedgerEntry,
    RunEnded,
    StepClosed,
    Subscribed,
    TimerCleared,
    TimerSet,
    Unsubscribed,
    Waiting,
    Withdrawn,
)
from agentflow.core.message import Message
from agentflow.core.planner import awaits
from agentflow.core.run import Price, Run, unpack_state
from agentflow.errors import AgentFlowError, RetryLater
from agentflow.wire.catalogue import CATALOGUE
from agentflow.wire.document import compile_document

TENANT, RUN = UUID(int=1), UUID(int=2)
DECIDE = {
    "api": api.decide,
    "plan": plan.decide,
    "dispatch": dispatch.decide,
    "account_cost": account_cost.decide,
    "invoke_llm": record.decide,
    "run_tool": record.decide,
}
TASKS: dict[str, Any] = {
    "ask": {"kind": "llm", "use": "small", "prompt": "hi", "out": {"n": "int"}, "retry": {"max": 2}, "max_tokens": 10},
    "tool": {
        "kind": "tool", "use": "std.echo", "in": {"n": "n"}, "out": {"n": "int"}, "usd": 0.0001, "retry": {"max": 2},
    },
    "pause": {"kind": "wait", "for": "1s"},
    "event": {"kind": "event", "use": "com.example.x", "match": "event.data.n == 1", "timeout": "5s"},
}  # fmt: skip
TREE = compile_document({
    "agentflow": "plan/v1", "kind": "bt", "name": "tree", "limits": {"steps": 20, "usd": 0.004}, "vars": {"n": "int"},
    "tasks": TASKS,
    "root": {"type": "retry", "max": 2, "child": {"type": "sequence", "children": [
        {"type": "task", "task": "tool", "set": {"n": "result.n"}},
        {"type": "parallel", "need": 3, "fail_at": 2, "children": ["ask", "tool", "pause", "event"]},
        {"type": "fallback", "children": ["ask", "tool"]},
    ]}},
})  # fmt: skip
MACHINE = compile_document({
    "agentflow": "plan/v1", "kind": "fsm", "name": "machine", "limits": {"steps": 20, "usd": 0.004},
    "vars": {"n": "int"}, "tasks": TASKS, "initial": "first",
    "states": {
        "first": {"run": "tool", "transitions": [{"event": "done", "to": "both"}, {"event": "failed", "to": "lost"}]},
        "both": {"regions": ["left", "right"], "transitions": [{"event": "done", "to": "won"}]},
        "left": {"in": "both", "run": "ask", "transitions": [
            {"event": "done", "set": {"n": "result.n"}, "to": "left_end"}, {"event": "failed", "to": "left_end"}]},
        "left_end": {"in": "both.left", "final": "success"},
        "right": {"in": "both", "run": "event", "transitions": [
            {"event": "done", "to": "right_end"}, {"event": "timeout", "to": "right_end"}]},
        "right_end": {"in": "both.right", "final": "success"},
        "undo": {"run": "tool", "transitions": [{"event": "done", "to": "lost"}, {"event": "failed", "to": "lost"}]},
        "won": {"final": "success"},
        "lost": {"final": "failure"},
    },
    "transitions": [{"event": "cancel", "to": "undo"}],
})  # fmt: skip

TOOL = {"kind": "python", "code": "def run(q): return {'q': q}", "in": {"q": "int"}, "usd": 0.00001}
AGENT = compile_document({
    "agentflow": "plan/v1", "kind": "bt", "name": "agent", "limits": {"steps": 60, "usd": 0.02}, "vars": {"n": "int"},
    "tools": {"look": TOOL},
    "agents": {"who": {"model": "small", "tools": ["look"], "max_tokens": 10}},
    "tasks": {
        **TASKS,
        "find": {"kind": "agent", "use": "who", "in": {"n": "n"}, "out": {"n": "int"}, "usd": 0.00185,
                 "retry": {"max": 2}, "turns": 4},
    },
    "root": {"sequence": [
        {"type": "parallel", "need": 1, "fail_at": 3, "children": ["find", "find", {"fallback": ["find", "event"]}]},
        {"fallback": [{"task": "find", "set": {"n": "result.n"}}, "find"]},
    ]},
})  # fmt: skip


CATCHING = compile_document({
    "agentflow": "plan/v1", "kind": "bt", "name": "catching", "limits": {"steps": 20, "usd": 0.004},
    "vars": {"n": "int"}, "tasks": TASKS,
    "root": {"retry": {"timeout": "1m", "child": {"try": ["tool", {"parallel": ["ask", "pause", "event"]}], "catch": {
        "sequence": ["pause", "tool"]}}}, "max": 2},
})  # fmt: skip


def at_limit(compiled: Any, way: str) -> Any:
    """The same plan, but for what becomes of steps that do not fit."""
    document = {**compiled.document, "name": way, "limits": {**compiled.document["limits"], "at_limit": way}}
    return compile_document(document)


class World:
    """A reactor, a store and a far side, as small as they can be."""

    def __init__(
        self, compiled: Any, limit: int | None, budget: int | None, given: dict[str, Any] | None = None
    ) -> None:
        self.plan = compiled
        self.run: Run | None = None
        self.pending: dict[tuple[str, str], Message] = {}
        self.seen: list[tuple[str, Message]] = []
        self.timers: dict[str, TimerSet] = {}
        self.subscriptions: set[int] = set()
        self.steps: dict[tuple[int, int], str] = {}
        self.results: dict[tuple[int, int], StepClosed] = {}
        self.ledger: dict[tuple[int, int, str], LedgerEntry] = {}
        self.history: list[Decided] = []
        self.endings: list[str] = []
        self.owners: dict[int, int] = {}  # inner step -> the step of its agent
        self.inputs: dict[int, Any] = {}  # what steps were given that call something
        self.limit = limit
        self.spent = self.held = 0
        data = {"run": str(RUN), "workflow": compiled.name, "version": 1}
        data |= {"input": {"n": 1} if given is None else given, "budget_micro": budget}
        self.deliver("api", Message("run.requested", TENANT, RUN, "requested", data))

    def deliver(self, consumer: str, message: Message) -> None:
        before = self.run
        price = Price("scripted", "m", 1_000_000, 2_000_000, "v1")
        headroom = Headroom({"tenant": [Account("tenant", "total", self.limit, self.spent, self.held)]})
        step = message.data.get("step")
        given = self.inputs.get(step, {"n": step or 0})
        claimed = (step or 0) % 2 == 0
        facts = Facts(0, self.plan, 1, lambda _: price, headroom=headroom, step_input=given, claimed=claimed)
        try:
            decision = DECIDE[consumer](before, message, facts)
        except RetryLater:
            return
        except AgentFlowError:
            assert consumer == "api"
            self.pending.pop((consumer, message.key), None)
            return
        assert decision == DECIDE[consumer](before, message, facts), (
            "the same arguments gave another decision"
        )
        self.apply(decision)
        self.pending.pop((consumer, message.key), None)
        self.seen.append((consumer, message))
        self.check()

    def apply(self, decision: Decision) -> None:
        if decision.run is not None:
            self.run = decision.run
        for row in decision.rows:
            self.write(row)
        for message in decision.messages:
            entry = CATALOGUE[message.name]
            entry.model.model_validate(message.data)  # what is sent is what the catalogue says
            if message.name in ("run.completed", "run.failed", "run.cancelled"):
                self.endings.append(message.name)
            if message.name in ("llm.requested", "tool.requested"):
                self.inputs[message.data["step"]] = message.data["input"]
            for consumer in entry.consumers:
                self.pending[consumer, message.key] = message

    def write(self, row: Any) -> None:
        match row:
            case StepClosed():
                assert (row.step, row.attempt) not in self.steps, "a committed result was changed"
                assert (row.opened.attempt, row.kind) == (row.attempt, self.plan.tasks[row.opened.task].kind)
                self.steps[row.step, row.attempt] = row.status
                self.results[row.step, row.attempt] = row
            case TimerSet():
                self.timers[row.key] = row
            case TimerCleared():
                self.timers.pop(row.key, None)
            case Subscribed():
                self.subscriptions.add(row.step)
            case Waiting():
                timer = TimerSet(f"budget:{row.step}", "budget", row.after_ms, row.step, row.attempt)
                self.timers[timer.key] = timer
            case Unsubscribed():
                self.subscriptions.discard(row.step)
            case Withdrawn():
                for consumer in ("invoke_llm", "run_tool"):
                    self.pending.pop((consumer, row.key), None)
            case RunEnded():
                self.timers = {key: timer for key, timer in self.timers.items() if timer.kind == "hold"}
                self.subscriptions.clear()
            case LedgerEntry():
                assert (row.step, row.attempt, row.entry) not in self.ledger, "an entry was written twice"
                self.ledger[row.step, row.attempt, row.entry] = row
                self.held += row.held_micro
                self.spent += row.amount_micro if row.entry == "settle" else 0
            case Decided():
                self.history.append(row)

    def check(self) -> None:
        run = self.run
        assert run is not None
        assert len(self.endings) == (1 if run.terminal else 0), "a run ends once"
        assert run.spent_micro + run.held_micro <= run.limit_micro or run.frozen or not run.version
        assert run.held_micro == sum(run.holds.values()) == self.held
        assert run.spent_micro == self.spent
        if self.limit is not None:
            assert self.spent + self.held <= self.limit
        self.owners |= {int(k): v for k, v in ((run.plan and run.plan.agents) or {}).get("of", {}).items()}
        self.check_agents(run)
        if run.status == "running":
            assert run.open, "a running run waits for something"
            listening = {step for step, opened in run.open.items() if opened.waits in ("event", "approval")}
            assert self.subscriptions == listening
            short = {step for step, opened in run.open.items() if opened.waits in ("budget", "approval")}
            assert set(run.short) == short
            for timer in self.timers.values():
                if timer.kind == "after":
                    assert awaits(run.plan, timer.step or 0), f"{timer.key} wakes nobody"
                    continue
                again = timer.kind == "budget" and timer.after_ms == 0  # a step was woken that had just been woken
                assert again or timer.kind in ("wall", "hold") or timer.step in run.open, f"{timer.key} wakes nobody"
            own = [step for step, shortage in run.short.items() if shortage.scope == "run"]
            woken = [step for step in own if f"budget:{step}" in self.timers or self.fired(f"budget:{step}")]
            for step, opened in run.open.items():
                key = f"{step}.{opened.attempt}"
                waiting = {
                    "call": any(pending == key for _, pending in self.pending),
                    "decision": ("dispatch", f"{key}:done") in self.pending,
                    "retry": f"retry:{step}" in self.timers or self.fired(f"retry:{step}"),
                    "timer": f"wait:{step}" in self.timers or self.fired(f"wait:{step}"),
                    "event": step in self.subscriptions,
                    "approval": step in self.subscriptions,
                    "budget": f"budget:{step}" in self.timers
                    or self.fired(f"budget:{step}")
                    or (step in own and (run.held_micro > 0 or bool(woken))),
                    "planner": any(inner in run.open for inner, owner in self.owners.items() if owner == step),
                }[opened.waits]
                assert waiting, f"step {step} waits for a {opened.waits} that nobody will bring"
        if run.terminal:
            assert not run.open
            assert not run.short
            assert not self.subscriptions
            assert all(timer.kind == "hold" for timer in self.timers.values())

    def check_agents(self, run: Run) -> None:
        """What an agent has used is what its inner steps have cost, and what is held for those that are out."""
        for step, opened in run.open.items():
            if opened.waits != "planner":
                continue
            mine = {inner for inner, owner in self.owners.items() if owner == step}
            cost = sum(row.cost_micro for row in self.results.values() if row.step in mine)
            out = {f"{i}.{o.attempt}" for i, o in run.open.items() if i in mine and o.waits == "call"}
            assert opened.used_micro == cost + sum(run.holds.get(key, 0) for key in out)
            cap = self.plan.tasks[opened.task].price_cap_micro
            assert opened.used_micro <= cap, "an agent uses more than its task may cost"

    def answer(self, step: int, approve: bool) -> None:
        told = {"run": str(RUN), "step": step, "output": {"approve": approve, "micro": 0}, "by": "me"}
        self.deliver("dispatch", Message("step.answered", TENANT, RUN, f"answer:{step}:{len(self.seen)}", told))

    def asked(self) -> list[int]:
        """Steps that wait for a person's approval."""
        assert self.run is not None
        return [step for step, opened in sorted(self.run.open.items()) if opened.waits == "approval"]

    def fired(self, timer: str) -> bool:
        return any(m.name == "timer.fired" and m.data["timer"] == timer for m in self.pending.values())

    def report(self, consumer: str, request: Message, outcome: str, *, calls: int = 1) -> None:
        asked = request.data
        error = {"code": outcome, "message": "no", "retryable": outcome == "again", "retry_after_ms": None}
        output = {"good": {"n": asked["step"]}, "odd": {"n": "not a number"}}.get(outcome)
        if output and asked.get("tools"):
            calls_of = {0: [("answer", output)], 1: [("look", {"q": 1}), ("look", {"q": 2}), ("nothing", {})], 2: []}
            made = [{"id": "", "name": name, "arguments": given} for name, given in calls_of[asked["step"] % 3]]
            output = {"text": "hm", "calls": made}
        data = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task")}
        data |= {
            "status": "succeeded" if output else "failed", "output": output, "error": None if output else error,
            "usage": dict.fromkeys(("input_tokens", "output_tokens", "cached_tokens"), 5 * calls) | {"calls": calls},
            "cost_micro": 0, "duration_ms": 1, "late": False,
        }  # fmt: skip
        self.deliver(consumer, Message("step.completed", TENANT, RUN, f"{request.key}:done", data))
        self.pending.pop((consumer, request.key), None)

    def fire(self, key: str) -> None:
        timer = self.timers.pop(key)
        data = {
            "run": str(RUN),
            "timer": key,
            "kind": timer.kind,
            "step": timer.step,
            "attempt": timer.attempt,
        }
        self.pending["dispatch", f"timer:{key}:{timer.attempt}"] = Message(
            "timer.fired", TENANT, RUN, f"timer:{key}:{timer.attempt}", data
        )


SEEDS = 1500


WAITING = [at_limit(TREE, "wait"), at_limit(TREE, "ask")]


@pytest.mark.parametrize("compiled", [TREE, MACHINE, AGENT, CATCHING, *WAITING], ids=lambda plan: plan.name)
def test_every_order_of_events_keeps_the_invariants(compiled: Any) -> None:
    ended: Counter[str] = Counter()
    for seed in range(SEEDS):
        chance = random.Random(seed)
        few, many = (350, 700) if not compiled.has_agents else (9_000, 19_000)
        world = World(compiled, chance.choice([None, None, few, many]), chance.choice([None, None, few, many]))
        try:
            play(world, chance)
            drain(world)
        except AssertionError as fault:
            raise AssertionError(f"seed {seed}: {fault}") from fault
        assert world.run is not None
        ended[world.run.status] += 1
    # The walk reaches every way a run can end, or it proves less than it says.
    assert min(ended[status] for status in ("succeeded", "failed", "cancelled")) > 20, ended


def play(world: World, chance: random.Random) -> None:
    """Some sixty things that happen to a run, most of them what should, some of them what should not."""
    requests: list[tuple[str, Message]] = []
    for _ in range(60):
        action = chance.choice(["deliver"] * 6 + ["again", "fire", "event", "cancel"])
        if action == "deliver" and world.pending:
            (consumer, _), message = chance.choice(sorted(world.pending.items(), key=lambda item: item[0]))
            if consumer in ("invoke_llm", "run_tool"):
                requests.append((consumer, message))
                world.report(consumer, message, chance.choice(["good"] * 6 + ["again", "never", "odd"]))
            else:
                world.deliver(consumer, message)
        elif action == "again" and requests and chance.random() < 0.5:
            world.report(*chance.choice(requests), "good")  # a second, late, report of a call
        elif action == "again" and world.seen:
            world.deliver(*chance.choice(world.seen))
        elif action == "fire" and world.timers:
            world.fire(chance.choice(sorted(world.timers)))
        elif action == "event" and world.asked():
            world.answer(chance.choice(world.asked()), chance.random() < 0.8)
        elif action == "event":
            body = {"id": "1", "source": "/x", "type": "com.example.x", "data": {"n": chance.randint(0, 1)}}
            for step in sorted(world.subscriptions):
                told = {"run": str(RUN), "name": "com.example.x", "data": body, "step": step}
                world.deliver("dispatch", Message("signal.received", TENANT, RUN, f"event:{step}", told))
        elif action == "cancel" and chance.random() < 0.05:
            told = {"run": str(RUN), "reason": "enough"}
            key = f"cancel:{len(world.seen)}"
            world.deliver("api", Message("run.cancel_requested", TENANT, RUN, key, told))


def drain(world: World) -> None:
    """Left alone, with every call answered and every timer fired, a run ends, owes nothing and holds nothing."""
    for _ in range(500):
        if world.limit is not None:
            world.limit += 100  # whoever waits for the tenant's limit to be raised does not wait in vain
        if world.asked():
            world.answer(world.asked()[0], approve=True)
        elif world.pending:
            (consumer, _), message = next(iter(world.pending.items()))
            if consumer in ("invoke_llm", "run_tool"):
                world.report(consumer, message, "good")
            else:
                world.deliver(consumer, message)
        elif world.timers:
            world.fire(min(world.timers))
        else:
            break
    assert world.run is not None
    assert world.run.terminal
    assert world.run.held_micro == 0
    settled = sum(e.amount_micro for e in world.ledger.values() if e.entry == "settle")
    assert world.run.spent_micro == settled
    assert "open" not in world.steps.values()


def test_a_turn_that_is_halted_by_what_starts_it_asks_nobody() -> None:
    """Two agents begin at once, and the second one cannot, which ends the run."""
    agent = {"kind": "agent", "use": "who"}
    compiled = compile_document({
        "agentflow": "plan/v1", "kind": "bt", "name": "two", "limits": {"steps": 9, "usd": 1}, "vars": {"n": "int"},
        "agents": {"who": {"model": "small"}},
        "tasks": {"one": agent, "long": {**agent, "prompt": "x" * 60_000, "in": {"n": "n"}}},
        "root": {"parallel": ["one", {"map": "long", "over": "[1, 2]", "max": 2}]},
    })  # fmt: skip
    world = World(compiled, None, None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(conversation, "MAX_BYTES", 50_000)
        drain(world)
    assert world.run is not None
    assert world.run.status == "failed"
    tasks = {row.step: (row.opened.task, row.status) for row in world.results.values()}
    assert tasks[1] == ("one", "halted")
    assert ("one--turn", "halted") in tasks.values()
    assert not any(message.name == "llm.requested" for _, message in world.seen)
    assert not world.ledger


@pytest.mark.parametrize(("code", "spent"), [("timeout", "all"), ("model_unreachable", "nothing")])
def test_a_call_that_may_have_been_billed_counts_as_its_whole_hold(code: str, spent: str) -> None:
    """A model that did not answer in time may have worked; one that could not be reached has not."""
    world = World(MACHINE, None, None)
    while (asked := next((m for (c, _), m in world.pending.items() if c == "invoke_llm"), None)) is None:
        (consumer, _), message = next(iter(world.pending.items()))
        if consumer == "run_tool":
            world.report(consumer, message, "good")
        else:
            world.deliver(consumer, message)
    assert world.run is not None
    before, held = world.run.spent_micro, world.run.holds[asked.key]
    world.report("invoke_llm", asked, code, calls=0)
    (entry,) = [e for e in world.ledger.values() if e.step == asked.data["step"] and e.entry == "settle"] or [
        None
    ]
    while entry is None and world.pending:
        (consumer, _), message = next(iter(world.pending.items()))
        world.deliver(consumer, message)
        (entry,) = [
            e for e in world.ledger.values() if e.step == asked.data["step"] and e.entry == "settle"
        ] or [None]
    assert entry is not None
    assert entry.amount_micro == (held if spent == "all" else 0)
    assert world.run.spent_micro == before + entry.amount_micro


def test_of_two_reports_of_an_attempt_the_first_counts_even_before_it_is_settled() -> None:
    """Its process was killed, the call was made again, and account_cost has not been told of either yet."""
    world = World(MACHINE, None, None)
    world.deliver("plan", world.pending["plan", "requested"])
    world.deliver("dispatch", world.pending["dispatch", "planned"])
    request = world.pending["run_tool", "1.1"]
    report = {
        **{name: request.data[name] for name in ("run", "step", "attempt", "epoch", "task")},
        "status": "failed", "output": None, "cost_micro": 0, "duration_ms": 1, "late": False,
        "error": {"code": "rate_limited", "message": "no", "retryable": False, "retry_after_ms": None},
        "usage": {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 1},
    }  # fmt: skip
    world.deliver("run_tool", Message("step.completed", TENANT, RUN, "1.1:done", report))
    recorded = dict(world.pending)
    second = report | {"status": "succeeded", "output": {"n": 1}, "error": None}
    world.deliver("run_tool", Message("step.completed", TENANT, RUN, "1.1:done", second))
    assert world.pending == recorded
    assert world.results[1, 1].status == "failed"


KEYED = {
    "agentflow": "plan/v1", "kind": "bt", "name": "keyed", "limits": {"steps": 9}, "vars": {"n": "int"},
    "tasks": {
        "pay": {"kind": "tool", "use": "std.echo", "in": {"n": "n"}, "key": "'k' + string(n)",
                "retry": {"max": 3, "only": ["again"]}},
        "rest": {"kind": "wait", "for": "1s"},
    },
    "root": {"parallel": ["pay", {"task": "rest", "set": {"n": "n + 1"}}], "wait": "all"},
}  # fmt: skip


def test_all_attempts_of_a_step_have_the_key_of_the_first_though_the_run_is_paused_between_them() -> None:
    """Else what the far side has paid for already would be another payment to it."""
    world = World(compile_document(KEYED), None, None)
    world.deliver("plan", world.pending["plan", "requested"])
    world.deliver("dispatch", world.pending["dispatch", "planned"])
    first = world.pending["run_tool", "1.1"]
    world.report("run_tool", first, "again")
    world.deliver("dispatch", world.pending["dispatch", "1.1:done"])
    world.fire("wait:2")
    world.deliver("dispatch", world.pending["dispatch", "timer:wait:2:1"])  # `n` is another one from now on
    said = {"run": str(RUN), "reason": "", "by_parent": False, "at_ms": 0}
    world.deliver("dispatch", Message("run.pause_requested", TENANT, RUN, "pause", said))
    world.fire("retry:1")
    world.deliver("dispatch", world.pending["dispatch", "timer:retry:1:1"])
    assert world.run is not None and world.run.open[1].waits == "resume"
    world.run = world.run.but(**unpack_state(world.run.state_json(), world.run.steps))  # as if read from its row
    world.deliver("dispatch", Message("run.resume_requested", TENANT, RUN, "resume", said))
    assert (first.data["key"], world.pending["run_tool", "1.2"].data["key"]) == ("k1", "k1")
    assert world.run.open[1].key == "k1"


WAITS = {
    "agentflow": "plan/v1", "kind": "bt", "name": "waits", "limits": {"steps": 1, "usd": 0},
    "tasks": {"rest": {"kind": "wait", "for": "1s"}}, "root": "rest",
}  # fmt: skip


@pytest.mark.parametrize(
    ("asked", "ends"),
    [("pause resume", "running"), ("resume pause", "paused"), ("resume", "running"), ("pause resume pause", "paused")],
)
def test_of_pauses_and_resumes_the_one_asked_for_last_counts(asked: str, ends: str) -> None:
    """However they overtake each other on the way: a pause that came late once held its run for ever."""
    compiled = compile_document(WAITS)

    def facts(now_ms: int) -> Facts:
        return Facts(now_ms, compiled, 1, lambda _: Price("scripted", "m", 1, 1, "v1"))

    run = Run(TENANT, RUN, compiled.name, 1, status="running", limit_micro=10)
    said: list[Message] = []
    for asked_ms, what in enumerate(asked.split(), 1):
        data = {"run": str(RUN), "reason": "", "by_parent": False}
        message = Message(f"run.{what}_requested", TENANT, RUN, f"{what}:{asked_ms}", data)
        said += api.decide(run, message, facts(asked_ms)).messages
    for order in permutations(said):
        after = run
        for message in order:
            CATALOGUE[message.name].model.model_validate(message.data)
            after = dispatch.decide(after, message, facts(99)).run or after
            after = after.but(**unpack_state(after.state_json(), 0))  # as if read from its row
        assert after.status == ends, [each.name for each in order]
