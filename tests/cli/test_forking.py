"""``agentflow fork``: a new run goes on from any step of an old one, with what came before at no cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg

from .conftest import Command, Served
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
