"""A run's life is the table in core/run.py, and the picture in functions/README.md is drawn from it."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
from immutables import Map

from agentflow.core.planner import PlanState
from agentflow.core.run import TERMINAL, TRANSITIONS, OpenStep, Price, Run, diagram, unpack_state

README = Path(__file__).parents[2] / "functions" / "README.md"
RUN = Run(UUID(int=1), UUID(int=2), "w", 1)


def test_the_picture_is_drawn_from_the_table() -> None:
    assert f"```mermaid\n{diagram()}\n```" in README.read_text()


def test_only_listed_moves_can_be_made() -> None:
    for status in TRANSITIONS:
        for other in TRANSITIONS:
            run = RUN._replace(status=status)
            if other in TRANSITIONS[status]:
                assert run.move(other).status == other
            else:
                with pytest.raises(ValueError, match=f"{status} cannot become {other}"):
                    run.move(other)


def test_what_has_ended_stays_ended_and_everything_else_can_end() -> None:
    assert {"succeeded", "failed", "cancelled"} == TERMINAL
    for status in TRANSITIONS.keys() - TERMINAL:
        assert {"failed", "cancelled"} <= TRANSITIONS[status]


def test_a_state_survives_its_column() -> None:
    import orjson

    run = RUN._replace(
        plan=PlanState({"n": 1}, {"at": "x"}, 3),
        open=Map({3: OpenStep("t", 1, 0, "call")}),
        holds=Map({"3.1": 7, "2.1": 4}),
        halted=Map({"2.1": True}),
        models={"small": Price("p", "m", 1, 2, "v")},
        plan_hash="h",
        cancel_reason="because",
    )
    column = orjson.loads(orjson.dumps(run.state_json()))
    assert RUN._replace(**unpack_state(column, 3)) == run


def test_what_a_later_version_keeps_in_the_state_outlives_this_one() -> None:
    """Members that nobody knows come back as they were; places at the end of lists are passed over."""
    later = {
        "vars": {}, "cursor": None, "mood": {"of": [1]}, "open": {"1": ["t", 1, 0, "call", 0, None, 0, "", 0, "new"]},
        "models": {"small": [*Price("p", "m", 1, 2, "v"), "new"]}, "parent": [str(UUID(int=3)), 1, 1, 0, 1, "new"],
    }  # fmt: skip
    run = RUN._replace(**unpack_state(later, 1))
    assert run.open[1] == OpenStep("t", 1, 0, "call")
    state = run.but(epoch=1).state_json()
    assert state["mood"] == {"of": [1]}
    assert RUN._replace(**unpack_state(state, 1)) == run
