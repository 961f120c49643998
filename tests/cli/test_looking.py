"""Looking at runs, publishing events and seeing what is parked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import psycopg
import pytest

from .conftest import HELLO, Command, Served
from .test_main import one_line
from .test_running import WAITER


async def hello(agentflow: Command, name: str = "Ann") -> str:
    ended = await agentflow("run", str(HELLO), "-i", f"name={name}", "--json")
    assert ended.code == 0, ended
    return str(ended.json["id"])


async def test_runs_are_listed_newest_first_and_filtered(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "waiter.yaml").write_text(WAITER)
    first = await hello(agentflow)
    second = (await agentflow("run", str(tmp_path / "waiter.yaml"), "--detach")).out.strip()
    lines = (await agentflow("runs")).out.splitlines()
    assert second in lines[1] and "waiter@1" in lines[1]
    assert first in lines[2] and "succeeded" in lines[2] and "$0.0000" in lines[2]
    assert [run["id"] for run in (await agentflow("runs", "--workflow", "hello", "--json")).json] == [first]
    assert [run["id"] for run in (await agentflow("runs", "--limit", "1", "--json")).json] == [second]
    assert (await agentflow("runs", "--status", "failed")).out.strip() == "no runs"
    one_line(await agentflow("runs", "--status", "done"), "status")


async def test_a_run_is_shown_with_its_steps_and_result(agentflow: Command) -> None:
    run = await hello(agentflow)
    shown = (await agentflow("show", run)).out
    for part in (
        "hello@1",
        "succeeded",
        run,
        "2 steps",
        "measure",
        "tool",
        "greet",
        "llm",
        '"name": "Ann"',
        '"letters": 3',
    ):
        assert part in shown
    document = (await agentflow("show", run, "--json")).json
    assert [step["task"] for step in document["step_list"]] == ["measure", "greet"]
    for unknown in ("x", "%2e%2e", "00000000-0000-7000-8000-000000000000"):
        one_line(await agentflow("show", unknown), "no such run")
    one_line(await agentflow("show", "../workflows/hello"), "nothing at this path")


async def test_the_parts_of_an_agent_are_named_in_words(agentflow: Command) -> None:
    document = Path(__file__).parents[2] / "local/workflows/research.yaml"
    ran = await agentflow("run", str(document), "-i", "product=lamp", "-i", "count=2")
    for part in ("research turn 1 (llm) running", "research stock (tool) running", "step 5 research turn 2 succeeded"):
        assert part in ran.out + ran.err
    (run,) = [row["id"] for row in (await agentflow("runs", "--workflow", "research", "--json")).json]
    shown = (await agentflow("show", run)).out
    for part in ("research turn 1", "research price", "research turn 2", "agent"):
        assert part in shown
    assert "research--" not in shown


LOST = """
agentflow: plan/v1
name: lost
limits: {steps: 2}
tools: {pay: {kind: python, effects: once, code: "import os\\ndef run(): os.kill(os.getpid(), 9)"}}
tasks: {pay: {kind: tool, use: pay, retry: {max: 3, backoff: 1ms}}}
"""


async def test_an_outcome_that_nobody_knows_is_shown_as_that(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "lost.yaml").write_text(LOST)
    ran = await agentflow("run", str(tmp_path / "lost.yaml"))
    assert ran.code == 1
    assert "outcome_unknown: sandbox_crashed: the tool's process was ended by SIGKILL" in ran.out + ran.err
    (run,) = [row["id"] for row in (await agentflow("runs", "--workflow", "lost", "--json")).json]
    shown = (await agentflow("show", run)).out
    assert "outcome unknown" in shown and "1 steps" in shown
    assert "outcome_unknown" in (await agentflow("logs", run)).out


async def test_the_history_is_printed_a_line_per_event(agentflow: Command) -> None:
    run = await hello(agentflow)
    text = (await agentflow("logs", run)).out
    assert text.index("hello@1 planned") < text.index("measure succeeded") < text.index("hello@1 succeeded")
    events = [json.loads(line) for line in (await agentflow("logs", run, "--json")).out.splitlines()]
    assert [event["id"] for event in events] == ["1", "2", "3", "4", "end"]
    assert events[-1]["data"]["status"] == "succeeded"
    one_line(await agentflow("logs", "00000000-0000-7000-8000-000000000000"), "no such run")


async def test_following_stays_until_the_run_has_ended(
    agentflow: Command, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    (tmp_path / "waiter.yaml").write_text(WAITER)
    run = (await agentflow("run", str(tmp_path / "waiter.yaml"), "--detach")).out.strip()
    so_far = await agentflow("logs", run)
    assert "idle (wait) waiting" in so_far.out
    assert "succeeded" not in so_far.out
    following = asyncio.create_task(agentflow("logs", run, "-f"))
    await asyncio.sleep(0.2)
    assert not following.done()
    await client.post(f"/v1/runs/{run}/signals/go")
    ended = await following
    assert ended.code == 0
    assert "signal go" in ended.out
    assert "waiter@1 succeeded" in ended.out


async def test_an_event_is_published_and_starts_what_waits_for_it(
    agentflow: Command, tmp_path: Path, client: httpx.AsyncClient
) -> None:
    document = WAITER.replace("name: waiter", "name: placed").replace(
        "tasks:",
        "input: {order: string}\ntrigger: {type: com.example.placed, input: {order: event.data.order}}\ntasks:",
    )
    assert (
        await client.post("/v1/workflows", content=document, headers={"content-type": "application/yaml"})
    ).status_code == 201
    ended = await agentflow(
        "publish", "com.example.placed", "--data", '{"order": "42"}', "--id", "e1", "--subject", "s"
    )
    assert (ended.code, ended.out) == (0, "accepted e1 from /agentflow/cli\n")
    batch = tmp_path / "events.json"
    event = {"specversion": "1.0", "source": "/agentflow/cli", "type": "com.example.placed"}
    orders = [event | {"id": f"e{n}", "data": {"order": str(41 + n)}} for n in (1, 2)]
    batch.write_text(json.dumps(orders))
    assert len((await agentflow("publish", f"@{batch}", "--json")).json["accepted"]) == 2
    async with asyncio.timeout(5):
        while True:
            runs = (await client.get("/v1/runs")).json()["items"]
            if len(runs) == 2:
                break
            await asyncio.sleep(0.02)
    orders = {(await client.get(f"/v1/runs/{run['id']}")).json()["input"]["order"] for run in runs}
    assert orders == {"42", "43"}


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("com.x", "-d", "{a"), ("--data", "is not JSON")),
        (("com.x", "-d", "@/none"), ("/none cannot be read",)),
        (("@/none",), ("/none cannot be read",)),
        (("agentflow.step.completed.v1",), ("type", "reserved")),
        (("com.x", "--source", "not a uri"), ("source", "URI")),
    ],
)
async def test_what_cannot_be_published_is_said_in_one_line(
    agentflow: Command, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    one_line(await agentflow("publish", *arguments), *parts)


async def test_parked_messages_are_listed_and_retried(agentflow: Command, served: Served, key: str) -> None:
    assert (await agentflow("parked")).out.strip() == "nothing is parked"
    parked = "11111111-1111-4111-8111-111111111111"
    tenant = key[3:35]
    async with await psycopg.AsyncConnection.connect(served.database.admin) as conn:
        await conn.execute(
            "insert into agentflow.parked (tenant_id, parked_id, consumer, subject, reason, headers, payload, tries)"
            " values (%s, %s, 'plan', %s, 'Invalid: [red]source[/red]: is missing', '{}', 'x', 5)",
            (tenant, parked, "agentflow.10ca1000-0000-4000-8000-00000000000a.in.x"),
        )
    listed = (await agentflow("parked")).out
    assert parked in listed
    assert "[red]source[/red]: is missing" in listed
    assert (await agentflow("parked", "--json")).json[0]["tries"] == 5
    ended = await agentflow("parked", "retry", parked)
    assert (ended.code, ended.out) == (0, f"{parked} is on its way again\n")
    one_line(await agentflow("parked", "retry", parked), "no such parked message")
