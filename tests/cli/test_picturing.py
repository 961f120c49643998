"""``agentflow graph``: a workflow's picture, and a run's with where it is."""

from __future__ import annotations

from pathlib import Path

from .conftest import HELLO, Command
from .test_main import one_line
from .test_replaying import REVIEW


async def test_a_workflow_is_drawn(agentflow: Command) -> None:
    drawn = (await agentflow("graph", str(HELLO))).out
    assert drawn.startswith("flowchart TD\n")
    assert '"measure"' in drawn and '"greet"' in drawn


async def test_a_run_is_drawn_with_where_it_is(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "review.yaml").write_text(REVIEW)
    run = (await agentflow("run", str(tmp_path / "review.yaml"), "--detach")).out.strip()
    await agentflow("logs", run)
    drawn = (await agentflow("graph", run)).out
    assert drawn.startswith("stateDiagram-v2\n")
    assert "open --> done : approved [event.data.by == 'ann']" in drawn
    assert "class open active" in drawn
    await agentflow("cancel", run)


async def test_what_is_neither_is_refused(agentflow: Command) -> None:
    one_line(await agentflow("graph", "nothing"), "a workflow's file, or a run's id")
    one_line(await agentflow("graph", "nothing.yaml"), "there is no such file")
