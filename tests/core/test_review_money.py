"""Plans that wait for what can never come, and what else can be said against how they go about their limits."""

from __future__ import annotations

from typing import Any

import pytest

from agentflow.core.review import review
from agentflow.plan import Workflow
from agentflow.wire.document import compile_document

LLM = {"kind": "llm", "use": "small", "prompt": "hi"}
TOOL = {"kind": "python", "code": "def run(): return {}", "usd": 0.5}


def found(task: dict[str, Any], **limits: Any) -> list[tuple[str, str]]:
    plan = compile_document({
        "agentflow": "plan/v1", "kind": "bt", "name": "w", "limits": {"steps": 2, **limits}, "tools": {"dear": TOOL},
        "agents": {"who": {"model": "small"}}, "tasks": {"do": task}, "root": {"sequence": ["do"]},
    })  # fmt: skip
    return [(problem.path, problem.severity) for problem in review(plan) if problem.code == "at_limit"]


@pytest.mark.parametrize(
    ("task", "limits", "told"),
    [
        ({"kind": "tool", "use": "dear", "at_limit": "wait"}, {"usd": 0.4}, [("tasks.do.usd", "error")]),
        ({"kind": "tool", "use": "dear"}, {"usd": 0.4, "at_limit": "wait"}, [("tasks.do.usd", "error")]),
        ({"kind": "tool", "use": "dear", "at_limit": "wait"}, {"usd": 0.5}, []),
        ({"kind": "tool", "use": "dear", "at_limit": "ask"}, {"usd": 0.4}, []),
        ({"kind": "tool", "use": "dear"}, {"usd": 0.4}, []),
        ({"kind": "workflow", "use": "c", "usd": 2, "at_limit": "wait"}, {"usd": 1}, [("tasks.do.usd", "error")]),
        ({**LLM, "cheaper": "small"}, {"usd": 1}, [("tasks.do.cheaper", "warning")]),
        ({**LLM, "cheaper": "tiny", "at_limit": "wait"}, {"usd": 1}, []),
        ({"kind": "agent", "use": "who", "cheaper": "small"}, {"usd": 1}, [("tasks.do.cheaper", "warning")]),
        (
            {"kind": "tool", "use": "std.echo", "at_limit": "ask"}, {"at_limit": "wait"},
            [("tasks.do.at_limit", "warning"), ("limits.at_limit", "warning")],
        ),
    ],
)  # fmt: skip
def test_what_is_said(task: dict[str, Any], limits: dict[str, Any], told: list[tuple[str, str]]) -> None:
    assert found(task, **limits) == told


def test_a_plan_that_is_built_says_the_same() -> None:
    made = Workflow("w", steps=2, usd=1, budget="team", at_limit="wait")
    ask = made.llm("do", "small", "hi", max_tokens=100, min_tokens=40, cheaper="tiny", at_limit="ask")
    made.root(ask)
    plan = made.check()
    assert (plan.limits.budget, plan.limits.at_limit) == ("team", "wait")
    task = plan.tasks["do"]
    assert (task.min_tokens, task.cheaper, task.at_limit, task.aliases) == (40, "tiny", "ask", ("small", "tiny"))
