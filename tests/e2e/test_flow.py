"""What a run does from request to end, in one process: real Postgres, real JetStream, all functions."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from house import House, eventually

from agentflow.control.ports import ParkedMessage
from agentflow.core.message import Message
from agentflow.errors import Conflict, Rejected
from agentflow.runtime import parking
from agentflow.runtime.function import NAMES as FUNCTIONS
from agentflow.wire.catalogue import CATALOGUE, incoming_subject, make
from agentflow.wire.event import Event
from agentflow.wire.json_format import to_dict
from agentflow.wire.nats import to_nats

COUNT = {
    "agentflow": "plan/v1",
    "kind": "bt",
    "name": "count",
    "limits": {"steps": 10, "usd": 0.001},
    "vars": {"n": "int"},
    "tasks": {
        "add": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}, "usd": 0.0001}
    },
    "root": {"type": "sequence", "children": [{"type": "task", "task": "add", "set": {"n": "result.n"}}] * 3},
}


def plan(name: str, tasks: dict[str, Any], *children: Any, **more: Any) -> dict[str, Any]:
    """A behaviour tree that is a sequence of ``children``."""
    root = {"type": "sequence", "children": list(children)}
    base = {
        "agentflow": "plan/v1",
        "kind": "bt",
        "name": name,
        "limits": {"steps": 50},
        "tasks": tasks,
        "root": root,
    }
    return base | more


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_a_run_ends_once_with_its_cost_and_its_history(house: House, handoff: bool) -> None:
    await house.register(COUNT)
    async with house.host(handoff=handoff) as host:
        run = await house.submit(host, "count", {"n": 4})
        row = await house.ended(run)
    assert (row["status"], row["output"], row["steps"]) == ("succeeded", {"n": 7}, 3)
    assert (row["spent_micro"], row["held_micro"]) == (300, 0)
    steps = await house.rows("select step, status, output, cost_micro from steps order by step")
    assert [(s["step"], s["status"], s["output"], s["cost_micro"]) for s in steps] == [
        (1, "succeeded", {"n": 5}, 100), (2, "succeeded", {"n": 6}, 100), (3, "succeeded", {"n": 7}, 100),
    ]  # fmt: skip
    history = await house.rows("select seq, name from history order by seq")
    assert [h["name"] for h in history] == ["run.planned", "run.started"] + ["step.completed"] * 3
    assert [h["seq"] for h in history] == [1, 2, 3, 4, 5]
    entries = await house.rows(
        "select entry, sum(amount_micro)::int as micro from ledger group by 1 order by 1"
    )
    assert entries == [{"entry": "hold", "micro": 300}, {"entry": "settle", "micro": 300}]
    left = await house.rows("select consumer from outbox where consumer <> 'facts'")
    assert left == []


async def test_apart_and_together_give_the_same_history(house: House) -> None:
    """One process with everything, or one host per function: the same decisions, the same hashes."""
    await house.register(COUNT)
    query = "select seq, name, hash from history where run_id = %s order by seq"
    async with house.host() as host:
        together = await house.submit(host, "count", {"n": 1}, run=UUID(int=1))
        await house.ended(together)
    first = await house.rows(query, together)
    apart = UUID(int=2)
    async with (
        house.host(("plan",), relay=False),
        house.host(("dispatch",), relay=False),
        house.host(("run_tool",), relay=False),
        house.host(("account_cost",), relay=False),
        house.host(("api",)) as api,
    ):
        await house.submit(api, "count", {"n": 1}, run=apart)
        await house.ended(apart)
    second = await house.rows(query, apart)
    assert len(first) == 5
    assert first == second
    assert (await house.run(together))["output"] == (await house.run(apart))["output"]
    totals = await house.rows("select run_id, spent_micro, held_micro from runs order by run_id")
    assert [(t["spent_micro"], t["held_micro"]) for t in totals] == [(300, 0), (300, 0)]


async def test_a_failing_attempt_is_tried_again_after_its_backoff(house: House) -> None:
    tasks = {
        "shaky": {
            "kind": "tool", "use": "std.fail", "in": {"times": "2", "retryable": "true"},
            "retry": {"max": 3, "backoff": "100ms"}, "out": {"attempt": "int"},
        }
    }  # fmt: skip
    await house.register(
        plan(
            "shaky",
            tasks,
            {"type": "task", "task": "shaky", "set": {"n": "result.attempt"}},
            vars={"n": "int"},
        )
    )
    async with house.host() as host:
        run = await house.submit(host, "shaky")
        row = await house.ended(run)
    assert (row["status"], row["output"]) == ("succeeded", {"n": 3})
    attempts = await house.rows(
        "select attempt, status, requested_at, completed_at from steps order by attempt"
    )
    assert [(a["attempt"], a["status"]) for a in attempts] == [(1, "failed"), (2, "failed"), (3, "succeeded")]
    for before, after, least in zip(attempts, attempts[1:], (0.1, 0.2), strict=False):
        waited = (after["requested_at"] - before["completed_at"]).total_seconds()
        assert least <= waited < least * 1.25 + 1.0


async def test_an_error_that_stays_fails_the_run_with_its_path(house: House) -> None:
    tasks = {"broken": {"kind": "tool", "use": "std.fail", "in": {"message": "'no such order'"}}}
    await house.register(plan("broken", tasks, "broken"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "broken"))
    assert row["status"] == "failed"
    assert "no such order" in row["error"]["message"]


async def test_a_wait_is_never_early(house: House) -> None:
    await house.register(plan("pause", {"pause": {"kind": "wait", "for": "300ms"}}, "pause"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "pause"))
    took = (row["finished_at"] - row["created_at"]).total_seconds()
    assert row["status"] == "succeeded"
    assert 0.3 <= took < 2.0
    assert await house.rows("select * from timers") == []


EVENT = {"kind": "event", "use": "com.example.paid", "match": "event.data.order == order", "timeout": "5s"}


async def test_an_event_wakes_the_step_that_waits_for_it_and_no_other(house: House) -> None:
    document = plan("pay", {"paid": EVENT}, {"type": "task", "task": "paid", "set": {"sum": "int(result.data.sum)"}},
                    input={"order": "string"}, vars={"sum": "int"})  # fmt: skip
    await house.register(document)
    async with house.host() as host:
        mine = await house.submit(host, "pay", {"order": "A1"})
        other = await house.submit(host, "pay", {"order": "B2"})
        event = Event(
            "e-1",
            "/shop",
            "com.example.paid",
            data={"order": "A1", "sum": 12},
            datacontenttype="application/json",
        )
        for _ in range(2):  # a client that publishes twice
            headers, payload = to_nats(event, "structured")
            await host._bus.republish(incoming_subject(house.tenant, "shop"), headers, payload)
        row = await house.ended(mine)
        assert row["status"] == "succeeded"
        assert row["output"] == {"sum": 12}
        assert (await house.run(other))["status"] == "running"
    inbox = await house.rows("select consumer, count(*) as n from inbox group by 1 order by 1")
    assert inbox == [{"consumer": "dispatch", "n": 2}, {"consumer": "plan", "n": 1}]


async def test_an_event_that_does_not_come_in_time(house: House) -> None:
    await house.register(plan("late", {"paid": {**EVENT, "match": "true", "timeout": "200ms"}}, "paid"))
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "late"))
    assert row["status"] == "failed"
    assert await house.rows("select * from subscriptions") == []


async def test_a_trigger_starts_a_run_once_per_event(house: House) -> None:
    document = COUNT | {
        "trigger": {
            "type": "com.example.alert",
            "if": "event.data.n > 2",
            "input": {"n": "int(event.data.n)"},
        }
    }
    await house.register(document)
    async with house.host() as host:
        for number in (1, 5, 5):
            event = Event(
                f"e-{number}",
                "/mon",
                "com.example.alert",
                data={"n": number},
                datacontenttype="application/json",
            )
            run = UUID(int=100 + number)
            await host.submit(
                Message("event.received", house.tenant, run, "event", {"event": to_dict(event)})
            )
        await eventually(lambda: house.rows("select 1 from runs where finished_at is not null"))
    (row,) = await house.rows("select output from runs")
    assert row["output"] == {"n": 8}


async def test_a_cancelled_run_stops_its_work(house: House) -> None:
    await house.register(plan("long", {"pause": {"kind": "wait", "for": "1h"}}, "pause"))
    async with house.host() as host:
        run = await house.submit(host, "long")
        await eventually(lambda: house.rows("select 1 from timers where kind = 'wait'"))
        cancel = Message(
            "run.cancel_requested",
            house.tenant,
            run,
            "cancel:1",
            {"run": str(run), "reason": "changed my mind"},
        )
        await host.submit(cancel)
        row = await house.ended(run)
        assert row["status"] == "cancelled"
        with pytest.raises(Conflict):
            await host.submit(Message("run.cancel_requested", house.tenant, run, "cancel:2", cancel.data))
    assert await house.rows("select * from timers") == []
    assert [s["status"] for s in await house.rows("select status from steps")] == ["halted"]


async def test_a_wall_limit_ends_a_run(house: House) -> None:
    await house.register(
        plan(
            "walled", {"pause": {"kind": "wait", "for": "1h"}}, "pause", limits={"steps": 3, "wall": "200ms"}
        )
    )
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "walled"))
    assert (row["status"], row["error"]["code"], row["error"]["path"]) == (
        "failed",
        "wall_limit",
        "limits.wall",
    )


async def test_what_a_step_may_cost_must_be_there_before_it_starts(house: House) -> None:
    await house.register(COUNT | {"limits": {"steps": 10, "usd": 0.00025}})
    async with house.host() as host:
        row = await house.ended(await house.submit(host, "count"))
    assert row["status"] == "failed"
    assert "raise limits.usd" in row["error"]["message"]
    assert (row["spent_micro"], row["held_micro"]) == (200, 0)


async def test_a_tenants_limit_holds_for_many_runs_at_once(house: House) -> None:
    """20 runs of 300 micro-dollars against 1,000: exactly ten steps are admitted."""
    await house.register(COUNT)
    await house.rows(
        "insert into budgets (tenant_id, scope, limit_micro) values (%s, 'tenant', 1000) returning 1",
        house.tenant,
    )
    async with house.host() as host:
        runs = await asyncio.gather(*(house.submit(host, "count") for _ in range(20)))
        for run in runs:
            await house.ended(run)
    (budget,) = await house.rows("select * from budgets")
    assert (budget["spent_micro"], budget["held_micro"], budget["frozen"]) == (1000, 0, False)
    (ledger,) = await house.rows("select sum(amount_micro)::int as n from ledger where entry = 'settle'")
    assert ledger["n"] == 1000


async def test_the_same_request_twice_is_one_run(house: House) -> None:
    await house.register(COUNT)
    async with house.host() as host:
        run = uuid4()
        await house.submit(host, "count", run=run, request_hash="a")
        await house.submit(host, "count", run=run, request_hash="a")
        with pytest.raises(Conflict) as caught:
            await house.submit(host, "count", run=run, request_hash="b")
        assert caught.value.code == "idempotency_mismatch"
        await house.ended(run)
    (row,) = await house.rows("select count(*) as n from steps")
    assert row["n"] == 3


async def test_an_unknown_workflow_and_a_bad_input_fail_the_run_that_asked(house: House) -> None:
    await house.register(COUNT)
    async with house.host() as host:
        nowhere = await house.ended(await house.submit(host, "nowhere"))
        wrong = await house.ended(await house.submit(host, "count", {"n": "four"}))
    assert (nowhere["status"], nowhere["error"]["code"]) == ("failed", "unknown_workflow")
    assert (wrong["status"], wrong["error"]["path"]) == ("failed", "input.n")


async def test_messages_about_unknown_runs_are_refused(house: House) -> None:
    async with house.host() as host:
        run = uuid4()
        with pytest.raises(Rejected, match="no such run"):
            await host.submit(
                Message(
                    "signal.received",
                    house.tenant,
                    run,
                    "s",
                    {"run": str(run), "name": "x", "data": None, "step": None},
                )
            )


async def test_repeated_and_late_events_change_nothing(house: House) -> None:
    """Every event of a finished run is published again, twice: not a row changes, and nothing is parked."""
    await house.register(COUNT)
    async with house.host(handoff=False) as host:
        run = await house.submit(host, "count")
        before = await house.ended(run)
        rows = await house.rows("select * from history order by seq")
        usage = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 1}
        base = {
            "run": str(run),
            "epoch": 0,
            "task": "add",
            "usage": usage,
            "cost_micro": 100,
            "duration_ms": 1,
        }
        for step in (1, 2, 3):
            for name, key, data in (
                (
                    "step.completed",
                    f"{step}.1:done",
                    {"status": "succeeded", "output": {"n": 99}, "error": None, "late": False},
                ),
                ("timer.fired", f"t{step}", {"timer": f"retry:{step}", "kind": "retry"}),
            ):
                body = {"run": str(run), "step": step, "attempt": 1, **data}
                if name == "step.completed":
                    body = base | body
                event = make(
                    name,
                    run=run,
                    key=key,
                    source_function="x",
                    tenant=house.tenant,
                    time=datetime.now(UTC),
                    data=body,
                )
                for _ in range(2):
                    await host._bus.republish(CATALOGUE[name].subject(house.tenant), *to_nats(event))
        marker = await house.submit(host, "count")
        await house.ended(marker)
        await asyncio.sleep(0.3)
    assert await house.rows("select * from history where run_id = %s order by seq", run) == rows
    assert await house.run(run) == before
    assert await house.rows("select * from parked") == []


async def test_what_cannot_be_read_is_parked_with_its_reason_and_stops_nobody(house: House) -> None:
    await house.register(COUNT)
    async with house.host() as host:
        subject = incoming_subject(house.tenant, "x")
        await host._bus.republish(subject, {}, b"\x00 not a CloudEvent")
        await host._bus.republish(
            subject, {"Content-Type": "application/cloudevents+json"}, b'{"specversion":"1.0"'
        )
        reserved = Event(
            "1", "/x", "agentflow.step.completed.v1", data={}, datacontenttype="application/json"
        )
        await host._bus.republish(subject, *to_nats(reserved))
        unknown = make_for_unknown_run(house)
        await host._bus.republish(CATALOGUE["step.completed"].subject(house.tenant), *to_nats(unknown))
        row = await house.ended(await house.submit(host, "count"))
        assert row["status"] == "succeeded"

        async def five() -> list[dict[str, Any]] | None:
            rows = await house.rows(
                "select consumer, reason, tenant_id from parked order by consumer, reason"
            )
            return rows if len(rows) == 5 else None

        parked = await eventually(five)
    assert {p["tenant_id"] for p in parked} == {house.tenant}
    assert [p["consumer"] for p in parked] == ["account_cost", "dispatch", "plan", "plan", "plan"]
    assert all("there is no run" in p["reason"] for p in parked[:2])
    assert any("may not be published by clients" in p["reason"] for p in parked)


def make_for_unknown_run(house: House) -> Event:
    usage = {"input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "calls": 1}
    run = uuid4()
    data = {
        "run": str(run), "step": 1, "attempt": 1, "epoch": 0, "task": "add", "status": "succeeded", "output": {},
        "error": None, "usage": usage, "cost_micro": 0, "duration_ms": 1, "late": False,
    }  # fmt: skip
    now = datetime.now(UTC)
    return make(
        "step.completed",
        run=run,
        key="1.1:done",
        source_function="x",
        tenant=house.tenant,
        time=now,
        data=data,
    )


@pytest.mark.parametrize(
    "functions", [[tuple(FUNCTIONS)], [(f,) for f in FUNCTIONS]], ids=["together", "apart"]
)
async def test_a_payload_over_the_inline_limit_travels_by_claim_check(
    house: House, functions: list[tuple[str, ...]]
) -> None:
    """100 KB go in, through a tool and out: the bus carries a reference, Postgres the content."""
    tasks = {"echo": {"kind": "tool", "use": "std.echo", "in": {"text": "text"}, "out": {"text": "string"}}}
    root = {"type": "task", "task": "echo", "set": {"copy": "result.text"}}
    await house.register(plan("big", tasks, root, input={"text": "string"}, vars={"copy": "string"}))
    text = "ä" * 50_000
    async with AsyncExitStack() as stack:
        hosts = [await stack.enter_async_context(house.host(names, handoff=False)) for names in functions]
        api = next(host for host in hosts if "api" in host.functions)
        row = await house.ended(await house.submit(api, "big", {"text": text}))
    assert row["status"] == "succeeded", row["error"]
    assert row["output"] == {"copy": text}
    blobs = await house.rows("select length(content) as n from blobs")
    assert len(blobs) >= 2
    assert min(blob["n"] for blob in blobs) > 100_000
    assert await house.rows("select * from parked") == []


async def test_an_event_for_a_tenant_that_does_not_exist_is_kept_for_the_operator(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parking, "BACKOFF_S", (0.01, 0.02, 0.02, 0.02))
    nobody = uuid4()
    async with house.host() as host:
        event = Event("e-1", "/shop", "com.example.paid", data={"n": 1}, datacontenttype="application/json")
        await host._bus.republish(incoming_subject(nobody, "shop"), *to_nats(event))

        async def parked() -> list[dict[str, Any]]:
            return await house.rows("select tenant_id, subject, reason from parked")

        (row,) = await eventually(parked)
    assert row["tenant_id"] == UUID(int=0)
    assert str(nobody) in row["subject"]
    assert "inbox_tenant_id_fkey" in row["reason"]


async def test_a_client_cannot_pass_for_one_of_ours_by_having_its_event_parked_and_retried(
    house: House,
) -> None:
    await house.register(COUNT)
    run = uuid4()
    data = {"run": str(run), "workflow": "count", "version": None, "input": {}, "budget_micro": None}
    now = datetime.now(UTC)
    forged = make(
        "run.requested",
        run=run,
        key="requested",
        source_function="api",
        tenant=house.tenant,
        time=now,
        data=data,
    )
    query = "select tenant_id, consumer, subject, headers, payload from parked"
    async with house.host() as host:
        await host._bus.republish(incoming_subject(house.tenant, "x"), *to_nats(forged))
        (kept,) = await eventually(lambda: house.rows(query))
        await host.redeliver(ParkedMessage(*kept.values()))
        await house.ended(await house.submit(host, "count"))  # long enough for a forged run to begin
    assert await house.rows("select 1 from runs where run_id = %s", run) == []
