"""Changes: what one transaction will write, collected row by row and written column by column."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import orjson

from agentflow.core.budgets import TENANT, scopes
from agentflow.core.canonical import digest
from agentflow.core.decision import (
    CHILD,
    CORRECTION,
    Corrected,
    Decided,
    LedgerEntry,
    Left,
    PeriodEnded,
    PlanFrozen,
    Refused,
    Row,
    RunEnded,
    RunSpent,
    SlotTaken,
    Spent,
    StepClosed,
    Subscribed,
    TemplateKept,
    TimerCleared,
    TimerSet,
    Unsubscribed,
    Waiting,
    Withdrawn,
)
from agentflow.core.limits import GATED, SLOT
from agentflow.core.message import Message
from agentflow.core.run import Run
from agentflow.store import chain as links
from agentflow.store.chain import ChainKeys

Twin = tuple[UUID, UUID, str, str]  # tenant, run, key, consumer
TIMERS = frozenset({"set_timers", "wait_for_budget", "clear_timers"})
Sums = dict[tuple[Any, ...], tuple[int, ...]]  # what is added to the row of a key
CALLED = {"llm": "invoke_llm", "tool": "run_tool"}  # who performs the steps of a kind


def dump(value: Any) -> bytes | None:
    """JSON text in UTF-8, or None for None."""
    return None if value is None else orjson.dumps(value, default=dict)  # persistent maps


def decision_hash(status: str, changed: Sequence[Any], commands: Sequence[Any]) -> bytes:
    """What a decision came to, in 16 bytes: the status, how the planner's state changed and its commands, keys sorted.

    The state itself is left out, since it is what the changes of all lines so far make; a run with 10,000 open steps
    would be written out 10,000 times. Holds and open calls stay out, too: when they are settled depends on where
    functions run, what is decided does not.
    """
    content = orjson.dumps([status, changed, commands], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(content, digest_size=16).digest()


class Changes:
    """Rows to write, by statement name. ``tables[name]`` is a list of row tuples in that statement's order.

    ``keys`` fold what runs leave behind into their chains; not needed where no run is written.
    """

    __slots__ = (
        "budgets", "chains", "freed", "keys", "left", "new_runs", "run_spend", "runs", "spend", "tables", "timers",
        "waits", "withdrawn",
    )  # fmt: skip

    def __init__(self, keys: ChainKeys | None = None) -> None:
        self.keys = keys
        self.left: dict[UUID, list[links.Values]] = {}  # run -> what it leaves behind
        self.chains: dict[UUID, bytes] = {}  # run -> its chain with all that, once it is folded
        self.tables: dict[str, list[tuple[Any, ...]]] = {}
        # its key -> (statement, row): several decisions of one transaction may set a timer, and the last one counts
        self.timers: dict[tuple[UUID, UUID, str], tuple[str, tuple[Any, ...]]] = {}
        self.runs: dict[UUID, Run] = {}
        self.new_runs: set[UUID] = set()
        self.withdrawn: list[tuple[UUID, str]] = []  # (run, key) of requests nobody waits for any more
        # (tenant, scope) -> [held, spent, freezes, holds, short, corrected]
        self.budgets: dict[tuple[UUID, str], list[Any]] = {}
        self.spend: Sums = {}
        self.run_spend: Sums = {}
        self.waits: dict[
            tuple[UUID, str], int
        ] = {}  # (tenant, gate) before which rows wait -> highest priority
        self.freed: list[tuple[UUID, str]] = []  # (run, key) of admitted rows that go

    def add(self, statement: str, row: tuple[Any, ...]) -> None:
        rows = self.tables.get(statement)
        if rows is None:
            self.tables[statement] = [row]
        else:
            rows.append(row)

    def run(self, run: Run, *, new: bool) -> None:
        """The run's newest value; only the last one of a transaction is written."""
        if new:
            self.new_runs.add(run.id)
        self.runs[run.id] = run

    def fold(self) -> None:
        """Fold what each run leaves behind into its chain; once, before everything is written. A run that began before
        there were chains has none."""
        keys = self.keys
        if keys is None:
            return
        for run in self.runs.values():
            chain = run.chain
            if chain is None:
                if run.id not in self.new_runs:
                    continue
                who = (run.tenant, run.id, run.created_ms, run.workflow)
                chain = keys.begin(links.run_content(*who, dump(run.input), run.request_hash))
            content = links.rows_content(self.left.get(run.id, []))
            self.chains[run.id] = keys.follow(chain, run.rev + 1, content)

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        """What a statement is to write; lines of history with their links, once all is folded."""
        if statement in TIMERS:
            return [row for name, row in self.timers.values() if name == statement]
        rows = self.tables.get(statement, [])
        if statement != "insert_history":
            return rows
        chains = self.chains
        return [(*line, chains[line[2]][links.SHOWN] if line[2] in chains else None) for line in rows]

    def row(self, run: Run | None, row: Row) -> None:
        """One row of a decision about ``run`` (its value after the decision; None: about no run)."""
        ROWS[type(row)](self, run, row)

    def request(self, message: Message, consumer: str, data: bytes, due_ms: int) -> None:
        """The durable twin of a message that leaves this transaction."""
        twin = (message.tenant, message.run, message.key, consumer, message.name, data, message.trace, due_ms)
        self.add("insert_outbox", twin)

    def wait(self, message: Message, consumer: str, data: bytes, gate: str, priority: int) -> None:
        """A message that has to wait before a gate: its twin, which the gatekeeper admits and sends."""
        twin = (message.tenant, message.run, message.key, consumer, message.name, data, message.trace)
        self.add("insert_gated", (*twin, gate, priority, False))
        known = self.waits.get((message.tenant, gate), 0)
        self.waits[message.tenant, gate] = max(known, priority)

    def consume(self, twin: Twin) -> None:
        self.add("delete_outbox", twin)

    # -- one per row type ---------------------------------------------------------------------------

    def _closed(self, run: Run, row: StepClosed) -> None:
        step, attempt, opened, kind, status, given, output, error, usage, held, cost = row
        results = (dump(given), dump(output), dump(error), dump(usage), held, cost)
        consumer = CALLED.get(kind)
        key = f"{step}.{attempt}" if consumer else None
        values = (step, attempt, opened.epoch, opened.task, kind, status, opened.at_ms or run.created_ms)
        self._leave(run, links.step_values(*values, held, cost, *results[1:4]))
        self.add("insert_steps", (run.tenant, run.created_ms, run.id, *values, *results, run.rev + 1, key, consumer))

    def _timer(self, run: Run, row: TimerSet) -> None:
        key = (run.tenant, run.id, row.key)
        self.timers[key] = ("set_timers", (*key, row.kind, row.step, row.attempt, row.after_ms))

    def _untimer(self, run: Run, row: TimerCleared) -> None:
        key = (run.tenant, run.id, row.key)
        self.timers[key] = ("clear_timers", key)

    def _subscribed(self, run: Run, row: Subscribed) -> None:
        self.add("subscribe", (run.tenant, run.id, row.step, row.event_type))

    def _unsubscribed(self, run: Run, row: Unsubscribed) -> None:
        self.add("unsubscribe", (run.tenant, run.id, row.step))

    def _withdrawn(self, run: Run, row: Withdrawn) -> None:
        self.withdrawn.append((run.id, row.key))
        if row.once:
            self.add("release_claims", (run.tenant, run.id, row.key))
        for consumer in CALLED.values():
            self.consume((run.tenant, run.id, row.key, consumer))

    def _ended(self, run: Run, row: RunEnded) -> None:
        self._leave(run, links.end_values(run.status, dump(run.output), dump(run.error)))
        self.add("end_timers", (run.tenant, run.id))
        self.add("end_subscriptions", (run.tenant, run.id))
        if run.slot:
            for key, consumer in ((GATED, "plan"), (SLOT, "gate")):
                self.consume((run.tenant, run.id, key, consumer))
                self.freed.append((run.id, key))

    def _slot(self, run: Run, row: SlotTaken) -> None:
        gate = f"workflow:{run.workflow}"
        self.add(
            "insert_gated",
            (run.tenant, run.id, SLOT, "gate", SLOT, b"{}", None, gate, run.priority, True),
        )

    def _frozen(self, run: Run, row: PlanFrozen) -> None:
        self.add("insert_workflows", (run.tenant, row.name, digest(row.document), dump(row.document)))

    def _kept(self, run: Run, row: TemplateKept) -> None:
        self.add("keep_templates", (run.tenant, row.key, row.workflow))

    def _entry(self, run: Run, row: LedgerEntry) -> None:
        usage = dump(row.usage)
        values = (row.step, row.attempt, row.entry, row.amount_micro, row.held_micro, row.price, usage)
        self._leave(run, links.entry_values(*values))
        self.add("insert_ledger", (run.tenant, run.created_ms, run.id, *values, run.rev + 1))
        for scope in scopes(run, child=row.price == CHILD):
            account = self._account(run.tenant, scope)
            account[0] += row.held_micro
            if row.entry == "correct":
                account[5] += row.amount_micro
            account[3] = account[3] or row.entry == "hold"
            if row.entry == "settle":
                account[1] += row.amount_micro
                account[2] = account[2] or row.amount_micro > -row.held_micro

    def _refused(self, run: Run, row: Refused) -> None:
        account = self._account(run.tenant, row.scope)
        account[4] = row.needed_micro if account[4] is None else min(account[4], row.needed_micro)

    def _left(self, run: Run, row: Left) -> None:
        self._account(run.tenant, row.scope)  # locked in its turn
        self.add("look_again", (run.tenant, row.scope))

    def _waiting(self, run: Run, row: Waiting) -> None:
        place = (row.scope, row.period, row.needed_micro, row.since_ms)
        key = (run.tenant, run.id, f"budget:{row.step}")
        self.timers[key] = ("wait_for_budget", (*key, row.step, row.attempt, row.after_ms, *place))

    def _corrected(self, run: Run | None, row: Corrected) -> None:
        tenant, key, scope, amount, reason, by, request_hash, step = row
        said = dump({"key": key, "reason": reason, "by": by})
        self.add("insert_corrections", (tenant, key, scope, run and run.id, step, amount, reason, by, request_hash))
        if run is not None:
            return  # its entry says the rest
        self.add("correct_ledger", (tenant, amount, CORRECTION, said))
        for each in {TENANT, scope}:
            self._account(tenant, each)[5] += amount
        kind, _, name = scope.partition(":")
        workflow, budget = (name if kind == each else "" for each in ("workflow", "budget"))
        what = ("", CORRECTION, "", "", CORRECTION, budget, "")
        _add(self.spend, (tenant, workflow, 0, *what), (0,) * 7 + (amount, 0))

    def _rolled(self, run: Run | None, row: PeriodEnded) -> None:
        self._account(row.tenant, row.scope)  # whoever is charged, be it nothing, is rolled

    def _account(self, tenant: UUID, scope: str) -> list[Any]:
        return self.budgets.setdefault((tenant, scope), [0, 0, False, False, None, 0])

    def _spent(self, run: Run, row: Spent) -> None:
        task, agent, kind, provider, name, price, tokens, ms, cost, held = row
        what = (task, kind, provider, name, price, run.budget or "", agent)
        key = (run.tenant, run.workflow, run.version or 0, *what)
        _add(self.spend, key, (int(kind != CORRECTION), *tokens, ms, cost, held))

    def _run_spent(self, run: Run, row: RunSpent) -> None:
        key = (run.tenant, run.workflow, run.version or 0)
        runs, status, tasks, cost, expected = row
        for task, (starts, calls, given, said, task_cost) in tasks.items():
            _add(self.run_spend, (*key, task), (runs, 0, starts, calls, given, said, task_cost, 0, 0, 0))
        known = runs if expected is not None else 0
        calls, given, said = (sum(each[place] for each in tasks.values()) for place in (1, 2, 3))
        of_it = (known, expected or 0, 0 if expected is None else cost)
        _add(self.run_spend, (*key, ""), (runs, int(status == "succeeded"), runs, calls, given, said, cost, *of_it))

    def _decided(self, run: Run, row: Decided) -> None:
        line = (run.seq, row.name, dump(row.data), decision_hash(run.status, row.changed, row.commands))
        self._leave(run, links.line_values(*line))
        self.add("insert_history", (run.tenant, run.created_ms, run.id, *line, run.rev + 1))

    def _leave(self, run: Run, values: links.Values) -> None:
        mine = self.left.get(run.id)
        if mine is None:
            self.left[run.id] = [values]
        else:
            mine.append(values)


def _add(sums: Sums, key: tuple[Any, ...], values: tuple[int, ...]) -> None:
    known = sums.get(key)
    sums[key] = values if known is None else tuple(a + b for a, b in zip(known, values, strict=True))


ROWS: dict[type, Any] = {
    StepClosed: Changes._closed,
    TimerSet: Changes._timer,
    TimerCleared: Changes._untimer,
    Subscribed: Changes._subscribed,
    Unsubscribed: Changes._unsubscribed,
    Withdrawn: Changes._withdrawn,
    RunEnded: Changes._ended,
    SlotTaken: Changes._slot,
    LedgerEntry: Changes._entry,
    Corrected: Changes._corrected,
    PeriodEnded: Changes._rolled,
    Spent: Changes._spent,
    RunSpent: Changes._run_spent,
    Refused: Changes._refused,
    Waiting: Changes._waiting,
    Left: Changes._left,
    Decided: Changes._decided,
    PlanFrozen: Changes._frozen,
    TemplateKept: Changes._kept,
}
