"""The reactor: one commit per step, one bad message harms no other, what keeps failing is parked."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import psycopg
import pytest
from house import House, eventually

from agentflow.control.ports import ParkedMessage
from agentflow.core.decide import dispatch
from agentflow.core.decision import Decided, Decision, Facts
from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.errors import RetryLater
from agentflow.runtime import parking

TEN = {
    "agentflow": "plan/v1", "kind": "bt", "name": "ten", "limits": {"steps": 10}, "vars": {"n": "int"},
    "tasks": {"add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}}},
    "root": {"type": "sequence", "children": [{"type": "task", "task": "add", "set": {"n": "result.n"}}] * 10},
}  # fmt: skip


async def test_fused_a_step_costs_one_commit(house: House) -> None:
    await house.register(TEN)
    async with house.host() as host:
        run = await house.submit(host, "ten")
        await house.ended(run)
        rows = await house.rows("select seq, name, xmin::text as transaction from history order by seq")
        steps = await house.rows("select step, xmin::text as closed_in from steps order by step")
    # Planned, started and the first step requested: one transaction. Then one for each step: its result, what the
    # plan makes of it and the request of the next.
    assert len({row["transaction"] for row in rows}) == 11
    assert rows[0]["transaction"] == rows[1]["transaction"]
    closings = [row["transaction"] for row in rows if row["name"] == "step.completed"]
    assert [step["closed_in"] for step in steps] == closings


class Faulty:
    """dispatch with a fault for one run."""

    def __init__(self, run: UUID, fault: str) -> None:
        self.run = run
        self.fault = fault
        self.calls = 0

    def __call__(self, run: Run | None, message: Message, facts: Facts) -> Decision:
        decision = dispatch.decide(run, message, facts)
        if message.run != self.run or message.name != "step.completed":
            return decision
        self.calls += 1
        if self.fault == "raise":
            raise ZeroDivisionError("a bug")
        # The database refuses to have this line twice, and the transaction with it.
        return decision._replace(rows=(*decision.rows, Decided("bad", {})))


@pytest.mark.parametrize("fault", ["raise", "refused by the database"])
async def test_a_poisonous_message_is_parked_and_its_neighbours_go_on(
    house: House, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr(parking, "BACKOFF_S", (0.01, 0.02, 0.02, 0.02))
    await house.register(TEN)
    poisoned = UUID(int=7)
    async with house.host(handoff=False) as host:
        faulty = Faulty(poisoned, fault)
        host._reactor._routes.functions["dispatch"] = faulty  # type: ignore[index]
        submitted = [house.submit(host, "ten", run=UUID(int=number)) for number in range(1, 21)]
        for run in await asyncio.gather(*submitted):
            if run != poisoned:
                assert (await house.ended(run))["status"] == "succeeded"

        async def parked() -> list[dict[str, Any]]:
            return await house.rows("select consumer, reason, tries from parked")

        (row,) = await eventually(parked)
        assert row["consumer"] == "run_tool"
        assert row["tries"] == parking.TRIES
        assert ("a bug" in row["reason"]) if fault == "raise" else ("duplicate key" in row["reason"])
        assert (await house.run(poisoned))["status"] == "running"
        # Mended, it is retried from where it was parked, and the run goes on.
        host._reactor._routes.functions["dispatch"] = dispatch.decide  # type: ignore[index]
        (kept,) = await house.rows("select tenant_id, consumer, subject, headers, payload from parked")
        await asyncio.sleep(
            2.1
        )  # long enough for the request to look like a repetition of what has been done
        await host.redeliver(ParkedMessage(*kept.values()))
        assert (await house.ended(poisoned))["output"] == {"n": 10}


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_the_database_goes_away_and_comes_back(house: House, handoff: bool) -> None:
    """Meanwhile nothing is accepted that could be lost; afterwards everything goes on within seconds."""
    pausing = TEN | {
        "tasks": TEN["tasks"] | {"nap": {"kind": "wait", "for": "100ms"}},
        "root": {
            "type": "sequence",
            "children": [*TEN["root"]["children"][:5], "nap", *TEN["root"]["children"][5:]],
        },
        "limits": {"steps": 20},
    }
    await house.register(pausing)
    async with house.host(handoff=handoff) as host:
        runs = await asyncio.gather(*(house.submit(host, "ten") for _ in range(50)))
        async with await psycopg.AsyncConnection.connect(
            house.database.postgres.dsn(), autocommit=True
        ) as admin:
            name = house.database.name
            await admin.execute(f"alter database {name} allow_connections false")
            await admin.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,)
            )
            with pytest.raises(RetryLater):
                await house.submit(host, "ten")
            await admin.execute(f"alter database {name} allow_connections true")
        for run in runs:
            row = await house.ended(run, within_s=15)
            assert (row["status"], row["output"]) == ("succeeded", {"n": 10})
    (row,) = await house.rows("select count(*) as n from steps where status = 'succeeded'")
    assert row["n"] == 50 * 11


async def test_a_signal_and_its_repetition_in_one_batch_count_once(house: House) -> None:
    napping = TEN | {
        "tasks": TEN["tasks"] | {"nap": {"kind": "wait", "for": "2s"}},
        "root": {"type": "sequence", "children": ["nap"]},
    }
    await house.register(napping)
    async with house.host() as host:
        run = await house.submit(host, "ten")
        data = {"run": str(run), "name": "go", "data": None, "step": None}
        signal = Message("signal.received", house.tenant, run, "signal:1", data)
        await asyncio.gather(*(host.submit(signal) for _ in range(3)))
        await host.submit(signal)
        lines = await house.rows("select 1 from history where name = 'signal.received'")
    assert len(lines) == 1


async def test_a_host_that_stops_leaves_no_twin_of_a_fact_that_was_published(house: House) -> None:
    """The relay would publish it again."""
    await house.register(TEN)
    async with house.host(relay=False) as host:
        for _ in range(5):
            run = await house.submit(host, "ten")
            await house.ended(run)
    assert await house.rows("select * from outbox") == []


async def test_a_host_that_stops_finishes_what_it_has_begun(house: House) -> None:
    await house.register(TEN)
    async with house.host() as host:
        runs = await asyncio.gather(*(house.submit(host, "ten") for _ in range(20)))
    async with house.host():
        for run in runs:
            assert (await house.ended(run))["status"] == "succeeded"
    (row,) = await house.rows("select count(*) as n from steps where status = 'succeeded'")
    assert row["n"] == 200


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_a_long_call_is_made_once(house: House, handoff: bool) -> None:
    """The relay repeats requests that are three seconds old, but not those that somebody is working on."""
    (house.settings.script_dir / "slow.model.yaml").write_text(
        "rules: [{prompt: hello, reply: there, latency_ms: 5000}]"
    )
    ask = {"kind": "llm", "use": "small", "prompt": "hello"}
    document = TEN | {"name": "slow", "tasks": {"ask": ask}, "vars": {}, "limits": {"steps": 2, "usd": 0.1}}
    await house.register(document | {"root": {"type": "task", "task": "ask"}})
    async with house.host(handoff=handoff) as host:
        effect = host._performers["invoke_llm"]._effect
        calls: list[str] = []
        perform = effect.perform

        async def counted(request: Message, *rest: Any) -> Any:
            calls.append(request.id)
            return await perform(request, *rest)

        effect.perform = counted  # type: ignore[method-assign]
        run = await house.submit(host, "slow")
        assert (await house.ended(run))["status"] == "succeeded"
        await asyncio.sleep(0.5)
    assert len(calls) == 1


async def test_what_a_host_left_behind_before_sending_is_found_within_seconds(house: House) -> None:
    """dispatch dies between its commit and its publishing: the request is only in Postgres."""
    await house.register(TEN)
    async with house.host(("plan", "run_tool", "account_cost", "api")) as others:
        async with house.host(("dispatch",), relay=False) as dispatching:
            dispatching.send = lambda leaving: None  # type: ignore[method-assign]
            dispatching._reactor._outlet = dispatching
            run = await house.submit(others, "ten")
            await eventually(lambda: house.rows("select 1 from outbox where name = 'tool.requested'"))
        async with house.host(("dispatch",), relay=False):
            row = await house.ended(run, within_s=12)
    assert (row["status"], row["output"]) == ("succeeded", {"n": 10})
