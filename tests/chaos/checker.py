"""The checker: all invariants of DESIGN.md, from the database, the far side and what was heard and sampled.

1 ends, 2 submissions, 3 results and their order, 4 epochs, 5 calls, 6 outbox and facts, 7 money, 8 replay, 9 pending,
10 parked, 11 walls, 12 the audit chain, 13 leftovers, 14 timers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from chaos import checks_agents, checks_audit, checks_money, checks_roads, checks_runs, checks_walls
from chaos.books import Books, Round
from chaos.fleet import Fleet
from chaos.statements import Statements
from chaos.violation import Violation

Check = Callable[[Books], Iterator[Violation]]
CHECKS: tuple[Check, ...] = (
    checks_runs.check_submissions,
    checks_runs.check_ends,
    checks_runs.check_children,
    checks_runs.check_histories,
    checks_runs.check_results,
    checks_runs.check_once,
    checks_runs.check_order,
    checks_agents.check_agents,
    checks_runs.check_pending,
    checks_money.check_accounts,
    checks_money.check_sums,
    checks_money.check_calls,
    checks_money.check_unpriced,
    checks_roads.check_outbox,
    checks_roads.check_signals,
    checks_roads.check_parked,
    checks_roads.check_timers,
)


async def check(
    sql: Statements, around: Round, dsn: Callable[[str], str], *, without: frozenset[Check] = frozenset()
) -> tuple[Books, list[Violation]]:
    """Everything but leftovers, with the workers still running and, it is to be hoped, at rest. ``dsn(role)`` logs in
    to the database; ``without``: checks to leave out."""
    books = await Books.read(sql, around)
    found = [*around.sampler.violations, *around.listener.violations]
    for each in CHECKS:
        found += each(books) if each not in without else ()
    found += [violation async for violation in checks_walls.check_rows(sql, around)]
    found += checks_walls.check_logs(around)
    found += [violation async for violation in checks_walls.check_doors(books)]
    found += [violation async for violation in checks_audit.check_chain(books, dsn)]
    found += [violation async for violation in checks_walls.check_at_rest(sql, around.fleet)]
    return books, list(dict.fromkeys(found))


async def check_ended(sql: Statements, fleet: Fleet) -> list[Violation]:
    """Leftovers, once all workers have ended."""
    return [violation async for violation in checks_walls.check_leftovers(sql, fleet)]
