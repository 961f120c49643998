"""Plans that a model writes, on the real stack with the scripted model: written, mended, frozen, run and reused."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from house import House, all_decided_again, eventually

from agentflow.core.message import Message

ECHO = {"kind": "tool", "use": "std.echo"}
GOAL: dict[str, Any] = {
    "agentflow": "plan/v1",
    "name": "brief",
    "limits": {"steps": 10, "usd": 1.0},
    "input": {"topic": "string"},
    "vars": {"facts": "string"},
    "tasks": {"find": {**ECHO, "in": {"facts": "topic + ' hum'"}, "out": {"facts": "string"}}},
    "plan": {"goal": "Find out about {topic}.", "use": "small", "usd": 0.2},
}


def written(expr: str) -> dict[str, Any]:
    fields = {"parent": "", "cond": "", "max": 0, "edges": []}
    found = {"id": "a", "type": "task", "task": "find", "set": [{"var": "facts", "expr": expr}], **fields}
    return {"rationale": "so", "kind": "bt", "nodes": [found]}


@pytest.fixture
async def house(house: House) -> AsyncIterator[House]:
    """After each test all runs are decided again, and come to the same."""
    yield house
    await all_decided_again(house)


@pytest.fixture
def script(tmp_path: Path) -> None:
    """The model writes a plan with a fault, and mends it once it is told."""
    rules = [
        {"prompt": "unknown result field 'result.fact'", "reply": written("result.facts")},
        {"prompt": "You write plans", "reply": written("result.fact")},
    ]
    (tmp_path / "plans.model.yaml").write_text(yaml.safe_dump({"rules": rules}))


async def steps(house: House, run: Any) -> list[str]:
    return [row["task"] for row in await house.rows("select task from steps where run_id = %s order by step", run)]


@pytest.mark.usefixtures("script")
async def test_a_plan_is_written_mended_run_and_used_again(house: House) -> None:
    await house.register(GOAL)
    async with house.host() as host:
        first = await house.submit(host, "brief", {"topic": "bees"})
        row = await house.ended(first)
        second = await house.submit(host, "brief", {"topic": "ants"})
        again = await house.ended(second)
    assert (row["status"], row["output"]["facts"], again["output"]["facts"]) == ("succeeded", "bees hum", "ants hum")
    assert await steps(house, first) == [
        "planning_propose", "planning_judge", "planning_propose", "planning_judge", "planning_follow", "planning_keep",
    ]  # fmt: skip
    assert await steps(house, second) == ["planning_follow", "planning_keep"]
    assert row["spent_micro"] > again["spent_micro"] == 0
    (planned,) = await house.rows("select name, version, document from workflows where name <> 'brief'")
    assert row["output"]["planning_workflow"] == planned["name"]
    children = await house.rows("select workflow, status from runs where workflow <> 'brief'")
    assert children == [{"workflow": planned["name"], "status": "succeeded"}] * 2


@pytest.mark.usefixtures("script")
async def test_a_person_approves_across_a_restart(house: House) -> None:
    document = copy.deepcopy(GOAL)
    document["plan"]["approve"] = {"by": "boss", "timeout": "1h"}
    await house.register(document)
    async with house.host() as host:
        run = await house.submit(host, "brief", {"topic": "bees"})
        await eventually(lambda: house.rows("select 1 from subscriptions"))
    async with house.host() as host:
        data = {"run": str(run), "step": 5, "output": {"ok": True, "why": ""}, "by": "the boss"}
        await host.submit(Message("step.answered", house.tenant, run, "answer", data))
        assert (await house.ended(run))["output"]["facts"] == "bees hum"


async def test_a_model_that_never_gets_it_right_is_given_up(house: House, tmp_path: Path) -> None:
    rules = [{"prompt": "You write plans", "reply": written("nobody")}]
    (tmp_path / "plans.model.yaml").write_text(yaml.safe_dump({"rules": rules}))
    await house.register(GOAL)
    async with house.host() as host:
        run = await house.submit(host, "brief", {"topic": "bees"})
        row = await house.ended(run)
    assert row["status"] == "failed"
    assert "nodes[0].set.facts: `nobody`" in row["error"]["message"]
    assert (await steps(house, run)).count("planning_propose") == 4
    assert await house.rows("select * from templates") == []


@pytest.mark.usefixtures("script")
async def test_what_did_not_reach_the_goal_is_no_template(house: House) -> None:
    document = copy.deepcopy(GOAL)
    document["tasks"]["find"] = {"kind": "tool", "use": "std.fail", "out": {"facts": "string"}}
    await house.register(document)
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "brief", {"topic": "bees"}))
    assert row["status"] == "failed"
    assert await house.rows("select * from templates") == []
