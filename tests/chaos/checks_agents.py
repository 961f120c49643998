"""Checks of agents: their turns follow each other, what a turn calls is called, and the answer is the last turn's
(invariants 3, 5, 7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from chaos.books import Books, nonce_of
from chaos.statements import Row
from chaos.violation import Violation

TURN = "--turn"


def check_agents(books: Books) -> Iterator[Violation]:
    """Every agent's step that has succeeded, by its inner steps; in a run that was forked some are the other's."""
    for agent in books.tables["steps"]:
        if agent["kind"] != "agent" or agent["status"] != "succeeded":
            continue
        if (books.runs[agent["run_id"]]["state"] or {}).get("forked"):
            continue
        name = f"step {agent['step']} ({agent['task']})"
        inner = [step for step in books.steps[agent["run_id"]] if step["task"].startswith(agent["task"] + "--")]
        turns = [step for step in inner if step["task"].endswith(TURN) and step["status"] == "succeeded"]
        taken = Counter(step["input"]["turn"] for step in turns)
        if sorted(taken.elements()) != list(range(1, len(turns) + 1)):
            what = f"{name} has answered after the turns {sorted(taken.elements())}"
            yield Violation(5, what, agent["run_id"])
            continue
        last = max(turns, key=lambda step: step["input"]["turn"])
        if agent["output"].get("nonce") != nonce_of(last):
            what = f"{name} came to {agent['output']}, and its last turn said {nonce_of(last)}"
            yield Violation(3, what, agent["run_id"])
        if agent["cost_micro"]:
            yield Violation(7, f"{name} cost {agent['cost_micro']} beside its turns", agent["run_id"])
        wanted = Counter(key for step in turns for key in _called(step))
        made = Counter(
            step["input"]["key"] for step in inner if step["task"].endswith("--effect") and step["attempt"] == 1
        )
        if made != wanted:
            what = f"{name}: its turns called {sorted(wanted.elements())}, and {sorted(made.elements())} were made"
            yield Violation(3, what, agent["run_id"])


def _called(turn: Row) -> Iterator[str]:
    """The keys of the effects that a turn has called; a call of the wrong shape is none."""
    for call in turn["output"].get("calls", ()):
        given = call.get("arguments") or {}
        if call["name"] == "effect" and "key" in given:
            yield given["key"]
