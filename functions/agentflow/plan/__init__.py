"""Workflows built in Python: the same plan/v1 documents, typed, with every fault told by the line that built its part.

    flow = Workflow("hello", steps=2, usd=0.01)
    name = flow.input("name", str)
    greeting = flow.var("greeting", str)
    greet = flow.llm("greet", "small", "Greet {name}.", in_={"name": name})
    flow.root(sequence(task(greet, set={greeting: result.text})))
    flow.check()

A text where an expression is wanted is CEL; beside an operator (``score == "good"``) it is a text. Keys that are
words of Python end in ``_``. To import this connects to nothing and loads no library.
"""

from agentflow.plan.expression import Expr, cel, event, item, one_of, result, size, value
from agentflow.plan.nodes import (
    Node,
    check,
    delay,
    each,
    fail,
    fallback,
    force,
    if_,
    invert,
    keep,
    once,
    parallel,
    repeat,
    retry,
    sequence,
    subtree,
    succeed,
    switch,
    task,
    timeout,
    try_,
    while_,
)
from agentflow.plan.states import Action, State, action, approval, raised
from agentflow.plan.tasks import Agent, Retry, Task, Tool
from agentflow.plan.workflow import Workflow

__all__ = [
    "Action",
    "Agent",
    "Expr",
    "Node",
    "Retry",
    "State",
    "Task",
    "Tool",
    "Workflow",
    "action",
    "approval",
    "cel",
    "check",
    "delay",
    "each",
    "event",
    "fail",
    "fallback",
    "force",
    "if_",
    "invert",
    "item",
    "keep",
    "once",
    "one_of",
    "parallel",
    "raised",
    "repeat",
    "result",
    "retry",
    "sequence",
    "size",
    "subtree",
    "succeed",
    "switch",
    "task",
    "timeout",
    "try_",
    "value",
    "while_",
]
