"""Tasks that are neither a model's nor a tool's: for people, other workflows and undoing; and runs that are paused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from house import House, all_decided_again, eventually

from agentflow.core.message import Message
from agentflow.core.run import child_id
from agentflow.errors import Conflict
from agentflow.runtime.host import Host


@pytest.fixture
async def house(house: House) -> AsyncIterator[House]:
    """After each test all runs are decided again, and come to the same."""
    yield house
    await all_decided_again(house)


def plan(name: str, tasks: dict[str, Any], root: Any, **parts: Any) -> dict[str, Any]:
    return {
        "agentflow": "plan/v1", "kind": "bt", "name": name, "limits": {"steps": 20, "usd": 1}, "vars": {"n": "int"},
        "tasks": tasks, "root": root, **parts,
    }  # fmt: skip


async def tell(house: House, host: Host, name: str, run: UUID, key: str = "1", **data: Any) -> None:
    await host.submit(Message(name, house.tenant, run, f"{name}:{key}", {"run": str(run), **data}))


async def waits(house: House, run: UUID, for_: str) -> Any:
    """The steps of a run that wait for something, once there are any."""

    async def look() -> Any:
        rows = await house.rows("select state -> 'open' as open from runs where run_id = %s", run)
        return rows and {int(k): v for k, v in (rows[0]["open"] or {}).items() if v[3] == for_}

    return await eventually(look)


async def statuses(house: House) -> dict[str, str]:
    return {row["workflow"]: row["status"] for row in await house.rows("select workflow, status from runs")}


ECHO = {"kind": "tool", "use": "std.echo"}
ASK = plan(
    "ask",
    {"ok": {"kind": "human", "use": "boss", "in": {"n": "n"}, "out": {"n": "int"}, "timeout": "1h"}},
    {"task": "ok", "set": {"n": "result.n"}},
)


async def test_a_person_answers(house: House) -> None:
    await house.register(ASK)
    async with house.host() as host:
        run = await house.submit(host, "ask")
        await waits(house, run, "person")
    async with house.host() as host:  # another one, which knows nothing of it
        await tell(house, host, "step.answered", run, "bad", step=1, output={"n": "many"}, by="ann")
        await tell(house, host, "step.answered", run, step=1, output={"n": 7}, by="ann")
        row = await house.ended(run)
        with pytest.raises(Conflict, match="already succeeded"):
            await tell(house, host, "step.answered", run, "late", step=1, output={"n": 8}, by="bob")
    assert (row["status"], row["output"]) == ("succeeded", {"n": 7})
    (line,) = await house.rows("select data from history where name = 'step.answered'")
    assert line["data"] == {"step": 1, "task": "ok", "by": "ann"}
    (step,) = await house.rows("select kind, status, input, output from steps")
    assert step == {"kind": "human", "status": "succeeded", "input": {"n": 0}, "output": {"n": 7}}
    assert await house.rows("select * from subscriptions") == []
    assert await house.rows("select * from timers") == []


async def test_nobody_answers_in_time(house: House) -> None:
    tasks = {"ok": {"kind": "human", "use": "boss", "timeout": "200ms"}, "later": {**ECHO, "in": {"n": "1"}}}
    await house.register(plan("ask", tasks, {"fallback": ["ok", "later"]}))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "ask"))
    assert row["status"] == "succeeded"
    (step,) = await house.rows("select error from steps where kind = 'human'")
    assert step["error"] == {"code": "timeout", "message": "no answer came in time"}


PAID = {**ECHO, "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.001}
CHILD = plan("child", {"work": PAID}, {"task": "work", "set": {"n": "result.n"}}, limits={"steps": 3, "usd": 0.5})
PARENT = plan(
    "parent",
    {"child": {"kind": "workflow", "use": "child@2-3", "in": {"n": "n + 40"}, "out": {"n": "int"}, "usd": 0.01}},
    {"task": "child", "set": {"n": "result.n"}},
)


async def test_another_workflow_runs_in_its_place(house: House) -> None:
    """By the versions that are named, on a budget of its own that is part of this one's."""
    for version in (1, 2, 3, 4):
        document = CHILD if version == 3 else {**CHILD, "vars": {"n": "int", f"v{version}": "int"}}
        await house.register(document, version=version)
    await house.register(PARENT)
    async with house.host() as host:
        run = await house.submit(host, "parent")
        row = await house.ended(run)
        child = await house.run(child_id(run, 1, 1))
    assert (row["status"], row["output"]) == ("succeeded", {"n": 41})
    assert (child["version"], child["limit_micro"], child["spent_micro"]) == (3, 10_000, 1_000)
    assert (row["spent_micro"], row["held_micro"]) == (1_000, 0)
    entries = await house.rows("select entry, amount_micro, price from ledger where run_id = %s order by entry", run)
    assert entries == [
        {"entry": "hold", "amount_micro": 10_000, "price": "workflow"},
        {"entry": "settle", "amount_micro": 1_000, "price": "workflow"},
    ]


async def test_a_tenant_pays_once_for_what_a_child_spends(house: House) -> None:
    await house.register(CHILD)
    await house.register({**PARENT, "tasks": {"child": {**PARENT["tasks"]["child"], "use": "child"}}})
    await house.rows(
        "insert into budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 1000) returning 1", house.tenant
    )
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "parent"))
    assert row["status"] == "succeeded"
    (budget,) = await house.rows("select spent_micro, held_micro from budgets")
    assert budget == {"spent_micro": 1_000, "held_micro": 0}


async def test_a_child_that_fails_is_tried_again(house: House) -> None:
    await house.register(plan("child", {"f": {"kind": "tool", "use": "std.fail"}}, "f"))
    task = {"kind": "workflow", "use": "child", "retry": {"max": 2, "backoff": "10ms"}}
    await house.register(plan("parent", {"child": task}, "child"))
    async with house.host() as host:
        run = await house.submit(host, "parent")
        row = await house.ended(run)
    assert row["status"] == "failed"
    assert "plan_failed" in row["error"]["message"]
    attempts = await house.rows("select attempt, status from steps where run_id = %s order by attempt", run)
    assert attempts == [{"attempt": 1, "status": "failed"}, {"attempt": 2, "status": "failed"}]
    assert {row["run_id"] for row in await house.rows("select run_id from runs where workflow = 'child'")} == {
        child_id(run, 1, 1), child_id(run, 1, 2),
    }  # fmt: skip


async def test_a_child_is_cancelled_with_its_parent(house: House) -> None:
    await house.register(plan("grandchild", {"wait": {"kind": "wait", "for": "1h"}}, "wait"))
    for name, below in (("child", "grandchild"), ("parent", "child")):
        await house.register(plan(name, {"below": {"kind": "workflow", "use": below, "usd": 0.1}}, "below"))
    async with house.host() as host:
        run = await house.submit(host, "parent")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
        await tell(house, host, "run.cancel_requested", run, reason="enough")
        await eventually(lambda: over(house, 3))
        rows = await eventually(lambda: settled(house))
    assert await statuses(house) == dict.fromkeys(("parent", "child", "grandchild"), "cancelled")
    assert [row["held_micro"] for row in rows] == [0, 0, 0]


async def over(house: House, count: int) -> bool:
    return len(await house.rows("select 1 from runs where finished_at is not null")) == count


async def settled(house: House) -> Any:
    rows = await house.rows("select held_micro from runs")
    return all(row["held_micro"] == 0 for row in rows) and rows


async def test_a_child_that_takes_too_long_is_cancelled(house: House) -> None:
    await house.register(plan("child", {"wait": {"kind": "wait", "for": "1h"}}, "wait"))
    await house.register(plan("parent", {"child": {"kind": "workflow", "use": "child", "timeout": "300ms"}}, "child"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "parent"))
        await eventually(lambda: over(house, 2))
    assert "no result came in time" in str(await house.rows("select error from steps where kind = 'workflow'"))
    assert (await statuses(house), row["status"]) == ({"parent": "failed", "child": "cancelled"}, "failed")


async def test_a_workflow_that_is_not_there(house: House) -> None:
    await house.register(plan("parent", {"child": {"kind": "workflow", "use": "nobody@2-"}}, "child"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "parent"))
    assert "there is no workflow nobody" in row["error"]["message"]


async def test_workflows_that_run_each_other_come_to_an_end(house: House) -> None:
    """Registration refuses them; registered nevertheless they end when they are too deep."""
    for name, other in (("ping", "pong"), ("pong", "ping")):
        await house.register(plan(name, {"other": {"kind": "workflow", "use": other}}, "other"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "ping"))
    assert "more than 10 workflows are running inside each other" in row["error"]["message"]
    assert len(await house.rows("select 1 from runs")) == 12


BOOK = plan(
    "book",
    {
        "seat": {**ECHO, "in": {"n": "7"}, "out": {"n": "int"}, "undo": "unseat"},
        "room": {**ECHO, "in": {"n": "8"}, "out": {"n": "int"}, "undo": "unroom"},
        "pay": {"kind": "tool", "use": "std.fail", "in": {"code": "'no_money'"}},
        "unseat": {**ECHO, "in": {"n": "result.n"}},
        "unroom": {"kind": "wait", "for": "300ms"},
        "back": {"kind": "compensate"},
    },
    {"fallback": [{"sequence": ["seat", "room", "pay"]}, "back"]},
)


async def test_what_was_done_is_undone_across_a_crash(house: House) -> None:
    await house.register(BOOK)
    async with house.host() as host:
        run = await house.submit(host, "book")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
    async with house.host():
        row = await house.ended(run)
    assert row["status"] == "succeeded"
    steps = await house.rows("select step, task, status, output from steps order by step")
    assert [(step["task"], step["status"]) for step in steps] == [
        ("seat", "succeeded"), ("room", "succeeded"), ("pay", "failed"), ("back", "succeeded"),
        ("unroom", "succeeded"), ("unseat", "succeeded"),
    ]  # fmt: skip
    assert (steps[3]["output"], steps[5]["output"]) == ({"undone": 2}, {"n": 7})


async def test_a_paused_run_starts_nothing_and_loses_nothing(house: House) -> None:
    tasks = {"wait": {"kind": "wait", "for": "200ms"}, "work": {**ECHO, "in": {"n": "5"}, "out": {"n": "int"}}}
    await house.register(plan("two", tasks, {"sequence": ["wait", {"task": "work", "set": {"n": "result.n"}}]}))
    async with house.host() as host:
        run = await house.submit(host, "two")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
        await tell(house, host, "run.pause_requested", run, reason="an incident")
        assert (await waits(house, run, "resume"))[2][0] == "work"  # the wait went on, what follows it did not start
        assert (await house.run(run))["status"] == "paused"
    async with house.host() as host:
        await tell(house, host, "run.resume_requested", run, reason="it is over")
        row = await house.ended(run)
    assert (row["status"], row["output"]) == ("succeeded", {"n": 5})
    names = [line["name"] for line in await house.rows("select name from history order by seq")]
    assert names == ["run.planned", "run.started", "run.paused", "timer.fired", "run.resumed", "step.completed"]


async def test_pausing_a_run_pauses_what_it_waits_for(house: House) -> None:
    tasks = {"wait": {"kind": "wait", "for": "300ms"}, "work": {**ECHO, "in": {"n": "5"}}}
    await house.register(plan("child", tasks, {"sequence": ["wait", "work"]}))
    await house.register(plan("parent", {"child": {"kind": "workflow", "use": "child"}}, "child"))
    async with house.host() as host:
        run = await house.submit(host, "parent")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
        await tell(house, host, "run.pause_requested", run, reason="an incident")
        child = child_id(run, 1, 1)
        await waits(house, child, "resume")
        assert set((await statuses(house)).values()) == {"paused"}
        await tell(house, host, "run.resume_requested", run, reason="it is over")
        assert (await house.ended(run))["status"] == "succeeded"


async def test_a_paused_run_can_be_cancelled(house: House) -> None:
    tasks = {"wait": {"kind": "wait", "for": "100ms"}, "work": {**ECHO, "in": {"n": "5"}}}
    await house.register(plan("two", tasks, {"sequence": ["wait", "work"]}))
    async with house.host() as host:
        run = await house.submit(host, "two")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
        await tell(house, host, "run.pause_requested", run, reason="an incident")
        await waits(house, run, "resume")
        await tell(house, host, "run.cancel_requested", run, reason="enough")
        assert (await house.ended(run))["status"] == "cancelled"
    (step,) = await house.rows("select status, input from steps where task = 'work'")
    assert step == {"status": "halted", "input": {"n": 5}}


async def test_a_wait_until_a_time(house: House) -> None:
    tasks = {
        "past": {"kind": "wait", "until": "'2020-01-01T00:00:00Z'"},
        "never": {"kind": "wait", "until": "'tomorrow'"},
    }
    await house.register(plan("until", tasks, {"sequence": ["past", "never"]}))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "until"))
    assert row["error"]["message"].startswith("root.sequence[1]") or "until" in row["error"]["message"]
    assert "'tomorrow' is no time such as" in row["error"]["message"]


async def test_only_some_failures_are_tried_again(house: House) -> None:
    fail = {"kind": "tool", "use": "std.fail", "retry": {"max": 3, "backoff": "1ms"}}
    tasks = {
        "only": {**fail, "in": {"code": "'a'"}, "retry": {**fail["retry"], "only": ["a"]}},
        "other": {**fail, "in": {"code": "'b'"}, "retry": {**fail["retry"], "only": ["a"]}},
        "never": {**fail, "in": {"code": "'c'", "retryable": "true"}, "retry": {**fail["retry"], "never": ["c"]}},
    }
    await house.register(plan("retries", tasks, {"parallel": ["only", "other", "never"], "wait": "all"}))
    async with house.host() as host:
        await house.ended(await house.submit(host, "retries"))
    counts = await house.rows("select task, count(*) as n from steps group by task order by task")
    assert [(row["task"], row["n"]) for row in counts] == [("never", 1), ("only", 3), ("other", 1)]
