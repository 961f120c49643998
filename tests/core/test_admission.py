"""Admission: never over a limit, fair between tenants, nothing forgotten, whatever is said twice or not at all."""

from __future__ import annotations

from collections import Counter
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agentflow.core.admission import Admission, Waiting
from agentflow.core.limits import GATED, OPERATOR, SLOT, Limit, Limits, Scope, scopes_of

A, B, C = (UUID(int=n) for n in (1, 2, 3))


class Outbox:
    """The rows as the database would have them, and an admission that knows of them what it is told."""

    def __init__(self, *limits: tuple[UUID, str, Limit], room: int = 1000, window: int = 8) -> None:
        self.rows: dict[tuple[UUID, str], tuple[int, Waiting]] = {}
        self.admitted: dict[tuple[UUID, str], Waiting] = {}
        self.numbers = count(1)
        self.now = 0.0
        self.window = window
        self.limits = Limits(limits)
        self.admission = Admission(self.limits, self.now)
        self.admission.room = room

    def put(
        self, tenant: UUID, gate: str, times: int = 1, *, priority: int = 5, told: bool = True
    ) -> list[Waiting]:
        made = []
        for _ in range(times):
            number = next(self.numbers)
            run = gate.startswith("workflow:")
            key, consumer = (GATED, "plan") if run else ("1.1", "run_tool")
            row = Waiting(tenant, gate, UUID(int=number), key, consumer, priority)
            self.rows[row.run, row.key] = (number, row)
            made.append(row)
        if told:
            self.admission.found(tenant, gate, priority)
        return made

    def admit(self, most: int = 1000) -> list[Waiting]:
        """What the gatekeeper does in a round."""
        through: list[Waiting] = []
        for _ in range(10_000):
            if picked := self.admission.pick(self.now, most - len(through)):
                for row in picked:
                    if self.rows.pop((row.run, row.key), None) is None:
                        self.admission.missed(row)
                        continue
                    self.admitted[row.run, row.key] = row
                    through.append(row)
            elif gates := self.admission.unread():
                for tenant, gate in gates:
                    found = self.waiting(tenant, gate)[: self.window]
                    self.admission.read(tenant, gate, found, more=len(found) == self.window)
            else:
                return through
        raise AssertionError("the round does not end")

    def waiting(self, tenant: UUID, gate: str) -> list[Waiting]:
        rows = [item for item in self.rows.values() if item[1][:2] == (tenant, gate)]
        return [row for _, row in sorted(rows, key=lambda item: (-item[1].priority, item[0]))]

    def consume(self, row: Waiting, *, told: bool = True) -> None:
        """Its consumer's transaction: a run that is planned leaves a slot behind."""
        del self.admitted[row.run, row.key]
        if row.key == GATED:
            self.admitted[row.run, SLOT] = row._replace(key=SLOT, consumer="gate")
        if told:
            self.admission.freed(row.run, row.key)

    def count(self) -> None:
        """What a new leader does, and every leader now and then."""
        self.admission.counted((row.tenant, row.gate, row.run, row.key) for row in self.admitted.values())
        first: dict[tuple[UUID, str], int] = {}
        for _, row in self.rows.values():
            first[row.tenant, row.gate] = max(row.priority, first.get((row.tenant, row.gate), 0))
        for (tenant, gate), priority in first.items():
            self.admission.found(tenant, gate, priority)

    def take_over(self) -> None:
        room = self.admission.room
        self.admission = Admission(self.limits, self.now)
        self.admission.room = room
        self.count()

    def used(self) -> Counter[Scope]:
        """What is in use, from the rows alone."""
        used: Counter[Scope] = Counter()
        for row in self.admitted.values():
            scopes = scopes_of(row.tenant, row.gate)
            used.update((*scopes.own, *scopes.shared))
        return used


def test_no_more_at_once_than_the_limit_and_one_more_for_each_that_ends() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=3)))
    rows = box.put(A, "model:m", 20)
    assert box.admit() == rows[:3]
    box.consume(rows[1])
    assert box.admit() == [rows[3]]
    assert box.admit() == []


def test_every_scope_of_a_row_counts() -> None:
    box = Outbox(
        (A, "model:m", Limit(concurrency=5)), (A, "model:*", Limit(concurrency=7)), (OPERATOR, "model:*", Limit(9))
    )  # fmt: skip
    for gate in ("model:m", "model:n"):
        for tenant in (A, B):
            box.put(tenant, gate, 20)
    through = Counter((row.tenant, row.gate) for row in box.admit())
    assert sum(through.values()) == 9
    assert through[A, "model:m"] <= 5
    assert through[A, "model:m"] + through[A, "model:n"] <= 7


def test_a_full_workflow_keeps_no_other_waiting() -> None:
    box = Outbox((A, "workflow:w", Limit(concurrency=1)))
    box.put(A, "workflow:w", 50, priority=9)
    others = box.put(A, "workflow:v", 3, priority=0)
    assert set(others) < set(box.admit())


def test_a_run_holds_its_place_until_it_ends_not_until_it_is_planned() -> None:
    box = Outbox((A, "tenant", Limit(concurrency=2)))
    rows = box.put(A, "workflow:w", 4)
    assert box.admit() == rows[:2]
    box.consume(rows[0])
    assert box.admit() == []
    box.consume(box.admitted[rows[0].run, SLOT])
    assert box.admit() == [rows[2]]


def test_runs_wait_for_room_but_for_a_tenants_first() -> None:
    box = Outbox(room=10)
    rows = box.put(A, "workflow:w", 100)
    calls = box.put(A, "model:m", 3)
    through = box.admit()
    assert [row for row in through if row.gate == "workflow:w"] == rows[:10]
    assert set(calls) < set(through), "calls of what is in progress do not wait for room"
    assert box.admission.short_of_room
    (mine, _) = box.put(B, "workflow:w", 2)
    assert box.admit() == [mine]
    box.admission.room = 3
    assert Counter(row.tenant for row in box.admit()) == {A: 2, B: 1}


def test_a_thousand_of_one_tenant_do_not_stand_before_anothers_first() -> None:
    box = Outbox((OPERATOR, "model:m", Limit(concurrency=10)))
    box.put(A, "model:m", 1000)
    busy = box.admit()
    (mine,) = box.put(B, "model:m")
    box.consume(busy[0])
    assert box.admit() == [mine]


def test_slots_go_by_weight() -> None:
    box = Outbox((OPERATOR, "model:m", Limit(concurrency=10)), (OPERATOR, f"tenant:{A}", Limit(weight=4)))
    for tenant in (A, B):
        box.put(tenant, "model:m", 1000)
    served: Counter[UUID] = Counter()
    for _ in range(100):
        for row in box.admit():
            served[row.tenant] += 1
            box.consume(row)
    assert served[A] == pytest.approx(4 * served[B], abs=5)
    box.limits = Limits([(OPERATOR, "model:m", Limit(concurrency=10))])
    box.admission.limits(box.limits, box.now)
    served.clear()
    for _ in range(20):
        for row in box.admit():
            served[row.tenant] += 1
            box.consume(row)
    assert served[A] == pytest.approx(served[B], abs=2)


def test_the_urgent_go_first_also_past_what_has_been_read() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=1)), window=5)
    first, *rest = box.put(A, "model:m", 20)
    assert box.admit() == [first]
    (urgent,) = box.put(A, "model:m", priority=9)
    (patient,) = box.put(A, "model:m", priority=0)
    order = []
    current = first
    while box.rows:
        box.consume(current)
        (current,) = box.admit()
        order.append(current)
    assert order == [urgent, *rest, patient]


def test_a_rate_lets_through_its_burst_and_then_one_at_a_time() -> None:
    box = Outbox()
    box.admission.limits(Limits([(A, "tool:t", Limit(per_second=10, burst=3))]), 0.0)
    rows = box.put(A, "tool:t", 10)
    assert box.admit() == rows[:3]
    assert box.admission.next_time() == pytest.approx(0.1)
    box.now = 0.05
    assert box.admit() == []
    box.now = 0.1001
    assert box.admit() == [rows[3]]
    box.now = 10.0
    assert box.admit() == rows[4:7]


def test_a_new_leader_starts_without_a_burst() -> None:
    box = Outbox((A, "tool:t", Limit(per_second=10, burst=5)))
    box.put(A, "tool:t", 10)
    assert box.admit() == []
    box.now = 0.1001
    assert len(box.admit()) == 1


def test_a_limit_below_what_is_in_use_lets_nothing_through_until_it_is_met() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=6)))
    rows = box.put(A, "model:m", 20)
    assert len(box.admit()) == 6
    box.admission.limits(Limits([(A, "model:m", Limit(concurrency=2))]), 0.0)
    for row in rows[:4]:
        assert box.admit() == []
        box.consume(row)
    assert box.admit() == []
    box.consume(rows[4])
    assert box.admit() == [rows[6]]


def test_nothing_at_all_goes_through_a_limit_of_none() -> None:
    box = Outbox((A, "tenant", Limit(concurrency=0)))
    rows = box.put(A, "workflow:w", 3)
    assert box.admit() == []
    box.admission.limits(Limits(), 0.0)
    assert box.admit() == rows


def test_when_a_limit_goes_what_waited_for_it_goes_too() -> None:
    box = Outbox((A, "tool:t", Limit(concurrency=1, per_second=0.01)))
    rows = box.put(A, "tool:t", 30)
    box.now = 100.001
    assert box.admit() == rows[:1]
    box.admission.limits(Limits(), box.now)
    assert box.admit() == rows[1:]
    assert box.admission.next_time() is None
    assert not box.admission.waiting


def test_what_is_gone_when_its_turn_comes_holds_nothing() -> None:
    box = Outbox((A, "tool:t", Limit(concurrency=2, per_second=1000, burst=2)))
    box.now = 1.0
    rows = box.put(A, "tool:t", 6)
    box.admission.read(A, "tool:t", rows, more=False)
    for row in rows[:3]:
        del box.rows[row.run, row.key]  # cancelled, and nobody said so
    assert box.admit() == rows[3:5]


def test_a_run_request_that_is_gone_holds_neither_its_way_nor_its_place() -> None:
    box = Outbox((A, "tenant", Limit(concurrency=1)))
    rows = box.put(A, "workflow:w", 2)
    box.admission.read(A, "workflow:w", rows, more=False)
    del box.rows[rows[0].run, GATED]
    assert box.admit() == [rows[1]]


def test_what_is_freed_twice_is_freed_once() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=2)))
    rows = box.put(A, "model:m", 5)
    box.admit()
    box.consume(rows[0])
    box.admission.freed(rows[0].run, rows[0].key)
    box.admission.freed(UUID(int=99), "1.1")
    assert box.admit() == [rows[2]]


def test_lost_hints_are_made_good_by_counting() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=2)))
    rows = box.put(A, "model:m", 5, told=False)
    assert box.admit() == []
    box.count()
    assert box.admit() == rows[:2]
    box.consume(rows[0], told=False)
    assert box.admit() == []
    box.count()
    assert box.admit() == [rows[2]]


def test_many_tenants_lines_are_read_together() -> None:
    box = Outbox((OPERATOR, "model:m", Limit(concurrency=1000)))
    for tenant in range(100):
        box.put(UUID(int=1000 + tenant), "model:m")
    assert box.admission.pick(0.0, 1000) == []
    assert len(box.admission.unread()) == 100


def test_a_blocked_gate_is_not_read_again_and_again() -> None:
    box = Outbox((A, "model:m", Limit(concurrency=1)), (OPERATOR, "model:m", Limit(concurrency=1)))
    box.put(A, "model:m", 100)
    box.put(B, "model:m", 100)
    box.admit()
    for _ in range(50):
        box.admission.found(A, "model:m", 5)
        box.admission.found(B, "model:m", 5)
        box.admit()
    assert box.admission.unread() == []
    assert sum(map(len, box.admission._queues.values())) < 10


GATES = ("model:m", "model:n", "workflow:w", "workflow:v")
SCOPES = ("tenant", "workflow:w", "model:m", "model:*")
LIMITS = st.dictionaries(
    st.tuples(st.sampled_from((A, B, OPERATOR)), st.sampled_from(SCOPES)), st.integers(0, 4), max_size=4
)


class Machine(RuleBasedStateMachine):
    """Any history, hints lost and leaders changing: never over a limit, and in the end everything goes through."""

    @initialize(limits=LIMITS, window=st.integers(1, 4))
    def begin(self, limits: dict[Scope, int], window: int) -> None:
        self.box = Outbox(*((*scope, Limit(most)) for scope, most in limits.items()), window=window)
        self.allowed: dict[Scope, int] = dict(limits)
        self.over: Counter[Scope] = Counter()

    @rule(
        tenant=st.sampled_from((A, B, C)), gate=st.sampled_from(GATES), times=st.integers(1, 6),
        priority=st.sampled_from((0, 5, 9)), told=st.booleans(),
    )  # fmt: skip
    def put(self, **row: Any) -> None:
        self.box.put(**row)

    @rule(chance=st.randoms(use_true_random=False), told=st.booleans())
    def consume(self, chance: Any, told: bool) -> None:
        if self.box.admitted:
            self.box.consume(chance.choice(list(self.box.admitted.values())), told=told)

    @rule(chance=st.randoms(use_true_random=False))
    def cancel(self, chance: Any) -> None:
        if self.box.rows:
            del self.box.rows[chance.choice(list(self.box.rows))]

    @rule()
    def take_over(self) -> None:
        self.box.take_over()

    @rule(limits=LIMITS)
    def change(self, limits: dict[Scope, int]) -> None:
        self.over = self.box.used()
        self.allowed = dict(limits)
        self.box.limits = Limits((*scope, Limit(most)) for scope, most in limits.items())
        self.box.admission.limits(self.box.limits, self.box.now)

    @rule(most=st.integers(1, 10), room=st.integers(0, 10))
    def admit(self, most: int, room: int) -> None:
        self.box.admission.room = room
        before = {row.tenant for row in self.box.admitted.values() if row.gate.startswith("workflow:")}
        runs = [row for row in self.box.admit(most) if row.gate.startswith("workflow:")]
        assert len(runs) <= room + len({row.tenant for row in runs})
        assert before.isdisjoint(row.tenant for row in runs[room:])

    @invariant()
    def never_over(self) -> None:
        used = self.box.used() if hasattr(self, "box") else Counter()
        for scope, most in getattr(self, "allowed", {}).items():
            assert used[scope] <= max(most, self.over[scope]), (scope, most)

    def teardown(self) -> None:
        if not hasattr(self, "box"):
            return
        self.change({})
        for _ in range(1000):
            self.box.count()
            self.box.admission.room = 100
            self.box.admit()
            for row in list(self.box.admitted.values()):
                self.box.consume(row)
            if not self.box.rows and not self.box.admitted:
                break
        assert not self.box.rows, "something waits for ever"
        assert not any(self.box.admission._used.values())


TestMachine = Machine.TestCase
TestMachine.settings = settings(stateful_step_count=40, deadline=None)


@given(st.integers(1, 6), st.integers(1, 5))
def test_every_tenant_gets_through_before_anybody_gets_through_twice_more(tenants: int, slots: int) -> None:
    box = Outbox((OPERATOR, "tool:t", Limit(concurrency=slots)))
    ids = [UUID(int=100 + n) for n in range(tenants)]
    for tenant in ids:
        box.put(tenant, "tool:t", 30)
    served: Counter[UUID] = Counter()
    for _ in range(10):
        for row in box.admit():
            served[row.tenant] += 1
            assert max(served.values()) - min(served[t] for t in ids) <= 1
            box.consume(row)
