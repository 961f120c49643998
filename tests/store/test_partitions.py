"""Partitions: there before they are needed, filled from the default ones, dropped only when their week is over."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from aged import DAY, NOW, Past, week
from psycopg import errors as pg

from agentflow.store.migrate import migrate
from agentflow.store.postgres import PostgresStore
from agentflow.store.readiness import migrations

TABLES = ("history", "inbox", "ledger", "steps")
PROVIDE = "select agentflow.provide_partitions(%s, %s)"
NEXT_YEAR = -400.0  # days ago


@pytest.fixture
def past(database: Any) -> Iterator[Past]:
    made = Past(database)
    yield made
    made.close()


def move(past: Past, days_ago: float) -> int:
    """Provide for that day's week."""
    at = NOW - days_ago * DAY
    return int(past.one(PROVIDE, at, at + timedelta(seconds=1)))


def in_default(past: Past, tenant: UUID, days_ago: float, rows: int = 1) -> UUID:
    """A run whose week has no partitions: its rows are in the default ones."""
    run, born = uuid4(), NOW - days_ago * DAY
    past.conn.execute(
        """insert into agentflow.history (tenant_id, born, run_id, seq, name, data, hash)
           select %s, %s, %s, n, 'n', '{}', 'h' from generate_series(1, %s) n""",
        (tenant, born, run, rows),
    )
    past.conn.execute("insert into agentflow.inbox values (%s, 'plan', %s, %s)", (tenant, str(run), born))
    return run


def place_of(past: Past, run: UUID) -> set[str]:
    return set(past.column("select tableoid::regclass::text from agentflow.history where run_id = %s", run))


def test_a_migrated_database_has_partitions_for_the_next_weeks(past: Past) -> None:
    for table in TABLES:
        names = past.partitions(table)
        assert {f"{table}_{week(-7 * n)}" for n in range(4)} <= set(names)


def test_providing_again_makes_nothing(past: Past) -> None:
    assert past.one(PROVIDE, NOW, NOW + 40 * 7 * DAY) > 0
    assert past.one(PROVIDE, NOW, NOW + 40 * 7 * DAY) == 0


def test_rows_without_a_week_are_kept_and_move_when_it_is_provided(past: Past) -> None:
    tenant = past.tenant()
    run, other = (
        in_default(past, tenant, NEXT_YEAR, rows=50),
        in_default(past, tenant, NEXT_YEAR - 30, rows=5),
    )
    assert place_of(past, run) == {"agentflow.history_other"}
    assert move(past, NEXT_YEAR) == 4
    assert place_of(past, run) == {f"agentflow.history_{week(NEXT_YEAR)}"}
    assert past.one("select count(*) from agentflow.history where run_id = %s", run) == 50
    assert past.column(
        "select tableoid::regclass::text from agentflow.inbox where event_id = %s", str(run)
    ) == [f"agentflow.inbox_{week(NEXT_YEAR)}"]
    assert place_of(past, other) == {"agentflow.history_other"}


def test_more_rows_than_can_be_moved_in_a_moment_stay_and_are_found(past: Past) -> None:
    tenant = past.tenant()
    run = in_default(past, tenant, NEXT_YEAR, rows=20_001)
    warned: list[str] = []
    past.conn.add_notice_handler(lambda notice: warned.append(notice.message_primary or ""))
    assert move(past, NEXT_YEAR) == 3  # the other tables
    assert place_of(past, run) == {"agentflow.history_other"}
    assert past.one("select count(*) from agentflow.history where run_id = %s", run) == 20_001
    assert warned == [f"history_other holds more than 20000 rows of history_{week(NEXT_YEAR)}"]


def test_nothing_is_lost_while_rows_come_in(past: Past) -> None:
    """Writers go on, into the default partition and others, while weeks are provided."""
    tenant = past.tenant()
    stop = threading.Event()

    def write(days_ago: float) -> list[UUID]:
        made = []
        with psycopg.connect(past.database.dsn("agentflow_engine"), autocommit=True) as engine:
            engine.execute("select set_config('app.tenants', %s, false)", (f"{{{tenant}}}",))
            while not stop.is_set():
                made.append(uuid4())
                engine.execute(
                    "insert into agentflow.history values (%s, %s, %s, 1, 'n', '{}', 'h')",
                    (tenant, NOW - days_ago * DAY, made[-1]),
                )
        return made

    with ThreadPoolExecutor() as pool:
        writers = [pool.submit(write, days) for days in (NEXT_YEAR, NEXT_YEAR - 7, 0)]
        for weeks in range(3):
            for _ in range(50):
                try:
                    move(past, NEXT_YEAR - 7 * weeks)
                    break
                except pg.LockNotAvailable:
                    continue
            else:
                pytest.fail("the lock was never free")
        stop.set()
        made = {run for writer in writers for run in writer.result(30)}
    assert set(past.column("select run_id from agentflow.history")) == made
    assert past.one("select count(*) from agentflow.history_other") == 0


def test_a_lock_that_others_hold_is_not_waited_for_long(past: Past) -> None:
    in_default(past, past.tenant(), NEXT_YEAR)
    with psycopg.connect(past.database.admin) as reader:
        reader.execute("select count(*) from agentflow.history")  # and does not commit
        with pytest.raises(pg.LockNotAvailable):
            move(past, NEXT_YEAR)
    assert move(past, NEXT_YEAR) == 4


@pytest.mark.parametrize("span", [(NOW, NOW), (NOW, NOW - DAY), (NOW, NOW + 4000 * DAY), (None, NOW)])
def test_times_that_make_no_sense_are_refused(past: Past, span: tuple[Any, Any]) -> None:
    with pytest.raises(pg.InvalidParameterValue):
        past.one(PROVIDE, *span)


# -- dropping --------------------------------------------------------------------------------------------


def keeper(past: Past) -> psycopg.Connection[Any]:
    return psycopg.connect(past.database.dsn("agentflow_keeper"), autocommit=True)


def test_a_week_that_is_over_can_be_dropped(past: Past) -> None:
    past.provide(20)
    with keeper(past) as conn:
        conn.execute("select agentflow.drop_partition(%s)", (f"steps_{week(20)}",))
    assert f"steps_{week(20)}" not in past.partitions("steps")


@pytest.mark.parametrize(
    "name",
    [
        f"steps_{week(0)}",
        f"steps_{week(-7)}",
        "steps_other",
        "steps",
        "runs",
        "nothing",
        "public.x",
        "",
        None,
    ],
)
def test_nothing_else_can(past: Past, name: str | None) -> None:
    past.conn.execute("create table public.x ()")
    with (
        keeper(past) as conn,
        pytest.raises(pg.InvalidParameterValue, match="not a partition of a week that is over"),
    ):
        conn.execute("select agentflow.drop_partition(%s)", (name,))


@pytest.mark.parametrize("role", ["agentflow_api", "agentflow_engine", "agentflow_relay"])
def test_nobody_else_drops(past: Past, role: str) -> None:
    past.provide(20)
    with (
        psycopg.connect(past.database.dsn(role), autocommit=True) as conn,
        pytest.raises(pg.InsufficientPrivilege),
    ):
        conn.execute("select agentflow.drop_partition(%s)", (f"steps_{week(20)}",))


def test_a_table_in_use_is_given_up_within_moments(past: Past) -> None:
    past.provide(20)
    with psycopg.connect(past.database.admin) as reader, keeper(past) as conn:
        reader.execute("select count(*) from agentflow.steps")
        with pytest.raises(pg.LockNotAvailable):
            conn.execute("select agentflow.drop_partition(%s)", (f"steps_{week(20)}",))
    assert f"steps_{week(20)}" in past.partitions("steps")


# -- the inbox -------------------------------------------------------------------------------------------


async def test_an_event_of_an_earlier_week_is_known(past: Past) -> None:
    tenant = past.tenant()
    past.provide(20)
    past.conn.execute("insert into agentflow.inbox values (%s, 'plan', 'old', %s)", (tenant, NOW - 20 * DAY))
    store = PostgresStore(past.database.dsn("agentflow_engine"))
    await store.open()
    try:
        async with store.transaction([tenant]) as tx:
            await tx.load([])
            rows = [(tenant, "plan", name) for name in ("old", "new", "new")]
            assert await tx.enter_inbox(rows) == {(tenant, "plan", "new")}
    finally:
        await store.close()


async def test_of_the_same_event_at_the_same_time_one_is_first(past: Past) -> None:
    import asyncio

    from agentflow.store.changes import Changes

    tenant = past.tenant()
    store = PostgresStore(past.database.dsn("agentflow_engine"), connections=8)
    await store.open()

    async def enter(names: list[str]) -> int:
        async with store.transaction([tenant]) as tx:
            await tx.load([])
            found = await tx.enter_inbox([(tenant, "plan", name) for name in names])
            await asyncio.sleep(0.01)
            await tx.save(Changes())
            return len(found)

    names = [f"e{number}" for number in range(20)]
    try:
        async with asyncio.timeout(30):
            found = await asyncio.gather(*(enter(names[at:] + names[:at]) for at in range(8)))
    finally:
        await store.close()
    assert sum(found) == 20
    assert past.one("select count(*) from agentflow.inbox") == 20


# -- the way here ----------------------------------------------------------------------------------------


async def test_a_house_of_the_first_version_keeps_all_it_has(postgres: Any) -> None:
    """Row-level security is forced on the owner: a migration that copies rows must not be blind."""
    name = "first_version"
    async with await psycopg.AsyncConnection.connect(postgres.dsn(), autocommit=True) as admin:
        await admin.execute(f"drop database if exists {name} with (force)")
        await admin.execute(f"create database {name}")
    dsn = postgres.dsn(database=name)
    tenant, ref = uuid4(), "blob:sha256:" + "a" * 64
    first = migrations()[0]
    with psycopg.connect(dsn, autocommit=True) as conn:
        with conn.transaction():
            conn.execute(first.read_bytes())  # type: ignore[arg-type]
            conn.execute("reset role")
        conn.execute(
            "create table public.agentflow_migrations (name text, sha256 text, applied_at timestamptz)"
        )
        digest = hashlib.sha256(first.read_bytes()).hexdigest()
        conn.execute("insert into public.agentflow_migrations values (%s, %s)", (first.name, digest))
        conn.execute(
            f"""set search_path = agentflow;
            insert into tenants values ('{tenant}', 'a');
            insert into blobs (tenant_id, ref, content) values ('{tenant}', '{ref}', 'x'), ('{tenant}', 'unused', 'x');
            insert into runs (tenant_id, run_id, workflow, status, input)
            select '{tenant}', gen_random_uuid(), 'w', 'succeeded', '{{"f": "{ref}"}}' from generate_series(1, 5);
            insert into steps (tenant_id, run_id, step, attempt, epoch, task, kind, status, completed_at)
            select tenant_id, run_id, 1, 1, 0, 't', 'tool', 'succeeded', now() from runs;
            insert into history (tenant_id, run_id, seq, name, data, hash)
            select tenant_id, run_id, 1, 'n', '{{}}', 'h' from runs;
            insert into ledger (tenant_id, run_id, step, attempt, entry, amount_micro, held_micro, price)
            select tenant_id, run_id, 1, 1, 'hold', 1, 1, 'p' from runs;
            insert into inbox (tenant_id, consumer, event_id, at)
            select '{tenant}', 'plan', n::text, now() - n * interval '10 days' from generate_series(1, 3) n""".encode()
        )
    assert (await migrate(dsn))[0] == "0002_partitions.sql"
    with psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute("set search_path = agentflow")
        counts = {
            table: conn.execute(f"select count(*) from {table}").fetchone()
            for table in ("runs", "steps", "history", "ledger", "inbox", "blob_uses")
        }
        assert counts == dict.fromkeys(("runs", "steps", "history", "ledger", "blob_uses"), (5,)) | {
            "inbox": (3,)
        }
        assert conn.execute("select count(*) from inbox_other").fetchone() == (0,)
        used = conn.execute("select ref, used_at = 'infinity' from blobs order by ref").fetchall()
        assert used == [(ref, True), ("unused", False)]
    async with await psycopg.AsyncConnection.connect(postgres.dsn(), autocommit=True) as admin:
        await admin.execute(f"drop database {name} with (force)")
