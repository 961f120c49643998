"""Workflows built in Python: the same documents, everything that documents may hold, and faults told by line."""

from __future__ import annotations

import inspect
import operator
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from core.driving import tree
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

import agentflow.plan as builder
from agentflow.core.cel import compile_expr
from agentflow.core.types import parse
from agentflow.errors import Invalid
from agentflow.plan import Expr, Workflow, cel, event, item, one_of, result, size
from agentflow.plan.expression import literal
from agentflow.plan.nodes import Guards
from agentflow.plan.part import written
from agentflow.plan.states import State, Way, transition
from agentflow.plan.tasks import Policy, Retry, Task
from agentflow.wire import document_shape as shape
from agentflow.wire.document import compile_document, load_document_file

from . import hello, review

ROOT = Path(__file__).parents[2]


def test_it_is_the_workflow_of_the_readme() -> None:
    written = compile_document(load_document_file(ROOT / "local" / "workflows" / "hello.yaml"))
    assert hello.flow.check().hash == written.hash


def test_a_machine_is_built_as_it_reads() -> None:
    plan = review.flow.check()
    assert plan.machine is not None
    assert [state.name for state in plan.machine.states if state.visits] == ["reviewing", "paused"]
    reviewing = plan.document["states"]["reviewing"]["transitions"]
    assert [way.get("event") for way in reviewing] == ["approved", "rejected", None]


# ---------------------------------------------------------------------------------- everything there is can be built

OTHER_NAMES = {"map": "each"}


def parameters(function: Callable[..., Any]) -> set[str]:
    """What a function takes, the entries of its ``**`` included."""
    names: set[str] = set()
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            tables = {"Guards": Guards, "Policy": Policy, "Way": Way}
            names |= tables[str(parameter.annotation).removeprefix("Unpack[").removesuffix("]")].__annotations__.keys()
        else:
            names.add(name)
    return {name.rstrip("_") for name in names}


def fields(model: type[BaseModel], *but: str) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()} - set(but)


def union(of: Any, tag: str) -> dict[str, type[BaseModel]]:
    """The models of a union by each value of the key that tells them apart."""
    members = get_args(get_args(of)[0])
    return {value: model for model in members for value in get_args(model.model_fields[tag].annotation)}


LATER = {"LaterTask", "LaterNode"}
NODES = {kind: model for kind, model in union(shape.Node, "type").items() if model.__name__ not in LATER}
TASKS = {kind: model for kind, model in union(shape.Task, "kind").items() if model.__name__ not in LATER}


@pytest.mark.parametrize("kind", NODES)
def test_every_node_has_its_builder(kind: str) -> None:
    name = OTHER_NAMES.get(kind, kind)
    build = getattr(builder, name, None) or getattr(builder, name + "_")
    given_ = parameters(build)
    ways = {"condition", "then", "do"} if kind in ("if", "while") else set()  # in place of their children
    ways |= {"catch"} if kind == "try" else set()
    assert fields(NODES[kind], "type", *(["children"] if ways else [])) <= given_ | ways
    assert getattr(builder, build.__name__) is build and build.__name__ in builder.__all__


def filled(build: Callable[..., Any], *first: Any) -> dict[str, Any]:
    """What a builder makes of a value for each of its parameters."""
    task = Task("inner", kind="wait")
    values: dict[str, Any] = {}
    children: list[Any] = list(first)
    for name in parameters(build):
        given_ = inspect.signature(build).parameters.get(name)
        if given_ is not None and given_.kind is inspect.Parameter.VAR_POSITIONAL:
            children.append(task)
        elif name != "self":
            values[_spelt(build, name)] = VALUES.get(name, task)
    made: dict[str, Any] = written(build(*children, **values), "", {})
    return made


def _spelt(build: Callable[..., Any], name: str) -> str:
    """How a parameter is written: words of Python with a line behind them."""
    own = inspect.signature(build).parameters
    return f"{name}_" if name not in own and f"{name}_" in {*own, *ALL_NAMES} else name


ALL_NAMES = {*Guards.__annotations__, *Policy.__annotations__, *Way.__annotations__}
VALUES: dict[str, Any] = {
    "cases": {"1": Task("inner", kind="wait")}, "in": {"n": int}, "out": {"n": int}, "tools": ["t"],
}  # fmt: skip


@pytest.mark.parametrize("kind", NODES)
def test_every_node_hands_over_all_it_is_given(kind: str) -> None:
    name = OTHER_NAMES.get(kind, kind)
    build = getattr(builder, name, None) or getattr(builder, name + "_")
    assert fields(NODES[kind]) <= filled(build).keys()


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_hands_over_all_it_is_given(kind: str) -> None:
    task = filled(getattr(Workflow, kind), Workflow("p", steps=1))
    assert fields(TASKS[kind]) <= task.keys()


@pytest.mark.parametrize("kind", TASKS)
def test_every_kind_of_task_has_its_builder(kind: str) -> None:
    assert fields(TASKS[kind], "kind") <= parameters(getattr(Workflow, kind))


NO_PARTS = (Workflow, Workflow.trigger, Workflow.goal)  # what they do is in the document


@pytest.mark.parametrize(
    ("model", "built", "others"),
    [
        (shape.Tool, Workflow.python, {"kind"}),
        (shape.Agent, Workflow.define_agent, set()),
        (shape.State, Workflow.state, {"transitions"}),
        (shape.Transition, transition, set()),
        (shape.Action, builder.action, set()),
        (shape.RaisedEvent, builder.raised, set()),
        (shape.Trigger, Workflow.trigger, set()),
        (shape.Limits, Workflow, set()),
        (shape.Goal, Workflow.goal, set()),
        (shape.Approval, builder.approval, set()),
    ],
)
def test_every_part_has_all_its_keys(model: type[BaseModel], built: Callable[..., Any], others: set[str]) -> None:
    assert fields(model) - parameters(built) == others
    if built not in NO_PARTS:
        first = [Workflow("p", steps=1)] if "self" in parameters(built) else []
        assert fields(model) - others <= filled(built, *first).keys()


def test_the_document_and_retry_have_all_their_keys() -> None:
    assert fields(shape.Retry) == Retry.__annotations__.keys()
    by_method = {"vars": "var", "tools": "python", "tasks": "tool", "states": "state", "transitions": "on"}
    by_method |= {"events": "signal", "plan": "goal", "trees": "tree", "agents": "define_agent"}
    for key in fields(shape.Document, "agentflow", "ir", "kind", "name", "description", "limits"):
        assert callable(getattr(Workflow, by_method.get(key, key)))


def test_every_node_is_what_the_document_says() -> None:
    flow = Workflow("p", steps=100)
    a, b = (flow.tool(name, "std.echo") for name in "ab")
    x, go = Expr("x"), Expr("go")
    built = builder.sequence(
        a,
        builder.task(b, set={x: 1, "go": True}, ok_if=go, skip_if=x > 3),
        builder.check(~go),
        builder.fallback(builder.fail(), builder.succeed(), reactive=True, label="named"),
        builder.parallel(a, b, need=1, fail_at=-1),
        builder.each(a, "xs", max=3, concurrency=2),
        builder.retry(a, max=2),
        builder.repeat(builder.invert(a), max=2),
        builder.force(a, as_="failure"),
        builder.if_(x > 1, a, b),
        builder.while_(builder.check(go), a),
        builder.switch(x, {"1": a}, b),
        builder.once(a, then="same"),
        builder.delay("5s", builder.timeout("1m", a), on_success={x: x + 1}, while_=go),
    )
    flow.root(built)
    assert flow.document()["root"] == {
        "type": "sequence",
        "children": [
            {"type": "task", "task": "a"},
            {"type": "task", "task": "b", "set": {"x": 1, "go": True}, "ok_if": "go", "skip_if": "x > 3"},
            {"type": "check", "if": "!go"},
            {
                "type": "fallback",
                "children": [{"type": "fail"}, {"type": "succeed"}],
                "reactive": True,
                "label": "named",
            },
            {"type": "parallel", "children": [_task("a"), _task("b")], "need": 1, "fail_at": -1},
            {"type": "map", "child": _task("a"), "over": "xs", "max": 3, "concurrency": 2},
            {"type": "retry", "child": _task("a"), "max": 2},
            {"type": "repeat", "child": {"type": "invert", "child": _task("a")}, "max": 2},
            {"type": "force", "child": _task("a"), "as": "failure"},
            {"type": "if", "children": [{"type": "check", "if": "x > 1"}, _task("a"), _task("b")]},
            {"type": "while", "children": [{"type": "check", "if": "go"}, _task("a")]},
            {"type": "switch", "value": "x", "cases": {"1": _task("a")}, "default": _task("b")},
            {"type": "once", "child": _task("a"), "then": "same"},
            {
                "type": "delay",
                "for": "5s",
                "child": {"type": "timeout", "for": "1m", "child": _task("a")},
                "on_success": {"x": "x + 1"},
                "while": "go",
            },
        ],
    }
    compile_document({**tree("a"), "root": flow.document()["root"]})


def _task(name: str) -> dict[str, str]:
    return {"type": "task", "task": name}


def test_one_task_needs_no_plan() -> None:
    flow = Workflow("one", steps=1)
    flow.human("ask", "reviewer", out={"ok": bool})
    assert "kind" not in flow.document()
    assert [name for name, _ in flow.check().output or ()] == ["ok"]


def test_an_agent_is_built_with_its_tools() -> None:
    flow = Workflow("ask", steps=30, usd=1)
    search = flow.python("search", "def run(query): return {}", in_={"query": str}, description="finds pages")
    who = flow.define_agent("who", "small", tools=[search], system="Look.")
    flow.root(flow.agent("look", who, prompt="Find it.", turns=3, out={"ok": bool}))
    task = flow.check().tasks["look"]
    assert (task.turns, task.agent and list(task.agent.tools)) == (3, ["search"])


# --------------------------------------------------------------------------------------------------------- faults


def test_a_fault_names_the_line_that_built_its_part() -> None:
    flow = Workflow("p", steps=1)
    a = flow.tool("a", "std.echo", in_={"n": "nothing"})
    flow.var("x", "strin")
    flow.root(
        builder.sequence(
            a,
            builder.retry(
                builder.check("x >"),
                max=2,
            ),
        )
    )
    with pytest.raises(Invalid) as refused:
        flow.check()
    lines, first = inspect.getsourcelines(test_a_fault_names_the_line_that_built_its_part)
    said = {problem.path: problem.message for problem in refused.value.problems}
    for path, line in {
        "tasks.a.in.n": 'a = flow.tool("a"',
        "vars.x": 'flow.var("x"',
        "root.children[1].child.if": 'builder.check("x >")',
    }.items():
        at = first + next(i for i, text in enumerate(lines) if line in text)
        assert said[path].startswith(f"{__file__}:{at}: "), said


def test_a_fault_of_the_whole_names_the_line_of_the_workflow() -> None:
    flow = Workflow("p", steps=1)
    flow.llm("a", "small", "x")
    flow.root(builder.succeed())
    with pytest.raises(Invalid) as refused:
        flow.check()
    _, first = inspect.getsourcelines(test_a_fault_of_the_whole_names_the_line_of_the_workflow)
    assert [p.message.split(": ")[0] for p in refused.value.problems if p.path == "limits.usd"] == [
        f"{__file__}:{first + 1}"
    ]


def test_a_name_is_given_once() -> None:
    flow = Workflow("p", steps=1)
    flow.var("x", int)
    with pytest.raises(Invalid, match=rf"vars\.x: {__file__}:\d+: is there already"):
        flow.var("x", str)


def test_types_are_pythons_or_plans() -> None:
    flow = Workflow("p", steps=1)
    for number, (type_, text) in enumerate(
        [
            (str, "string"), (int, "int"), (float, "double"), (bool, "bool"), (object, "json"), (Any, "json"),
            (list[str], "list(string)"), (dict[str, list[int]], "map(list(int))"),
            ("file", "file"), (list, "list(json)"),
        ]
    ):  # fmt: skip
        flow.var(f"v{number}", type_)  # type: ignore[arg-type]
        assert flow.document()["vars"][f"v{number}"] == text
    with pytest.raises(TypeError, match="no type of plans"):
        flow.var("no", set)
    with pytest.raises(TypeError, match="no type of plans"):
        flow.var("no", dict[int, str])


# ---------------------------------------------------------------------------------------------------- expressions

NAMES = {"a": 7, "b": -3, "c": 2}
BOTH = [operator.add, operator.sub, operator.mul]
COMPARED = [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge]
Pair = tuple[Any, Any]  # the expression, and the value that Python gives

numbers: st.SearchStrategy[Pair] = st.recursive(
    st.one_of(
        st.sampled_from([(Expr(name), value) for name, value in NAMES.items()]),
        st.integers(-5, 5).map(lambda n: (cel(str(n)), n)),
    ),
    lambda inner: st.one_of(
        st.builds(lambda f, x, y: (f(x[0], y[0]), f(x[1], y[1])), st.sampled_from(BOTH), inner, inner),
        st.builds(lambda f, x, n: (f(x[0], n), f(x[1], n)), st.sampled_from(BOTH), inner, st.integers(-5, 5)),
        st.builds(lambda f, n, r: (f(n, r[0]), f(n, r[1])), st.sampled_from(BOTH), st.integers(-5, 5), inner),
        inner.map(lambda pair: (-pair[0], -pair[1])),
    ),
    max_leaves=6,
)
truths: st.SearchStrategy[Pair] = st.recursive(
    st.one_of(
        st.builds(lambda f, x, y: (f(x[0], y[0]), f(x[1], y[1])), st.sampled_from(COMPARED), numbers, numbers),
        st.builds(lambda x, y: (one_of(x[0], y[0], 3), x[1] in (y[1], 3)), numbers, numbers),
    ),
    lambda inner: st.one_of(
        st.builds(lambda x, y: (x[0] & y[0], x[1] and y[1]), inner, inner),
        st.builds(lambda x, y: (x[0] | y[0], x[1] or y[1]), inner, inner),
        inner.map(lambda pair: (~pair[0], not pair[1])),
    ),
    max_leaves=4,
)


@given(truths)
@settings(max_examples=200)
def test_an_expression_has_the_value_that_python_gives(pair: Pair) -> None:
    compiled = compile_expr(str(pair[0]), {name: parse("int") for name in NAMES}, parse("bool"))
    assert compiled.value(NAMES) is pair[1]


@given(st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20))
def test_a_text_beside_an_operator_is_a_text(text: str) -> None:
    compiled = compile_expr(str(Expr("s") == text), {"s": parse("string")}, parse("bool"))
    assert compiled.value({"s": text}) is True


@pytest.mark.parametrize(
    ("built", "text"),
    [
        (result.text, "result.text"),
        (event.data.items[0].by, "event.data.items[0].by"),
        (item["a b"], 'item["a b"]'),
        ((Expr("x") + 1).y, "(x + 1).y"),
        (size(Expr("xs")) > 2, "size(xs) > 2"),
        (~(Expr("a") & Expr("b")), "!(a && b)"),
        (Expr("a") == [1, "b", None, True], 'a == [1, "b", null, true]'),
        (cel("a") % 2 / 3, "(a % 2) / 3"),
        (cel("f(a) + g(b)") * 2, "(f(a) + g(b)) * 2"),
    ],
)
def test_the_text_of_expressions(built: Expr, text: str) -> None:
    assert str(built) == text


def test_what_python_cannot_hand_over_is_refused() -> None:
    with pytest.raises(TypeError, match=r"& \| ~"):
        assert Expr("a") and Expr("b")
    with pytest.raises(TypeError):
        assert 1 < Expr("a") < 3
    with pytest.raises(ValueError, match="not a number"):
        literal(float("nan"))
    with pytest.raises(AttributeError):
        Expr("a")._private  # noqa: B018
    assert {Expr("a"): 1, Expr("a"): 2}.values()  # as keys they are themselves


def test_several_targets_and_events_with_data() -> None:
    flow = Workflow("several", steps=1)
    x = flow.var("x", int)
    flow.initial(["l", "r"])
    both = flow.state("both", regions=["l", "r"]).on("done", to="end")
    left = flow.state("l", in_=both).on("go", raise_=[builder.raised("more", if_=x > 0, data={"n": x + 1}), "plain"])
    right = flow.state("r", in_=both).on("more", set={x: "int(event.data.n)"}).on("plain", to=[left, "r"])
    right.on("stop", to="end")
    flow.state("end", final="success")
    document = flow.document()
    assert document["initial"] == ["l", "r"]
    assert document["states"]["r"]["transitions"][1]["to"] == ["l", "r"]
    raised = document["states"]["l"]["transitions"][0]["raise"]
    assert raised == [{"event": "more", "if": "x > 0", "data": {"n": "x + 1"}}, "plain"]


def test_a_state_names_its_regions() -> None:
    flow = Workflow("p", steps=1)
    both: State = flow.state("both", regions=["left", "right"])
    assert both.region("left") == "both.left"


# -------------------------------------------------------------------------------------------------------- import

LIGHT = """
import sys
import agentflow.plan
heavy = {"pydantic", "yaml", "cel_expr_python", "immutables", "psycopg", "asyncio", "httpx"}
print(sorted(heavy & {name.split(".")[0] for name in sys.modules}))
"""


def test_importing_it_loads_no_library() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
