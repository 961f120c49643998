"""Limits from the command line."""

from __future__ import annotations

from .conftest import HELLO, Command
from .test_main import one_line


async def test_limits_are_set_listed_and_removed(agentflow: Command) -> None:
    assert (await agentflow("limits")).out.strip() == "nothing is limited"
    made = await agentflow("limits", "set", "model:openai/gpt-5", "--concurrency", "4", "--per-second", "2.5")
    assert (made.code, made.out) == (0, "model:openai/gpt-5: 4 at once, 2.5 per second\n")
    assert (await agentflow("limits", "set", "tenant", "--concurrency", "0", "--json")).json[
        "concurrency"
    ] == 0
    lines = (await agentflow("limits")).out.splitlines()
    assert "model:openai/gpt-5" in lines[1] and " 4 " in lines[1] and " 2.5 " in lines[1]
    assert [item["scope"] for item in (await agentflow("limits", "--json")).json] == [
        "model:openai/gpt-5",
        "tenant",
    ]
    for scope in ("tenant", "model:openai/gpt-5"):
        removed = await agentflow("limits", "remove", scope)
        assert (removed.code, removed.out) == (0, f"{scope} is not limited any more\n")
    assert (await agentflow("limits", "--json")).json == []


async def test_what_cannot_be_limited_is_said_in_one_line(agentflow: Command) -> None:
    one_line(await agentflow("limits", "set", "everything", "--concurrency", "1"), "scope", "workflow:<name>")
    one_line(await agentflow("limits", "set", "tenant"), "concurrency", "DELETE removes a limit")
    one_line(
        await agentflow("limits", "set", "tenant", "--concurrency", "1", "--weight", "3"),
        "weight",
        "operator",
    )
    for rate in ("nan", "inf"):
        one_line(await agentflow("limits", "set", "tenant", "--per-second", rate), "--per-second")
    one_line(await agentflow("limits", "remove", "tool:x"), "no limit")


async def test_a_run_is_started_with_a_priority(agentflow: Command) -> None:
    ended = await agentflow("run", str(HELLO), "-i", "name=Ann", "--priority", "8", "--json")
    assert ended.json["status"] == "succeeded"
    assert (await agentflow("run", str(HELLO), "-i", "name=Ann", "--priority", "10")).code == 2
