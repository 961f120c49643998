"""The checker's eye for agents: books in which one thing is wrong, each named by the invariant it breaks."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest

from chaos.checks_agents import check_agents

RUN = UUID(int=1)
Rows = list[dict[str, Any]]


def rows() -> Rows:
    def row(step: int, task: str, kind: str, given: Any, output: Any) -> dict[str, Any]:
        return {
            "run_id": RUN, "step": step, "attempt": 1, "task": task, "kind": kind, "status": "succeeded",
            "input": given, "output": output, "cost_micro": 0 if kind == "agent" else 5,
        }  # fmt: skip

    calls = [{"name": "effect", "arguments": {"url": "u", "key": key}} for key in ("k1", "k2")]
    odd = {"name": "effect", "arguments": {"nonce": 5}}
    answer = {"name": "answer", "arguments": {"nonce": "b"}}
    return [
        row(1, "seek", "agent", {"token": "t", "n": 3}, {"nonce": "b"}),
        row(2, "seek--turn", "llm", {"agent": 1, "turn": 1}, {"text": "nonce a", "calls": [*calls, odd]}),
        row(3, "seek--effect", "tool", {"url": "u", "key": "k1"}, {"nonce": "x"}),
        row(4, "seek--effect", "tool", {"url": "u", "key": "k2"}, {"nonce": "y"}),
        row(5, "seek--turn", "llm", {"agent": 1, "turn": 2}, {"text": "nonce b", "calls": [answer]}),
    ]


def found(steps: Rows, state: Any = None) -> set[int]:
    books: Any = SimpleNamespace(tables={"steps": steps}, runs={RUN: {"state": state}}, steps={RUN: steps})
    return {violation.invariant for violation in check_agents(books)}


def _answer(steps: Rows) -> None:
    steps[0]["output"]["nonce"] = "a"


def _cost(steps: Rows) -> None:
    steps[0]["cost_micro"] = 5


def _lost(steps: Rows) -> None:
    del steps[3]


def _twice(steps: Rows) -> None:
    steps.append({**steps[2], "step": 6})


def _turn_twice(steps: Rows) -> None:
    steps.append({**steps[1], "step": 6})


def _turn_lost(steps: Rows) -> None:
    del steps[1]


WRONG: dict[str, tuple[Callable[[Rows], None], int]] = {
    "another answer than the last turn's": (_answer, 3),
    "paid beside its turns": (_cost, 7),
    "a call was not made": (_lost, 3),
    "a call was made twice": (_twice, 3),
    "a turn was accepted twice": (_turn_twice, 5),
    "a turn is missing": (_turn_lost, 5),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_an_agent_is_found(name: str) -> None:
    change, invariant = WRONG[name]
    steps = rows()
    assert found(steps) == set()
    change(steps)
    assert found(steps) == {invariant}


def test_an_agent_that_a_fork_has_taken_over_is_left_alone() -> None:
    steps = rows()
    _turn_lost(steps)  # it is the other run's
    assert found(steps, {"forked": {"run": "r"}}) == set()
