"""Forks on the real stack: they survive their hosts, wait their turn, carry large states, and leave books in order."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from house import House, door, eventually

from agentflow.store.audit import verify
from agentflow.store.chain import ChainKeys
from agentflow.wire.claim import INLINE_LIMIT

ADD = {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.0001}
ADDING = {"task": "add", "set": {"n": "result.n"}}
WIDE = {
    "agentflow": "plan/v1", "kind": "bt", "name": "wide", "limits": {"steps": 10_100, "usd": 1},
    "input": {"xs": "list(int)"}, "vars": {"n": "int"},
    "tasks": {"add": ADD, "nap": {"kind": "wait", "for": "1h"}},
    "root": {"parallel": [{"map": "nap", "over": "xs", "max": 10_000}, {"sequence": [ADDING] * 3}], "need": 1},
}  # fmt: skip
LATE = {
    "agentflow": "plan/v1", "kind": "fsm", "name": "late", "limits": {"steps": 10, "usd": 1},
    "vars": {"n": "int"}, "tasks": {"add": ADD, "paid": {"kind": "event", "use": "com.example.paid", "timeout": "1h"}},
    "initial": "both",
    "states": {
        "both": {"regions": ["left", "right"], "transitions": [
            {"after": "700ms", "to": "over"}, {"event": "done", "to": "over"},
        ]},
        "left": {"in": "both", "run": "paid", "transitions": [{"event": "done", "to": "left_end"}]},
        "left_end": {"in": "both.left", "final": "success"},
        "right": {"in": "both", "run": "add", "transitions": [
            {"event": "done", "set": {"n": "result.n"}, "to": "again"},
        ]},
        "again": {"in": "both.right", "run": "add", "transitions": [{"event": "done", "to": "right_end"}]},
        "right_end": {"in": "both.right", "final": "success"},
        "over": {"final": "success"},
    },
}  # fmt: skip


async def fork(api: httpx.AsyncClient, run: UUID, at: int, **more: Any) -> UUID:
    answer = await api.post(f"/v1/runs/{run}/fork", json={"at": at, **more})
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


async def nothing_on_its_way(house: House) -> bool:
    return not await house.rows("select 1 from outbox")


async def books_in_order(house: House) -> None:
    """Nothing is parked, and the audit chain has nothing to say."""
    assert await house.rows("select * from parked") == []
    keys = ChainKeys(house.settings.audit_key)
    assert (await verify(house.database.dsn("agentflow_engine"), keys, house.tenant)).findings == []


@pytest.mark.parametrize("functions", [[("plan", "dispatch", "run_tool", "account_cost")],
                                       [("plan",), ("dispatch",), ("run_tool",), ("account_cost",)]],
                         ids=["together", "apart"])  # fmt: skip
async def test_a_fork_that_is_accepted_begins_whoever_comes_to_do_it(
    house: House, functions: list[tuple[str, ...]]
) -> None:
    """Its API is gone before anybody else is there; what it rests on is in the run's row, and not on the bus."""
    await house.register(WIDE)
    xs = list(range(600))
    async with house.host() as host:
        old = await house.submit(host, "wide", {"xs": xs})
        row = await house.ended(old)
    async with house.host(("api",)) as host, door(house, host) as api:
        new = await fork(api, old, 603)
    (requested,) = await house.rows(
        "select octet_length(data::text) as size from outbox where run_id = %s", new
    )
    assert requested["size"] < INLINE_LIMIT
    async with AsyncExitStack() as stack:
        for names in functions:
            await stack.enter_async_context(house.host(names, relay="plan" in names))
        await house.ended(new)
        await eventually(lambda: nothing_on_its_way(house))
    forked = await house.run(new)
    assert (forked["status"], forked["output"], forked["steps"]) == (row["status"], row["output"], 603)
    assert (row["spent_micro"], forked["spent_micro"]) == (300, 100)
    assert await house.rows("select * from blobs") == []
    mine = await house.rows("select step, status from steps where run_id = %s order by step", new)
    assert [step["step"] for step in mine] == [*range(1, 601), 603]
    await books_in_order(house)


async def test_what_was_pending_begins_anew_with_its_full_time(house: House) -> None:
    await house.register(LATE)
    async with house.host() as host, door(house, host) as api:
        old = await house.submit(host, "late")
        await house.ended(old)
        # Step 3 is `add` again: the event of step 1 and the state's time were pending when it was started.
        new = await fork(api, old, 3, set={"n": 5})
        other = await fork(api, old, 3)
        await eventually(lambda: house.rows("select 1 from subscriptions where run_id = %s", new))
        row = await house.ended(new)
        assert row["output"] == {"n": 5}
        begun, fired = await house.rows(
            "select at from history where run_id = %s and name in ('run.forked', 'timer.fired') order by seq",
            new,
        )
        assert fired["at"] - begun["at"] >= timedelta(milliseconds=700)
        await house.ended(other)
        given = await house.rows("select run_id, input from steps where step = 3 order by run_id")
        assert {each["run_id"]: each["input"]["n"] for each in given} == {old: 2, new: 6, other: 2}
        assert await house.rows("select * from timers") == []
        assert await house.rows("select * from subscriptions") == []
        await eventually(lambda: nothing_on_its_way(house))
    await books_in_order(house)


async def test_a_fork_waits_for_its_turn_like_any_run(house: House) -> None:
    await house.register(LATE)
    async with house.host() as host, door(house, host) as api:
        old = await house.submit(host, "late")
        await house.ended(old)
        await house.rows(
            "insert into limits (tenant_id, scope, concurrency) values (%s, 'workflow:late', 0) returning 1",
            house.tenant,
        )
        host.limits_changed(house.tenant)
        run = await fork(api, old, 3)
        found = (await api.get(f"/v1/runs/{run}")).json()
        assert (found["status"], found["forked_from"]) == ("requested", {"run": str(old), "at": 3})
        (stored,) = await house.rows("select data::text from outbox where run_id = %s", run)
        assert "begin" not in stored["data"], "what a fork rests on stays in its run's row"
        assert (await api.post(f"/v1/runs/{run}/fork", json={"at": 1})).status_code == 422
        await house.rows("delete from limits returning 1")
        host.limits_changed(house.tenant)
        assert (await house.ended(run))["steps"] == 3
        await eventually(lambda: nothing_on_its_way(house))
    await books_in_order(house)
