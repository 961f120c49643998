"""What a sweep removes, what it keeps, and what it leaves to the next one; on a real database with a past."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

import pytest
from aged import DAY, NOW, Past, sweeping, swept, week
from aged import past as past

from agentflow.archive import open_archive
from agentflow.archive.format import find_run, manifests
from agentflow.core.retention import Ages
from agentflow.errors import RetryLater
from agentflow.runtime import old_runs
from agentflow.store import retention

WHOLE = {"runs": 1, "steps": 2, "history": 2, "ledger": 1}
GONE = {"runs": 0, "steps": 0, "history": 0, "ledger": 1}  # money is kept longer


async def test_by_default_nothing_goes(past: Past) -> None:
    tenant = past.tenant()
    (run,) = past.runs(tenant, 130)
    report = await swept(past, Ages(ledger=400, parked=400))
    assert past.rows_of(run) == WHOLE
    assert report.complete and not report.rows


async def test_finished_runs_go_after_their_time_and_no_others(past: Past) -> None:
    tenant = past.tenant(runs="30d")
    (old,) = past.runs(tenant, 40)
    kept = {
        "young": past.runs(tenant, 20),
        "running": past.runs(tenant, 40, ended=False),
        "finished lately": past.runs(tenant, 40, took=15 * DAY),
        "holds money": past.runs(tenant, 40, held=7),
        "has a timer": past.runs(tenant, 40),
        "has something to send": past.runs(tenant, 40),
    }
    past.conn.execute(
        "insert into agentflow.timers (tenant_id, run_id, key, kind, fire_at) values (%s, %s, 'k', 'hold', now())",
        (tenant, *kept["has a timer"]),
    )
    past.conn.execute(
        """insert into agentflow.outbox (tenant_id, run_id, key, consumer, name, data, due_at)
           values (%s, %s, 'k', 'facts', 'run.completed', '{}', now())""",
        (tenant, *kept["has something to send"]),
    )
    report = await swept(past)
    assert past.rows_of(old) == GONE
    assert {name: past.rows_of(run) for name, (run,) in kept.items()} == dict.fromkeys(kept, WHOLE)
    assert report.rows[tenant] == {"runs": 1, "steps": 2, "history": 2}
    assert past.one("select count(*) from agentflow.leftovers") == 0


async def test_tenants_that_keep_longer_lose_nothing(past: Past) -> None:
    """Another's rows of the same week are deleted by key, and the week stays."""
    short, long, forever = past.tenant(runs="30d"), past.tenant(runs="100d"), past.tenant()
    runs = [past.runs(tenant, 60)[0] for tenant in (short, long, forever)]
    report = await swept(past)
    assert [past.rows_of(run) for run in runs] == [GONE, WHOLE, WHOLE]
    assert f"steps_{week(60)}" in past.partitions("steps")
    assert set(report.rows) == {short}


async def test_a_week_that_nobody_keeps_is_dropped(past: Past) -> None:
    tenants = [past.tenant(runs="30d"), past.tenant(runs="45d")]
    runs = [run for tenant in tenants for run in past.runs(tenant, 70, count=3)]
    (young,) = past.runs(tenants[0], 5)
    report = await swept(past)
    assert [past.rows_of(run) for run in runs] == [GONE] * 6
    assert past.rows_of(young) == WHOLE
    for table in ("steps", "history"):
        assert f"{table}_{week(70)}" not in past.partitions(table)
        assert f"{table}_{week(5)}" in past.partitions(table)
    assert f"ledger_{week(70)}" in past.partitions("ledger")
    assert f"steps_{week(70)}" in {dropped.name for dropped in report.dropped}
    assert past.one("select count(*) from agentflow.leftovers") == 0


async def test_rows_wait_for_their_week_if_it_goes_soon(past: Past) -> None:
    """Dropped with their week, rows cost nothing: the run is gone on its day, its space a few days later."""
    tenant = past.tenant(runs="30d")
    monday = NOW - timedelta(days=NOW.weekday())
    first, last = (monday - 28 * DAY).replace(hour=1), (monday - 22 * DAY).replace(hour=23)
    ages = [(NOW - at) / DAY for at in (first, last)]
    (old,), (young,) = (past.runs(tenant, age) for age in ages)
    days = int(ages[0])  # the first run's time is over, the last one's is not
    past.conn.execute("update agentflow.retention set runs = %s where tenant_id = %s", (f"{days}d", tenant))
    await swept(past)
    assert past.rows_of(old) == {"runs": 0, "steps": 2, "history": 2, "ledger": 1}
    assert past.rows_of(young) == WHOLE
    await swept(past, patience=timedelta(0))  # as by hand
    assert past.rows_of(old) == GONE
    assert past.rows_of(young) == WHOLE


async def test_a_run_of_thousands_of_rows_goes_piece_by_piece(past: Past) -> None:
    tenant, other = past.tenant(runs="30d"), past.tenant()
    (large,) = past.runs(tenant, 50, steps=3_500)
    small = past.runs(tenant, 50, count=3)
    past.runs(other, 50)
    async with sweeping(past, Ages()) as at_hand:
        looked, _ = await at_hand.store.old_runs(tenant, NOW, retention.FIRST_RUN)
        await at_hand.store.remove_runs(tenant, NOW, looked)
        keys = [(run.created_at, run.id) for run in looked]
        gone = await at_hand.store.empty(tenant, keys)
        assert gone == {"steps": 1000 + 6, "history": 1000 + 6}
        assert past.column("select run_id from agentflow.leftovers") == [large]
    await swept(past)
    assert past.one("select count(*) from agentflow.steps where run_id = any (%s)", [large, *small]) == 0
    assert past.one("select count(*) from agentflow.leftovers") == 0


async def test_a_run_that_is_written_to_in_between_stays(past: Past) -> None:
    tenant = past.tenant()
    (run,) = past.runs(tenant, 40)
    async with sweeping(past, Ages()) as at_hand:
        looked, _ = await at_hand.store.old_runs(tenant, NOW, retention.FIRST_RUN)
        past.conn.execute("update agentflow.runs set rev = rev + 1 where run_id = %s", (run,))
        assert await at_hand.store.remove_runs(tenant, NOW, looked) == set()
    assert past.rows_of(run) == WHOLE


async def test_every_old_run_is_found_however_many_do_not_go(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOK", 7)
    monkeypatch.setattr(old_runs, "CHUNK_RUNS", 3)
    tenant = past.tenant(runs="30d")
    waiting = past.runs(tenant, 50, count=20, ended=False)
    old = past.runs(tenant, 50, count=20) + past.runs(tenant, 43, count=20)
    report = await swept(past)
    assert report.rows[tenant]["runs"] == 40
    assert past.column("select run_id from agentflow.runs order by 1") == sorted(waiting)
    assert past.one("select count(*) from agentflow.steps where run_id = any (%s)", old) == 0
    assert past.one("select count(*) from agentflow.steps where run_id = any (%s)", waiting) == 40


async def test_a_sweep_that_runs_out_of_time_is_finished_by_the_next(
    past: Past, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(old_runs, "CHUNK_RUNS", 5)
    tenant, other = past.tenant(runs="30d"), past.tenant()
    past.runs(tenant, 50, count=40)
    past.runs(other, 50)
    sweeps = 0
    complete = False
    while not complete:
        deadline = asyncio.get_running_loop().time() + 0.02 * 1.5**sweeps
        complete = (await swept(past, deadline=deadline)).complete
        sweeps += 1
    assert sweeps > 1
    assert past.one("select count(*) from agentflow.runs where tenant_id = %s", tenant) == 0
    assert past.one("select count(*) from agentflow.steps where tenant_id = %s", tenant) == 0
    assert past.one("select count(*) from agentflow.steps where tenant_id = %s", other) == 2


async def test_one_tenant_and_one_day_by_hand(past: Past) -> None:
    mine, others = past.tenant(), past.tenant(runs="10d")
    (old,), (young,) = past.runs(mine, 40), past.runs(mine, 20)
    (untouched,) = past.runs(others, 40)
    await swept(past, only=mine, before=NOW - 30 * DAY, patience=timedelta(0))
    assert past.rows_of(old) == GONE
    assert past.rows_of(young) == past.rows_of(untouched) == WHOLE


async def test_a_dry_run_counts_and_changes_nothing(past: Past) -> None:
    tenant = past.tenant(runs="30d", parked="30d", ledger="30d")
    runs = past.runs(tenant, 100, count=5)
    past.runs(past.tenant(), 100)  # keeps the week
    await asyncio.to_thread(past.conn.execute, "analyze")
    would = await swept(past, dry=True)
    assert would.rows[tenant] == {"runs": 5, "steps": 10, "history": 10}
    assert would.bytes[tenant] > 1000
    assert [past.rows_of(run) for run in runs] == [WHOLE] * 5
    did = await swept(past)
    assert did.rows[tenant] == would.rows[tenant] | {"ledger": 5}  # whose runs were still there before
    assert did.bytes[tenant] >= would.bytes[tenant]


# -- money, ids, messages --------------------------------------------------------------------------------


async def test_the_ledger_is_kept_longer_than_runs_and_never_shorter(past: Past) -> None:
    tenant, greedy = past.tenant(runs="30d", ledger="90d"), past.tenant(runs="90d", ledger="1d")
    (old,), (older,) = past.runs(tenant, 60), past.runs(tenant, 120)
    (kept,) = past.runs(greedy, 60)
    await swept(past)
    assert past.rows_of(old) == GONE
    assert past.rows_of(older) == {"runs": 0, "steps": 0, "history": 0, "ledger": 0}
    assert past.rows_of(kept) == WHOLE
    assert f"ledger_{week(120)}" not in past.partitions("ledger")


async def test_entries_of_runs_that_are_there_and_late_entries_stay(past: Past) -> None:
    tenant = past.tenant(runs="30d", ledger="30d")
    (waiting,), (late,), (old,) = (
        past.runs(tenant, 60, ended=False),
        past.runs(tenant, 60),
        past.runs(tenant, 60),
    )
    past.conn.execute("update agentflow.ledger set at = now() where run_id = %s", (late,))
    await swept(past, patience=timedelta(0))
    assert [past.rows_of(run)["ledger"] for run in (waiting, late, old)] == [1, 1, 0]
    assert past.rows_of(waiting) == WHOLE


async def test_ids_of_events_are_remembered_for_their_time_and_then_forgotten(past: Past) -> None:
    usual, long = past.tenant(), past.tenant(inbox="100d")
    for tenant in (usual, long):
        for days in (20, 60, 120):
            past.provide(days)
            past.conn.execute(
                "insert into agentflow.inbox values (%s, 'plan', %s, %s)",
                (tenant, f"e{days}", NOW - days * DAY),
            )
    await swept(past)
    query = "select event_id from agentflow.inbox where tenant_id = %s order by 1"
    assert past.column(query, usual) == ["e20"]
    assert past.column(query, long) == ["e20", "e60"]
    assert f"inbox_{week(120)}" not in past.partitions("inbox")
    assert f"inbox_{week(60)}" in past.partitions("inbox")


async def test_parked_messages_are_given_up_after_their_own_longer_time(past: Past) -> None:
    tenant = past.tenant(runs="30d", parked="60d")
    for days in (40, 70):
        past.conn.execute(
            "insert into agentflow.parked values (%s, %s, 'plan', 's', 'r', '{}', 'x', 1, %s)",
            (tenant, uuid4(), NOW - days * DAY),
        )
    report = await swept(past)
    assert past.column(
        "select round(extract(epoch from now() - parked_at) / 86400) from agentflow.parked"
    ) == [40]
    assert report.rows[tenant] == {"parked": 1}


# -- the archive -----------------------------------------------------------------------------------------


async def test_runs_are_archived_whole_before_they_go(past: Past, tmp_path: Path) -> None:
    tenant, other = past.tenant(runs="30d"), past.tenant(runs="30d")
    runs = past.runs(tenant, 50, count=3) + past.runs(tenant, 60, count=2, steps=4)
    (foreign,) = past.runs(other, 50)
    url = f"file://{tmp_path}/archive"
    before = past.one("select to_json(r) from agentflow.runs r where run_id = %s", runs[0])
    report = await swept(past, archive=url)
    archive = open_archive(url)
    assert archive is not None
    for run, steps in zip(runs, (2, 2, 2, 4, 4), strict=True):
        assert past.rows_of(run)["runs"] == 0
        rows = find_run(archive, tenant, run)
        assert rows is not None
        assert {table: len(found) for table, found in rows.items()} == {
            "runs": 1, "steps": steps, "history": steps, "ledger": 1
        }  # fmt: skip
    first = find_run(archive, tenant, runs[0])
    assert first is not None and first["runs"] == [before]
    assert find_run(archive, tenant, foreign) is None
    assert find_run(archive, other, foreign) is not None
    assert [len(manifest.runs) for manifest in manifests(archive, tenant)] == [2, 3]
    assert report.archived_bytes > 0


async def test_what_cannot_be_archived_stays(past: Past, tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file where the folder should be")
    (run,) = past.runs(past.tenant(runs="30d"), 50)
    with pytest.raises(RetryLater):
        await swept(past, archive=f"file://{tmp_path}/archive")
    assert past.rows_of(run) == WHOLE


async def test_archived_again_after_a_crash_runs_are_the_same_object(past: Past, tmp_path: Path) -> None:
    tenant = past.tenant(runs="30d")
    runs = past.runs(tenant, 50, count=3)
    url = f"file://{tmp_path}"
    async with sweeping(past, Ages(), url) as at_hand:
        looked, _ = await at_hand.store.old_runs(tenant, NOW, retention.FIRST_RUN)
        keys = [(run.created_at, run.id) for run in looked]
        span = old_runs.week_of(looked[0].created_at)
        await at_hand.archiver.keep(tenant, span, keys)  # and then it is killed
    kept = files(tmp_path)
    await swept(past, archive=url)
    assert files(tmp_path) == kept
    assert len(kept) == 2
    assert [past.rows_of(run) for run in runs] == [GONE] * 3


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SPEND = """
insert into agentflow.spend
select %s, %s, 'w', 1, 't' || mod(n, 2), 'llm', 'p', 'm', 'v',
  case n when 3 then 'team' else '' end, 0, '', 1, 1, 1, 0, 0, 0, 1, 7, 9 from generate_series(1, 3) n"""
RUN_SPEND = "insert into agentflow.run_spend values (%s, %s, 'w', 1, '', 0, 1, 1, 1, 1, 1, 1, 7, 0, 0, 0)"


async def test_sums_of_money_outlive_their_runs_and_go_day_by_day(past: Past) -> None:
    tenant, other = past.tenant(runs="30d", ledger="60d", spend="100d"), past.tenant()
    past.runs(tenant, 70)
    for owner in (tenant, other):
        for days_ago in (70, 101.5, 150):
            day = (NOW - days_ago * DAY).date()
            past.conn.execute(SPEND, (owner, day))
            past.conn.execute(RUN_SPEND, (owner, day))
    dry = await swept(past, dry=True)
    report = await swept(past)
    assert report.rows[tenant]["spend"] == dry.rows[tenant]["spend"] == 6
    assert report.rows[tenant]["run_spend"] == 2
    left = past.one("select sum(cost_micro) from agentflow.spend where tenant_id = %s", tenant)
    assert left == 21, "of a run long gone"
    assert past.one("select count(*) from agentflow.runs where tenant_id = %s", tenant) == 0
    assert past.one("select count(*) from agentflow.spend where tenant_id = %s", other) == 9


async def test_days_that_are_over_are_folded_and_say_the_same(past: Past) -> None:
    tenant = past.tenant()
    sums = """select count(*), sum(calls), sum(cost_micro), sum(held_micro),
                     sum(cost_micro) filter (where budget = 'team') from agentflow.spend where day = %s"""
    runs = "select count(*), sum(runs), sum(cost_micro), sum(calls) from agentflow.run_spend where day = %s"
    days = [(NOW - days_ago * DAY).date() for days_ago in (0, 1, 2, 3, 70)]
    for day in days:
        past.conn.execute(SPEND, (tenant, day))
        past.conn.execute(RUN_SPEND, (tenant, day))
        for shard in (3, 7):
            past.conn.execute(SPEND.replace("end, 0", f"end, {shard}"), (tenant, day))
            past.conn.execute(RUN_SPEND.replace("'', 0", f"'', {shard}"), (tenant, day))
    await swept(past, dry=True)
    assert past.one("select count(*) from agentflow.spend where day = %s", days[-1]) == 9
    for _ in range(2):  # the second sweep finds nothing to do
        began = past.one("select (now() at time zone 'UTC')::date")
        await swept(past)
        ended = past.one("select (now() at time zone 'UTC')::date")
        for day in days:
            # At midnight it is either day's sweep.
            over = {day < today - 2 * DAY for today in (began, ended)}
            assert past.conn.execute(sums, (day,)).fetchone() in [(3 if each else 9, 9, 63, 81, 21) for each in over]
            assert past.conn.execute(runs, (day,)).fetchone() in [(1 if each else 3, 3, 21, 3) for each in over]
