"""Agents: a model works in turns with tools, each turn and each call a step of its own, until it answers."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from agentflow.core import agents, conversation, worst
from agentflow.core.explore import explore
from agentflow.core.moves import Ended, Start
from agentflow.core.plan import MAX_CALLS
from agentflow.core.planner import Completed, Failed, advance
from agentflow.core.review_names import unused
from agentflow.errors import Invalid
from agentflow.wire.document import compile_document

from .driving import TASKS, Drive, document, machine, tree

CODE = {"kind": "python", "code": "def run(**given): return given"}
PARTS: dict[str, Any] = {
    "limits": {"steps": 100, "usd": 1},
    "tools": {
        "search": {**CODE, "description": "finds pages", "in": {"query": "string"}},
        "fetch": {**CODE, "in": {"page": "int"}, "usd": 0.001},
        "secret": {**CODE, "in": {"query": "string"}},
    },
    "agents": {"who": {"model": "small", "system": "You know {x}.", "tools": ["search", "fetch"], "max_tokens": 99}},
}
LOOK = {"kind": "agent", "use": "who", "in": {"x": "x"}, "prompt": "Find {x}.", "turns": 4}
TYPED = {**LOOK, "out": {"n": "int", "ok": "bool"}}


def plan(root: Any = "look", look: Any = LOOK, **parts: Any) -> dict[str, Any]:
    return tree(root, **{**PARTS, "tasks": {**TASKS, "look": look}, **parts})


class Agent(Drive):
    """A run of an agent, which the test plays the model and the tools of."""

    def reply(self, text: str = "", *calls: tuple[str, Any], task: str = "look") -> list[str]:
        """The running turn ends with that text and those calls; text in place of arguments is their fault."""
        made = [
            {"id": "x", "name": name, **({"fault": given} if isinstance(given, str) else {"arguments": given})}
            for name, given in calls
        ]
        return self.said(self.oldest(f"{task}--turn"), {"text": text, "calls": made})

    def asked(self) -> agents.Asked:
        """What the running turn asks."""
        found = agents.asked(self.plan, self.state, self.oldest("look--turn"))
        assert found is not None
        return found

    def told(self) -> list[str]:
        """What the model has been told since its last reply."""
        messages = self.asked().messages
        last = max((i for i, each in enumerate(messages) if each["role"] == "assistant"), default=-1)
        return [each["content"] for each in messages[last + 1 :]]

    @property
    def ended(self) -> Ended:
        """How the agent's step ended."""
        return next(each for each in self.history[-1] if isinstance(each, Ended))


def begun(look: Any = LOOK, **parts: Any) -> Agent:
    drive = Agent(plan(look=look, **parts))
    assert drive.begin() == ["+look", "+look--turn"]
    return drive


# ------------------------------------------------------------------------------------------------------ its turns


def test_a_model_answers_after_it_has_called_tools() -> None:
    drive = begun()
    assert drive.asked().messages == [
        {"role": "system", "content": "You know 0."}, {"role": "user", "content": "Find 0."},
    ]  # fmt: skip
    assert drive.reply("Well.", ("search", {"query": "a"}), ("fetch", {"page": 3})) == ["+look--search", "+look--fetch"]
    assert (drive.inputs[3], drive.inputs[4]) == ({"query": "a"}, {"page": 3})
    assert drive.said(4, {"text": "b"}) == []
    assert drive.said(3, {"pages": [3], "best": 3}) == ["+look--turn"]
    assert drive.asked().messages[2:] == [
        {"role": "assistant", "content": "Well.", "calls": [
            {"id": "t001c0000", "name": "search", "arguments": {"query": "a"}},
            {"id": "t001c0001", "name": "fetch", "arguments": {"page": 3}},
        ]},
        {"role": "tool", "call": "t001c0000", "content": '{"best":3,"pages":[3]}'},
        {"role": "tool", "call": "t001c0001", "content": '{"text":"b"}'},
    ]  # fmt: skip
    assert drive.reply("It is 3.") == [".look", "ok"]
    assert drive.ended.result == {"text": "It is 3."}
    assert drive.state is not None
    assert drive.state.agents is None


def test_the_tools_that_are_listed_are_offered_and_no_others() -> None:
    (search, fetch) = begun().asked().tools
    assert search == {
        "name": "search",
        "description": "finds pages",
        "parameters": {
            "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"],
            "additionalProperties": False,
        },
    }  # fmt: skip
    assert fetch["name"] == "fetch"
    *_, answer = begun(TYPED).asked().tools
    assert (answer["name"], answer["parameters"]["required"]) == ("answer", ["n", "ok"])


def test_an_answer_with_fields_is_given_by_calling_answer() -> None:
    drive = begun(TYPED)
    assert drive.reply("", ("answer", {"n": 3.0, "ok": True, "more": 1}), ("search", {"query": "a"})) == [".look", "ok"]
    assert drive.ended.result == {"n": 3, "ok": True}


def test_what_is_given_is_the_prompt_where_there_is_none() -> None:
    drive = begun({key: value for key, value in LOOK.items() if key != "prompt"})
    assert drive.asked().messages[1]["content"] == '{"x":0}'


def test_an_agent_without_tools_is_asked_for_its_answer_at_once() -> None:
    drive = begun(TYPED, agents={"who": {"model": "small"}})
    asked = drive.asked()
    assert (asked.tools, asked.schema and asked.schema["required"]) == ([], ["n", "ok"])
    assert drive.said(2, {"n": 1}) == ["+look--turn"]
    assert drive.told() == ["answer.ok is missing: it takes n (int), ok (bool)"]
    assert drive.said(3, {"n": 1, "ok": True}) == [".look", "ok"]


# -------------------------------------------------------------------------------------------- what goes wrong there

HOSTILE = {
    "not listed": ("secret", {"query": "a"}, "unknown_tool", "there is no tool 'secret'; there are: search, fetch"),
    "a part of an agent": ("turn", {}, "unknown_tool", "there is no tool 'turn'"),
    "no JSON": ("search", "arguments: is not JSON: trailing comma", "bad_arguments", "arguments: is not JSON"),
    "missing": ("search", {}, "bad_arguments", "arguments.query is missing: it takes query (string)"),
    "of another type": ("fetch", {"page": "3"}, "bad_arguments", "arguments.page: must be a whole number, not '3'"),
    "more than it takes": ("search", {"query": "a", "x": 1}, "bad_arguments", "arguments has no 'x': it takes query"),
    "no answer": ("answer", {"n": 1.5, "ok": True}, "bad_answer", "arguments.n: must be a whole number, not 1.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_the_model_is_told_what_is_wrong_with_a_call(name: str) -> None:
    tool, given, code, message = HOSTILE[name]
    drive = begun(TYPED)
    assert drive.reply("", (tool, given)) == ["+look--turn"]
    (told,) = drive.told()
    error = json.loads(told)["error"]
    assert error["code"] == code
    assert error["message"].startswith(message)
    assert drive.asked().messages[-2]["calls"][0]["arguments"] == ({} if isinstance(given, str) else given)


def test_calls_that_can_be_made_are_made_beside_those_that_can_not() -> None:
    drive = begun(TYPED)
    calls = [("secret", {}), ("search", {"query": "a"}), ("answer", {})]
    assert drive.reply("", *calls) == ["+look--search"]
    assert drive.said(3, {"page": 1}) == ["+look--turn"]
    first, second, third = drive.told()
    assert ("unknown_tool" in first, second, "bad_answer" in third) == (True, '{"page":1}', True)


def test_a_tool_that_fails_is_told_to_the_model() -> None:
    drive = begun()
    drive.reply("", ("search", {"query": "a"}))
    assert drive.fail(3, "no_page", "there is none") == ["+look--turn"]
    assert drive.told() == ['{"error":{"code":"no_page","message":"there is none"}}']


@pytest.mark.parametrize("count", [MAX_CALLS, MAX_CALLS + 1, 10_000])
def test_a_turn_has_so_many_calls_and_no_more(count: int) -> None:
    drive = begun()
    assert drive.reply("", *[("search", {"query": "a"})] * count) == ["+look--search"] * MAX_CALLS
    for step in range(3, 3 + MAX_CALLS):
        drive.said(step, {})
    told = drive.told()
    assert len(told) == min(count, MAX_CALLS + 1)
    assert ("too_many_calls" in told[-1]) == (count > MAX_CALLS)


def test_without_an_answer_in_time_it_fails() -> None:
    drive = begun(TYPED)
    for turn in range(1, 4):
        assert drive.reply(f"hm {turn}") == ["+look--turn"]
    assert drive.told() == [
        "Give your answer by calling the tool answer.",
        "Answer now: there are no further turns, and no tools.",
    ]
    asked = drive.asked()
    assert (asked.tools, asked.schema and asked.schema["required"]) == ([], ["n", "ok"])
    assert drive.said(5, {"n": "many", "ok": True}) == [".look!", "no"]
    assert drive.ended.code == "turns"
    assert drive.ended.message == (
        "no answer in 4 turns (tasks.look.turns): answer.n: must be a whole number, not 'many'"
    )


def test_a_last_turn_that_holds_no_answer_is_one_too_many() -> None:
    drive = begun({**LOOK, "turns": 1})
    assert drive.asked().tools == []
    assert drive.fail(2, "bad_result", "the reply has no text") == [".look!", "no"]
    assert drive.ended.code == "turns"


@pytest.mark.parametrize("code", ["model_refused", "bad_result", "budget_exhausted"])
def test_a_turn_that_fails_is_the_agents_failure(code: str) -> None:
    drive = begun()
    assert drive.fail(2, code, "why") == [".look!", "no"]
    assert (drive.ended.code, drive.ended.message) == (code, "turn 1: why")


def test_no_money_for_a_call_ends_the_agent_and_what_it_has_under_way() -> None:
    drive = begun()
    drive.reply("", ("search", {"query": "a"}), ("fetch", {"page": 1}), ("search", {"query": "b"}))
    assert drive.fail(4, "budget_exhausted", "tasks.look.usd: too much") == [
        "-look--search", "-look--search", ".look!", "no",
    ]  # fmt: skip
    assert (drive.ended.code, drive.ended.message) == ("budget_exhausted", "tasks.look.usd: too much")


def test_a_result_that_is_too_long_is_cut() -> None:
    drive = begun()
    drive.reply("", ("search", {"query": "a"}))
    drive.said(3, {"page": "é" * 100_000})
    (told,) = drive.told()
    assert len(told.encode()) < conversation.MAX_RESULT + 100
    assert told.endswith("é\n(cut here: 200,011 bytes are too many to show)")


def test_a_conversation_that_is_too_long_ends_it() -> None:
    drive = begun({**LOOK, "turns": 100})
    said: list[str] = []
    for step in range(3, 30, 2):
        drive.reply("", ("search", {"query": "a"}))
        said = drive.said(step, {"page": "x" * conversation.MAX_RESULT})
        if said != ["+look--turn"]:
            break
    assert said == [".look!", "no"]
    assert step == 17  # eight results of 32 KiB are more than 256 KiB
    assert drive.ended.code == "conversation_too_long"
    assert "turn 9: the conversation is longer than 262,144 bytes" in drive.ended.message


@pytest.mark.parametrize("where", ["prompt", "text", "arguments"])
def test_nothing_that_is_too_long_is_kept(where: str) -> None:
    long = "x" * (conversation.MAX_BYTES + 1)
    drive = Agent(plan(look={**LOOK, "in": {"x": "j"}}))
    said = drive.begin(**({"j": long} if where == "prompt" else {}))
    if where == "text":
        said = drive.reply(long, ("search", {"query": "a"}))
    elif where == "arguments":
        said = drive.reply("", ("search", {"query": long}))
    assert said[-2:] == [".look!", "no"]
    assert drive.ended.code == "conversation_too_long"


def test_agents_at_work_have_so_much_to_say_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "MAX_ALL_BYTES", 100_000)
    drive = Agent(plan({"parallel": ["look", "look", "look"], "fail_at": 3, "wait": "all"}))
    assert drive.begin() == ["+look"] * 3 + ["+look--turn"] * 3
    said = [drive.reply("x" * 45_000, ("search", {"query": "a"})) for _ in range(3)]
    assert said == [["+look--search"], ["+look--search"], [".look!"]]
    assert "of all agents at work are longer than 100,000 bytes" in drive.ended.message
    drive.said(drive.oldest("look--search"), {})
    assert drive.reply("done") == [".look"]
    assert drive.state is not None
    assert drive.state.agents is not None
    assert drive.state.agents["bytes"] == sum(each["bytes"] for each in drive.state.agents["by"].values())


def test_the_run_limits_all_steps() -> None:
    drive = begun(limits={"steps": 4, "usd": 1})
    assert drive.reply("", *[("search", {"query": "a"})] * 3) == [".look!", "no"]
    assert drive.ended.code == "too_many_steps"
    assert "3 more would be 5, but 4 are allowed" in drive.ended.message
    drive = Agent(plan(limits={"steps": 1, "usd": 1}))
    assert drive.begin() == ["+look", ".look!", "no"]


# ------------------------------------------------------------------------------------------------ as all steps are


def test_what_is_halted_is_halted_with_all_that_is_in_it() -> None:
    drive = Agent(plan({"parallel": ["look", "a"], "need": 1}))
    assert drive.begin() == ["+look", "+a", "+look--turn"]
    drive.reply("", ("search", {"query": "a"}), ("fetch", {"page": 1}))
    assert drive.happen("a") == ["-look", "-look--search", "-look--fetch", "ok"]


def test_agents_that_begin_together_and_one_that_cannot() -> None:
    """The second is too long to begin, which halts the first: its turn has been started, and is halted with it."""
    tasks = {**TASKS, "look": LOOK, "long": {**LOOK, "in": {"x": "j"}}}
    drive = Agent(tree({"parallel": ["look", "long"]}, **{**PARTS, "tasks": tasks}))
    assert drive.begin(j="x" * 300_000) == ["+look", "+long", "+look--turn", ".long!", "-look", "-look--turn", "no"]
    drive = Agent(tree({"parallel": ["long", "look"]}, **{**PARTS, "tasks": tasks}))
    assert drive.begin(j="x" * 300_000) == ["+long", "+look", ".long!", "-look", "no"]


def test_a_state_runs_an_agent_and_is_left_by_what_it_comes_to() -> None:
    states = {
        "ask": {"run": "look", "transitions": [
            {"event": "done", "set": {"x": "result.n"}, "to": "good"}, {"event": "failed", "to": "bad"},
            {"event": "stop", "to": "bad"},
        ]},
        "good": {"final": "success"},
        "bad": {"final": "failure"},
    }  # fmt: skip
    parts = {**PARTS, "tasks": {"look": TYPED}}
    drive = Agent(machine(states, **parts))
    drive.begin()
    assert drive.reply("", ("answer", {"n": 7, "ok": True})) == [".look", "ok"]
    assert drive.finish is not None
    assert drive.finish.output["x"] == 7
    drive = Agent(machine(states, **parts))
    drive.begin()
    assert drive.happen("@stop") == ["-look", "-look--turn", "no"]


def test_an_agent_is_undone_and_undoes_like_any_task() -> None:
    tasks = {
        "look": {**TYPED, "undo": "back"},
        "back": {"kind": "agent", "use": "who", "in": {"x": "result.n"}},
        "undo": {"kind": "compensate"},
    }
    drive = Agent(tree({"sequence": ["look", "undo"]}, **{**PARTS, "tasks": tasks}))
    drive.begin()
    assert drive.reply("", ("answer", {"n": 7, "ok": True})) == [".look", "+undo", "+back", "+back--turn"]
    assert drive.inputs[4] == {"x": 7}
    assert drive.reply("", ("search", {"query": "a"}), task="back") == ["+back--search"]
    drive.said(drive.oldest("back--search"), {})
    assert drive.reply("done", task="back") == [".back", ".undo", "ok"]


def test_it_is_all_that_a_workflow_may_do() -> None:
    tasks = {"look": {key: value for key, value in LOOK.items() if key != "in"}}
    alone = {**document(), **PARTS, "tasks": tasks, "agents": {"who": {"model": "small"}}}
    drive = Agent(alone | {"vars": {}, "tasks": {"look": {**tasks["look"], "prompt": "Look."}}})
    drive.begin()
    assert drive.said(2, {"text": "There."}) == [".look", "ok"]
    assert drive.finish is not None
    assert drive.finish.output == {"text": "There."}


def test_what_a_fork_sets_stays_so() -> None:
    drive = Agent(plan({"sequence": [{"task": "look", "set": {"x": "result.n"}}, "a"]}, TYPED))
    drive.begin()
    answer = {"text": "", "calls": [{"name": "answer", "arguments": {"n": 7, "ok": True}}]}
    moved = advance(drive.plan, drive.state, Completed(2, answer), {"x": 5})
    assert moved.state.vars["x"] == 5


def test_what_comes_late_or_twice_changes_nothing() -> None:
    drive = begun()
    drive.reply("", ("search", {"query": "a"}))
    assert drive.state is not None
    for late in (Completed(2, {"text": "", "calls": []}), Failed(9, "a", "b")):
        moved = advance(drive.plan, drive.state, late)
        assert moved.state is drive.state
        assert not moved.commands


# ------------------------------------------------------------------------------------------- whatever the model does


def random_reply(dice: random.Random) -> tuple[str, list[tuple[str, Any]]]:
    names = ["search", "fetch", "secret", "answer", "turn", "é" * 99]
    given: list[Any] = [{"query": "a"}, {"page": 1}, {"n": 1, "ok": True}, {}, "is not JSON", {"query": "x" * 20_000}]
    calls = [(dice.choice(names), dice.choice(given)) for _ in range(dice.choice([0, 1, 2, 3, 20]))]
    return dice.choice(["", "hm", "y" * 5_000]), calls


def play(seed: int, *, copied: bool) -> list[Any]:
    """A run of three agents of which everything is left to chance, to its end; all that the planner commanded."""
    dice = random.Random(seed)
    look = TYPED if seed % 2 else LOOK
    drive = Agent(plan({"sequence": [{"parallel": ["look", "look"], "wait": "all", "fail_at": 2}, "look"]}, look))
    drive.copied = copied
    drive.begin()
    while drive.finish is None:
        step = dice.choice(sorted(step for step, task in drive.running.items() if task != "look"))
        if dice.random() < 0.15:
            drive.fail(step, dice.choice(["broken", "bad_result", "budget_exhausted"]))
        elif drive.running[step] == "look--turn":
            text, calls = random_reply(dice)
            made = [{"name": n, **({"fault": g} if isinstance(g, str) else {"arguments": g})} for n, g in calls]
            asked = agents.asked(drive.plan, drive.state, step)
            assert asked is not None
            plain: dict[str, Any] = {"n": 1, "ok": True} if dice.random() < 0.5 else {"text": text}
            said = {"text": text, "calls": made} if asked.tools else {"text": text}
            drive.said(step, plain if asked.schema else said)
        else:
            drive.said(step, {"page": "z" * dice.choice([1, 50_000])})
        holds(drive)
    return drive.history


def holds(drive: Drive) -> None:
    """What holds at any time: every inner step that runs is known, and conversations are as long as they say."""
    assert drive.state is not None
    known = drive.state.agents or {"by": {}, "of": {}, "bytes": 0}
    inner = {step for step, task in drive.running.items() if "--" in task}
    assert {int(step) for step in known["of"]} == inner
    assert {int(step) for step in known["by"]} == {step for step, task in drive.running.items() if task == "look"}
    assert known["bytes"] == sum(each["bytes"] for each in known["by"].values())
    for step, entry in known["by"].items():
        assert entry["bytes"] == conversation.length(entry["said"]) <= conversation.MAX_BYTES
        assert {int(each) for each in entry["runs"]} == {int(k) for k, v in known["of"].items() if v == int(step)}
        assert entry["runs"], "it works, and nothing of it runs"
        calls = [call["id"] for message in entry["said"] for call in message.get("calls", ())]
        told = [message["call"] for message in entry["said"] if message["role"] == "tool"]
        assert told == calls[: len(told)], "every call has its result, in order"


@pytest.mark.parametrize("seed", range(60))
def test_any_run_comes_to_an_end_the_same_way_again(seed: int) -> None:
    """With its state through JSON after every event, as after a crash at each of them, and in memory throughout."""
    first = play(seed, copied=True)
    assert first == play(seed, copied=False)
    numbers = [each.step for commands in first for each in commands if isinstance(each, Start)]
    assert numbers == sorted(set(numbers))


# -------------------------------------------------------------------------------------------------- what it compiles to


def test_its_parts_are_tasks_of_the_plan_with_its_limits() -> None:
    compiled = compile_document(plan(look={**LOOK, "timeout": "7s", "retry": {"max": 3}, "usd": 0.5}))
    turn, search = compiled.tasks["look--turn"], compiled.tasks["look--search"]
    assert (turn.kind, turn.use, turn.timeout_ms, turn.max_tokens, turn.retry.max) == ("llm", "small", 7_000, 99, 3)
    assert (search.kind, search.use, search.timeout_ms, search.retry.max) == ("tool", "search", 60_000, 3)
    assert "look--secret" not in compiled.tasks
    assert compiled.tasks["look"].most_steps == 1 + 4 + 3 * MAX_CALLS


def test_what_a_tool_says_of_itself_is_part_of_the_plan() -> None:
    first, tools = plan(), PARTS["tools"]
    other = plan(tools={**tools, "search": {**tools["search"], "description": "finds nothing"}})
    assert compile_document(first).hash != compile_document(other).hash
    mute = document(kind="bt", root="a", tools={"t": {**CODE, "description": "one"}})
    same = document(kind="bt", root="a", tools={"t": {**CODE, "description": "two"}})
    assert compile_document(mute).hash == compile_document(same).hash


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "no such agent": (
        plan(look={**LOOK, "use": "whom"}), "tasks.look.use: unknown agent 'whom' (did you mean 'who'?)",
    ),
    "no such tool": (
        plan(agents={"who": {"model": "small", "tools": ["serch"]}}),
        "agents.who.tools[0]: unknown tool 'serch' (did you mean 'search'?)",
    ),
    "a built-in tool": (
        plan(agents={"who": {"model": "small", "tools": ["std-echo"]}}), "agents.who.tools[0]: unknown tool 'std-echo'",
    ),
    "a built-in tool that is none": (
        plan(agents={"who": {"model": "small", "tools": ["std.clac"]}}),
        "agents.who.tools[0]: unknown tool 'std.clac' (did you mean 'std.calc'?)",
    ),
    "a built-in tool and one of its name": (
        plan(
            tools={**PARTS["tools"], "std_calc": {**CODE, "in": {}}},
            agents={"who": {"model": "small", "tools": ["std.calc", "std_calc"]}},
        ),
        "agents.who.tools[1]: 'std_calc' is listed twice (remove one)",
    ),
    "a tool that does not say what it takes": (
        plan(tools={"t": CODE}, agents={"who": {"model": "small", "tools": ["t"]}}),
        "agents.who.tools[0]: 't' does not say what it takes, and a model has to know (declare it under tools.t: in:",
    ),
    "a tool that takes a file": (
        plan(tools={"t": {**CODE, "in": {"f": "list(file)"}}}, agents={"who": {"model": "small", "tools": ["t"]}}),
        "agents.who.tools[0]: 't' takes a file (f), which a model cannot give (have it take text)",
    ),
    "a tool of a type that is none": (
        plan(tools={**PARTS["tools"], "t": {**CODE, "in": {"f": "text"}}}), "tools.t.in.f:",
    ),
    "a tool twice": (
        plan(agents={"who": {"model": "small", "tools": ["search", "search"]}}),
        "agents.who.tools[1]: 'search' is listed twice (remove one)",
    ),
    "a tool named like a part of an agent": (
        plan(tools={"answer": {**CODE, "in": {}}}, agents={"who": {"model": "small", "tools": ["answer"]}}),
        "agents.who.tools[0]: 'answer' is the name of a part of an agent (name the tool otherwise)",
    ),
    "no model": (plan(agents={"who": {"tools": []}}), "agents.who.model: is missing (add it)"),
    "a prompt that cannot be filled": (
        plan(look={**LOOK, "prompt": "Find {y}."}),
        "tasks.look.prompt: {y} is not a key of the task's `in` (add it: in: {y: y})",
    ),
    "a system prompt that cannot be filled": (
        plan(look={**LOOK, "in": {}, "prompt": "Find."}),
        "agents.who.system: {x} is not a key of tasks.look's `in` (add it: in: {x: x})",
    ),
    "no turns": (plan(look={**LOOK, "turns": 0}), "tasks.look.turns: is 0 (give at least 1)"),
    "too many turns": (plan(look={**LOOK, "turns": 101}), "tasks.look.turns: is 101 (give at most 100)"),
    "no budget": (plan(limits={"steps": 9}), "limits.usd: is missing, but task 'look' costs money"),
    "a name of ours": (
        tree("a--b", **{**PARTS, "tasks": {"a--b": TASKS["a"]}}),
        "tasks.a--b: '--' is for the parts of an agent (choose another name)",
    ),
    "a part of an agent as a task": (
        plan({"sequence": ["look", "look--turn"]}), "root.sequence[1]: unknown task 'look--turn'",
    ),
    "what a tool takes is not given": (
        plan({"sequence": ["look", "t"]}, **{"tasks": {"look": LOOK, "t": {"kind": "tool", "use": "search"}}}),
        "tasks.t.in.query: is missing: search takes it",
    ),
    "more than a tool takes": (
        plan(tasks={"look": LOOK, "t": {"kind": "tool", "use": "search", "in": {"query": "'a'", "qery": "'b'"}}}),
        "tasks.t.in.qery: unknown input 'qery' (did you mean 'query'?)",
    ),
    "of another type than a tool takes": (
        plan(tasks={"look": LOOK, "t": {"kind": "tool", "use": "search", "in": {"query": "x"}}}),
        "tasks.t.in.query: `x`: gives int, but string is needed (wrap it in string(...))",
    ),
    "an item of another type than a tool takes": (
        plan(
            {"sequence": ["look", {"map": "t", "over": "[1]", "max": 1}]},
            tasks={"look": LOOK, "t": {"kind": "tool", "use": "search", "in": {"query": "item"}}},
        ),
        "tasks.t.in.query: `item`: gives int, but string is needed",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_cannot_work_is_refused(name: str) -> None:
    parts, said = FAULTS[name]
    with pytest.raises(Invalid) as refused:
        compile_document(parts)
    assert any(str(problem).startswith(said) for problem in refused.value.problems), refused.value.problems


def test_the_worst_case_counts_turns_and_calls() -> None:
    compiled = compile_document(plan({"retry": "look", "max": 2}, {**LOOK, "retry": {"max": 3}}))
    inner = 4 + 3 * MAX_CALLS
    assert worst.steps(compiled).most == 2 * (1 + inner)
    assert worst.calls(compiled).most == 2 * inner * 3
    assert worst.cost(compiled, worst.declared_cost(compiled)).most == 2 * 3 * MAX_CALLS * 3 * 1_000
    capped = compile_document(plan("look", {**LOOK, "retry": {"max": 3}, "usd": 0.5}))
    assert worst.cost(capped, worst.declared_cost(capped)).most == 500_000


def test_the_model_check_goes_both_ways_that_an_agent_can_end() -> None:
    explored = explore(compile_document(plan({"fallback": ["look", "a"]}, limits={"steps": 60, "usd": 1})), advance)
    assert (explored.complete, explored.findings, explored.longest) == (True, (), 2)


def test_an_agent_that_no_task_uses_is_told_and_its_parts_are_not() -> None:
    found = unused(compile_document(plan(agents={**PARTS["agents"], "idle": {"model": "small"}})))
    told = {problem.path for problem in found if problem.path.startswith(("agents", "tasks.look", "tools"))}
    assert told == {"agents.idle", "tools.secret"}


def test_an_agent_inside_a_subtree_sees_what_the_subtree_sees() -> None:
    """And a tool's task there is held to what the tool takes."""
    trees = {"inner": {"vars": {"q": "string"}, "root": {"sequence": ["look", "find"]}}}
    tasks = {"look": {**LOOK, "in": {"x": "q"}}, "find": {"kind": "tool", "use": "search", "in": {"query": "q"}}}
    root = {"type": "subtree", "tree": "inner", "in": {"q": "'tea'"}}
    drive = Agent(tree(root, **{**PARTS, "tasks": tasks, "trees": trees}))
    drive.begin()
    assert drive.asked().messages[-1]["content"] == "Find tea."
    tasks["find"] = {**tasks["find"], "in": {"query": "7"}}
    with pytest.raises(Invalid, match="gives int, but string is needed"):
        compile_document(tree(root, **{**PARTS, "tasks": tasks, "trees": trees}))
