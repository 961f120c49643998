"""Accounts: what is charged to which row, when its period ends, what a limit admits, and what is told of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.rows import dict_row

from agentflow.core.budgets import Account
from agentflow.core.decision import (
    CHILD,
    CORRECTION,
    LedgerEntry,
    Left,
    PeriodEnded,
    Refused,
    Row,
    Spent,
    TimerCleared,
    TimerSet,
    Waiting,
)
from agentflow.core.run import Run
from agentflow.errors import Rejected
from agentflow.store.admin import create_tenant
from agentflow.store.budgets import remove_budget, set_budget, set_zone
from agentflow.store.changes import Changes
from agentflow.store.postgres import PostgresStore, Raced

BORN = 1_700_000_000_000


@dataclass(slots=True)
class Money:
    """A tenant with runs whose entries are charged as the reactor does it."""

    store: PostgresStore
    admin: str
    tenant: UUID

    async def limit(self, scope: str, usd: int | None, period: str = "total", **more: Any) -> dict[str, Any]:
        return await set_budget(self.admin, self.tenant, scope, period, limit_micro=usd, **more)

    async def start(self, workflow: str = "w", budget: str | None = None) -> Run:
        run = Run(self.tenant, uuid4(), workflow, None, input={}, created_ms=BORN, limit_micro=10**12, budget=budget)
        made = Changes()
        made.run(run, new=True)
        await self.store.commit([self.tenant], made)
        return run.but(rev=1)

    async def enter(self, run: Run, *rows: Row) -> Run:
        """Write rows of a run, as one decision."""
        held = sum(row.held_micro for row in rows if isinstance(row, LedgerEntry))
        after = run.but(seq=run.seq + 1, held_micro=run.held_micro + held)
        made = Changes()
        made.run(after, new=False)
        for row in rows:
            made.row(after, row)
        await self.store.commit([self.tenant], made)
        return after.but(rev=after.rev + 1)

    async def sql(self, text: str, *params: Any) -> list[dict[str, Any]]:
        async with await psycopg.AsyncConnection.connect(self.admin, row_factory=dict_row) as conn:
            await conn.execute("set search_path = agentflow")
            done = await conn.execute(text, params)
            return await done.fetchall() if done.description else []

    async def period_ends(self) -> None:
        """All periods have ended an hour ago, and nobody has noticed yet."""
        async with await psycopg.AsyncConnection.connect(self.admin) as conn:
            await conn.execute("set session_replication_role = replica")  # no trigger sees it
            await conn.execute("update agentflow.budgets set ends_at = clock_timestamp() - interval '1 hour'")

    async def account(self, scope: str, period: str = "total") -> tuple[int, int]:
        """What is spent and held."""
        (row,) = await self.sql("select * from budgets where scope = %s and period = %s", scope, period)
        return row["spent_micro"], row["held_micro"]

    async def told(self) -> list[tuple[str, str]]:
        """What has been told of budgets, in order."""
        rows = await self.sql("select name, data from outbox where consumer = 'facts' order by created_at")
        return [(row["name"], row["data"]["scope"]) for row in rows]


def hold(step: int, amount: int, price: str = "p") -> LedgerEntry:
    return LedgerEntry(step, 1, "hold", amount, amount, price)


def settle(step: int, held: int, cost: int, price: str = "p") -> LedgerEntry:
    return LedgerEntry(step, 1, "settle", cost, -held, price)


def spent(cost: int, kind: str = "llm") -> Spent:
    """What goes into the sums with a settlement."""
    return Spent("t", "", kind, "", "x", "p", (0,) * 5, 0, cost, 0)


@pytest.fixture
async def money(database: Any) -> AsyncIterator[Money]:
    store = PostgresStore(database.dsn("agentflow_engine"))
    await store.open()
    yield Money(store, database.admin, await create_tenant(database.admin, "acme"))
    await store.close()


async def test_an_entry_is_charged_to_every_scope_of_its_run(money: Money) -> None:
    for scope in ("tenant", "workflow:w", "workflow:other", "budget:team", "budget:others"):
        await money.limit(scope, 1000)
        await money.limit(scope, 1000, "day")
    run = await money.start(budget="team")
    run = await money.enter(run, hold(1, 300))
    run = await money.enter(run, settle(1, 300, 120), hold(2, 50))
    for period in ("total", "day"):
        for scope in ("tenant", "workflow:w", "budget:team"):
            assert await money.account(scope, period) == (120, 50)
        for scope in ("workflow:other", "budget:others"):
            assert await money.account(scope, period) == (0, 0)


async def test_what_is_held_for_a_child_run_counts_for_the_workflow_that_started_it(money: Money) -> None:
    for scope in ("tenant", "workflow:w", "budget:team"):
        await money.limit(scope, 1000)
    run = await money.enter(await money.start(budget="team"), hold(1, 300, CHILD))
    assert await money.account("workflow:w") == (0, 300)
    assert await money.account("tenant") == await money.account("budget:team") == (0, 0)
    await money.enter(run, settle(1, 300, 100, CHILD))
    assert await money.account("workflow:w") == (100, 0)
    assert await money.account("tenant") == (0, 0)


@pytest.mark.parametrize("short", ["tenant", "workflow:w", "budget:team"])
async def test_one_scope_that_refuses_undoes_all(money: Money, short: str) -> None:
    for scope in ("tenant", "workflow:w", "budget:team"):
        await money.limit(scope, 99 if scope == short else 1000)
    run = await money.start(budget="team")
    with pytest.raises(Raced):
        await money.enter(run, hold(1, 100))
    for scope in ("tenant", "workflow:w", "budget:team"):
        assert await money.account(scope) == (0, 0)
    await money.enter(run, hold(1, 99))


async def test_what_a_batch_gives_back_makes_room_in_it(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 100))
    run = await money.enter(run, settle(1, 100, 10), hold(2, 90))
    assert await money.account("tenant") == (10, 90)


async def test_a_period_that_is_over_begins_anew_and_keeps_what_is_held(money: Money) -> None:
    await money.limit("tenant", 100, "day")
    run = await money.enter(await money.start(), hold(1, 60), hold(2, 40))
    run = await money.enter(run, settle(1, 60, 60))
    with pytest.raises(Raced):
        await money.enter(run, hold(3, 1))
    await money.period_ends()
    run = await money.enter(run, hold(3, 60))
    assert await money.account("tenant", "day") == (0, 100)
    with pytest.raises(Raced):
        await money.enter(run, hold(4, 1))
    (row,) = await money.sql("select ends_at > clock_timestamp() as later, ends_at from budgets")
    assert row["later"]
    run = await money.enter(run, settle(2, 40, 40))  # held the day before, settled today: it counts today
    assert await money.account("tenant", "day") == (40, 60)


async def test_what_is_read_is_of_the_period_at_hand(money: Money) -> None:
    await money.limit("tenant", 100, "day")
    run = await money.enter(await money.start(), hold(1, 60))
    await money.enter(run, settle(1, 60, 60))
    await money.period_ends()
    async with money.store.transaction([money.tenant]) as tx:
        loaded = await tx.load()
    (account,) = loaded.headroom[money.tenant].of(["tenant"])
    tomorrow = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    assert account == Account("tenant", "day", 100, 0, 0, False, int(tomorrow.timestamp() * 1000))


async def test_a_lowered_limit_admits_nothing_until_enough_is_settled(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 50), hold(2, 30))
    run = await money.enter(run, settle(1, 50, 20))
    row = await money.limit("tenant", 40)  # 20 spent, 30 held
    assert (row["limit_micro"], row["spent_micro"], row["held_micro"]) == (40, 20, 30)
    for amount in (1, 10):
        with pytest.raises(Raced):
            await money.enter(run, hold(3, amount))
    with pytest.raises(Raced):  # not even in exchange for what comes back
        await money.enter(run, settle(2, 30, 25), hold(3, 5))
    run = await money.enter(run, settle(2, 30, 5))
    with pytest.raises(Raced):
        await money.enter(run, hold(3, 16))
    await money.enter(run, hold(3, 15))
    assert await money.account("tenant") == (25, 15)
    (row,) = await money.sql("select limit_micro, bound_micro from budgets")
    assert row == {"limit_micro": 40, "bound_micro": 40}


async def test_the_table_itself_refuses_more_than_the_bound(money: Money) -> None:
    await money.limit("tenant", 100)
    with pytest.raises(psycopg.errors.CheckViolation, match="never_over"):
        await money.sql("update budgets set held_micro = 101")


async def test_more_than_was_held_freezes_every_scope_until_an_operator_thaws_it(money: Money) -> None:
    for scope in ("tenant", "workflow:w", "workflow:other"):
        await money.limit(scope, 1000)
    run = await money.enter(await money.start(), hold(1, 90))
    run = await money.enter(run, settle(1, 90, 130))
    frozen = await money.sql("select scope from budgets where frozen order by scope")
    assert [row["scope"] for row in frozen] == ["tenant", "workflow:w"]
    with pytest.raises(Raced):
        await money.enter(run, hold(2, 1))
    for scope in ("tenant", "workflow:w"):
        await money.limit(scope, 1000, thaw=True)
    await money.enter(run, hold(2, 70))


async def test_a_new_account_begins_with_what_is_held_and_what_its_period_has_spent(money: Money) -> None:
    first = await money.enter(await money.start(budget="team"), hold(1, 70), hold(2, 500, CHILD))
    await money.enter(await money.start("other"), hold(1, 7))
    done = await money.enter(await money.start(), hold(1, 9))
    await money.enter(done, settle(1, 9, 9), spent(9))
    first = await money.enter(first, settle(3, 0, 30, CHILD), spent(30, "workflow"), settle(4, 0, 8), spent(8))
    expected = {"tenant": (17, 77), "workflow:w": (47, 570), "budget:team": (8, 70), "workflow:none": (0, 0)}
    for scope, account in expected.items():
        for period in ("day", "month", "total"):
            await money.limit(scope, 50, period)
            assert await money.account(scope, period) == account, (scope, period)
    run = await money.enter(first, settle(1, 70, 60), settle(2, 500, 100, CHILD))
    assert await money.account("workflow:w") == (207, 0)
    assert await money.account("budget:team") == (68, 0)
    with pytest.raises(Raced):
        await money.enter(run, hold(5, 1))


async def test_what_was_spent_before_its_period_is_not_in_a_new_account(money: Money) -> None:
    run = await money.enter(await money.start(budget="team"), settle(1, 0, 5), spent(5))
    before = {"day": "current_date - 1", "month": "(date_trunc('month', current_date) - interval '1 day')::date"}
    for period, day in before.items():
        await money.sql(f"update spend set day = {day}")
        await money.limit("tenant", 50, period)
        await money.limit("budget:team", 50, period)
        assert await money.account("tenant", period) == await money.account("budget:team", period) == (0, 0)
    await money.enter(run, settle(2, 0, 3), spent(3), spent(-20, CORRECTION))
    await money.limit("workflow:w", 50, "day")
    assert await money.account("workflow:w", "day") == (0, 0), "what is given back gives no headroom"
    await money.limit("budget:team", 50, "total")
    assert await money.account("budget:team", "total") == (0, 0)


async def test_the_soft_limit_is_told_once_in_a_period(money: Money) -> None:
    await money.limit("tenant", 100, "day", soft_micro=50)
    run = await money.enter(await money.start(), hold(1, 60), hold(2, 20), hold(3, 10))
    assert await money.told() == []  # what is held may never be spent
    run = await money.enter(run, settle(1, 60, 50))
    run = await money.enter(run, settle(2, 20, 20))
    assert await money.told() == [("budget.warning", "tenant")]
    (fact,) = await money.sql("select * from outbox where consumer = 'facts'")
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    assert fact["data"] == {
        "scope": "tenant", "period": "day", "limit_micro": 100, "soft_micro": 50, "spent_micro": 50, "held_micro": 30,
        "remaining_micro": 20, "resets_at": f"{tomorrow}T00:00:00Z",
    }  # fmt: skip
    await money.period_ends()
    run = await money.enter(run, settle(3, 10, 10), hold(4, 60))
    assert await money.told() == [("budget.warning", "tenant")]
    await money.enter(run, settle(4, 60, 60))
    assert await money.told() == [("budget.warning", "tenant")] * 2


async def test_a_restored_budget_is_told_once_there_is_what_was_refused(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 50), hold(2, 50))
    run = await money.enter(run, Refused("tenant", 60))
    run = await money.enter(run, settle(1, 50, 10))
    assert await money.told() == []  # 40 are left
    run = await money.enter(run, settle(2, 50, 20))
    run = await money.enter(run, hold(3, 10))
    assert await money.told() == [("budget.restored", "tenant")]
    await money.enter(run, Refused("tenant", 90))
    await money.limit("tenant", 101)
    assert await money.told() == [("budget.restored", "tenant")]
    await money.limit("tenant", 200)
    assert await money.told() == [("budget.restored", "tenant")] * 2


async def test_where_something_was_refused_the_end_of_its_period_is_awaited_and_told(money: Money) -> None:
    for period in ("day", "month", "total"):
        await money.limit("tenant", 100, period)
    run = await money.enter(await money.start(), hold(1, 60))
    run = await money.enter(run, settle(1, 60, 60))
    assert await money.sql("select * from timers") == []
    run = await money.enter(run, Refused("tenant", 60))
    awaited = "select t.key, t.kind from timers t join budgets b on t.fire_at = b.ends_at order by 1"
    keys = [{"key": f"period:tenant:{period}", "kind": "period"} for period in ("day", "month")]
    assert await money.sql(awaited) == keys
    await set_zone(money.admin, money.tenant, "Pacific/Auckland")
    assert await money.sql(awaited) == keys, "they follow the zone"
    await money.sql("update budgets set period = 'total', scope = 'budget:b' where period = 'month'")
    await money.sql("delete from budgets where scope = 'tenant' and period = 'total'")
    await money.period_ends()
    made = Changes()
    made.row(None, PeriodEnded(money.tenant, "tenant"))
    await money.store.commit([money.tenant], made)
    assert await money.account("tenant", "day") == (0, 0)
    assert await money.told() == [("budget.restored", "tenant")]
    rolled = "select short_micro, ends_at > clock_timestamp() as later from budgets where period = 'day'"
    assert await money.sql(rolled) == [{"short_micro": None, "later": True}]
    assert [row["key"] for row in await money.sql("select key from timers")] == ["period:tenant:month"]


async def test_relays_are_told_that_somebody_can_go_on(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 100))
    waiting = Waiting(2, 1, "tenant", "total", 60, 3_600_000, BORN)
    run = await money.enter(run, waiting, Refused("tenant", 60))
    async with await psycopg.AsyncConnection.connect(money.admin, autocommit=True) as conn:
        await conn.execute("listen agentflow_relay")
        run = await money.enter(run, settle(1, 100, 50))
        assert [note async for note in conn.notifies(timeout=0.5)] == []
        await money.limit("tenant", 110)
        assert len([note async for note in conn.notifies(timeout=5, stop_after=1)]) == 1
    (timer,) = await money.sql("select key, scope, fire_at <= clock_timestamp() as due from timers")
    assert timer == {"key": "budget:2", "scope": None, "due": True}


async def test_as_many_as_fit_are_woken_in_their_order(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 100))
    needs = {2: 50, 3: 40, 4: 30, 5: 20}
    rows = [Waiting(step, 1, "tenant", "total", needed, 3_600_000, BORN + step) for step, needed in needs.items()]
    run = await money.enter(run, *rows, *(Refused("tenant", row.needed_micro) for row in rows))
    await money.enter(run, settle(1, 100, 20))
    woken = await money.sql("select step from timers where fire_at <= clock_timestamp() order by step")
    assert [row["step"] for row in woken] == [2, 4]  # 50 and 30 of 80; 40 does not fit any more
    (account,) = await money.sql("select short_micro from budgets")
    assert account["short_micro"] == 20


async def test_who_waits_behind_a_hundred_that_do_not_fit_is_woken_when_they_are(money: Money) -> None:
    await money.limit("tenant", 10_000)
    run = await money.enter(await money.start(), hold(1, 4_000), hold(2, 6_000))
    needs = dict.fromkeys(range(10, 110), 50) | {110: 1}
    rows = [Waiting(step, 1, "tenant", "total", needed, 3_600_000, BORN + step) for step, needed in needs.items()]
    run = await money.enter(run, *rows, Refused("tenant", 1))
    due = "select step from timers where fire_at <= clock_timestamp()"
    run = await money.enter(run, settle(1, 4_000, 3_990))
    assert await money.sql(due) == []
    await money.enter(run, settle(2, 6_000, 900))
    assert len(await money.sql(due)) == 101


async def test_what_a_woken_step_does_not_take_is_for_who_waits_behind_it(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 100))
    rows = [Waiting(step, 1, "tenant", "total", 60, 3_600_000, BORN + step) for step in (2, 3)]
    run = await money.enter(run, *rows, Refused("tenant", 60))
    due = "select step from timers where fire_at <= clock_timestamp() order by step"
    run = await money.enter(run, settle(1, 100, 0))
    assert [row["step"] for row in await money.sql(due)] == [2]
    run = await money.enter(run, TimerCleared("budget:2"))
    assert await money.sql(due) == []
    run = await money.enter(run, Left("tenant"))
    assert [row["step"] for row in await money.sql(due)] == [3]
    assert await money.account("tenant") == (0, 0)
    assert await money.told() == [("budget.restored", "tenant")] * 2
    await money.enter(run, Left("tenant"))  # nobody waits any more


async def test_who_waits_behind_a_hundred_is_woken_when_they_leave(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 90))
    needs = dict.fromkeys(range(10, 110), 50) | {110: 10}
    rows = [Waiting(step, 1, "tenant", "total", needed, 3_600_000, BORN + step) for step, needed in needs.items()]
    run = await money.enter(run, *rows, Refused("tenant", 50))
    due = "select step from timers where fire_at <= clock_timestamp() order by step"
    assert await money.sql(due) == []
    await money.enter(run, *(TimerCleared(f"budget:{step}") for step in range(10, 110)), Left("tenant"))
    assert await money.sql(due) == [{"step": 110}]


async def test_who_leaves_while_nothing_is_free_is_no_news(money: Money) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 90))
    rows = [Waiting(step, 1, "tenant", "total", 60, 3_600_000, BORN + step) for step in (2, 3)]
    run = await money.enter(run, *rows, Refused("tenant", 60))
    run = await money.enter(run, TimerCleared("budget:2"), Left("tenant"), Refused("tenant", 30))
    assert await money.told() == []
    assert await money.sql("select short_micro from budgets") == [{"short_micro": 30}]
    await money.enter(run, settle(1, 90, 0))
    assert await money.told() == [("budget.restored", "tenant")]


@pytest.mark.parametrize("way", ["lowered", "frozen"])
async def test_who_leaves_an_account_that_admits_nothing_makes_no_news_later(money: Money, way: str) -> None:
    await money.limit("tenant", 100)
    run = await money.enter(await money.start(), hold(1, 90))
    rows = [Waiting(step, 1, "tenant", "total", 60, 3_600_000, BORN + step) for step in (2, 3)]
    run = await money.enter(run, *rows, Refused("tenant", 60))
    if way == "lowered":
        await money.limit("tenant", 80)
    else:
        await money.sql("update budgets set frozen = true")
    run = await money.enter(run, TimerCleared("budget:2"), Left("tenant"))
    if way == "lowered":
        run = await money.enter(run, settle(1, 90, 80))  # nothing is left, and no more than that
    else:
        await money.limit("tenant", 100, thaw=True)  # ten are left
    assert await money.told() == []
    due = "select step from timers where fire_at <= clock_timestamp() order by step"
    assert await money.sql(due) == []
    await money.limit("tenant", 200)
    assert await money.sql(due) == [{"step": 3}]
    assert await money.told() == [("budget.restored", "tenant")]


async def test_of_a_timer_that_is_set_several_times_in_a_transaction_the_last_counts(money: Money) -> None:
    """As where two settlements wake the same step."""
    await money.limit("tenant", 100)
    run = await money.start()
    waiting = Waiting(7, 1, "tenant", "total", 60, 3_600_000, BORN)
    again = [TimerSet(f"budget:{step}", "budget", 0, step, 1) for step in (*range(20), *range(20, 0, -1))]
    await money.enter(run, *again, waiting, TimerCleared("budget:8"), TimerSet("budget:9", "budget", 60_000, 9, 1))
    due = "select step from timers where fire_at <= clock_timestamp() order by step"
    assert {row["step"] for row in await money.sql(due)} == {*range(21)} - {7, 8, 9}
    assert await money.sql("select step, scope from timers where scope is not null") == [{"step": 7, "scope": "tenant"}]
    assert len(await money.sql("select * from timers")) == 20


async def test_periods_are_those_of_the_tenants_zone(money: Money) -> None:
    await money.limit("tenant", 100, "day")
    await money.limit("tenant", 100, "month")
    await set_zone(money.admin, money.tenant, "Pacific/Auckland")
    await money.limit("workflow:w", 100, "day")
    now = datetime.now(ZoneInfo("Pacific/Auckland"))
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    tomorrow = (midnight + timedelta(days=1)).astimezone(UTC)
    first = (midnight.replace(day=1) + timedelta(days=32)).replace(day=1).astimezone(UTC)
    rows = await money.sql("select scope, period, ends_at from budgets order by scope, period")
    assert [(row["scope"], row["period"], row["ends_at"]) for row in rows] == [
        ("tenant", "day", tomorrow), ("tenant", "month", first), ("workflow:w", "day", tomorrow)
    ]  # fmt: skip


async def test_what_is_no_budget_is_refused(money: Money) -> None:
    for scope, period, limit, soft in (
        ("team", "day", 1, None),
        ("workflow:", "day", 1, None),
        ("budget:Team", "day", 1, None),
        ("tenant:x", "day", 1, None),
        ("tenant", "week", 1, None),
        ("tenant", "day", -1, None),
        ("tenant", "day", 10**15 + 1, None),
        ("tenant", "day", 5, 6),
        ("tenant", "day", None, -1),
    ):
        with pytest.raises(Rejected):
            await money.limit(scope, limit, period, soft_micro=soft)
    with pytest.raises(Rejected, match="no tenant"):
        await set_budget(money.admin, uuid4(), "tenant", "day", limit_micro=1)
    for zone in ("Mars/Olympus", "", "UTC+25", "CEST"):
        with pytest.raises(Rejected, match="time zone"):
            await set_zone(money.admin, money.tenant, zone)
    assert await money.sql("select * from budgets") == []


async def test_what_operators_do_is_noted_and_what_is_charged_is_not(money: Money) -> None:
    await money.limit("tenant", 100)
    await money.limit("tenant", 200, soft_micro=5)
    run = await money.enter(await money.start(), hold(1, 50))
    await money.enter(run, settle(1, 50, 60))
    await money.limit("tenant", 200, soft_micro=5, thaw=True)
    await remove_budget(money.admin, money.tenant, "tenant", "total")
    notes = await money.sql("select kind, data from unsealed where kind like 'budgets%%' order by note")
    said = [(note["kind"], note["data"]["row"]["limit_micro"], note["data"]["row"]["frozen"]) for note in notes]
    changed = ("budgets.update", 200, False)
    assert said == [("budgets.insert", 100, False), changed, changed, ("budgets.delete", 200, False)]
