"""The fence: what a host remembers of a run is worth nothing once another host has written it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any
from uuid import UUID

import pytest
from house import House, eventually

from agentflow.core.message import Message
from agentflow.errors import Conflict
from agentflow.runtime.host import Host
from agentflow.store.changes import Changes

WAITING = {
    "agentflow": "plan/v1", "kind": "bt", "name": "waiting", "limits": {"steps": 5}, "vars": {"n": "int"},
    "tasks": {
        "add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}},
        "paid": {"kind": "event", "use": "com.example.paid"},
    },
    "root": {"type": "sequence", "children": [{"type": "task", "task": "add", "set": {"n": "result.n"}}, "paid"]},
}  # fmt: skip


def cancel(house: House, run: UUID, key: str) -> Message:
    return Message(
        "run.cancel_requested", house.tenant, run, f"cancel:{key}", {"run": str(run), "reason": key}
    )


async def waits(house: House) -> Any:
    return await eventually(lambda: house.rows("select 1 from subscriptions"))


def remembered(host: Host) -> set[UUID]:
    return set(host._reactor._memory._runs)


async def lines(house: House) -> list[str]:
    return [row["name"] for row in await house.rows("select name from history order by seq")]


async def test_what_a_host_remembers_is_given_up_when_another_was_faster(house: House) -> None:
    await house.register(WAITING)
    async with house.host() as first, house.host() as second:
        run = await house.submit(first, "waiting")
        await waits(house)
        assert remembered(first) == {run}
        await second.submit(cancel(house, run, "second"))
        # The first still takes the run for running, and would cancel it: the database knows better.
        assert remembered(first) == {run}
        with pytest.raises(Conflict, match="cancelled"):
            await first.submit(cancel(house, run, "first"))
        assert remembered(first) == set()
    assert (await house.run(run))["error"] is None
    assert (await lines(house)).count("run.cancel_requested") == 1
    (state,) = await house.rows("select state ->> 'cancel' as reason from runs")
    assert state["reason"] == "second"


async def test_a_host_that_was_stopped_before_its_commit_changes_nothing_afterwards(house: House) -> None:
    """As SIGSTOP does it, for as long as you like: there is no lease to outlive."""
    await house.register(WAITING)
    async with house.host() as first, house.host() as second:
        run = await house.submit(first, "waiting")
        await waits(house)
        stopped, woken = asyncio.Event(), asyncio.Event()
        commit = first.store.commit

        async def sleeping(tenants: Iterable[UUID], changes: Changes) -> None:
            stopped.set()
            await woken.wait()
            await commit(tenants, changes)

        first.store.commit = sleeping  # type: ignore[method-assign]
        late = asyncio.create_task(first.submit(cancel(house, run, "first")))
        await stopped.wait()
        await second.submit(cancel(house, run, "second"))
        before = await house.rows("select * from runs"), await house.rows("select * from steps order by step")
        woken.set()
        with pytest.raises(Conflict):
            await late
        assert (
            await house.rows("select * from runs"),
            await house.rows("select * from steps order by step"),
        ) == before
    assert (await lines(house)).count("run.cancel_requested") == 1


async def test_a_run_asked_for_twice_at_once_is_one_run(house: House) -> None:
    """Both hosts take it for new, and only one of them can be right."""
    await house.register(WAITING)
    async with house.host() as first, house.host() as second:
        for host in (first, second):  # from here on both know the plan, and decide without looking
            await house.submit(host, "waiting", run=UUID(int=host is first), version=1)
        run = UUID(int=7)
        await asyncio.gather(
            *(house.submit(host, "waiting", run=run, version=1) for host in (first, second) * 5)
        )
    names = [
        row["name"]
        for row in await house.rows(f"select name from history where run_id = '{run}' order by seq")
    ]
    assert names.count("run.planned") == names.count("run.started") == 1
