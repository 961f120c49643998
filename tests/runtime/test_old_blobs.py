"""Files that runs refer to: kept as long as they are, and never taken from under a new one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import psycopg
from aged import DAY, NOW, Past, sweeping, swept
from aged import past as past

from agentflow.core.retention import Ages
from agentflow.store.control import ControlStore
from agentflow.wire.claim import blob_ref

WAITING = (
    "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
)


def blob(past: Past, tenant: UUID, content: bytes, days_ago: float = 60) -> str:
    past.conn.execute(
        "insert into agentflow.blobs values (%s, %s, %s, now(), %s)",
        (tenant, blob_ref(content), content, NOW - days_ago * DAY),
    )
    return blob_ref(content)


async def test_a_file_stays_as_long_as_a_run_or_a_workflow_refers_to_it(past: Past, tmp_path: Path) -> None:
    tenant = past.tenant(runs="30d")
    shared, own, named, parked, queued, nobodys, fresh = (
        blob(past, tenant, name.encode(), days)
        for name, days in (
            ("shared", 60), ("own", 60), ("named", 60), ("parked", 60), ('{"big": "' + "x" * 70_000 + '"}', 60),
            ("nobody's", 60), ("fresh", 1),
        )
    )  # fmt: skip
    (old,) = past.runs(tenant, 50, given=f'{{"a": "{shared}", "b": ["{own}"]}}')
    past.runs(tenant, 10, given=f'{{"a": "{shared}"}}')
    past.conn.execute(
        "insert into agentflow.workflows values (%s, 'w', 1, 'h', %s)", (tenant, f'{{"x": "{named}"}}')
    )
    past.conn.execute(
        "insert into agentflow.parked values (%s, %s, 'plan', 's', 'r', %s, '\\xff00', 1)",
        (tenant, uuid4(), f'{{"ce-dataref": "{parked}"}}'),
    )
    past.conn.execute(
        """insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, due_at)
           values (%s, %s, 'k', 'plan', 'n', %s, now())""",
        (tenant, uuid4(), '{"big": "' + "x" * 70_000 + '"}'),
    )
    left = "select ref from agentflow.blobs"
    await swept(past, archive=f"file://{tmp_path}")
    assert past.rows_of(old)["runs"] == 0
    assert set(past.column(left)) == {shared, own, named, parked, queued, fresh}  # own has only begun to age
    past.conn.execute("update agentflow.blobs set used_at = %s where used_at < 'infinity'", (NOW - 9 * DAY,))
    await swept(past)
    assert set(past.column(left)) == {shared, named, parked, queued}
    assert (tmp_path / "blobs" / str(tenant) / own[12:]).read_bytes() == b"own"
    assert nobodys not in past.column(left)


async def test_a_file_that_is_used_at_the_same_moment_is_not_taken(past: Past) -> None:
    """The sweep has chosen the blob and waits for its row, which a run that refers to it has locked."""
    tenant = past.tenant()
    ref = blob(past, tenant, b"content")
    other = blob(past, tenant, b"other")
    before = NOW - 8 * DAY
    async with sweeping(past, Ages()) as at_hand:
        chosen = [found for found, _ in await at_hand.store.unused_blobs(tenant, before, ("-infinity", ""))]
        assert sorted(chosen) == sorted([ref, other])
        with psycopg.connect(past.database.dsn("agentflow_engine")) as engine:
            engine.execute("select set_config('app.tenants', %s, true)", (f"{{{tenant}}}",))
            engine.execute(
                "insert into agentflow.runs (tenant_id, run_id, workflow, status, input) values (%s, %s, 'w', %s, %s)",
                (tenant, uuid4(), "requested", f'{{"file": "{ref}"}}'),
            )
            removing = asyncio.create_task(at_hand.store.delete_blobs(tenant, before, chosen))
            await until_somebody_waits(past)
            engine.commit()
        assert await removing == 1
    assert past.column("select ref from agentflow.blobs") == [ref]


async def until_somebody_waits(past: Past) -> None:
    async with asyncio.timeout(10):
        while not past.one(WAITING):  # noqa: ASYNC110  PostgreSQL tells nobody who waits
            await asyncio.sleep(0.01)


async def test_a_file_that_was_just_taken_is_kept_anew(past: Past) -> None:
    """The other way round: who brings the content waits for the sweep, and then stores it again."""
    tenant = past.tenant()
    ref = blob(past, tenant, b"content")
    async with sweeping(past, Ages()) as at_hand:
        await at_hand.store._conn.execute("begin")
        assert await at_hand.store.delete_blobs(tenant, NOW - 8 * DAY, [ref]) == 1
        api = ControlStore(past.database.dsn("agentflow_api"), connections=1)
        await api.open()
        giving = asyncio.create_task(api.put_blobs(tenant, {ref: b"content"}))
        await until_somebody_waits(past)
        await at_hand.store._conn.execute("commit")
        await giving
        assert await api.missing_blobs(tenant, [ref]) == set()
        await api.close()
    assert past.column("select ref from agentflow.blobs") == [ref]
