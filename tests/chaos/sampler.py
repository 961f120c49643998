"""The sampler: looks at everything in one snapshot, several times a second, while faults happen.

What holds at every commit must hold in every snapshot: accounts and ledger agree, no limit is passed, and a run
that goes on has something pending. What it sees for the first time (a result, an end) it remembers: it may never
change. It also tells the load which runs have ended and what they wait for, from the truth and not from the API.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg

from agentflow.core.run import child_id
from agentflow.errors import AgentFlowError
from chaos.statements import Row, Statements
from chaos.violation import Violation

EVERY_S = 0.25
LATE = timedelta(seconds=30)  # a commit may be seen this long after the times in its rows
FACTS = "facts"


class Sampler:
    """Samples one database until ``stop``."""

    def __init__(self, dsn: Callable[[], str]) -> None:
        self._dsn = dsn
        self._task: asyncio.Task[None] | None = None
        self.violations: dict[Violation, None] = {}
        self.samples = 0
        self.open: dict[UUID, Row] = {}  # runs that go on, as last seen
        self.by_token: dict[str, Row] = {}  # the same by their tokens
        self.ended: dict[UUID, str] = {}  # run -> digest when first seen
        self.ended_tokens: set[str] = set()
        self.results: dict[tuple[UUID, int, int], str] = {}
        self.subscribed: set[UUID] = set()
        self.twins: set[tuple[UUID, str, str]] = set()
        self.oldest: list[str] = []  # messages on their way, in words
        self.timers = 0
        self.parked: list[tuple[str, bytes]] = []  # (consumer, payload)
        self.seen = asyncio.Event()  # set after every sample
        self._behind: list[Behind] = []

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="sampler")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def next(self) -> None:
        """Wait for a sample that begins after now."""
        for _ in range(2):
            self.seen.clear()
            await self.seen.wait()

    async def until(self, condition: Callable[[], bool], *, within_s: float) -> bool:
        """Wait for a sample in which the condition holds; whether it came."""
        deadline = time.monotonic() + within_s
        while not condition():
            if self._task is not None and self._task.done():
                self._task.result()
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self.seen.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.seen.wait(), min(left, 1.0))
        return True

    @property
    def quiet(self) -> bool:
        """Whether nothing is under way any more."""
        return not self.open and not self.twins and not self.timers

    def watch_behind(self, consumers: frozenset[str]) -> Behind:
        """Find out how long what is now on its way to these functions takes to be consumed."""
        behind = Behind(consumers, time.monotonic())
        self._behind.append(behind)
        return behind

    async def _run(self) -> None:
        while True:
            try:
                statements = await Statements.connect(self._dsn())
            except (psycopg.Error, OSError, AgentFlowError):  # it is away, or just being started
                await asyncio.sleep(0.1)
                continue
            try:
                while True:
                    began = time.monotonic()
                    await self._sample(statements)
                    self.samples += 1
                    self.seen.set()
                    await asyncio.sleep(max(0.05, EVERY_S - (time.monotonic() - began)))
            except psycopg.Error:
                await asyncio.sleep(0.1)
            finally:
                await statements.close()

    async def _sample(self, sql: Statements) -> None:
        await sql.run("begin")
        try:
            since = (await sql.rows("now"))[0]["now"] - LATE
            runs = await sql.rows("open_runs")
            ended = await sql.rows("ended_runs", since=since)
            closed = await sql.rows("closed_steps", since=since)
            twins = await sql.rows("twins")
            timers = await sql.rows("timer_keys")
            subscribed = await sql.rows("subscribed")
            parked = await sql.rows("parked_payloads")
            accounts = await sql.rows("money_of_runs")
            budgets = await sql.rows("money_of_budgets")
        finally:
            await sql.rollback()
        self.open = {run["run_id"]: run for run in runs}
        self.by_token = {run["token"]: run for run in runs}
        self.timers = len(timers)
        self.subscribed = {row["run_id"] for row in subscribed}
        self.parked = [(row["consumer"], bytes(row["payload"])) for row in parked]
        self._money(accounts, budgets)
        self._remember(ended, closed)
        waiting: dict[UUID, set[str]] = defaultdict(set)
        for row in timers:
            waiting[row["run_id"]].add(f"timer {row['key']}")
        for row in subscribed:
            waiting[row["run_id"]].add(f"event {row['step']}")
        for row in twins:
            if row["consumer"] != FACTS:
                waiting[row["run_id"]].add(f"{row['consumer']} {row['key']}")
        for run in runs:
            waiting[run["run_id"]] |= {f"child {key}" for key in self._children(run, waiting)}
            for missing in missing_of(run, waiting[run["run_id"]]):
                self._note(Violation(9, missing, run["run_id"]))
        self.twins = {(row["run_id"], row["key"], row["consumer"]) for row in twins}
        self.oldest = [
            f"{row['consumer']} {row['run_id']}:{row['key']}, {row['age_s']:.0f} s old, repeated {row['tries']} times, "
            f"again in {row['due_s']:.0f} s"
            for row in sorted(twins, key=lambda row: -row["age_s"])[:5]
        ]
        now = time.monotonic()
        for behind in self._behind:
            behind.seen(self.twins, now)

    def _children(self, run: Row, waiting: Mapping[UUID, set[str]]) -> Iterator[str]:
        """The attempts whose runs go on, or are being asked for."""
        for step, (_, attempt, _, waits, *_) in ((run["state"] or {}).get("open") or {}).items():
            child = child_id(run["run_id"], int(step), attempt)
            if waits == "child" and (child in self.open or waiting.get(child)):
                yield f"{step}.{attempt}"

    def _money(self, accounts: list[Row], budgets: list[Row]) -> None:
        for row in accounts:
            self._note(
                Violation(
                    7,
                    f"spent {row['spent_micro']} + held {row['held_micro']} of {row['limit_micro']}, while the ledger "
                    f"says spent {row['ledger_spent']}, held {row['ledger_held']}",
                    row["run_id"],
                )
            )
        for row in budgets:
            what = f"{row['scope']} ({row['period']}) of tenant {row['tenant_id']}: spent {row['spent_micro']} + "
            what += f"held {row['held_micro']} of {row['bound_micro']}, while its runs have "
            what += f"spent {row['runs_spent']} and hold {row['runs_held']}"
            self._note(Violation(7, what))

    def _remember(self, ended: list[Row], closed: list[Row]) -> None:
        for row in ended:
            first = self.ended.setdefault(row["run_id"], row["digest"])
            self.ended_tokens.add(row["token"])
            if first != row["digest"]:
                self._note(Violation(1, "its end has changed after it had ended", row["run_id"]))
        for row in closed:
            key = (row["run_id"], row["step"], row["attempt"])
            if self.results.setdefault(key, row["digest"]) != row["digest"]:
                self._note(Violation(3, f"the result of step {key[1]}.{key[2]} has changed", row["run_id"]))

    def _note(self, violation: Violation) -> None:
        if len(self.violations) < 200:
            self.violations.setdefault(violation)


def missing_of(run: Mapping[str, Any], waiting: set[str]) -> list[str]:
    """What a run that goes on waits for, and which is nowhere to be found."""
    if run["status"] not in ("running", "paused"):
        asked = {"requested": {"plan requested", "plan gated"}, "planned": {"dispatch planned"}}[
            run["status"]
        ]
        return [] if asked & waiting else [f"{run['status']}, and nobody is asked to go on"]
    opened = (run["state"] or {}).get("open") or {}
    if not opened:
        return ["running, and no step is open"]
    missing = []
    waiting = {*waiting, *(f"step {step}" for step in opened), *({"paused"} & {run["status"]})}
    for step, (task, attempt, _, waits, *_) in opened.items():
        key = f"{step}.{attempt}"
        signs = {
            "call": {f"invoke_llm {key}", f"run_tool {key}"},
            "decision": {f"dispatch {key}:done"},
            "retry": {f"timer retry:{step}", f"dispatch timer:retry:{step}:{attempt}"},
            "timer": {f"timer wait:{step}", f"dispatch timer:wait:{step}:{attempt}"},
            "event": {f"event {step}"},
            "person": {f"event {step}"},
            "child": {f"child {key}", f"dispatch {key}:child"},
            "planner": {f"step {other}" for other in opened if other != step},  # those that it has started
            "resume": {run["status"]},
        }[waits]
        if not signs & waiting:
            missing.append(f"step {key} ({task}) waits for its {waits}, and nothing is pending for it")
    return missing


class Behind:
    """What was on its way when a fault struck, and how long the last of it took."""

    def __init__(self, consumers: frozenset[str], since: float) -> None:
        self.took_s: float | None = None
        self._consumers = consumers
        self._since = since
        self._left: set[tuple[UUID, str, str]] | None = None

    def seen(self, twins: set[tuple[UUID, str, str]], now: float) -> None:
        if self._left is None:
            self._left = {twin for twin in twins if twin[2] in self._consumers}
        elif self._left:
            self._left &= twins
            if not self._left:
                self.took_s = now - self._since
