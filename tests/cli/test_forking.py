"""``agentflow fork``: a new run goes on from any step of an old one, with what came before at no cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .conftest import Command
from .test_main import one_line

TRIAGE = """
agentflow: plan/v1
kind: fsm
name: triage
limits: {steps: 10, usd: 1}
input: {text: string}
vars: {verdict: string, said: string, n: int}
tasks:
  judge: {kind: tool, use: std.echo, in: {verdict: "'good'", n: "1"}, out: {verdict: string, n: int}}
  praise: {kind: tool, use: std.echo, in: {said: "'well done: ' + text + ' ' + string(n)"}, out: {said: string}}
  blame: {kind: tool, use: std.echo, in: {said: "'oh no: ' + text"}, out: {said: string}}
  send: {kind: tool, use: std.echo, in: {said: said}, out: {said: string}}
initial: judging
states:
  judging: {run: judge, transitions: [{event: done, set: {verdict: result.verdict, n: result.n}, to: choosing}]}
  choosing: {transitions: [{if: "verdict == 'good'", to: praising}, {to: blaming}]}
  praising: {run: praise, transitions: [{event: done, set: {said: result.said}, to: sending}]}
  blaming: {run: blame, transitions: [{event: done, set: {said: result.said}, to: sending}]}
  sending: {run: send, transitions: [{event: done, to: sent}]}
  sent: {final: success}
"""


async def triage(agentflow: Command, folder: Path) -> dict[str, Any]:
    """A finished run: 1 judge, 2 praise, 3 send."""
    (folder / "triage.yaml").write_text(TRIAGE)
    done = await agentflow("run", str(folder / "triage.yaml"), "-i", "text=hm", "--json")
    assert done.code == 0, done
    run: dict[str, Any] = done.json
    assert run["output"] == {"verdict": "good", "said": "well done: hm 1", "n": 1}
    assert run["forked_from"] is None
    return run


async def fork(agentflow: Command, run: str, at: int, *more: str) -> dict[str, Any]:
    done = await agentflow("fork", run, "--at", str(at), "--json", *more)
    assert done.code == 0, done
    forked: dict[str, Any] = done.json
    return forked


async def steps(agentflow: Command, run: str) -> list[tuple[int, str, bool]]:
    shown = (await agentflow("show", run, "--json")).json
    assert all(step["cost_micro"] == 0 for step in shown["step_list"] if step["reused"])
    return [(step["step"], step["task"], step["reused"] is not None) for step in shown["step_list"]]


async def test_a_fork_goes_on_with_what_was_recorded(agentflow: Command, tmp_path: Path) -> None:
    old = await triage(agentflow, tmp_path)
    new = await fork(agentflow, old["id"], 2)
    assert new["output"] == old["output"] and new["id"] != old["id"]
    assert new["forked_from"] == {"run": old["id"], "at": 2}
    assert new["steps"] == 3
    assert await steps(agentflow, new["id"]) == [(1, "judge", True), (2, "praise", False), (3, "send", False)]
    shown = (await agentflow("show", new["id"])).out
    assert f"forked from {old['id']} before step 2" in shown and "succeeded, reused" in shown
    assert f"forked from {old['id']} before step 2" in (await agentflow("logs", new["id"])).out
    for run in (old, new):
        assert (await agentflow("replay", run["id"])).code == 0


async def test_what_is_set_leads_another_way(agentflow: Command, tmp_path: Path) -> None:
    old = await triage(agentflow, tmp_path)
    new = await fork(agentflow, old["id"], 2, "--set", "verdict=bad", "--set", "n=7")
    assert new["output"] == {"verdict": "bad", "said": "oh no: hm", "n": 7}
    assert [step[1] for step in await steps(agentflow, new["id"])] == ["judge", "blame", "send"]
    given = await fork(agentflow, old["id"], 2, "--set", "n=7", "--set", "text=so so")
    assert given["output"]["said"] == "well done: so so 7"
    later = await fork(agentflow, old["id"], 3, "--set", "said=@@nothing")
    assert later["output"]["said"] == "@nothing"
    path = tmp_path / "saved.json"
    assert (await agentflow("replay", new["id"], "--save", str(path))).code == 0
    # The run that it goes on from is not needed to decide it again.
    assert (await agentflow("replay", str(path))).code == 0
    path.write_text(path.read_text().replace('"vars": {', '"vars": {"lost": 1,'))
    assert (await agentflow("replay", str(path))).code == 1


async def test_a_fork_is_detached_limited_and_made_once(agentflow: Command, tmp_path: Path) -> None:
    run = (await triage(agentflow, tmp_path))["id"]
    more = ("--at", "2", "--detach", "--key", "k", "--budget", "0.5", "--workflow-version", "same")
    first = (await agentflow("fork", run, *more)).out.strip()
    assert first == (await agentflow("fork", run, *more)).out.strip()
    await agentflow("logs", "--follow", first)
    shown = (await agentflow("show", first, "--json")).json
    assert (shown["limit_micro"], shown["status"]) == (500_000, "succeeded")


async def test_what_can_not_be_forked_is_one_line_with_its_mend(agentflow: Command, tmp_path: Path) -> None:
    run = (await triage(agentflow, tmp_path))["id"]
    one_line(await agentflow("fork", run, "--at", "4"), "at: the run has started 3 steps", "choose 1 to 3")
    one_line(
        await agentflow("fork", run, "--at", "2", "--set", "m=1"),
        "--set m: is no variable",
        "n, said, verdict",
    )
    one_line(await agentflow("fork", run, "--at", "2", "--set", "n=x"), "--set n: 'x' is not int")
    one_line(await agentflow("fork", "00000000-0000-7000-8000-000000000000", "--at", "1"), "no such run")
    for wrong in ((run,), (run, "--at", "0"), (run, "--at", "2", "--workflow-version", "newest")):
        assert (await agentflow("fork", *wrong)).code == 2
