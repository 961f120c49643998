"""Checking, running and cancelling from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from .conftest import HELLO, Command
from .test_main import one_line

WAITER = """
agentflow: plan/v1
kind: fsm
name: waiter
limits: {steps: 10}
tasks:
  idle: {kind: wait, for: 1h}
initial: a
states:
  a: {run: idle, transitions: [{event: done, to: ok}, {event: go, to: ok}]}
  ok: {final: success}
"""

FAILER = """
agentflow: plan/v1
kind: bt
name: failer
limits: {steps: 3}
tasks:
  break: {kind: tool, use: std.fail, in: {message: "'no luck'"}}
root: {task: break}
"""


@pytest.fixture
def waiter(tmp_path: Path) -> str:
    (tmp_path / "waiter.yaml").write_text(WAITER)
    return str(tmp_path / "waiter.yaml")


async def test_a_file_is_registered_run_and_followed_to_its_result(
    agentflow: Command, client: httpx.AsyncClient
) -> None:
    ended = await agentflow("run", str(HELLO), "--input", "name=Ann")
    assert ended.code == 0, ended
    for part in (
        "hello@1 planned",
        "measure succeeded",
        "greet (llm) running",
        "Ann",
        "2 steps",
        "tokens",
        "$0.0000",
    ):
        assert part in ended.out
    (run,) = (await client.get("/v1/runs")).json()["items"]
    assert (run["workflow"], run["version"], run["status"]) == ("hello", 1, "succeeded")
    again = await agentflow("run", "hello@1", "-i", "name=Bob", "--json")
    assert again.json["output"]["letters"] == 3
    assert "greet succeeded" in again.err


async def test_detached_it_prints_the_id_and_nothing_else(
    agentflow: Command, waiter: str, client: httpx.AsyncClient
) -> None:
    ended = await agentflow("run", waiter, "--detach")
    assert (await client.get(f"/v1/runs/{ended.out.strip()}")).json()["workflow"] == "waiter"
    as_json = await agentflow("run", waiter, "--detach", "--json")
    assert as_json.json["workflow"] == "waiter"


async def test_the_same_key_is_the_same_run(agentflow: Command, waiter: str) -> None:
    first = await agentflow("run", waiter, "--detach", "--key", "k1")
    second = await agentflow("run", waiter, "--detach", "--key", "k1")
    assert first.out == second.out
    one_line(
        await agentflow("run", waiter, "--detach", "--key", "k1", "--budget", "1"),
        "another request",
        "new Idempotency-Key",
    )


async def test_a_run_that_fails_is_exit_code_1_and_says_why(agentflow: Command, tmp_path: Path) -> None:
    (tmp_path / "failer.yaml").write_text(FAILER)
    ended = await agentflow("run", str(tmp_path / "failer.yaml"))
    assert ended.code == 1
    assert "no luck" in ended.out
    assert "failed in" in ended.out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("nope.yaml",), ("nope.yaml", "no such file")),
        (("nope",), ("no workflow nope", "register")),
        (("hello@999",), ("999",)),
        ((str(HELLO), "-i", "nmae=Ann"), ("--input nmae", "it has: ", "name")),
        ((str(HELLO),), ("input.name", "is missing")),
        ((str(HELLO), "-i", "name=Ann", "--budget", "-1"), ("--budget: -1.0",)),
        ((str(HELLO), "-i", "name=Ann", "--key", "a b"), ("idempotency-key",)),
    ],
)
async def test_what_cannot_be_run_is_said_in_one_line(
    agentflow: Command, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    one_line(await agentflow("run", *arguments), *parts)


async def test_cancelling_stops_a_run_that_is_being_followed(
    agentflow: Command, waiter: str, client: httpx.AsyncClient
) -> None:
    run = (await agentflow("run", waiter, "--detach")).out.strip()

    async def follow() -> list[str]:
        async with client.stream("GET", f"/v1/runs/{run}/events", timeout=20) as stream:
            return [line async for line in stream.aiter_lines() if line.startswith("event:")]

    following = asyncio.create_task(follow())
    ended = await agentflow("cancel", run, "--reason", "changed my mind")
    assert (ended.code, ended.out) == (0, f"run {run} will stop\n")
    assert (await following)[-1] == "event: run.cancelled"
    assert (await agentflow("cancel", run, "--json")).json == {"id": run}
    one_line(await agentflow("cancel", "00000000-0000-7000-8000-000000000000"), "no such run")
