"""Tools that declare effects: what is said of a plan that uses them, and the idempotency keys of its steps."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core.expr import CelFault
from agentflow.core.planner import Begin, Failed, advance, key_of
from agentflow.errors import Invalid
from agentflow.wire.document import check_document, compile_document

TOOLS = {
    "pay": {"kind": "python", "code": "def run(): return {}", "effects": "once"},
    "put": {"kind": "python", "code": "def run(): return {}", "effects": "idempotent"},
    "look": {"kind": "python", "code": "def run(): return {}", "effects": "none"},
    "old": {"kind": "python", "code": "def run(): return {}"},
}


def plan(root: Any = None, states: Any = None, *, agent: Any = None, **tasks: Any) -> dict[str, Any]:
    """A plan with a task for each tool, of the same name; ``tasks`` says more of them, or adds some."""
    names = str([root, states, tasks])
    made = {name: {"kind": "tool", "use": name} for name in TOOLS if f"'{name}'" in names}
    for name, more in tasks.items():
        made[name] = {**made.get(name, {}), **more}
    tools = {name: tool for name, tool in TOOLS.items() if name in made or name in str(agent)}
    shape = {"root": root} if root is not None else {"initial": "s", "states": states}
    parts = {"agents": agent} if agent else {}
    return {
        "agentflow": "plan/v1", "name": "p", "limits": {"steps": 100, "usd": 1}, "vars": {"said": "string"},
        "tools": tools, "tasks": made, **shape, **parts,
    }  # fmt: skip


def said(document: dict[str, Any], *codes: str) -> list[str]:
    found = check_document(document).warnings
    return [str(each) for each in found if each.code in (codes or ("no_undo", "blind_retry"))]


BACK = {"kind": "compensate"}
MEND = "(name a task that undoes it, or say that it stays: undo: none)"


def test_what_is_undone_nowhere_need_not_say_what_undoes_it() -> None:
    assert said(plan({"sequence": ["pay", "put", "look", "old"]})) == []


def test_in_a_plan_that_undoes_things_a_declared_effect_says_what_undoes_it() -> None:
    root = {"sequence": ["pay", "put", "look", "old", "back"]}
    assert said(plan(root, back=BACK, old={"undo": "look"})) == [
        f"tasks.pay.undo: 'pay' changes something outside (effects: once), and nothing says what undoes it when 'back' "
        f"undoes what was done {MEND}",
        "tasks.put.undo: 'put' changes something outside (effects: idempotent), and nothing says what undoes it when "
        f"'back' undoes what was done {MEND}",
    ]
    assert said(plan(root, back=BACK, pay={"undo": "old"}, put={"undo": "none"})) == []


def test_what_undoes_others_need_not_be_undone_itself() -> None:
    assert said(plan({"sequence": ["pay", "back"]}, back=BACK, pay={"undo": "put"}, put={})) == []


def test_where_something_says_undo_and_nothing_compensates_yet_the_others_are_asked_too() -> None:
    (one,) = said(plan({"sequence": ["pay", "old"]}, old={"undo": "look"}, look={}))
    assert one.startswith("tasks.pay.undo: ") and one.endswith(f"as other tasks are undone {MEND}")


def test_only_what_is_in_the_compensations_scope_is_asked() -> None:
    inside = {"sequence": ["old", "put"], "label": "first"}
    root = {"sequence": [inside, "pay", "back"]}
    (one,) = said(plan(root, back={**BACK, "scope": "first"}, old={"undo": "look"}, look={}))
    assert one.startswith("tasks.put.undo: ")
    states = {
        "s": {"initial": "a", "transitions": [{"event": "done", "to": "b"}, {"event": "failed", "to": "c"}]},
        "a": {"in": "s", "run": "put", "transitions": [{"event": "done", "to": "e"}]},
        "e": {"in": "s", "final": "success"},
        "b": {"run": "pay", "transitions": [{"event": "done", "to": "ok"}, {"event": "failed", "to": "c"}]},
        "c": {"run": "back", "transitions": [{"event": "done", "to": "bad"}, {"event": "failed", "to": "bad"}]},
        "ok": {"final": "success"}, "bad": {"final": "failure"},
    }  # fmt: skip
    more: dict[str, Any] = {"old": {"undo": "look"}, "look": {}}
    (one,) = said(plan(None, states, back={**BACK, "scope": "s"}, **more))
    assert one.startswith("tasks.put.undo: ")


def test_an_agent_is_asked_for_what_its_tools_change() -> None:
    clerk = {"clerk": {"model": "small", "tools": ["pay"]}}
    serve = {"kind": "agent", "use": "clerk"}
    root = {"sequence": ["serve", "old", "back"]}
    document = plan(root, back=BACK, serve=serve, old={"undo": "look"}, look={}, agent=clerk)
    document["tools"]["pay"] = {**TOOLS["pay"], "in": {}}
    (one,) = said(document)
    assert one.startswith("tasks.serve.undo: 'pay' changes something outside (effects: once)")


def test_undo_none_is_no_task_unless_one_is_called_so() -> None:
    document = plan({"sequence": ["pay", "back"]}, back=BACK, pay={"undo": "none"})
    with pytest.raises(Invalid, match="nothing can be undone"):
        compile_document(document)
    document["tasks"]["none"] = {"kind": "tool", "use": "std.echo"}
    task = compile_document(document).tasks["pay"]
    assert task.undo is not None and task.undo.task == "none"


# -- repeating


def test_to_name_the_unknown_outcome_in_a_retry_is_told() -> None:
    retry = {"max": 3, "only": ["outcome_unknown", "not_called"]}
    assert said(plan("pay", pay={"retry": retry})) == [
        "tasks.pay.retry.only: repeats calls of 'pay' (effects: once) that may have had their effect (have somebody "
        "find out first, or declare effects: idempotent where the far side knows the key)"
    ]
    assert said(plan("put", put={"retry": retry})) == []
    assert said(plan("pay", pay={"retry": {"max": 3}})) == []


KEPT = {"task": "pay", "on_failure": {"said": "event.code"}}
ASK = {"kind": "human", "use": "somebody"}
RETRIES: dict[str, tuple[Any, bool]] = {
    "the task itself": ({"retry": "pay", "max": 3}, True),
    "in a sequence": ({"retry": {"sequence": ["old", "pay"]}, "max": 3}, True),
    "in a map": ({"retry": {"map": "pay", "over": "[1, 2]", "max": 2}, "max": 3}, True),
    "the last of a fallback": ({"retry": {"fallback": ["old", "pay"]}, "max": 3}, True),
    "somebody decides": ({"retry": {"fallback": ["pay", "ask"]}, "max": 3}, False),
    "looked at": ({"retry": {**KEPT, "fail_if": "said == 'outcome_unknown'"}, "max": 3}, False),
    "once at most": ({"retry": "pay", "max": 1}, False),
    "of an idempotent one": ({"retry": "put", "max": 3}, False),
    "always well": ({"retry": {"sequence": [{"force": "pay", "as": "success"}, "old"]}, "max": 3}, False),
}


@pytest.mark.parametrize("name", RETRIES)
def test_a_retry_node_around_a_call_that_is_made_once_is_told(name: str) -> None:
    root, told = RETRIES[name]
    found = said(plan(root, **({"ask": ASK} if "ask" in str(root) else {})))
    assert [each.partition(":")[0] for each in found] == (["root"] if told else [])


def test_a_state_that_enters_itself_when_its_call_has_failed_is_told() -> None:
    def states(*ways: dict[str, Any]) -> dict[str, Any]:
        first = {"run": "pay", "visits": 3, "transitions": [{"event": "done", "to": "ok"}, *ways]}
        bad = {"bad": {"final": "failure"}} if "'bad'" in str(ways) else {}
        return {"s": first, "ok": {"final": "success"}, **bad}

    again = {"event": "failed", "to": "s"}
    unknown = {"event": "failed", "if": "event.code == 'outcome_unknown'", "to": "bad"}
    (one,) = said(plan(None, states(again)))
    assert one.startswith("states.s.transitions[1]: runs 'pay' again, also when a call of 'pay' may have had its ")
    assert said(plan(None, states(unknown, again))) == []
    assert said(plan(None, states({"event": "failed", "to": "bad"}))) == []


# -- keys


def keys(document: dict[str, Any], **given: Any) -> list[str]:
    """The keys of the steps that a run begins with."""
    compiled = compile_document(document)
    moved = advance(compiled, None, Begin(given))
    return [key_of(compiled, each.task, moved.state, each.step) for each in moved.commands]  # type: ignore[union-attr]


def test_a_key_sees_variables_items_and_those_of_its_subtree() -> None:
    assert keys(plan("pay")) == [""]
    document = plan("pay", pay={"key": "said + '!'"})
    assert keys(document, said="a") == ["a!"]
    document["root"] = {"map": "pay", "over": "['x', 'y']", "max": 5}
    document["tasks"]["pay"]["key"] = "said + item"
    assert keys(document, said="a") == ["ax", "ay"]
    one = {"vars": {"mine": "string"}, "root": {"map": "pay", "over": "['x']", "max": 5}}
    document |= {"trees": {"t": one}, "root": {"subtree": "t", "in": {"mine": "said + '-'"}}}
    document["tasks"]["pay"]["key"] = "mine + item"
    assert keys(document, said="a") == ["a-x"]


def test_a_key_that_reads_an_item_is_for_maps() -> None:
    with pytest.raises(Invalid, match="reads `item`, which is known inside a map only"):
        compile_document(plan("pay", pay={"key": "item"}))
    states = {"s": {"run": "pay", "transitions": [{"event": "done", "to": "ok"}]}, "ok": {"final": "success"}}
    with pytest.raises(Invalid, match="there is no `item` here"):
        compile_document(plan(None, states, pay={"key": "item"}))


@pytest.mark.parametrize("key", ["''", "'x' + string(0) + [''][0] + said + said"])
def test_a_key_is_not_empty_and_not_long(key: str) -> None:
    with pytest.raises(CelFault, match="a key has 1 to 500 characters"):
        keys(plan("pay", pay={"key": key}), said="x" * 250)


def test_on_failure_of_a_task_sees_why() -> None:
    root = {"fallback": [{"task": "pay", "on_failure": {"said": "event.code + ': ' + event.message"}}, "old"]}
    compiled = compile_document(plan(root))
    begun = advance(compiled, None, Begin({}))
    moved = advance(compiled, begun.state, Failed(1, "outcome_unknown", "gone"))
    assert moved.state.vars == {"said": "outcome_unknown: gone"}
    root["fallback"][0]["fail_if"] = "true"
    decided = advance(compile_document(plan(root)), None, Begin({}))
    assert decided.state.vars == {"said": ": "}
