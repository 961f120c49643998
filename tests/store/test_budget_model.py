"""Accounts against a small model: any sequence of holds, settlements, limits and clocks comes to what the model says.

Charged by the engine's own statement and the database's own triggers, whose clock is a setting here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from psycopg import errors as pg
from psycopg.rows import dict_row

from agentflow.store.budgets import SQL as ADMIN
from agentflow.store.queries import load

NOW = "current_setting('test.now')::timestamptz"
CHARGE = load("queries.sql")["charge_budgets"].decode().replace("clock_timestamp()", NOW).replace("%b", "%s")
# Midnights that there are not, or twice; days that are skipped; half hours.
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Havana", "Africa/Cairo", "America/Sao_Paulo", "Asia/Beirut",
    "Pacific/Apia", "Australia/Lord_Howe", "Asia/Kathmandu", "America/Asuncion", "Pacific/Auckland",
)  # fmt: skip
SCOPES = ("tenant", "workflow:w", "budget:b")
KEYS = [(scope, period) for scope in SCOPES for period in ("day", "month", "total")]


def period_end(period: str, zone: str, at: datetime) -> datetime | None:
    """The next midnight; where it comes twice the first, where it is skipped the moment at which it is."""
    if period == "total":
        return None
    day = at.astimezone(ZoneInfo(zone)).date()
    day = day + timedelta(days=1) if period == "day" else (day.replace(day=1) + timedelta(days=32)).replace(day=1)
    return datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC)


moments = st.datetimes(datetime(2010, 1, 1), datetime(2024, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda at: at.replace(microsecond=0)
)
amounts = st.integers(0, 120)


@dataclass(slots=True)
class Account:
    """What the model knows of one row."""

    limit: int | None
    soft: int | None
    ends: datetime | None
    bound: int | None = None
    spent: int = 0
    held: int = 0
    frozen: bool = False
    warned: bool = False

    def rolled(self, period: str, zone: str, now: datetime) -> Account:
        if self.ends is None or self.ends > now:
            return Account(*(getattr(self, name) for name in self.__slots__))
        ends = period_end(period, zone, now)
        return Account(self.limit, self.soft, ends, self.bound, 0, self.held, self.frozen, False)

    def row(self) -> tuple[Any, ...]:
        return (self.limit, self.bound, self.spent, self.held, self.frozen, self.warned, self.ends)


@pytest.fixture(scope="module")
def dsns(module_database: Any) -> tuple[str, str]:
    """A database whose triggers tell the time by a setting."""
    with psycopg.connect(module_database.admin, autocommit=True) as conn:
        names = ("fit_budget", "tell_budget", "restore_budget")
        for name in names:
            found = conn.execute("select pg_get_functiondef(%s::regproc)", (f"agentflow.{name}",)).fetchone()
            assert found is not None
            conn.execute("set search_path = agentflow")
            conn.execute(found[0].replace("clock_timestamp()", f"({NOW})"))
    return module_database.admin, module_database.dsn("agentflow_engine")


@given(st.sampled_from(ZONES), moments, st.sampled_from(("day", "month")))
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_period_ends_at_the_next_midnight_of_its_zone(
    dsns: tuple[str, str], zone: str, at: datetime, period: str
) -> None:
    with psycopg.connect(dsns[0]) as conn:
        row = conn.execute("select agentflow.period_end(%s, %s, %s)", (period, zone, at)).fetchone()
    assert row is not None
    assert row[0] == period_end(period, zone, at)
    assert row[0] > at
    local = row[0].astimezone(ZoneInfo(zone))
    days = 1 if period == "day" else 31
    assert timedelta(0) < row[0] - at <= timedelta(days=days, hours=25)
    assert local.time() == time() or (local - timedelta(seconds=1)).utcoffset() != local.utcoffset()


class Machine(RuleBasedStateMachine):
    """One tenant with every kind of account, one run that is charged to all of its scopes."""

    holds = Bundle("holds")

    def __init__(self, admin: str, engine: str) -> None:
        super().__init__()
        self.admin = psycopg.connect(admin, autocommit=True, row_factory=dict_row)
        self.engine = psycopg.connect(engine)
        self.tenant = uuid4()
        self.admin.execute("insert into agentflow.tenants (tenant_id, name) values (%s, 'x')", (self.tenant,))
        self.accounts: dict[tuple[str, str], Account] = {}
        self.zone = "UTC"
        self.warnings = 0

    def teardown(self) -> None:
        self.admin.close()
        self.engine.close()

    @initialize(at=moments, zone=st.sampled_from(ZONES))
    def begin(self, at: datetime, zone: str) -> None:
        self.now = at
        self.move(at, zone)

    def move(self, at: datetime, zone: str) -> None:
        self.now = at
        self.admin.execute("select set_config('test.now', %s, false)", (at.isoformat(),))
        if zone != self.zone:
            self.zone = zone
            for (_, period), account in self.accounts.items():
                if account.ends is not None and account.ends <= at:
                    account.spent, account.warned = 0, False
                account.ends = period_end(period, zone, at)
                self.fit(account)
            self.admin.execute("update agentflow.tenants set zone = %s where tenant_id = %s", (zone, self.tenant))

    def fit(self, account: Account) -> None:
        taken = account.spent + account.held
        account.bound = None if account.limit is None else max(account.limit, taken)

    # -- what happens ------------------------------------------------------------------------------------

    @rule(key=st.sampled_from(KEYS), limit=st.none() | st.integers(0, 400), soft=st.none() | st.integers(0, 300))
    def limit(self, key: tuple[str, str], limit: int | None, soft: int | None) -> None:
        values = {"tenant": self.tenant, "scope": key[0], "period": key[1], "limit": limit, "soft": soft, "thaw": True}
        account = self.accounts.get(key)
        if account is None:
            known = [each.held for each in self.accounts.values()]
            held = max(known, default=self.unknown())
            account = self.accounts[key] = Account(limit, soft, period_end(key[1], self.zone, self.now), held=held)
            self.fit(account)
            self.admin.execute(
                "insert into agentflow.budgets (tenant_id, scope, period, limit_micro, soft_micro, held_micro) "
                "values (%(tenant)s, %(scope)s, %(period)s, %(limit)s, %(soft)s, %(held)s)",
                {**values, "held": held},
            )
            return
        warned = account.warned and soft is not None and account.spent >= soft
        if account.limit != limit or account.frozen:
            if account.ends is not None and account.ends <= self.now:
                account.spent, warned = 0, False
                account.ends = period_end(key[1], self.zone, self.now)
            account.limit, account.frozen = limit, False
            self.fit(account)
        account.soft, account.warned = soft, warned
        self.admin.execute(ADMIN["change_budget"], values)

    def unknown(self) -> int:
        return sum(self.out)

    @initialize()
    def nothing_is_out(self) -> None:
        self.out: list[int] = []

    @rule(target=holds, amount=amounts)
    def hold(self, amount: int) -> Any:
        if not self.charge(amount, 0, holds=True):
            return multiple()
        self.out.append(amount)
        return amount

    @rule(held=consumes(holds), part=st.floats(0, 1))
    def settle(self, held: int, part: float) -> None:
        assert self.charge(-held, int(held * part))
        self.out.remove(held)

    @rule(held=consumes(holds))
    def release(self, held: int) -> None:
        assert self.charge(-held, 0)
        self.out.remove(held)

    @rule(held=consumes(holds), more=st.integers(1, 50))
    def bill_more_than_was_held(self, held: int, more: int) -> None:
        assert self.charge(-held, held + more, freezes=True)
        self.out.remove(held)

    @rule(amount=st.integers(-150, 150))
    def correct(self, amount: int) -> None:
        """An administrator's word is taken, whatever the limit; what is given back is never more than was spent."""
        assert self.charge(0, 0, corrected=amount)

    @rule(target=holds, held=consumes(holds), part=st.floats(0, 1), amount=amounts)
    def settle_and_hold(self, held: int, part: float, amount: int) -> Any:
        """In one transaction, as a step that ends starts the next."""
        if not self.charge(amount - held, int(held * part), holds=True):
            return held
        self.out.remove(held)
        self.out.append(amount)
        return amount

    @rule(gap=st.sampled_from([1, 60, 3_599, 3_600, 3_601, 43_200, 86_400, 90_000, 40 * 86_400]))
    def time_passes(self, gap: int) -> None:
        self.move(self.now + timedelta(seconds=gap), self.zone)

    @rule(key=st.sampled_from(KEYS), seconds=st.integers(-1, 1))
    def it_is_about_midnight(self, key: tuple[str, str], seconds: int) -> None:
        account = self.accounts.get(key)
        if account is not None and account.ends is not None and account.ends > self.now + timedelta(seconds=1):
            self.move(account.ends + timedelta(seconds=seconds), self.zone)

    @rule(zone=st.sampled_from(ZONES))
    def tenant_moves(self, zone: str) -> None:
        self.move(self.now, zone)

    # -- charging ----------------------------------------------------------------------------------------

    def charge(
        self, held: int, spent: int, *, freezes: bool = False, holds: bool = False, corrected: int = 0
    ) -> bool:
        after: dict[tuple[str, str], Account] = {}
        admitted = True
        told = 0
        for key, account in self.accounts.items():
            mine = after[key] = account.rolled(key[1], self.zone, self.now)
            mine.held += held
            mine.spent = max(0, mine.spent + spent + corrected)
            taken = mine.spent + mine.held
            if holds and (mine.frozen or (mine.limit is not None and taken > mine.limit)):
                admitted = False
            mine.frozen |= freezes
            if mine.limit is not None:
                assert mine.bound is not None
                mine.bound = max(mine.limit, taken if corrected > 0 else min(mine.bound, taken))
            over = mine.soft is not None and mine.spent >= mine.soft
            told += over and not mine.warned
            mine.warned = over
        rows = [[self.tenant] * len(SCOPES), list(SCOPES)]
        rows += [[value] * len(SCOPES) for value in (held, spent, freezes, holds, None, corrected)]
        with self.engine.transaction():
            self.engine.execute("select set_config('app.tenants', %s, true)", ("{" + str(self.tenant) + "}",))
            self.engine.execute("select set_config('test.now', %s, true)", (self.now.isoformat(),))
            try:
                with self.engine.transaction():
                    self.engine.execute(CHARGE, rows)
                wrote = True
            except (pg.DivisionByZero, pg.CheckViolation):
                wrote = False
        assert wrote == admitted, (held, spent, corrected, self.accounts)
        if admitted:
            self.accounts = after
            self.warnings += told
        return admitted

    # -- what holds --------------------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        found = self.admin.execute("select * from agentflow.budgets where tenant_id = %s", (self.tenant,)).fetchall()
        rows = {
            (row["scope"], row["period"]): (
                row["limit_micro"], row["bound_micro"], row["spent_micro"], row["held_micro"], row["frozen"],
                row["warned"], row["ends_at"],
            )
            for row in found
        }  # fmt: skip
        assert rows == {key: account.row() for key, account in self.accounts.items()}
        for account in self.accounts.values():
            assert account.spent >= 0
            assert account.held >= 0
            assert account.frozen or account.bound is None or account.spent + account.held <= account.bound

    @invariant()
    def each_crossing_was_told(self) -> None:
        told = "select count(*) as n from agentflow.outbox where tenant_id = %s and name = 'budget.warning'"
        row = self.admin.execute(told, (self.tenant,)).fetchone()
        assert row is not None
        assert row["n"] == self.warnings


def test_accounts_come_to_what_the_model_says(dsns: tuple[str, str]) -> None:
    much = settings(max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Machine(*dsns), settings=much)  # type: ignore[no-untyped-call]
