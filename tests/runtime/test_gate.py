"""The gatekeeper on real PostgreSQL: limits hold whoever dies, is stopped or hears nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from house import eventually

from agentflow.core.limits import GATED, SLOT
from agentflow.runtime import gate as gate_module
from agentflow.runtime.batch import Leaving
from agentflow.runtime.gate import SQL, Gatekeeper
from agentflow.store.admin import create_tenant

SYSTEM = UUID(int=0)
ROOT = Path(__file__).parents[2]


class Yard:
    """An outbox with rows that wait, and gatekeepers before it."""

    def __init__(self, database: Any, conn: psycopg.AsyncConnection[Any], tenants: list[UUID]) -> None:
        self.database = database
        self.conn = conn
        self.a, self.b = tenants
        self.sent: list[Leaving] = []

    async def execute(self, query: str, *params: Any) -> list[tuple[Any, ...]]:
        cursor = await self.conn.execute(query, params)
        return await cursor.fetchall() if cursor.description else []

    async def limit(self, tenant: UUID, scope: str, concurrency: int | None = None, **more: Any) -> None:
        columns = ["tenant_id", "scope", "concurrency", *more]
        await self.execute(
            f"insert into limits ({', '.join(columns)}) values ({', '.join(['%s'] * len(columns))}) "
            "on conflict (tenant_id, scope) do update set concurrency = excluded.concurrency",
            tenant, scope, concurrency, *more.values(),
        )  # fmt: skip

    async def put(
        self, tenant: UUID, gate: str, times: int = 1, *, priority: int = 5, to: Gatekeeper | None = None
    ) -> list[UUID]:
        """Requests that wait, as the engine writes them."""
        run = gate.startswith("workflow:")
        key, consumer, name = (
            (GATED, "plan", "run.requested") if run else ("1.1", "run_tool", "tool.requested")
        )
        rows = await self.execute(
            "insert into outbox (tenant_id, run_id, key, consumer, name, data, due_at, gate, priority, admitted, "
            "created_at) select %s, gen_random_uuid(), %s, %s, %s, json_build_object('n', n), 'infinity', %s, %s, "
            "false, now() + n * interval '1 microsecond' "
            "from generate_series(1, %s) n returning run_id",
            tenant, key, consumer, name, gate, priority, times,
        )  # fmt: skip
        if to is not None:
            to.written([(tenant, gate, priority)])
        return [row[0] for row in rows]

    async def consume(self, *runs: UUID, to: Gatekeeper | None = None) -> None:
        """What the consumer's transaction does."""
        done = await self.execute(
            "delete from outbox where run_id = any (%s) and admitted returning run_id, key", list(runs)
        )
        assert len(done) == len(runs)
        if to is not None:
            to.freed(done)

    async def admitted(self) -> set[UUID]:
        return {run for (run,) in await self.execute("select run_id from outbox where admitted")}

    async def until_admitted(self, count: int, *, within_s: float = 10) -> set[UUID]:
        async def look() -> set[UUID] | None:
            found = await self.admitted()
            return found if len(found) >= count else None

        found: set[UUID] = await eventually(look, within_s=within_s)
        return found

    @asynccontextmanager
    async def keeper(
        self, send: Callable[[Sequence[Leaving]], None] | None = None, *, leads: bool = True, **changes: Any
    ) -> AsyncIterator[Gatekeeper]:
        dsn = self.database.dsn("agentflow_relay")
        keeper = Gatekeeper(dsn, send or self.sent.extend, **changes)
        await keeper.start()
        try:
            if leads:
                await eventually(lambda: leading(keeper))
            yield keeper
        finally:
            await keeper.stop()


async def leading(keeper: Gatekeeper) -> bool:
    return keeper.epoch is not None


@pytest.fixture
async def yard(database: Any) -> AsyncIterator[Yard]:
    tenants = [await create_tenant(database.admin, name) for name in "ab"]
    async with await psycopg.AsyncConnection.connect(
        database.admin, autocommit=True, options="-c search_path=agentflow"
    ) as conn:
        yield Yard(database, conn, tenants)


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hints are lost: what is not told must be found by counting."""
    monkeypatch.setattr(gate_module, "COUNT_S", 0.2)
    monkeypatch.setattr(gate_module, "IDLE_S", 0.3)


async def test_no_more_than_the_limit_are_sent_and_a_new_one_for_each_that_is_done(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 3)
    async with yard.keeper() as keeper:
        runs = await yard.put(yard.a, "tool:t", 10, to=keeper)
        await yard.until_admitted(3)
        assert [leave.message.run for leave in yard.sent] == runs[:3]
        assert yard.sent[0].consumer == "run_tool"
        assert yard.sent[0].message.data == {"n": 1}
        for done, following in zip(runs, runs[3:], strict=False):
            await yard.consume(done, to=keeper)
            await eventually(lambda last=following: sent(yard, last))
            assert len(await yard.admitted()) == 3
    assert [leave.message.run for leave in yard.sent] == runs


async def sent(yard: Yard, run: UUID) -> bool:
    return yard.sent[-1].message.run == run


async def test_what_is_admitted_is_sent_again_like_every_request(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 1)
    async with yard.keeper() as keeper:
        await yard.put(yard.a, "tool:t", 2, to=keeper)
        await yard.until_admitted(1)
    rows = await yard.execute(
        "select admitted, due_at < clock_timestamp() + interval '4 s' from outbox order by 1"
    )
    assert rows == [(False, False), (True, True)]  # who waits is never due


async def test_a_request_reaches_its_function_within_milliseconds_of_its_commit(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 100)
    reached = asyncio.Event()
    async with yard.keeper(lambda leaving: reached.set()) as keeper:
        times = []
        for _ in range(20):
            reached.clear()
            (run,) = await yard.put(yard.a, "tool:t")
            began = time.perf_counter()
            keeper.written([(yard.a, "tool:t", 5)])
            await asyncio.wait_for(reached.wait(), 5)
            times.append(time.perf_counter() - began)
            await yard.consume(run, to=keeper)
    assert sorted(times)[10] < 0.05


async def test_lost_hints_are_made_good(yard: Yard, deaf: None) -> None:
    await yard.limit(yard.a, "tool:t", 2)
    async with yard.keeper():
        runs = await yard.put(yard.a, "tool:t", 5)
        assert await yard.until_admitted(2) == set(runs[:2])
        await yard.consume(*runs[:2])
        assert await yard.until_admitted(2) == set(runs[2:4])


async def test_a_run_is_counted_from_its_admission_to_the_end_of_its_slot(yard: Yard, deaf: None) -> None:
    await yard.limit(yard.a, "tenant", 1)
    async with yard.keeper() as keeper:
        first, second = await yard.put(yard.a, "workflow:w", 2, to=keeper)
        assert await yard.until_admitted(1) == {first}
        # As plan does: the request is consumed and the slot written in one transaction.
        await yard.execute(
            """with planned as (delete from outbox where run_id = %s returning tenant_id, run_id, gate, priority)
               insert into outbox (tenant_id, run_id, key, consumer, name, data, due_at, gate, priority, admitted)
               select tenant_id, run_id, %s, 'gate', 'slot', '{}', 'infinity', gate, priority, true from planned""",
            first, SLOT,
        )  # fmt: skip
        keeper.freed([(first, GATED)])
        await asyncio.sleep(0.6)  # it counts several times
        assert await yard.admitted() == {first}
        await yard.consume(first, to=keeper)
        assert await yard.until_admitted(1) == {second}


async def test_limits_change_while_rows_wait(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 4)
    async with yard.keeper() as keeper:
        runs = await yard.put(yard.a, "tool:t", 12, to=keeper)
        await yard.until_admitted(4)
        await yard.limit(yard.a, "tool:t", 1)
        keeper.limits_changed()
        for done in runs[:3]:
            await yard.consume(done, to=keeper)
        await asyncio.sleep(0.1)
        assert await yard.admitted() == {runs[3]}, "the limit is below what is in use: nothing new"
        await yard.consume(runs[3], to=keeper)
        assert await yard.until_admitted(1) == {runs[4]}
        await yard.execute("delete from limits")
        keeper.limits_changed()
        assert await yard.until_admitted(8) == set(runs[4:]), "the scope is gone: nobody waits for it"


async def test_a_limit_whose_change_nobody_told_of_counts_soon_all_the_same(yard: Yard, deaf: None) -> None:
    await yard.limit(yard.a, "tool:t", 0)
    async with yard.keeper():
        runs = await yard.put(yard.a, "tool:t", 3)
        await asyncio.sleep(0.4)
        assert await yard.admitted() == set()
        await yard.limit(yard.a, "tool:t", 2)
        assert await yard.until_admitted(2) == set(runs[:2])


async def test_a_rate_holds(yard: Yard) -> None:
    await yard.limit(SYSTEM, "tool:t", per_second=50.0, burst=5)
    for tenant in (yard.a, yard.b):
        await yard.put(tenant, "tool:t", 30)
    began = time.monotonic()
    async with yard.keeper():
        admitted = await yard.until_admitted(40)
        took = time.monotonic() - began
    # A new leader starts without a burst.
    assert took > (len(admitted) - 6) / 50
    tenants = Counter(leave.message.tenant for leave in yard.sent)
    assert abs(tenants[yard.a] - tenants[yard.b]) <= 1


async def test_what_one_tenant_has_waiting_keeps_nobody_else_waiting(yard: Yard) -> None:
    await yard.limit(SYSTEM, "tool:t", 5)
    async with yard.keeper() as keeper:
        many = await yard.put(yard.a, "tool:t", 3000, to=keeper)
        await yard.until_admitted(5)
        (mine,) = await yard.put(yard.b, "tool:t", to=keeper)
        await yard.consume(many[0], to=keeper)
        assert mine in await yard.until_admitted(5)


async def test_priority_goes_before_age(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 1)
    async with yard.keeper() as keeper:
        patient = await yard.put(yard.a, "tool:t", 400, to=keeper)
        await yard.until_admitted(1)
        (urgent,) = await yard.put(yard.a, "tool:t", priority=9, to=keeper)
        await yard.consume(patient[0], to=keeper)
        assert await yard.until_admitted(1) == {urgent}


async def test_rows_that_are_cancelled_while_they_wait_hold_nothing(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 1)
    async with yard.keeper() as keeper:
        runs = await yard.put(yard.a, "tool:t", 6, to=keeper)
        await yard.until_admitted(1)
        await yard.execute("delete from outbox where run_id = any (%s)", runs[1:4])
        await yard.consume(runs[0], to=keeper)
        assert await yard.until_admitted(1) == {runs[4]}


async def test_a_row_that_is_being_deleted_is_left_alone_and_found_again(yard: Yard, deaf: None) -> None:
    await yard.limit(yard.a, "tool:t", 1)
    (run,) = await yard.put(yard.a, "tool:t")
    async with await psycopg.AsyncConnection.connect(yard.database.admin) as busy:
        await busy.execute("delete from agentflow.outbox where run_id = %s", (run,))
        async with yard.keeper() as keeper:
            keeper.written([(yard.a, "tool:t", 5)])
            await asyncio.sleep(0.5)
            assert yard.sent == []
            await busy.rollback()
            await yard.until_admitted(1)


async def test_while_much_is_under_way_runs_are_let_in_one_by_one_and_a_tenants_first_at_once(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate_module, "TRICKLE", 5.0)
    await yard.execute(
        "insert into outbox (tenant_id, run_id, key, consumer, name, data, due_at) "
        "select %s, gen_random_uuid(), 'planned', 'dispatch', 'run.planned', '{}', now() + interval '2 s' "
        "from generate_series(1, 100)",
        yard.a,
    )
    async with yard.keeper() as keeper:
        many = await yard.put(yard.a, "workflow:w", 50, to=keeper)
        await yard.until_admitted(1)
        (mine,) = await yard.put(yard.b, "workflow:w", to=keeper)
        await eventually(lambda: sent(yard, mine))
        await yard.until_admitted(6)
        assert len(await yard.admitted()) < 15
        await yard.execute("delete from outbox where key = 'planned'")
        assert await yard.until_admitted(51) == {*many, mine}


# -- who leads ---------------------------------------------------------------------------------------------


async def test_one_leads_and_another_takes_over_what_is_in_use(yard: Yard, deaf: None) -> None:
    await yard.limit(yard.a, "tool:t", 3)
    async with yard.keeper() as first:
        runs = await yard.put(yard.a, "tool:t", 9, to=first)
        await yard.until_admitted(3)
        async with yard.keeper(leads=False) as second:
            await asyncio.sleep(0.5)
            assert second.epoch is None
            await first.stop()
            await eventually(lambda: leading(second))
            await yard.consume(runs[0])
            assert await yard.until_admitted(3) == set(runs[1:4])


async def test_nobody_admits_under_an_epoch_that_is_over(yard: Yard) -> None:
    (run,) = await yard.put(yard.a, "tool:t")
    key = [[yard.a], [run], ["1.1"], ["run_tool"]]
    dsn = yard.database.dsn("agentflow_relay")
    async with (
        await psycopg.AsyncConnection.connect(dsn) as old,
        await psycopg.AsyncConnection.connect(dsn, autocommit=True) as new,
    ):
        ((epoch,),) = await (await old.execute(SQL["begin_epoch"])).fetchall()
        await old.commit()
        # An admission that is being written: the new leader waits for it, and so counts it.
        assert len(await (await old.execute(SQL["admit"], [epoch, *key])).fetchall()) == 1
        beginning = asyncio.create_task(new.execute(SQL["begin_epoch"]))
        await asyncio.sleep(0.2)
        assert not beginning.done()
        await old.commit()
        assert (await (await beginning).fetchone()) == (epoch + 1,)
        # One that comes afterwards changes nothing.
        await new.execute("update agentflow.outbox set admitted = false")
        assert await (await old.execute(SQL["admit"], [epoch, *key])).fetchall() == []
        await old.commit()
        assert await yard.admitted() == set()


async def test_a_leader_that_loses_its_epoch_stops_leading(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 1)
    async with yard.keeper() as keeper:
        before = keeper.epoch
        await yard.execute("update gatekeeper set epoch = epoch + 10")
        await yard.put(yard.a, "tool:t", to=keeper)
        await yard.until_admitted(1)
        assert before is not None
        assert keeper.epoch is not None
        assert keeper.epoch > before + 10


async def test_a_lost_session_costs_the_lead_and_nothing_else(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 2)
    async with yard.keeper() as keeper:
        runs = await yard.put(yard.a, "tool:t", 6, to=keeper)
        await yard.until_admitted(2)
        epoch = keeper.epoch
        await yard.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'agentflow_relay'"
        )
        await eventually(lambda: other_epoch(keeper, epoch))
        await yard.consume(runs[0], to=keeper)
        assert await yard.until_admitted(2) == {runs[1], runs[2]}


async def other_epoch(keeper: Gatekeeper, before: int | None) -> bool:
    return keeper.epoch is not None and keeper.epoch != before


PROCESS = """
import asyncio, json, sys
from agentflow.observe import logs
from agentflow.runtime import gate
logs.configure("error", sys.stderr)
gate.COUNT_S, gate.IDLE_S, gate.FOLLOW_S, gate.STOPPED_S = 0.2, 0.3, 0.1, 3.0
async def main():
    said = [None]
    def lead():
        if keeper.epoch not in (None, said[-1]):
            said.append(keeper.epoch)
            print(json.dumps(keeper.epoch), flush=True)
    def send(leaving):
        lead()
        for leave in leaving:
            print(json.dumps(str(leave.message.run)), flush=True)
    keeper = gate.Gatekeeper(sys.argv[1], send)
    await keeper.start()
    while True:
        lead()
        await asyncio.sleep(0.01)
asyncio.run(main())
"""


async def said(process: Process, lines: int) -> bool:
    return len(process.lines) == lines


async def one_leads(*processes: Process) -> bool:
    return any(process.lines for process in processes)


class Process:
    """A gatekeeper in a process of its own: one line when it leads, then one for each request it sends."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.lines: list[Any] = []

    async def __aenter__(self) -> Process:
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "functions")}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROCESS, self._dsn, stdout=-1, stderr=-3, env=environment
        )
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *fault: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.lines.append(json.loads(line))

    async def leads(self) -> bool:
        return bool(self.lines)


async def test_killed_its_successor_lets_through_what_is_left_and_no_more(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 4)
    runs = await yard.put(yard.a, "tool:t", 40)
    dsn = yard.database.dsn("agentflow_relay")
    seen: set[UUID] = set()
    for _ in range(2):
        async with Process(dsn) as first, Process(dsn) as second:
            await eventually(lambda: one_leads(first, second))
            leader, other = (first, second) if first.lines else (second, first)
            for _ in range(5):
                now = await yard.until_admitted(4)
                assert len(now) == 4
                seen |= now
                await yard.consume(now.pop())
            leader.process.kill()
            began = time.monotonic()
            await eventually(other.leads)
            assert time.monotonic() - began < 5
            seen |= await yard.until_admitted(4)
            assert len(await yard.admitted()) == 4
    assert len(seen) == 4 + 10
    assert seen == set(runs[: len(seen)])


async def test_stopped_it_is_deposed_and_when_it_wakes_up_it_admits_nothing(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 3)
    dsn = yard.database.dsn("agentflow_relay")
    async with Process(dsn) as first:
        await eventually(first.leads)
        runs = await yard.put(yard.a, "tool:t", 12)
        await eventually(lambda: said(first, 4))
        first.process.send_signal(signal.SIGSTOP)
        async with Process(dsn) as second:
            await yard.consume(runs[0])
            await eventually(second.leads)
            assert second.lines[0] > first.lines[0]
            assert await yard.until_admitted(3) == set(runs[1:4])
            before = len(first.lines)
            first.process.send_signal(signal.SIGCONT)
            for done in runs[1:6]:
                await yard.consume(done)
                assert len(await yard.until_admitted(3)) == 3
            await asyncio.sleep(1)
            assert len(await yard.admitted()) == 3
            assert first.lines[before:] == [], "it has sent something"


async def test_two_that_race_never_let_through_more_than_the_limit(yard: Yard) -> None:
    await yard.limit(yard.a, "tool:t", 5)
    runs = await yard.put(yard.a, "tool:t", 200)
    dsn = yard.database.dsn("agentflow_relay")
    over: list[int] = []
    done = asyncio.Event()

    async def watch() -> None:
        while not done.is_set():
            over.append(len(await yard.admitted()))

    async def steal() -> None:
        """The lock is lost, the session lives: only the epoch is left."""
        while not done.is_set():
            await yard.execute(
                "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and objid = %s and granted",
                gate_module.LOCK & 0xFFFFFFFF,
            )
            await asyncio.sleep(0.3)

    async def consume() -> None:
        left = set(runs)
        while left:
            for run in await yard.until_admitted(1):
                await yard.consume(run)
                left.discard(run)

    async with Process(dsn), Process(dsn), Process(dsn):
        watching, stealing = asyncio.create_task(watch()), asyncio.create_task(steal())
        try:
            await asyncio.wait_for(consume(), 60)
        finally:
            done.set()
            await asyncio.gather(watching, stealing)
    assert max(over) <= 5
    assert len(over) > 50


async def test_the_plans_of_its_statements_look_up_by_key_or_walk_what_waits_only(yard: Yard) -> None:
    await yard.put(yard.a, "tool:t", 50)
    await yard.execute(
        "insert into outbox (tenant_id, run_id, key, consumer, name, data, due_at) "
        "select %s, gen_random_uuid(), '1.1', 'run_tool', 'tool.requested', '{}', now() + interval '1 h' "
        "from generate_series(1, 5000)",
        uuid4(),
    )
    dsn = yard.database.dsn("agentflow_relay")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as conn:
        await conn.execute("set enable_seqscan = off")
        for name in ("waiting_gates", "first_rows", "in_use", "admit", "under_way"):
            params: dict[str, list[Any]] = {
                "first_rows": [[yard.a], ["tool:t"], 10],
                "admit": [0, [yard.a], [uuid4()], ["1.1"], ["run_tool"]],
                "under_way": [40],
            }
            explain = b"explain (analyze, costs off, timing off, summary off) " + SQL[name]
            plan = [line for (line,) in await (await conn.execute(explain, params.get(name, []))).fetchall()]
            walked = [line for line in plan if "outbox" in line and "actual rows=" in line]
            assert walked, plan
            assert not any("Seq Scan" in line for line in walked), plan
            assert all(float(line.split("actual rows=")[1].split()[0]) <= 50 for line in walked), plan
            removed = [line.split(":")[1] for line in plan if "Rows Removed" in line]
            assert sum(map(int, removed)) <= 50, plan
