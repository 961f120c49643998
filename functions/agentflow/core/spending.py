"""What calls and runs have come to, for the reports and for what the next run is expected to cost.

A settlement leaves a ``Spent`` behind, and counts in its run's ``tally``: by task of the document [calls, tokens in,
tokens out, micro-dollars]. When the run has ended, its tally becomes a ``RunSpent``; what is settled even later follows
as one of its own. A run that was planned before there were tallies has none, and neither has one that cannot cost
anything or goes on from another run: nothing is expected of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from immutables import Map

from agentflow.core.costly import starts
from agentflow.core.decision import CHILD, CORRECTION, Row, RunSpent, Spent
from agentflow.core.plan import Plan, Task
from agentflow.core.run import EMPTY, Run

JSON = Any
Usage = Mapping[str, JSON]
Tally = Map[str, tuple[int, ...]]
NO_USAGE: Usage = {}


def settled(
    run: Run, plan: Plan | None, task: str, price: str, usage: Usage, cost: int, held: int, ms: int,
    alias: str | None = None,
) -> tuple[Run, tuple[Row, ...]]:  # fmt: skip
    """The run with one more call of ``task`` in its tally, and what the reports are told. The call is one also where
    nobody has counted it. ``alias``: its model, if not the task's own."""
    known = plan.tasks.get(task) if plan is not None else None
    if plan is None or known is None:
        return run, (_spent(run, task, "", "", "", "", price, usage, cost, held, ms),)
    whole = plan.tasks[known.part_of] if known.part_of else known
    provider, name = _served(run, known, alias)
    agent = whole.agent.name if whole.agent else ""
    row = _spent(run, whole.name, agent, known.kind, provider, name, price, usage, cost, held, ms)
    if run.tally is None:
        return run, (row,)
    before = run.tally.get(whole.name, (0, 0, 0, 0))
    more = (1, usage.get("input_tokens", 0), usage.get("output_tokens", 0), cost)
    if run.terminal:
        expected = None if run.expected_micro is None else 0
        return run, (row, RunSpent(0, "", {whole.name: (0, *more)}, cost, expected))
    counted = tuple(a + b for a, b in zip(before, more, strict=True))
    return run.but(tally=run.tally.set(whole.name, counted)), (row,)


def _spent(
    run: Run, task: str, agent: str, kind: str, provider: str, name: str, price: str, usage: Usage, cost: int,
    held: int, ms: int,
) -> Spent:  # fmt: skip
    tokens = tuple(usage.get(each, 0) for each in TOKENS)
    return Spent(task, agent, kind, provider, name, price, tokens, ms, cost, held)


def corrected(
    run: Run, plan: Plan | None, task: str, amount: int, alias: str | None = None
) -> tuple[Run, tuple[Row, ...]]:
    """The run with a correction in its tally, and what the reports are told: no call, and so much more or less.
    ``task``: whose call it is about; '' for the run as a whole. ``alias``: its model, if not the task's own."""
    known = plan.tasks.get(task) if plan is not None else None
    whole = plan.tasks[known.part_of] if plan is not None and known is not None and known.part_of else known
    provider, name = ("", "") if known is None else _served(run, known, alias)
    agent = whole.agent.name if whole is not None and whole.agent else ""
    name_of = whole.name if whole is not None else ""
    row = Spent(name_of, agent, CORRECTION, provider, name, CORRECTION, (0,) * len(TOKENS), 0, amount, 0)
    if run.tally is None:
        return run, (row,)
    more = {name_of: (0, 0, 0, 0, amount)} if name_of else {}
    if run.terminal:
        expected = None if run.expected_micro is None else 0
        return run, (row, RunSpent(0, "", more, amount, expected))
    if not name_of:
        return run, (row,)  # what the run has spent counts when it ends
    calls, given, said, cost = run.tally.get(name_of, (0, 0, 0, 0))
    return run.but(tally=run.tally.set(name_of, (calls, given, said, cost + amount))), (row,)


TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
"""What is counted of a usage, where it says so. Cached and written tokens are among those in, reasoning among those
out."""


def _served(run: Run, task: Task, alias: str | None) -> tuple[str, str]:
    """Who serves a task's calls, and what is called."""
    if task.kind == "llm" and (price := run.models.get(alias or task.use)) is not None:
        return price.provider, price.model
    if task.child is not None:
        return CHILD, task.child.workflow
    return "", task.use


def begun(plan: Plan, run: Run, moving: Mapping[str, int]) -> Run:
    """The planned run, with a tally where it may cost anything."""
    if run.forked is not None or not starts(plan, run.tools):
        return run
    return run.but(tally=EMPTY, starts=moving)


def ended(plan: Plan, run: Run) -> tuple[Row, ...]:
    """What a run that ends has come to, by task and in all."""
    if run.tally is None:
        return ()
    tasks = {
        name: (run.starts.get(name, bound.most), *run.tally.get(name, (0, 0, 0, 0)))
        for name, bound in starts(plan, run.tools).items()
    }
    return (RunSpent(1, run.status, tasks, run.spent_micro, run.expected_micro),)
