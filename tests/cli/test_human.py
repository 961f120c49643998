"""What waits for people, their answers, and pausing, from the command line."""

from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio
from house import eventually

from agentflow.store.budgets import set_budget

from .conftest import Command, Served
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


POOR = """
agentflow: plan/v1
kind: bt
name: poor
limits: {steps: 5, usd: 0.000001, at_limit: ask}
vars: {said: string}
tasks:
  greet: {kind: llm, use: small, prompt: "Greet Ann; mention its 3 letters.", max_tokens: 20}
root: {task: greet, set: {said: result.text}}
"""


@pytest.fixture
def poor(tmp_path: Path) -> str:
    """A workflow whose only call costs more than its run may spend."""
    (tmp_path / "poor.yaml").write_text(POOR)
    return str(tmp_path / "poor.yaml")


@pytest.fixture
def rich(tmp_path: Path) -> str:
    """The same, but that its run may spend enough."""
    (tmp_path / "rich.yaml").write_text(POOR.replace("0.000001", "1"))
    return str(tmp_path / "rich.yaml")


async def short(agentflow: Command, file: str) -> str:
    """A run that asks for money."""
    run = (await agentflow("run", file, "--detach")).out.strip()
    await eventually(lambda: _asks(agentflow, run))
    return run


async def test_more_money_is_approved_and_how_much(agentflow: Command, poor: str) -> None:
    run = await short(agentflow, poor)
    assert "approve: bool, usd: double" in (await agentflow("tasks", "--run", run)).out
    assert "greet (llm) waiting for money" in (await agentflow("logs", run)).out
    assert (await agentflow("answer", run, "1", "-r", "approve=true", "-r", "usd=1", "--by", "ann")).code == 0
    followed = (await agentflow("logs", "-f", run)).out
    assert "greet running, approved by ann, the run may spend $1.000001" in followed
    assert followed.index("approved by ann") < followed.index("greet succeeded")
    assert "of $1.000001" in (await agentflow("show", run)).out


async def test_what_is_not_approved_has_failed(agentflow: Command, poor: str) -> None:
    run = await short(agentflow, poor)
    assert (await agentflow("answer", run, "1", "-r", "approve=false", "--by", "ann")).code == 0
    followed = (await agentflow("logs", "-f", run)).out
    assert "not approved by ann" in followed
    assert "greet succeeded" not in followed
    assert "failed" in (await agentflow("show", run)).out


async def test_an_answer_does_not_raise_a_tenants_account(
    agentflow: Command, rich: str, served: Served, key: str
) -> None:
    await set_budget(served.database.admin, UUID(key.split("_")[1]), "tenant", "total", limit_micro=0)
    run = await short(agentflow, rich)
    listed = (await agentflow("tasks", "--run", run)).out
    assert "approve: bool" in listed
    assert "usd" not in listed
    one_line(await agentflow("answer", run, "1", "-r", "approve=true", "-r", "usd=1"), "usd", "it has: approve")


async def test_a_run_is_paused_and_goes_on(agentflow: Command, asking: str) -> None:
    assert (await agentflow("pause", asking, "--reason", "lunch")).out == f"run {asking} will start nothing more\n"
    assert "paused" in (await agentflow("show", asking)).out
    assert (await agentflow("resume", asking)).out == f"run {asking} will go on\n"
    assert "paused: lunch" in (await agentflow("logs", asking)).out
