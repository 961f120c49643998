"""Estimates: no run costs more than the most, none that succeeds less than the least; why, where there is no bound."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentflow.core.estimate import Estimate, Observed, Seen, Tariff, estimate
from agentflow.core.message import Message
from agentflow.core.money import input_tokens_bound
from agentflow.core.plan import Plan
from agentflow.core.price import Price, Tier
from agentflow.core.types import Type
from agentflow.errors import Invalid
from agentflow.wire.document import compile_document, load_document_file

from .driving import VARS, tree
from .random_plans import random_plan
from .test_decide import AGENT, CATCHING, MACHINE, RUN, TENANT, TREE, World
from .test_planner import compiled, machines, random_document, trees
from .test_tree import seq

PRICE = Price("scripted", "m", 1_000_000, 2_000_000, "v1")
TARIFF = Tariff({"small": PRICE}, {}, {"small": 8})
"""Its window is far too small for what is asked here, as one may be that a price list tells of a newer model."""
ASK: dict[str, Any] = {
    "kind": "llm", "use": "small", "prompt": "How is {name}?", "in": {"name": "name"}, "max_tokens": 100,
}  # fmt: skip
ROOT = Path(__file__).parents[2]
LIMITS = {"steps": 50, "usd": 1}


def plan_of(root: Any, tasks: dict[str, Any], **parts: Any) -> Plan:
    inputs = {"input": {"name": "string", "names": "list(string)"}, "vars": {"text": "string", "n": "int"}}
    return compile_document(tree(root, tasks=tasks, **{"limits": LIMITS, **inputs, **parts}))


GIVEN = {"name": "Ann", "names": ["Ann", "Bob", "Christopher"]}


def of(plan: Plan, given_: dict[str, Any] | None = None, tariff: Tariff = TARIFF, **more: Any) -> Estimate:
    values = GIVEN if given_ is None else given_
    return estimate(plan, tariff, values, more.pop("limit", plan.limits.micro), **more)


def held(text: str, max_tokens: int = 100) -> int:
    """What is held for a call at dollar 1 and 2 per million tokens."""
    return input_tokens_bound([{"content": text}], [], None) + 2 * max_tokens


def test_a_prompt_of_inputs_is_counted_to_the_byte() -> None:
    found = of(plan_of("ask", {"ask": ASK}))
    (line,) = found.lines
    assert (found.cost.most, found.bounded_by, found.free) == (held("How is Ann?"), "plan", [])
    assert (line.starts, line.output_tokens.most) == ((1, 1, 1), 100)
    assert of(plan_of("ask", {"ask": {**ASK, "retry": {"max": 3}}})).cost.most == 3 * held("How is Ann?")


def test_a_map_counts_its_items_and_takes_the_longest() -> None:
    each = {**ASK, "in": {"name": "item"}}
    plan = plan_of({"map": "ask", "over": "names", "max": 10}, {"ask": each})
    found = of(plan)
    assert found.cost.most == 3 * held("How is Christopher?")
    assert found.lines[0].starts == (3, 3, 3)
    assert of(plan, {"name": "", "names": []}).cost.most == 0


def test_a_cheaper_model_counts_in_the_least_and_the_dearer_one_in_the_most() -> None:
    cheap = Price("scripted", "c", 900_000, 100_000, "v1")
    told = {**ASK, "in": {"name": "name + '!'"}, "cheaper": "tiny"}
    root = seq({"task": "ask", "set": {"text": "result.text"}}, "tell")
    plan = plan_of(root, {"ask": {**ASK, "cheaper": "tiny"}, "tell": told})
    assert plan.aliases == ["small", "tiny"]
    tariff = Tariff({"small": PRICE, "tiny": cheap}, {}, {})
    found = of(plan, tariff=tariff)
    assert found.cost.most == held("How is Ann?") + held("How is Ann!?")
    assert found.cost.least < of(plan_of(root, {"ask": ASK, "tell": {**told, "cheaper": "small"}})).cost.least
    later = {**told, "in": {"name": "text"}}
    open_ended = plan_of(root, {"ask": ASK, "tell": later})
    unknown = of(open_ended, tariff=Tariff({"small": PRICE._replace(input_micro_per_mtok=0), "tiny": cheap}, {}, {}))
    assert (unknown.structure_micro, "may ask tiny" in unknown.free[0].message) == (None, True)


def test_what_a_step_sets_has_no_bound_but_the_limit_and_it_is_said_what_mends_it() -> None:
    told = {**ASK, "in": {"name": "text"}}
    root = seq({"task": "ask", "set": {"text": "result.text"}}, "tell")
    found = of(plan_of(root, {"ask": ASK, "tell": told}))
    assert (found.cost.most, found.structure_micro, found.bounded_by) == (1_000_000, None, "limits.usd")
    (free,) = found.free
    assert (free.path, free.code) == ("tasks.tell", "no_bound")
    assert "name is not known" in free.message and "tasks.tell.usd" in free.mend
    capped = of(plan_of(root, {"ask": ASK, "tell": {**told, "usd": 0.0005, "retry": {"max": 2}}}))
    assert (capped.structure_micro, capped.free) == (held("How is Ann?") + 2 * 500, [])


def test_where_a_request_costs_nothing_its_length_does_not_matter() -> None:
    told = {**ASK, "in": {"name": "text"}}
    plan = plan_of(seq({"task": "ask", "set": {"text": "result.text"}}, "tell"), {"ask": ASK, "tell": told})
    by_second = PRICE._replace(input_micro_per_mtok=0, micro_per_million_seconds=1_000_000)
    assert of(plan, tariff=Tariff({"small": by_second}, {}, {})).structure_micro == 2 * (200 + 60)
    tier = Tier(1_000, 0, 3_000_000)
    tiered = Tariff({"small": by_second._replace(tiers=(tier,))}, {}, {})
    assert of(plan, tariff=tiered).structure_micro == (200 + 60) + (300 + 60), "a long text may be in the dearer one"
    read = Tariff({"small": by_second._replace(cache_read_micro_per_mtok=1)}, {}, {})
    assert of(plan, tariff=read).structure_micro is None


def test_a_window_bounds_what_is_expected_and_never_what_is_held() -> None:
    """Nobody promises that a server refuses more, and what is held does not rely on it."""
    text = "x" * 20_000
    plan = plan_of("ask", {"ask": {**ASK, "in": {"name": "name"}}}, limits={"steps": 5, "usd": 10})
    given_ = {"name": text, "names": []}
    narrow, unknown = (of(plan, given_, Tariff({"small": PRICE}, {}, each)) for each in ({"small": 200}, {}))
    assert narrow.cost.most == unknown.cost.most == held(f"How is {text}?")
    assert narrow.input_tokens == (156, 200, unknown.input_tokens.most)
    assert unknown.input_tokens.expected == 5_018
    agent = {"kind": "agent", "use": "who", "prompt": "Find {name}.", "in": {"name": "name"}, "turns": 4}
    parts = {"agents": {"who": {"model": "small", "max_tokens": 10}}, "limits": {"steps": 500, "usd": 100}}
    found = plan_of("find", {"find": agent}, **parts)
    assert of(found).structure_micro == of(found, tariff=Tariff({"small": PRICE}, {}, {})).structure_micro


def test_numbers_and_truths_that_are_not_known_are_as_long_as_they_can_be() -> None:
    root = seq({"task": "ask", "set": {"n": "9"}}, "tell")
    found = of(plan_of(root, {"ask": ASK, "tell": {**ASK, "in": {"name": "n"}}}))
    assert found.cost.most == held("How is Ann?") + held("How is -9223372036854775808?")


def test_the_least_is_the_lightest_way_and_unknown_texts_are_empty() -> None:
    root = {"fallback": ["dear", "cheap"]}
    tasks = {"dear": {**ASK, "prompt": "x" * 1280, "in": {}}, "cheap": ASK}
    found = of(plan_of(root, tasks))
    assert found.cost.least == 1 * 1 + 2, "one token in and one out; what fails need not have cost anything"
    assert {line.task: line.starts for line in found.lines} == {"cheap": (0, 1, 1), "dear": (0, 1, 1)}
    assert of(plan_of("dear", {"dear": tasks["dear"]})).cost.least == 10 + 2


def test_an_agent_costs_its_turns_and_calls_or_what_its_task_may() -> None:
    parts = {
        "tools": {"look": {"kind": "python", "code": "def run(q): return {}", "in": {"q": "int"}, "usd": 0.001}},
        "agents": {"who": {"model": "small", "tools": ["look"], "max_tokens": 10}},
    }
    agent = {"kind": "agent", "use": "who", "prompt": "Find {name}.", "in": {"name": "name"}, "turns": 4}
    found = of(plan_of("find", {"find": agent}, **parts, limits={"steps": 500, "usd": 100}))
    assert found.structure_micro is not None
    assert found.structure_micro > 3 * 16 * 1_000 + 4 * 256 * 1024
    assert of(plan_of("find", {"find": {**agent, "usd": 0.02}}, **parts)).structure_micro == 20_000


def test_the_limit_is_the_most_that_there_is() -> None:
    plan = plan_of({"repeat": "ask", "max": 10}, {"ask": ASK})
    found = of(plan, limit=1_000, limit_name="budget_usd")
    assert (found.structure_micro, found.cost.most, found.bounded_by) == (10 * held("How is Ann?"), 1_000, "budget_usd")
    assert found.cost.expected <= 1_000


def test_what_is_expected_is_what_was_seen_scaled_by_what_there_may_be() -> None:
    each = {**ASK, "in": {"name": "item"}}
    plan = plan_of({"map": "ask", "over": "names", "max": 10}, {"ask": each})
    seen = Observed(20, {"ask": Seen(starts=40, calls=30, input_tokens=900, output_tokens=600, cost_micro=2_000)}, 1)
    found = of(plan, observed=seen)
    assert found.cost.expected == 2_000 * 3 // 40
    assert (found.lines[0].input_tokens.expected, found.lines[0].output_tokens.expected) == (round(67.5), 45)
    assert (found.runs_observed, found.lines[0].observed) == (20, True)
    nothing = of(plan)
    assert (nothing.runs_observed, nothing.lines[0].observed) == (0, False)
    assert nothing.cost.least < nothing.cost.expected < nothing.cost.most


def test_a_task_that_no_run_could_start_is_guessed() -> None:
    plan = plan_of({"map": "ask", "over": "names", "max": 10}, {"ask": {**ASK, "in": {"name": "item"}}})
    seen = Observed(5, {"ask": Seen(0, 0, 0, 0, 0)}, 1)
    assert of(plan, observed=seen).lines[0].observed is False
    assert of(plan, {"name": "", "names": []}, observed=seen).cost.expected == 0


# ----------------------------------------------------------------------------------------- runs that are played


class Spender(World):
    """A far side that bills what it likes, within what a call may cost."""

    chance = random.Random(0)

    def report(self, consumer: str, request: Message, outcome: str, *, calls: int = 1) -> None:
        asked, chance = request.data, self.chance
        task = self.plan.tasks[asked["task"]]
        usage = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": calls}
        if task.kind == "llm":
            most = input_tokens_bound(asked["messages"], asked.get("tools", []), asked["output_schema"])
            text = sum(len(m["content"].encode()) for m in asked["messages"])
            least = max(1, text // 128)
            usage["input_tokens"] = chance.choice([most, least, chance.randint(least, most)])
            usage["output_tokens"] = chance.choice([asked["max_output_tokens"], 1])
        output: Any = {name: value(type_, chance) for name, type_ in (task.out or {}).items()}
        output = output or {"text": "x" * chance.randint(0, 99)}
        if asked.get("tools"):
            out = self.plan.tasks[task.part_of].out or {}
            answer = {name: value(type_, chance) for name, type_ in out.items()}
            tools = list(self.plan.tasks[task.part_of].agent.tools.items())
            called = [
                (name, {each: value(type_, chance) for each, type_ in (spec.inputs or {}).items()})
                for name, spec in chance.choices(tools, k=chance.randint(1, 16))
            ]
            made = chance.choice([[("answer", answer)], called, called, []])
            output = {"text": "hm", "calls": [{"id": "", "name": name, "arguments": given_} for name, given_ in made]}
        failed = outcome != "good"
        error = {"code": outcome, "message": "no", "retryable": outcome == "again", "retry_after_ms": None}
        data = {name: asked[name] for name in ("run", "step", "attempt", "epoch", "task")}
        data |= {
            "status": "failed" if failed else "succeeded", "output": None if failed else output,
            "error": error if failed else None, "usage": usage, "cost_micro": 0, "duration_ms": 1, "late": False,
        }  # fmt: skip
        self.deliver(consumer, Message("step.completed", TENANT, RUN, f"{request.key}:done", data))
        self.pending.pop((consumer, request.key), None)


    def check(self) -> None:
        """Of the invariants those about money; the others have tests of their own."""
        run = self.run
        assert run is not None
        assert run.frozen is False
        assert run.spent_micro + run.held_micro <= run.limit_micro or not run.version
        assert (run.held_micro, run.spent_micro) == (self.held, self.spent)


def value(type_: Type, chance: random.Random) -> Any:
    """Some value of a type."""
    kind = type_.kind
    if kind == "list":
        assert type_.of is not None
        return [value(type_.of, chance) for _ in range(chance.randint(0, 3))]
    if kind == "map":
        return {}
    text = "y" * chance.randint(0, 300)
    found = {"int": chance.randint(0, 3), "double": chance.random(), "bool": chance.random() < 0.8}
    return found.get(kind, {"text": text} if kind == "json" else text)


def played(plan: Plan, seed: int, given_: dict[str, Any] | None = None) -> Spender:
    """A run to its end: calls succeed, fail and are repeated, timers fire, whatever comes is handled in any order."""
    Spender.chance = chance = random.Random(seed)
    world = Spender(plan, None, None, given_)
    for _ in range(3_000):
        assert world.run is not None
        due = sorted(key for key in world.timers if key != "wall")
        if world.pending and (not due or chance.random() < 0.9):
            (consumer, _), message = chance.choice(sorted(world.pending.items(), key=lambda item: item[0]))
            if consumer in ("invoke_llm", "run_tool"):
                world.report(consumer, message, chance.choice(["good"] * 8 + ["again", "never"]))
            else:
                world.deliver(consumer, message)
        elif asks := [step for step, opened in world.run.open.items() if opened.waits == "person"]:
            task = plan.tasks[world.run.open[asks[0]].task]
            output = {name: value(type_, chance) for name, type_ in (task.out or {}).items()}
            data = {"run": str(RUN), "step": asks[0], "output": output, "by": "somebody"}
            world.deliver("dispatch", Message("step.answered", TENANT, RUN, f"answer:{asks[0]}", data))
        elif world.timers:
            world.fire(chance.choice(due or ["wall"] if "wall" in world.timers else sorted(world.timers)))
        else:
            break
    assert world.run is not None
    assert world.run.terminal
    return world


def check(plan: Plan, world: Spender, given_: dict[str, Any]) -> None:
    found = estimate(plan, TARIFF, given_, plan.limits.micro)
    run = world.run
    assert run is not None
    assert run.spent_micro <= (found.cost.most or 0), (run.spent_micro, found)
    if run.status == "succeeded":
        assert run.spent_micro >= found.cost.least, (run.spent_micro, found)


PAID: dict[str, Any] = {
    "a": {"kind": "llm", "use": "small", "prompt": "Say a", "max_tokens": 50, "out": {"n": "int", "ok": "bool"},
          "retry": {"max": 2, "backoff": "1ms"}},
    "b": {"kind": "tool", "use": "std.echo", "usd": 0.0001, "out": {"n": "int", "ok": "bool"}, "in": {"x": "x"}},
    "c": {"kind": "llm", "use": "small", "prompt": "x is {x}", "in": {"x": "x"}, "max_tokens": 9,
          "out": {"n": "int", "ok": "bool"}},
}  # fmt: skip


def paid(parts: dict[str, Any]) -> dict[str, Any]:
    """The document with tasks that cost money."""
    tasks = {name: PAID.get(name, task) for name, task in parts["tasks"].items()}
    return {**parts, "tasks": tasks, "vars": {**VARS, "n": "int"}, "limits": {"steps": 500, "usd": 1000, "wall": "1h"}}


@pytest.mark.parametrize("part", range(4))
def test_two_hundred_plans_cost_no_more_than_the_most_and_no_less_than_the_least(part: int) -> None:
    """Four runs of each: calls fail, are repeated, and cost whatever they may."""
    succeeded = tight = 0
    for seed in range(part * 50, part * 50 + 50):
        plan = compile_document(random_plan(seed, PAID, vars={**VARS, "n": "int"}, limits={"steps": 500, "usd": 1000}))
        for again in range(4):
            world = played(plan, 10 * seed + again)
            check(plan, world, {"n": 1})
            assert world.run is not None
            succeeded += world.run.status == "succeeded"
            tight += world.run.spent_micro > 0
    assert succeeded > 60 and tight > 100, "the plans must come to something for this to prove anything"


MANY = settings(max_examples=50)


@given(trees, st.integers(0, 10**6))
@MANY
def test_no_random_tree_costs_more_than_the_most_or_less_than_the_least(root: Any, seed: int) -> None:
    plan = compile_document(paid(random_document(root, 500)))
    check(plan, played(plan, seed), {"n": 1})


@given(machines(), st.integers(0, 10**6))
@MANY
def test_no_random_machine_costs_more_than_the_most_or_less_than_the_least(parts: Any, seed: int) -> None:
    plan = compiled(paid(parts))
    if plan is not None:
        check(plan, played(plan, seed), {"n": 1})


SAMPLES = [p for p in sorted((ROOT / "local" / "workflows").glob("*.yaml")) if not p.name.endswith(".model.yaml")]


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_no_run_of_a_sample_costs_more_than_the_most_or_less_than_the_least(path: Path) -> None:
    plan = compile_document(load_document_file(path))
    succeeded = 0
    for seed in range(40):
        chance = random.Random(seed)
        given_ = {name: value(type_, chance) for name, type_ in plan.input.items()}
        world = played(plan, seed, given_)
        check(plan, world, given_)
        assert world.run is not None
        succeeded += world.run.status == "succeeded"
    assert succeeded > 3


@pytest.mark.parametrize("plan", [TREE, MACHINE, AGENT, CATCHING], ids=lambda plan: plan.name)
def test_no_run_of_the_plans_of_the_decisions_costs_more(plan: Plan) -> None:
    for seed in range(150):
        check(plan, played(plan, seed), {"n": 1})


def test_what_becomes_of_a_run_that_is_too_dear_is_refuse_or_warn() -> None:
    with pytest.raises(Invalid, match=r"limits\.preflight"):
        plan_of("ask", {"ask": ASK}, limits={**LIMITS, "preflight": "maybe"})
    assert plan_of("ask", {"ask": ASK}, limits={**LIMITS, "preflight": "warn"}).limits.preflight == "warn"
