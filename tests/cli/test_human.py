"""What waits for people, their answers, and pausing, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytest_asyncio
from house import eventually

from .conftest import Command
from .test_main import one_line

ASK = """
agentflow: plan/v1
kind: bt
name: ask
limits: {steps: 5}
vars: {ok: bool, why: string}
tasks:
  sign: {kind: human, use: boss, out: {ok: bool, why: string}}
root: {task: sign, set: {ok: result.ok, why: result.why}}
"""


@pytest_asyncio.fixture(loop_scope="module")
async def asking(agentflow: Command, tmp_path: Path) -> str:
    """A run that waits for an answer."""
    (tmp_path / "ask.yaml").write_text(ASK)
    started = await agentflow("run", str(tmp_path / "ask.yaml"), "--detach")
    assert started.code == 0, started
    run = started.out.strip()
    await eventually(lambda: _asks(agentflow, run))
    return run


async def _asks(agentflow: Command, run: str) -> bool:
    return run in (await agentflow("tasks", "--json")).out


async def test_what_is_asked_is_listed_and_answered(agentflow: Command, asking: str) -> None:
    listed = await agentflow("tasks", "--run", asking)
    for part in (asking, "ask@1", "sign", "boss", "ok: bool, why: string"):
        assert part in " ".join(listed.out.split())
    answered = await agentflow("answer", asking, "1", "-r", "ok=true", "-r", "why=fine", "--by", "ann")
    assert (answered.code, answered.out) == (0, f"answered step 1 (sign) of {asking}\n")
    assert "sign succeeded" in (followed := (await agentflow("logs", "-f", asking)).out)
    assert "answered by ann" in followed
    assert '"why": "fine"' in (await agentflow("show", asking)).out
    assert (await agentflow("tasks", "--run", asking)).out == "nothing waits for a person\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["1", "-r", "ok=maybe", "-r", "why=x"], "--result ok: 'maybe' is not bool"),
        (["1", "-r", "fine=true"], "--result fine: is no result of this task (it has: ok, why)"),
        (["1", "-r", "ok=true"], "result.why: is missing"),
        (["2", "-r", "ok=true"], "step 2 does not wait for a person"),
    ],
)
async def test_a_wrong_answer_is_told_what_is_wrong(
    agentflow: Command, asking: str, given: list[str], said: str
) -> None:
    refused = await agentflow("answer", asking, *given)
    one_line(refused, said)


async def test_a_run_is_paused_and_goes_on(agentflow: Command, asking: str) -> None:
    assert (await agentflow("pause", asking, "--reason", "lunch")).out == f"run {asking} will start nothing more\n"
    assert "paused" in (await agentflow("show", asking)).out
    assert (await agentflow("resume", asking)).out == f"run {asking} will go on\n"
    assert "paused: lunch" in (await agentflow("logs", asking)).out
