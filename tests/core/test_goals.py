"""Goals: what a model writes is judged, mended, frozen and followed; what cannot stand for a plan is told why."""

from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from agentflow.core.planner import Completed, Ended
from agentflow.core.planning_wire import MAX_NODES, schema
from agentflow.errors import Invalid
from agentflow.wire.document import compile_document

from .driving import Drive

ECHO = {"kind": "tool", "use": "std.echo"}
GOAL: dict[str, Any] = {
    "agentflow": "plan/v1",
    "name": "brief",
    "limits": {"steps": 10, "usd": 1.0},
    "input": {"topic": "string"},
    "vars": {"facts": "string", "text": "string", "topics": "list(string)"},
    "output": {"text": "text"},
    "tasks": {
        "find": {**ECHO, "in": {"facts": "topic"}, "out": {"facts": "string", "found": "bool"}, "undo": "forget"},
        "write": {"kind": "llm", "use": "small", "prompt": "Write about {facts}", "in": {"facts": "facts"}},
        "forget": ECHO,
        "never": ECHO,
    },
    "plan": {"goal": "A brief about {topic}.", "use": "small", "usd": 0.1, "tasks": ["find", "write"]},
}


def node(id_: str, type_: str, parent: str = "", **fields: Any) -> dict[str, Any]:
    rest = {"task": "none", "cond": "", "max": 0, "edges": [], "set": []}
    return {"id": id_, "type": type_, "parent": parent, **rest, **fields}


def edge(event: str, to: str, cond: str = "") -> dict[str, str]:
    return {"event": event, "cond": cond, "to": to}


def sets(**exprs: str) -> list[dict[str, str]]:
    return [{"var": name, "expr": expr} for name, expr in exprs.items()]


TREE = [
    node("all", "sequence"),
    node("find", "task", "all", task="find", cond="result.found", set=sets(facts="result.facts")),
    node("write", "task", "all", task="write", set=sets(text="result.text")),
]
MACHINE = [
    node("finding", "state", task="find", set=sets(facts="result.facts"),
         edges=[edge("done", "writing", "result.found"), edge("done", "lost"), edge("failed", "lost")]),
    node("writing", "state", task="write", set=sets(text="result.text"),
         edges=[edge("done", "end"), edge("failed", "lost")]),
    node("end", "final", cond="success"),
    node("lost", "final", cond="failure"),
]  # fmt: skip


def answer(nodes: list[dict[str, Any]], kind: str = "bt") -> dict[str, Any]:
    return {"rationale": "so", "kind": kind, "nodes": nodes}


def goal(**changes: Any) -> dict[str, Any]:
    return {**GOAL, "plan": {**GOAL["plan"], **changes}}


def proposed(draft: Any, **changes: Any) -> tuple[Drive, list[str], dict[str, Any]]:
    """A run to which the model has proposed that; what followed, and what judging it came to."""
    drive = Drive(goal(**changes))
    assert drive.begin(topic="bees") == ["+planning_propose"]
    said = propose(drive, draft)
    (judged,) = [command.result for command in drive.history[-1] if isinstance(command, Ended)]
    assert judged is not None
    return drive, said, judged


def propose(drive: Drive, draft: Any) -> list[str]:
    step = drive.oldest("planning_propose")
    del drive.running[step]
    return drive.tell(Completed(step, draft))


@pytest.mark.parametrize(("nodes", "kind"), [(TREE, "bt"), (MACHINE, "fsm")])
def test_what_is_in_order_is_frozen_and_followed(nodes: list[dict[str, Any]], kind: str) -> None:
    drive, said, judged = proposed(answer(nodes, kind), kind="any")
    assert said == ["+planning_judge", ".planning_judge", "+planning_follow"]
    document = judged["document"]
    plan = compile_document(document)
    assert plan.kind == kind
    assert plan.name == judged["workflow"] == f"brief-{judged['workflow'][-16:]}"
    assert (plan.limits.steps, plan.limits.micro) == (10, 900_000)
    assert set(plan.tasks) == {"find", "write", "forget"}
    follow = drive.oldest("planning_follow")
    assert drive.inputs[follow] == {
        "topic": "bees", "facts": "", "text": "", "topics": [], "planning_workflow": plan.name,
    }  # fmt: skip
    assert drive.done(follow, text="Bees hum.") == ["+planning_keep", ".planning_keep", "ok"]
    assert drive.finish is not None
    assert drive.finish.output == {"text": "Bees hum.", "planning_workflow": plan.name}


def test_the_same_plan_is_the_same_workflow() -> None:
    names = {proposed(answer(copy.deepcopy(TREE)))[2]["workflow"] for _ in range(2)}
    other = copy.deepcopy(TREE)
    other[1]["cond"] = ""
    assert len(names) == 1
    assert proposed(answer(other))[2]["workflow"] not in names


def changed(place: int, **fields: Any) -> dict[str, Any]:
    nodes = copy.deepcopy(TREE)
    nodes[place].update(fields)
    return answer(nodes)


FAULTS: dict[str, tuple[Any, str]] = {
    "an unknown field of a result": (
        changed(1, set=sets(facts="result.fact")),
        "nodes[1].set.facts: `result.fact`: unknown result field",
    ),
    "an unknown variable": (changed(1, set=sets(fact="result.facts")), "nodes[1].set.fact: unknown var 'fact'"),
    "a condition that is none": (changed(1, cond="result.facts"), "nodes[1].ok_if: `result.facts`"),
    "a task that is not allowed": (changed(1, task="never"), "nodes[1].task: there is no task 'never' (use find"),
    "no task": (changed(1, task="none"), "nodes[1]"),
    "an unknown parent": (changed(1, parent="nobody"), "nodes[1].parent: there is no node 'nobody'"),
    "two roots": (changed(1, parent=""), "nodes: 2 nodes have no parent"),
    "no root": (changed(0, parent="write"), "nodes: 0 nodes have no parent"),
    "a circle beside the root": (
        answer([*TREE, node("x", "sequence", "y"), node("y", "sequence", "x")]),
        "nodes: 2 nodes are not below the root",
    ),
    "the same id twice": (changed(1, id="write"), "nodes[2].id: 'write' is the id of another node"),
    "an id that is none": (changed(1, id="Find it!"), "nodes[1].id: 'Find it!' is no name"),
    "a node of the other kind": (changed(1, type="state"), "nodes[1].type: there is no 'state' in such a plan"),
    "another kind": (answer(MACHINE, "fsm"), "kind: is 'fsm' (answer with a plan of kind bt)"),
    "a leaf with children": (changed(1, type="check", cond="true", task="none"), ""),
    "a retry of two": (
        answer([node("r", "retry", max=2), *[{**each, "parent": "r"} for each in TREE[1:]]]),
        "nodes[0]: has 2 children; a retry has exactly one child",
    ),
    "an empty sequence": (answer([node("all", "sequence")]), "nodes[0]: has 0 children"),
    "a list that is none": (
        answer([node("m", "map", max=3, cond="facts"), {**TREE[1], "parent": "m"}]),
        "nodes[0].over: `facts`",
    ),
    "no nodes": (answer([]), "nodes: there are 0"),
    "too many nodes": (answer([node(f"n{i}", "check") for i in range(MAX_NODES + 1)]), "nodes: there are 101"),
    "a missing field": (answer([{k: v for k, v in TREE[0].items() if k != "cond"}]), "nodes[0].cond: is no text"),
    "a number that is none": (changed(1, max="3"), "nodes[1].max: is not a whole number"),
    "no nodes at all": ({"kind": "bt"}, "is not an object with a list `nodes`"),
    "a node that is none": (answer([5]), "nodes[0]: is no object"),  # type: ignore[list-item]
    "a set that is none": (changed(1, set=[5]), "nodes[1].set[0].var: is missing or wrong"),
    "more steps than there are": (
        answer([node("r", "retry", max=1000), {**TREE[1], "parent": "r"}]),
        "",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_wrong_is_told_by_node(name: str) -> None:
    draft, expected = FAULTS[name]
    if not expected:
        return _still_judged(draft)
    drive, said, judged = proposed(draft)
    assert said == ["+planning_judge", ".planning_judge", "+planning_propose"]
    assert judged["faults"].startswith(expected), judged["faults"]
    given = drive.inputs[drive.oldest("planning_propose")]
    assert given["planning_faults"] == judged["faults"]
    assert given["planning_draft"] == draft
    return None


def _still_judged(draft: Any) -> None:
    """Not wrong, or wrong in more than one way: judged without a crash."""
    assert proposed(draft)[2]["fits"] in (True, False)


def test_a_plan_that_cannot_succeed_is_not_followed() -> None:
    nodes = [
        node("wait", "state", task="find", max=5, edges=[edge("done", "wait"), edge("failed", "lost")]),
        node("lost", "final", cond="failure"),
    ]
    judged = proposed(answer(nodes, "fsm"), kind="fsm")[2]
    assert not judged["fits"]
    assert judged["faults"].startswith("nodes: no run can succeed")


def test_after_three_repairs_there_is_a_clear_failure() -> None:
    drive = proposed(changed(1, cond="nobody"))[0]
    for _ in range(2):
        assert propose(drive, changed(1, cond="nobody"))[-1] == "+planning_propose"
    assert propose(drive, changed(1, cond="nobody")) == ["+planning_judge", ".planning_judge", "no"]
    assert drive.finish is not None
    assert drive.finish.reason.startswith("states.planning_failed: nodes[1].ok_if: `nobody`")


def test_a_workflow_falls_in_where_there_is_no_plan() -> None:
    drive = Drive(goal(fallback="by-hand@2-"))
    drive.begin(topic="bees")
    step = drive.oldest("planning_propose")
    assert drive.fail(step, "model_refused", "no") == ["+planning_fall_back"]
    step = drive.oldest("planning_fall_back")
    assert drive.inputs[step] == {"topic": "bees", "facts": "", "text": "", "topics": []}
    assert drive.done(step, text="By hand.") == ["ok"]


def test_a_person_may_have_it_written_anew_or_refuse_it() -> None:
    drive, said, _ = proposed(answer(TREE), approve={"by": "boss", "timeout": "1h"})
    assert said[-1] == "+planning_approve"
    step = drive.oldest("planning_approve")
    assert drive.inputs[step]["plan"]["root"]["type"] == "sequence"
    assert drive.done(step, ok=False, why="look twice") == ["+planning_propose"]
    assert drive.inputs[drive.oldest("planning_propose")]["planning_faults"] == "a person said: look twice"
    assert propose(drive, answer(TREE))[-1] == "+planning_approve"
    assert drive.done(drive.oldest("planning_approve"), ok=False, why="") == ["no"]
    assert drive.finish is not None
    assert "not approved" in drive.finish.reason


def test_nothing_is_followed_without_approval() -> None:
    drive = proposed(answer(TREE), approve={"by": "boss", "timeout": "1h"})[0]
    assert drive.happen("planning_approve~") == ["no"]


def test_what_reached_the_goal_before_is_followed_at_once() -> None:
    drive = Drive(goal(approve={"by": "boss"}))
    assert drive.begin(topic="bees", planning_workflow="brief-0123456789abcdef") == ["+planning_follow"]


def test_only_the_plan_is_written_where_only_that_is_asked_for() -> None:
    drive = Drive(goal())
    drive.begin(topic="bees", planning_only=True)
    assert propose(drive, answer(TREE)) == ["+planning_judge", ".planning_judge", "ok"]
    assert drive.finish is not None
    assert drive.finish.output["planning_workflow"].startswith("brief-")


def test_goals_of_one_class_share_plans_and_others_do_not() -> None:
    def key(**changes: Any) -> str:
        planning = compile_document(goal(**changes)).planning
        assert planning is not None
        return planning.key

    same = key()
    assert key(usd=0.2, approve={"by": "boss"}) == same
    assert key(**{"class": "brief"}, goal="One") == key(**{"class": "brief"}, goal="Two")
    others = [key(goal="Another one."), key(tasks=["write"]), key(kind="fsm")]
    more = copy.deepcopy(GOAL)
    more["tasks"]["find"]["out"]["found"] = "string"
    planning = compile_document(more).planning
    assert planning is not None
    assert len({same, *others, planning.key}) == 5


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown input": (goal(goal="About {nobody}"), "plan.goal: {nobody} is no input"),
    "a brace": (goal(goal="About {"), "plan.goal: a single '{'"),
    "an unknown task": (goal(tasks=["nobody"]), "plan.tasks[0]: unknown task 'nobody'"),
    "more than there is": (goal(usd=2.0), "plan.usd: is more than limits.usd"),
    "no model": ({**GOAL, "plan": {"goal": "x"}}, "plan.use: is missing"),
    "another planner": (goal(by="magic"), "plan.by: "),
    "a root as well": ({**GOAL, "root": "find"}, "kind: is missing"),
    "a root in its place": ({**GOAL, "kind": "goal", "root": "find"}, "root: does not belong to a plan of kind goal"),
    "a reserved name": ({**GOAL, "vars": {"planning_x": "int"}}, "vars.planning_x: 'planning_x' is reserved"),
    "a fault in a task": (
        {**GOAL, "tasks": {**GOAL["tasks"], "find": {**ECHO, "in": {"facts": "nobody"}}}},
        "tasks.find.in.facts: `nobody`",
    ),
    "itself as a way out": (goal(fallback="brief"), "plan.fallback: 'brief' would run itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_goal_that_cannot_be_pursued_is_refused(name: str) -> None:
    document, expected = REFUSED[name]
    with pytest.raises(Invalid) as refusal:
        compile_document(document)
    assert any(str(problem).startswith(expected) for problem in refusal.value.problems), refusal.value.problems


def test_the_model_is_told_its_form_goal_and_tasks() -> None:
    drive = Drive(goal())
    drive.begin(topic="bees")
    task = drive.plan.tasks["planning_propose"]
    for part in ("A brief about {topic}", '- find: {{"kind": "tool"', "At most 10 steps"):
        assert part in task.prompt
    assert "never" not in task.prompt
    assert task.reply == schema(("find", "write"), "bt")
    jsonschema.Draft202012Validator.check_schema(task.reply)
    jsonschema.validate(answer(TREE), task.reply)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed(1, task="never"), task.reply)


@pytest.mark.parametrize("more", [{}, {"out": {"text": "string"}}, {"turns": 1}])
def test_a_plan_may_have_an_agent_do_something(more: dict[str, Any]) -> None:
    document = goal(tasks=["ask"])
    document["tools"] = {"look": {"kind": "python", "code": "def run(q): return {}", "in": {"q": "string"}}}
    document["agents"] = {"clerk": {"model": "small", "tools": ["look"]}}
    document["tasks"] = {**document["tasks"], "ask": {"kind": "agent", "use": "clerk", **more}}
    drive = Drive(document)
    drive.begin(topic="bees")
    propose(drive, answer([node("ask", "task", task="ask", set=sets(text="result.text"))]))
    (judged,) = [command.result for command in drive.history[-1] if isinstance(command, Ended)]
    assert judged is not None
    assert judged["fits"], judged["faults"]
    assert compile_document(judged["document"]).tasks["ask"].agent is not None
