"""Limits in a running house: calls and runs wait for their turn, whoever dies, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from house import House, eventually
from models.chat_server import chat_server, completion
from starlette.responses import JSONResponse, Response

from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.runtime import gating
from agentflow.runtime.host import Host
from agentflow.runtime.lane import CROWD, SHARED, Lane
from agentflow.store.admin import create_tenant

SYSTEM = UUID(int=0)
SCRIPT = """
rules:
  - {prompt: 'Say .+', reply: 'said', latency_ms: 150}
"""
ASK = {
    "agentflow": "plan/v1", "kind": "bt", "name": "ask", "limits": {"steps": 3, "usd": 1}, "input": {"n": "int"},
    "tasks": {"say": {"kind": "llm", "use": "small", "prompt": "Say {n}", "in": {"n": "n"}, "max_tokens": 20}},
    "root": {"sequence": [{"task": "say"}, {"task": "say"}]},
}  # fmt: skip
WAIT = {
    "agentflow": "plan/v1", "kind": "fsm", "name": "wait", "limits": {"steps": 3},
    "tasks": {"idle": {"kind": "wait", "for": "1h"}}, "initial": "a",
    "trigger": {"type": "com.example.go", "input": {}},
    "states": {
        "a": {"run": "idle", "transitions": [{"event": "go", "to": "b"}, {"event": "done", "to": "b"}]},
        "b": {"final": "success"},
    },
}  # fmt: skip
ECHO = {
    "agentflow": "plan/v1", "kind": "bt", "name": "echo", "limits": {"steps": 3}, "vars": {"n": "int"},
    "tasks": {"say": {"kind": "tool", "use": "std.echo", "in": {"n": "n + 1"}, "out": {"n": "int"}}},
    "root": {"sequence": [{"task": "say", "set": {"n": "result.n"}}] * 3},
}  # fmt: skip


async def limit(
    house: House, scope: str, concurrency: int | None, tenant: UUID | None = None, **more: Any
) -> None:
    values = {"tenant_id": tenant or house.tenant, "scope": scope, "concurrency": concurrency} | more
    await house.rows(
        f"insert into limits ({', '.join(values)}) values ({', '.join(['%s'] * len(values))}) "
        "on conflict (tenant_id, scope) do update set concurrency = excluded.concurrency returning 1",
        *values.values(),
    )


@pytest.fixture
async def told(house: House) -> House:
    """A house with the workflows."""
    (house.settings.script_dir / "ask.model.yaml").write_text(SCRIPT)
    for document in (ASK, WAIT, ECHO):
        await house.register(document)
    return house


class FarSide:
    """A model provider that takes its time and counts."""

    def __init__(self, url: str) -> None:
        models = {"models": {"small": {"model": "m", "input_usd_per_mtok": 0, "output_usd_per_mtok": 0}}}
        self.settings = {"llm_base_url": url, "llm_api_key": "k", "models": json.dumps(models)}
        self.calls = self.now = self.most = 0

    async def answer(self, body: dict[str, Any]) -> Response:
        self.calls += 1
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.15)
        self.now -= 1
        return JSONResponse(completion())


@pytest.fixture
def far_side() -> Iterator[FarSide]:
    with chat_server() as server:
        counting = FarSide(server.url)
        server.answers = [counting.answer]
        yield counting


class Watcher:
    """Looks at the outbox all the time: the most calls and runs that were in progress at once."""

    def __init__(self) -> None:
        self.most: Counter[str] = Counter()
        self.looks = 0

    async def watch(self, dsn: str) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
            while True:
                rows = await conn.execute(
                    "select gate, count(*) from agentflow.outbox where admitted group by 1"
                )
                for gate, count in await rows.fetchall():
                    self.most[gate] = max(self.most[gate], count)
                self.looks += 1


@asynccontextmanager
async def watching(house: House) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    task = asyncio.create_task(watcher.watch(house.database.admin))
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert watcher.looks > 10


async def status(house: House, *runs: UUID) -> list[str]:
    rows = await house.rows("select run_id, status from runs where run_id = any (%s)", list(runs))
    found = {row["run_id"]: row["status"] for row in rows}
    return [found.get(run, "unknown") for run in runs]


async def reached(house: House, wanted: str, *runs: UUID, within_s: float = 60) -> None:
    async def look() -> bool:
        return set(await status(house, *runs)) == {wanted}

    await eventually(look, within_s=within_s)


async def nothing_left(house: House) -> None:
    async def look() -> bool:
        return not await house.rows("select from outbox where consumer <> 'facts'")

    await eventually(look)


@pytest.mark.parametrize("handoff", [True, False], ids=["handed over", "over the bus"])
async def test_calls_of_a_model_never_exceed_its_limit(told: House, far_side: FarSide, handoff: bool) -> None:
    await limit(told, "model:small", 3)
    async with told.host(handoff=handoff, **far_side.settings) as host:
        runs = [await told.submit(host, "ask", {"n": n}) for n in range(12)]
        # Of 24 calls, three at a time take 1.2 s; if what is free were only found by counting, it would be 16 s.
        await reached(told, "succeeded", *runs, within_s=10)
    assert (far_side.most, far_side.calls) == (3, 24)
    await nothing_left(told)


async def test_an_operators_limit_binds_all_tenants_together_and_is_shared_fairly(told: House) -> None:
    await limit(told, "model:small", 2, tenant=SYSTEM)
    other = House(told.settings, told.database, told.nats, await create_tenant(told.database.admin, "other"))
    await other.register(ASK)
    async with told.host() as host, watching(told) as watcher:
        many = [await told.submit(host, "ask", {"n": n}) for n in range(20)]
        one = await other.submit(host, "ask", {"n": 0})
        await reached(told, "succeeded", one, within_s=10)
        left = Counter(await status(told, *many))
        assert left["running"] > 10, "the one was not kept waiting for the many"
        await reached(told, "succeeded", *many)
    assert watcher.most["model:small"] == 2
    await nothing_left(told)


@pytest.mark.parametrize("scope", ["tenant", "workflow:wait"])
async def test_runs_wait_for_their_turn_oldest_and_most_urgent_first(told: House, scope: str) -> None:
    await limit(told, scope, 1)
    async with told.host() as host:
        first = await told.submit(host, "wait")
        await reached(told, "running", first)
        second, third, urgent = [await told.submit(host, "wait", priority=p) for p in (5, 5, 9)]
        other = await told.submit(host, "echo")
        if scope != "tenant":
            await reached(told, "succeeded", other)
        for going, following in ((first, urgent), (urgent, second), (second, third)):
            assert (await status(told, following)) == ["requested"]
            await host.submit(_signal(told, going, "go"))
            await reached(told, "succeeded", going)
            await reached(told, "running", following)
        await host.submit(_signal(told, third, "go"))
        await reached(told, "succeeded", third, other)
    await nothing_left(told)


async def test_runs_in_progress_keep_their_places_when_everything_is_started_anew(told: House) -> None:
    await limit(told, "workflow:wait", 2)
    async with told.host() as host:
        going = [await told.submit(host, "wait", version=1) for _ in range(2)]
        await reached(told, "running", *going)
        waiting = await told.submit(host, "wait", version=1)
    async with told.host() as host:
        await eventually(lambda: leads(host))
        late = await told.submit(host, "wait", version=1)
        await asyncio.sleep(0.5)
        assert await status(told, waiting, late) == ["requested", "requested"]
        await host.submit(_cancel(told, going[0]))
        await reached(told, "running", waiting)
        assert await status(told, late) == ["requested"]


async def leads(host: Host) -> bool:
    assert host._gatekeeper is not None
    return host._gatekeeper.epoch is not None


async def test_a_run_that_waits_can_be_cancelled_and_leaves_its_place_to_the_next(told: House) -> None:
    await limit(told, "workflow:wait", 1)
    async with told.host() as host:
        first = await told.submit(host, "wait", version=1)
        await reached(told, "running", first)
        second, third = [await told.submit(host, "wait", version=1) for _ in range(2)]
        await host.submit(_cancel(told, second))
        await reached(told, "cancelled", second)
        await host.submit(_cancel(told, first))
        await reached(told, "running", third)
        await host.submit(_cancel(told, third))
        await reached(told, "cancelled", first, second, third)
    await nothing_left(told)


async def test_a_call_that_waits_goes_with_its_run(told: House) -> None:
    await limit(told, "model:small", 0)
    async with told.host() as host:
        run = await told.submit(host, "ask", {"n": 1})
        await eventually(
            lambda: told.rows("select 1 from outbox where gate = 'model:small' and not admitted")
        )
        await host.submit(_cancel(told, run))
        await reached(told, "cancelled", run)
        await nothing_left(told)
    assert (await told.rows("select status from steps")) == [{"status": "halted"}]


async def test_runs_that_events_start_wait_visibly_too(told: House) -> None:
    await limit(told, "workflow:wait", 1)
    async with told.host() as host:
        for number in range(3):
            event = {
                "specversion": "1.0",
                "id": str(number),
                "source": "/t",
                "type": "com.example.go",
                "data": {},
            }
            message = Message("event.received", told.tenant, uuid4(), "event", {"event": event})
            await host.submit(message)
        await eventually(lambda: counted(told, {"running": 1, "requested": 2}))
        # The request comes once more, as it may over the bus: the run does not jump the queue.
        (waiting, *_) = await told.rows("select run_id from runs where status = 'requested'")
        data = {
            "run": str(waiting["run_id"]),
            "workflow": "wait",
            "version": 1,
            "input": {},
            "budget_micro": None,
        }
        again = Message("run.requested", told.tenant, waiting["run_id"], "requested", data)
        await host._receivers["plan"]._reactor.handle(_item("plan", again))
        assert await counted(told, {"running": 1, "requested": 2})
        (running,) = await told.rows("select run_id from runs where status = 'running'")
        await host.submit(_cancel(told, running["run_id"]))
        await eventually(lambda: counted(told, {"cancelled": 1, "running": 1, "requested": 1}))


async def counted(house: House, wanted: dict[str, int]) -> bool:
    rows = await house.rows("select status, count(*) as n from runs group by 1")
    return {row["status"]: row["n"] for row in rows} == wanted


async def test_a_run_that_ends_as_soon_as_it_is_planned_keeps_no_place(told: House) -> None:
    await limit(told, "tenant", 1)
    async with told.host() as host:
        runs = [await told.submit(host, "ask", {"n": "not a number"}) for _ in range(4)]
        await reached(told, "failed", *runs)
        runs = [await told.submit(host, "echo") for _ in range(4)]
        await reached(told, "succeeded", *runs)
    await nothing_left(told)


async def test_limits_that_are_set_while_runs_go_on_are_in_force_at_once(told: House) -> None:
    async with told.host() as host:
        runs = [await told.submit(host, "echo") for _ in range(3)]
        await reached(told, "succeeded", *runs)
        await limit(told, "tenant", 0)
        host.limits_changed(told.tenant)
        waiting = await told.submit(host, "echo")
        assert await status(told, waiting) == ["requested"]
        await told.rows("delete from limits returning 1")
        host.limits_changed(told.tenant)
        await reached(told, "succeeded", waiting)
        assert await told.rows("select 1 from outbox where gate is not null") == []


async def test_other_hosts_hear_of_a_change_and_read_it_anyway(told: House) -> None:
    apart = ("plan", "dispatch", "invoke_llm", "run_tool", "account_cost")
    async with told.host(("api",), relay=False) as api, told.host(apart) as rest:
        run = await told.submit(api, "echo", version=1)
        await reached(told, "succeeded", run)
        await limit(told, "tool:std.echo", 0)
        api.limits_changed(told.tenant)
        await eventually(lambda: unknown(rest, told.tenant))
        run = await told.submit(api, "echo", version=1)
        await eventually(lambda: told.rows("select 1 from outbox where gate = 'tool:std.echo'"))
        await told.rows("delete from limits returning 1")
        rest._gating._until = 0.0  # half a minute later
        rest._gatekeeper.limits_changed()  # type: ignore[union-attr]
        await reached(told, "succeeded", run)
        await reached(told, "succeeded", await told.submit(api, "echo", version=1))
    await nothing_left(told)


async def unknown(host: Host, tenant: UUID) -> bool:
    return tenant not in host._gating._known


async def test_a_wiped_bus_lets_nothing_past_the_gate(told: House, far_side: FarSide) -> None:
    await limit(told, "model:small", 1)
    async with told.host(handoff=False, **far_side.settings) as host:
        runs = [await told.submit(host, "ask", {"n": n}) for n in range(6)]
        await told.nats.wipe_jetstream()
        await reached(told, "succeeded", *runs, within_s=40)
    # What is sent again may be performed again (at least once), just when the next is let through.
    assert far_side.most <= 2
    await nothing_left(told)


async def test_a_host_that_sends_too_many_requests_has_the_gate_hold_the_rest(
    told: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gating, "WINDOW", 5)
    async with told.host(("api",), relay=False) as api:
        runs = [await told.submit(api, "echo", version=1) for _ in range(20)]
        other = House(
            told.settings, told.database, told.nats, await create_tenant(told.database.admin, "other")
        )
        await other.register(ECHO)
        one = await other.submit(api, "echo", version=1)
        rows = await told.rows("select tenant_id, gate, count(*) as n from outbox group by 1, 2 order by 3")
        assert [(row["tenant_id"], row["gate"], row["n"]) for row in rows] == [
            (other.tenant, None, 1), (told.tenant, None, 5), (told.tenant, "workflow:echo", 15),
        ]  # fmt: skip
        async with told.host(("plan", "dispatch", "run_tool", "account_cost")):
            await reached(told, "succeeded", one, *runs)
            await eventually(lambda: quiet(api))
            assert await told.submit(api, "echo", version=1)
            assert await told.rows("select 1 from outbox where key = 'gated'") == []


def test_batches_are_short_while_tenants_share_a_writer_and_who_has_little_to_do_has_one_alone() -> None:
    lane: Any = Lane()
    for number in range(600):
        lane.items.push("a", number)
    assert len(lane.take(256)) == 256
    lane.items.push("b", -1)
    sizes = [
        len(batch) if -1 not in batch else batch for batch in (lane.take(256), lane.take(256), lane.take(256))
    ]
    assert [-1] in sizes[:2]
    assert [size for size in sizes if size != [-1]] == [SHARED, SHARED], "and for a while after"


def test_one_tenants_full_queue_keeps_nobody_else_out() -> None:
    lane: Any = Lane()
    for number in range(100):
        lane.items.push("a", number)
    assert lane.full("a", 100)
    assert not lane.full("b", 100)
    for number in range(CROWD * 100):
        lane.items.push(number, number)
    assert lane.full("b", 100), "memory is not endless"


async def test_a_writer_knows_the_weights_that_the_operator_has_set(told: House) -> None:
    await limit(told, f"tenant:{told.tenant}", None, tenant=SYSTEM, weight=7)
    async with told.host() as host:
        await reached(told, "succeeded", await told.submit(host, "echo"))
        assert [lane.items._weights for lane in host._reactor._lanes] == [{told.tenant: 7}] * 2


async def quiet(api: Host) -> bool:
    return not (api._gating._under_way or api._gating._last)


async def test_killed_with_admitted_calls_the_next_host_makes_them_and_the_limit_holds(told: House) -> None:
    await limit(told, "model:small", 4)
    environment = {
        "PATH": os.environ["PATH"], "AGENTFLOW_HOME": str(told.settings.home), "AGENTFLOW_SANDBOX": "process",
        "AGENTFLOW_SCRIPT_DIR": str(told.settings.script_dir), "AGENTFLOW_NATS_URL": told.nats.url,
        "AGENTFLOW_DATABASE_URL": told.database.dsn("nobody").replace("nobody@", ""), "AGENTFLOW_HTTP_PORT": "0",
    }  # fmt: skip
    command = [sys.executable, "-m", "agentflow", "serve", "invoke_llm"]
    async with told.host(("api", "plan", "dispatch", "account_cost")) as host, watching(told) as watcher:
        worker = subprocess.Popen(command, env=environment, stdout=-3, stderr=-3)  # noqa: ASYNC220
        try:
            runs = [await told.submit(host, "ask", {"n": n}, version=1) for n in range(30)]
            await eventually(lambda: told.rows("select 1 from steps having count(*) > 4"))
        finally:
            worker.kill()
            worker.wait()
        await eventually(lambda: in_use(told, 4))
        async with told.host(("invoke_llm",), relay=False):
            await reached(told, "succeeded", *runs, within_s=40)
    assert watcher.most["model:small"] == 4
    results = await told.rows("select count(*) as n from steps where status = 'succeeded'")
    assert results == [{"n": 60}]
    await nothing_left(told)


async def in_use(house: House, count: int) -> bool:
    return len(await house.rows("select 1 from outbox where admitted")) == count


def _signal(house: House, run: UUID, name: str) -> Message:
    data = {"run": str(run), "name": name, "data": None, "step": None}
    return Message("signal.received", house.tenant, run, f"signal:{uuid4()}", data)


def _cancel(house: House, run: UUID) -> Message:
    return Message(
        "run.cancel_requested", house.tenant, run, f"cancel:{uuid4()}", {"run": str(run), "reason": "x"}
    )


def _item(consumer: str, message: Message) -> Any:
    from agentflow.runtime.batch import Item

    return Item(consumer, message, (message.tenant, message.run, message.key, consumer))


class Crowd:
    """A host's gating, asked about run requests of one tenant."""

    def __init__(self) -> None:
        async def read(tenants: Any) -> list[Any]:
            return []

        self.gating = gating.Gating(read, sends_requests=True)
        self.tenant = uuid4()

    def waits(self, run: UUID) -> bool:
        message = Message("run.requested", self.tenant, run, "requested", {})
        return self.gating.gate(message, Run(self.tenant, run, "w", 1), None, leaves=True) is not None


def test_what_comes_later_does_not_go_past_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gating, "WINDOW", 2)
    crowd = Crowd()
    first, second, third, fourth, later = (uuid4() for _ in range(5))
    assert [crowd.waits(run) for run in (first, second, third, fourth)] == [False, False, True, True]
    crowd.gating.planned([first, second])
    assert crowd.waits(later), "two wait: none goes past them"
    crowd.gating.planned([third])
    assert crowd.waits(later), "asked again, it is still the last"
    crowd.gating.planned([fourth, later])
    assert not crowd.waits(uuid4())


def test_a_lost_hint_about_the_last_that_waits_is_made_up_for_by_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gating, "WINDOW", 1)
    crowd = Crowd()
    first, lost, another = uuid4(), uuid4(), uuid4()
    assert [crowd.waits(run) for run in (first, lost)] == [False, True]
    crowd.gating.planned([first])
    assert crowd.waits(another)
    crowd.gating.planned([another])
    assert not crowd.waits(uuid4())
    assert not crowd.gating._last
    assert not crowd.gating._tenant_of
